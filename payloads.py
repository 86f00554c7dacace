"""What the service says to Temporal, encrypted: histories have people's reasons, answers and addresses in them.

AES-256-GCM under keys that the operator sets (`JUSTIAM_TEMPORAL_ENCRYPTION_KEYS`): the first encrypts, all decrypt, so
that keys can be changed while requests are open. What was written before there was a key is read as it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

ENCODING: Final = b"binary/encrypted"
"""The `encoding` of an encrypted payload, by which Temporal's tools know one."""
_KEY_ID: Final = "encryption-key-id"
_CIPHER: Final = b"AES-256-GCM"
_PURPOSE: Final = b"justiam temporal payloads v1"
_KEY_BYTES: Final = 32
_KEY_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12


class PayloadUnreadable(Exception):
    """A payload was encrypted under a key that is not set, or was changed since."""


class EncryptedPayloads(PayloadCodec):
    """Encrypts and decrypts payloads, each as a whole with its metadata."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._ciphers: dict[bytes, AESGCM] = {}
        for key in keys:
            derived = HKDF(algorithm=SHA256(), length=_KEY_BYTES + _KEY_ID_BYTES, salt=None, info=_PURPOSE).derive(
                key.get_secret_value().encode()
            )
            self._ciphers[derived[_KEY_BYTES:].hex().encode()] = AESGCM(derived[:_KEY_BYTES])
        self._first = next(iter(self._ciphers))

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt under the first key."""
        return [self._encrypt(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt what is encrypted, and pass on what is not.

        Raises:
            PayloadUnreadable: no key of ours opens one, or it was changed.
        """
        return [
            self._decrypt(payload) if payload.metadata.get("encoding") == ENCODING else payload for payload in payloads
        ]

    def _encrypt(self, payload: Payload) -> Payload:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._ciphers[self._first].encrypt(nonce, payload.SerializeToString(), _bound_to(self._first))
        return Payload(metadata={"encoding": ENCODING, _KEY_ID: self._first}, data=nonce + sealed)

    def _decrypt(self, payload: Payload) -> Payload:
        key_id = payload.metadata.get(_KEY_ID, b"")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            named = key_id[: 2 * _KEY_ID_BYTES].decode("ascii", errors="replace")
            raise PayloadUnreadable(
                f"A payload was encrypted under the key {named}, which is not among "
                "JUSTIAM_TEMPORAL_ENCRYPTION_KEYS. Set that key again, after the one that encrypts now."
            )
        try:
            return Payload.FromString(
                cipher.decrypt(payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:], _bound_to(key_id))
            )
        except (InvalidTag, ValueError):
            raise PayloadUnreadable("A payload was changed after it was encrypted.") from None


def _bound_to(key_id: bytes) -> bytes:
    return ENCODING + _CIPHER + key_id
