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
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from ciphers import NONCE_BYTES, derive

ENCODING: Final = b"binary/encrypted"
"""The `encoding` of an encrypted payload, by which Temporal's tools know one."""
_KEY_ID: Final = "encryption-key-id"
_CIPHER: Final = b"AES-256-GCM"
_PURPOSE: Final = b"justiam temporal payloads v1"
_LONGEST_KEY_ID: Final = 16


class PayloadUnreadable(RuntimeError):
    """A payload was encrypted under a key that is not set, or was changed since.

    A RuntimeError, as everything that comes between us and Temporal: who waits for Temporal waits for the key as well.
    """


class EncryptedPayloads(PayloadCodec):
    """Encrypts and decrypts payloads, each as a whole with its metadata. Without keys, says which key is missing."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._ciphers: dict[bytes, AESGCM] = {}
        for key in keys:
            key_id, cipher = derive(key.get_secret_value(), _PURPOSE)
            self._ciphers[key_id.hex().encode()] = cipher
        self._first = next(iter(self._ciphers), None)

    @property
    def key_id(self) -> str:
        """Which key encrypts; empty where none does. Tells nothing of the key."""
        return (self._first or b"").decode()

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt under the first key, where there is one."""
        if self._first is None:
            return list(payloads)
        cipher = self._ciphers[self._first]
        return [_encrypted(payload, self._first, cipher) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt what is encrypted, and pass on what is not.

        Raises:
            PayloadUnreadable: no key of ours opens one, or it was changed.
        """
        return [
            self._decrypt(payload) if payload.metadata.get("encoding") == ENCODING else payload for payload in payloads
        ]

    def _decrypt(self, payload: Payload) -> Payload:
        key_id = payload.metadata.get(_KEY_ID, b"")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            named = key_id[:_LONGEST_KEY_ID].decode("ascii", errors="replace")
            raise PayloadUnreadable(
                f"A payload was encrypted under the key {named}, which is not among "
                "JUSTIAM_TEMPORAL_ENCRYPTION_KEYS. Set that key as well, after the one that encrypts."
            )
        try:
            return Payload.FromString(
                cipher.decrypt(payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:], _bound_to(key_id))
            )
        except (InvalidTag, ValueError):
            raise PayloadUnreadable("A payload was changed after it was encrypted.") from None


def _encrypted(payload: Payload, key_id: bytes, cipher: AESGCM) -> Payload:
    nonce = secrets.token_bytes(NONCE_BYTES)
    sealed = cipher.encrypt(nonce, payload.SerializeToString(), _bound_to(key_id))
    return Payload(metadata={"encoding": ENCODING, _KEY_ID: key_id}, data=nonce + sealed)


def _bound_to(key_id: bytes) -> bytes:
    return ENCODING + _CIPHER + key_id
