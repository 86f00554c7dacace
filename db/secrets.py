"""Secrets: values that scripts read by name and nobody reads back, encrypted at rest.

What is sealed is bound to what it is for, such as one secret with its name: who can write to the database, and moves a
sealed value to another row or renames its row, has something that cannot be opened.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from db.database import Connection
from domain.errors import NotFound, SecretUnreadable

_PURPOSE: Final = b"justiam secrets at rest v1"
"""A key of its own for this purpose, so that no other use of the same text can stand in for it."""
_KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_KEY_ID_BYTES: Final = 8
_HEADER_BYTES: Final = len(_VERSION) + _KEY_ID_BYTES
_NONCE_BYTES: Final = 12


class SecretVault:
    """Encrypts and decrypts what nobody may read, with AES-256-GCM under keys derived by HKDF (RFC 5869).

    The first of `encryption_keys` encrypts, all of them decrypt. Without any, the key is derived from the secret key of
    the service, which decrypts in any case: whoever sets keys of their own later finds what was sealed until then.

    What is sealed begins with a version and the id of its key, so that `header` tells what a rotation has still to do.
    """

    def __init__(self, secret_key: SecretStr, encryption_keys: Sequence[SecretStr] = ()) -> None:
        self._ciphers: dict[bytes, AESGCM] = {}
        for key in (*encryption_keys, secret_key):
            derived = HKDF(algorithm=SHA256(), length=_KEY_BYTES + _KEY_ID_BYTES, salt=None, info=_PURPOSE).derive(
                key.get_secret_value().encode()
            )
            self._ciphers.setdefault(_VERSION + derived[_KEY_BYTES:], AESGCM(derived[:_KEY_BYTES]))
        self.header = next(iter(self._ciphers))
        """What everything begins with that is sealed now."""

    def seal(self, purpose_id: str, plain: str, /) -> bytes:
        """`plain`, to be opened for the same purpose only.

        Args:
            purpose_id: what it is for, such as `integration:<id>`; never two things by the same.
            plain: what nobody may read.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return (
            self.header
            + nonce
            + self._ciphers[self.header].encrypt(nonce, plain.encode(), _bound_to(self.header, purpose_id))
        )

    def open(self, purpose_id: str, sealed: bytes, /) -> str:
        """What was sealed for this purpose.

        Raises:
            SecretUnreadable: it was sealed under a key that is not set, or for something else.
        """
        header, rest = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        cipher = self._ciphers.get(header)
        if cipher is None:
            raise SecretUnreadable(
                f"{purpose_id} was encrypted under a key that is not among JUSTIAM_ENCRYPTION_KEYS, or under another "
                "JUSTIAM_SECRET_KEY. Set that key again, or set the value anew."
            )
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _bound_to(header, purpose_id)).decode()
        except (InvalidTag, ValueError):
            # Not chained: a decoding error would quote what it could not decode.
            raise SecretUnreadable(
                f"{purpose_id} was not encrypted for this: the stored value is damaged, or was moved here. Set it anew."
            ) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._ciphers)} keys)"


def _bound_to(header: bytes, purpose_id: str) -> bytes:
    return header + purpose_id.encode()


async def reveal(connection: Connection, vault: SecretVault, names: Sequence[str]) -> dict[str, str]:
    """The values of secrets, by name: for scripts alone, never for people.

    Raises:
        NotFound: some do not exist; the detail names them.
        SecretUnreadable: the keys that one was sealed under are not set.
    """
    if not names:
        return {}
    rows = await connection.execute("SELECT id, name, sealed FROM secrets WHERE name = ANY(%s)", [list(names)])
    stored = {row["name"]: row for row in await rows.fetchall()}
    if missing := [name for name in names if name not in stored]:
        raise NotFound(f"There is no secret {', '.join(missing)}.")
    return {name: vault.open(_purpose(stored[name]["id"], name), stored[name]["sealed"]) for name in names}


def _purpose(secret_id: UUID, name: str) -> str:
    return f"secret:{name}:{secret_id}"
