"""Access tokens for applications: JSON Web Tokens as RFC 9068 profiles them, and the keys that sign them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, assert_never
from uuid import UUID

from joserfc import jws, jwt
from joserfc.jwk import ECKey, JWKRegistry, Key, RSAKey

from domain import jose
from domain.jose import InvalidToken

TYPE: Final = "at+jwt"
"""The `typ` of the header (RFC 9068, section 2.1), by which no other kind of token passes for one of these."""

LONGEST_LIFETIME: Final = timedelta(hours=1)
"""What an operator may set at most. A signing key stays published for as long after its last signature."""

_OWN_CLAIMS: Final = frozenset({"iss", "sub", "aud", "client_id", "iat", "exp", "jti", "scope"})
"""What `mint` sets itself. All of them are refused as names of mapped claims."""
_RSA_BITS: Final = 2048


class Algorithm(StrEnum):
    """How tokens are signed."""

    ES256 = "ES256"
    """ECDSA on P-256: small tokens, quickly signed; every maintained library verifies it."""
    RS256 = "RS256"
    """RSA: for verifiers that know nothing else (RFC 9068, section 2.1, names it as the common ground)."""


@dataclass(frozen=True)
class SigningKey:
    """A key pair and the one algorithm it is used with."""

    kid: str
    algorithm: Algorithm
    key: Key

    @classmethod
    def generate(cls, algorithm: Algorithm) -> SigningKey:
        """A new key, named by its thumbprint (RFC 7638), so that a name can never stand for two keys."""
        key: Key
        match algorithm:
            case Algorithm.ES256:
                key = ECKey.generate_key("P-256")
            case Algorithm.RS256:
                key = RSAKey.generate_key(_RSA_BITS)
            case _:
                assert_never(algorithm)
        return cls(key.thumbprint(), algorithm, key)

    @classmethod
    def public(cls, kid: str, algorithm: Algorithm, jwk: dict[str, Any]) -> SigningKey:
        """The public half alone, which verifies and cannot sign."""
        return cls(kid, algorithm, JWKRegistry.import_key(jwk))

    @property
    def public_jwk(self) -> dict[str, Any]:
        """The public half as a JSON Web Key (RFC 7517)."""
        jwk = self.key.as_dict(private=False)
        return {**jwk, "kid": self.kid, "alg": str(self.algorithm), "use": "sig"}


@dataclass(frozen=True)
class Grant:
    """What a token says: who may do what at which application, and until when."""

    jti: UUID
    user_id: UUID
    client_id: str
    """The application: the audience, and the client for which it is issued."""
    claims: Mapping[str, list[str]]
    issued_at: datetime
    expires_at: datetime
    scope: str | None = None


def mint(grant: Grant, issuer: str, key: SigningKey) -> str:
    """The token of a grant (RFC 9068, section 2.2). Times are whole seconds."""
    claims: dict[str, Any] = {
        **grant.claims,
        # After the mapped claims: whatever those are called, these mean what they say.
        "iss": issuer,
        "sub": str(grant.user_id),
        "aud": grant.client_id,
        "client_id": grant.client_id,
        "iat": int(grant.issued_at.timestamp()),
        "exp": int(grant.expires_at.timestamp()),
        "jti": str(grant.jti),
    }
    if grant.scope is not None:
        claims["scope"] = grant.scope
    header = {"alg": str(key.algorithm), "typ": TYPE, "kid": key.kid}
    return jwt.encode(header, claims, key.key, registry=jws.JWSRegistry(algorithms=[str(key.algorithm)]))


@dataclass(frozen=True)
class Issued:
    """A token that this service signed. Whether it still counts is for the record to say."""

    jti: UUID
    client_id: str
    claims: dict[str, Any]

    @property
    def mapped_claims(self) -> dict[str, list[str]]:
        """The claims that come from mappings."""
        return {name: values for name, values in self.claims.items() if name not in _OWN_CLAIMS}


def read(token: str, issuer: str, keys: Mapping[str, SigningKey]) -> Issued:
    """What a token says that claims to be one of ours.

    Args:
        token: as it came.
        issuer: this service.
        keys: by `kid`; the ones that are published now.

    Raises:
        InvalidToken: it is not one of ours.
    """
    unverified = jose.parse(token)
    key = keys.get(unverified.key_id or "")
    if key is None or unverified.type != TYPE:
        raise InvalidToken("The token is not one of this service.")
    claims = jose.verify(token, key.key, key.algorithm)
    if claims.get("iss") != issuer:
        raise InvalidToken("The token is of another issuer.")
    try:
        return Issued(UUID(claims["jti"]), str(claims["aud"]), claims)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise InvalidToken("The token is not one of this service.") from error
