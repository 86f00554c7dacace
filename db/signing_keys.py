"""The keys that sign access tokens: made, encrypted at rest, rotated with overlap.

A row is never changed. Which key signs follows from the times alone: the one whose `signs_from` came last. A key is
published from when it is made, before it signs, so that verifiers which keep the key set for a while know it in time;
and it stays published for as long after its successor took over as a token can live.

The private half is encrypted with AES-256-GCM under a key derived from `JUSTIAM_SECRET_KEY` by HKDF (RFC 5869): who
copies the database cannot sign.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from joserfc.jwk import JWKRegistry
from psycopg.types.json import Jsonb
from pydantic import BaseModel, Field

from ciphers import NONCE_BYTES, derive
from db import acting
from db.database import Connection, Database
from domain.access_tokens import LONGEST_LIFETIME, Algorithm, SigningKey

PUBLISHED_AHEAD: Final = timedelta(minutes=10)
"""How long a key is published before it signs: twice as long as verifiers are told to keep the key set."""

FIRST_KEY: Final = "system:first-signing-key"
"""Who made the first key, to the audit log."""

_ADVISORY_LOCK: Final = 7_305_146_183
"""Any constant: two that add a key take turns."""
_PURPOSE: Final = b"justiam signing keys at rest v1"
"""A key of its own for this purpose, so that no other use of the secret can stand in for it."""

_KEYS: Final = """
    SELECT *, signs_from <= now() AND (signs_until IS NULL OR signs_until > now()) AS signs
    FROM (SELECT k.*, lead(signs_from) OVER (ORDER BY signs_from, created_at, kid) AS signs_until
          FROM signing_keys k) AS k
"""
"""Each key with the time at which the next one takes over."""

_PUBLISHED: Final = "signs_until IS NULL OR signs_until + %(longest)s > now()"

SIGNING_KID: Final = """
    SELECT kid FROM signing_keys WHERE signs_from <= now() ORDER BY signs_from DESC, created_at DESC, kid DESC LIMIT 1
"""
"""The key that signs at this moment."""


class KeyUnreadable(Exception):
    """A private key was encrypted under another `JUSTIAM_SECRET_KEY`."""


class Vault:
    """Encrypts and decrypts private keys."""

    def __init__(self, secret: str) -> None:
        _, self._cipher = derive(secret, _PURPOSE)

    def seal(self, key: SigningKey) -> bytes:
        """The private half of `key`, encrypted."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        plain = json.dumps(key.key.as_dict(private=True)).encode()
        return nonce + self._cipher.encrypt(nonce, plain, _bound_to(key.kid, key.algorithm))

    def open(self, kid: str, algorithm: Algorithm, sealed: bytes) -> SigningKey:
        """The key that was sealed under this name for this algorithm.

        Raises:
            KeyUnreadable: it was sealed with another secret, or for another name or algorithm.
        """
        try:
            plain = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound_to(kid, algorithm))
        except (InvalidTag, ValueError) as error:
            raise KeyUnreadable(
                f"The signing key {kid} was encrypted under another JUSTIAM_SECRET_KEY; "
                "make a new one with: justiam signing-key rotate --now"
            ) from error
        return SigningKey(kid, algorithm, JWKRegistry.import_key(json.loads(plain)))


class SigningKeyView(BaseModel):
    """A signing key without its private half. Times are UTC."""

    kid: str
    algorithm: Algorithm
    created_at: datetime
    signs_from: datetime
    signs_until: datetime | None = Field(description="When the next key takes over; null: none is there yet.")
    published_until: datetime | None = Field(description="When it leaves the published key set.")
    signs: bool = Field(description="Whether it signs at this moment.")


@dataclass(frozen=True)
class StoredKey:
    """A published key as it is stored."""

    kid: str
    algorithm: Algorithm
    public_jwk: dict[str, Any]
    sealed: bytes


async def published(db: Database) -> list[StoredKey]:
    """The keys with which tokens that may still be valid were signed, or soon will be; oldest first."""
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            SELECT kid, algorithm, public_jwk, private_key FROM ({_KEYS}) AS k WHERE {_PUBLISHED} ORDER BY signs_from
            """,
            {"longest": LONGEST_LIFETIME},
        )
        return [
            StoredKey(row["kid"], Algorithm(row["algorithm"]), row["public_jwk"], row["private_key"])
            for row in await rows.fetchall()
        ]


async def list_keys(db: Database) -> list[SigningKeyView]:
    """All keys that are kept, newest first."""
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            SELECT kid, algorithm, created_at, signs_from, signs_until, signs_until + %(longest)s AS published_until,
                   signs
            FROM ({_KEYS}) AS k ORDER BY signs_from DESC, created_at DESC
            """,
            {"longest": LONGEST_LIFETIME},
        )
        return [SigningKeyView.model_validate(row) for row in await rows.fetchall()]


async def ensure(db: Database, vault: Vault) -> None:
    """Make the first key, where there is none. Of several that try at once, one makes it.

    Nobody asked for it: in the audit log, the service made it.
    """
    with acting.acting(FIRST_KEY):
        await _ensure(db, vault)


async def _ensure(db: Database, vault: Vault) -> None:
    async with db.administration() as connection:
        await _lock(connection)
        rows = await connection.execute("SELECT EXISTS (SELECT FROM signing_keys) AS there")
        row = await rows.fetchone()
        if row is not None and not row["there"]:
            await _add(connection, vault, SigningKey.generate(Algorithm.ES256), ahead=timedelta(0))


async def rotate(
    db: Database, vault: Vault, algorithm: Algorithm, *, now: bool = False, compromised: bool = False
) -> str:
    """Make a key that takes over; delete those whose last token has expired.

    Args:
        db: the record.
        vault: encrypts the private half.
        algorithm: how the new key signs.
        now: it signs at once. Verifiers which keep the key set meet a key they do not know, and should look again.
        compromised: it signs at once, all other keys are deleted, and every token that was issued is void.

    Returns:
        The `kid` of the new key.
    """
    key = SigningKey.generate(algorithm)
    async with db.administration() as connection:
        await _lock(connection)
        if compromised:
            await connection.execute("DELETE FROM signing_keys")
            await connection.execute("DELETE FROM access_tokens")
        else:
            await connection.execute(
                f"DELETE FROM signing_keys WHERE kid IN (SELECT kid FROM ({_KEYS}) AS k WHERE NOT ({_PUBLISHED}))",
                {"longest": LONGEST_LIFETIME},
            )
        await _add(connection, vault, key, ahead=timedelta(0) if now or compromised else PUBLISHED_AHEAD)
    return key.kid


async def _add(connection: Connection, vault: Vault, key: SigningKey, *, ahead: timedelta) -> None:
    await connection.execute(
        """
        INSERT INTO signing_keys (kid, algorithm, public_jwk, private_key, signs_from)
        VALUES (%s, %s, %s, %s, now() + %s)
        """,
        [key.kid, key.algorithm, Jsonb(key.public_jwk), vault.seal(key), ahead],
    )


async def _lock(connection: Connection) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])


def _bound_to(kid: str, algorithm: Algorithm) -> bytes:
    """Associated data: a ciphertext moved to another row does not open there."""
    return json.dumps([kid, str(algorithm)]).encode()
