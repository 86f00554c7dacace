"""Proofs: who acts is proven, not claimed (design, section 3).

A proof is a compact JWS (RFC 7515, HS256) over one request, one action and one actor, valid for five minutes at most.
Its `jti` is the key of the transition, which is how it is used up.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry

from domain.states import Action

LIFETIME: Final = timedelta(minutes=5)
_ALGORITHM: Final = "HS256"
_TYPE: Final = "justiam-proof+jwt"
_CLOCK_SKEW: Final = timedelta(seconds=30)
"""A workflow's clock may be a little behind the API's; nothing lengthens the five minutes."""


class InvalidProof(Exception):
    """The proof is forged, expired, or for another request or action; the message says which."""


@dataclass(frozen=True)
class Proven:
    """What a valid proof says."""

    actor_id: UUID
    jti: str
    issued_at: datetime
    """In whole seconds, rounded down."""


class ProofKey:
    """The key that proofs are made and checked with; derived from the service's secret."""

    def __init__(self, secret: str) -> None:
        # A key of its own for this purpose, so that the secret can serve others without one standing in for another.
        self._key = OctKey.import_key(sha256(b"justiam access request proof\x00" + secret.encode()).digest())
        self._update_key = sha256(b"justiam access request update id\x00" + secret.encode()).digest()
        self._registry = JWSRegistry(algorithms=[_ALGORITHM])

    def mint(self, request_id: UUID, action: Action, actor_id: UUID, *, jti: str, now: datetime) -> str:
        """A proof that `actor_id` wants `action` on the request."""
        claims = {
            "sub": str(actor_id),
            "req": str(request_id),
            "act": action.value,
            "jti": jti,
            "iat": int(now.timestamp()),
            "exp": int((now + LIFETIME).timestamp()),
        }
        return jwt.encode({"alg": _ALGORITHM, "typ": _TYPE}, claims, self._key, registry=self._registry)

    def update_id(self, jti: str) -> str:
        """Return the id under which the API sends the update that carries the proof with this `jti`.

        Temporal answers a second update with the same id like the first one. A `jti` can be derived from an
        Idempotency-Key; without the secret, nobody can send an update under the id of a decision before its time.
        """
        return hmac.new(self._update_key, jti.encode(), sha256).hexdigest()

    def check(self, proof: str, request_id: UUID, action: Action, *, at: datetime) -> Proven:
        """Who is proven to act.

        Raises:
            InvalidProof: the signature, the time, the request or the action does not fit.
        """
        try:
            token = jwt.decode(proof, self._key, registry=self._registry)
            claims = token.claims
            actor_id, jti = UUID(str(claims["sub"])), claims["jti"]
            issued, expires = (datetime.fromtimestamp(int(claims[name]), UTC) for name in ("iat", "exp"))
        except (JoseError, ValueError, TypeError, KeyError, OverflowError) as error:
            msg = "The proof is not one of this service."
            raise InvalidProof(msg) from error
        if token.header.get("typ") != _TYPE or not isinstance(jti, str):
            msg = "The proof is not one of this service."
            raise InvalidProof(msg)
        if (claims.get("req"), claims.get("act")) != (str(request_id), action.value):
            msg = "The proof is for another request or another action."
            raise InvalidProof(msg)
        if not issued - _CLOCK_SKEW <= at <= min(expires, issued + LIFETIME):
            msg = "The proof has expired."
            raise InvalidProof(msg)
        return Proven(actor_id, jti, issued)
