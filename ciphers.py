"""Keys for encryption at rest, made of what an operator sets: AES-256-GCM under keys derived by HKDF (RFC 5869)."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES: Final = 12
"""Random ones of 96 bits, as NIST SP 800-38D, section 8.2.2, has them."""
_KEY_BYTES: Final = 32
_ID_BYTES: Final = 8


def derive(text: str, purpose: bytes) -> tuple[bytes, AESGCM]:
    """The cipher of `text` for one purpose, and the id of its key, which tells nothing of the key.

    Args:
        text: what the operator set.
        purpose: no other use of the same text can stand in for this one.
    """
    derived = HKDF(algorithm=SHA256(), length=_KEY_BYTES + _ID_BYTES, salt=None, info=purpose).derive(text.encode())
    return derived[_KEY_BYTES:], AESGCM(derived[:_KEY_BYTES])
