"""Signed tokens of others and ours: what is read before a signature is checked, and how one is checked.

A compact JWS (RFC 7515) that comes from outside is hostile until its signature holds. Nothing in its header chooses how
it is checked but `kid`, which finds one of the keys that are known already: `jku`, `jwk`, `x5u` and `x5c` are not read,
and `alg` must be the one that the key is used with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key

LONGEST_TOKEN: Final = 65_536
"""Characters. Longer ones are refused before anything is decoded."""

_TYPE_PREFIX: Final = "application/"


class InvalidToken(Exception):
    """The token is forged, malformed, not valid now, or for somebody else; the message says which."""


class _Registry(jws.JWSRegistry):
    # Room for certificates in the header, which some issuers put there and nobody here reads.
    max_header_length = 8_192
    max_payload_length = LONGEST_TOKEN


@dataclass(frozen=True)
class Unverified:
    """A token as it came: for finding the key that might have signed it, and for nothing else."""

    header: dict[str, Any]
    claims: dict[str, Any]

    @property
    def key_id(self) -> str | None:
        """The `kid` it names."""
        kid = self.header.get("kid")
        return kid if isinstance(kid, str) else None

    @property
    def type(self) -> str | None:
        """The `typ` in lower case, without `application/` (RFC 7515, section 4.1.9)."""
        typ = self.header.get("typ")
        return typ.lower().removeprefix(_TYPE_PREFIX) if isinstance(typ, str) else None


def parse(token: str) -> Unverified:
    """Take a token apart without believing it.

    Raises:
        InvalidToken: it is no compact JWS over a JSON object, or asks for an extension.
    """
    if len(token) > LONGEST_TOKEN:
        raise InvalidToken("The token is too long.")
    with _refusing():
        signed = jws.extract_compact(token.encode("ascii"), registry=_registry(None))
        header, claims = signed.headers(), json.loads(signed.payload)
    if not isinstance(claims, dict):
        raise InvalidToken("The token is not a JSON Web Token.")
    if "crit" in header or "b64" in header:
        # RFC 7515, section 4.1.11: what is critical must be understood. No extension is.
        raise InvalidToken("The token asks for extensions that are not supported.")
    return Unverified(header, claims)


def verify(token: str, key: Key, algorithm: str) -> dict[str, Any]:
    """The claims of a token that was signed with `key` by `algorithm`. Their meaning is up to the caller.

    Raises:
        InvalidToken: it was not.
    """
    parse(token)
    with _refusing():
        signed = jws.deserialize_compact(token.encode("ascii"), key, registry=_registry(algorithm))
        claims: dict[str, Any] = json.loads(signed.payload)
    return claims


def _registry(algorithm: str | None) -> _Registry:
    # Unknown header parameters are ignored, as RFC 7515, section 4, wants it.
    return _Registry(algorithms=[algorithm] if algorithm else None, strict_check_header=False)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidToken("The token is malformed, or its signature does not hold.") from error
