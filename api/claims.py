"""What the claims of a token say about somebody, as its issuer is configured to be read.

Everything here comes from outside, and the issuer has signed it. It says what it likes about its own subjects; what
that does here is up to the settings of the issuer, and to what they do not mention it does nothing.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwt import JWTClaimsRegistry

from db.identities import GroupsSaid, Identity
from domain.jose import InvalidToken
from domain.text import storable
from settings import OidcIssuer

_LONGEST_SUBJECT: Final = 255
"""OpenID Connect Core, section 2."""
_VERIFIED: Final = "email_verified"


def check(claims: dict[str, Any], issuer: OidcIssuer, audience: str, *, leeway_secs: int) -> None:
    """Hold a token to its issuer, its audience and the time.

    Args:
        claims: of a token whose signature holds.
        issuer: whose it is.
        audience: whom it has to be for.
        leeway_secs: by how much the issuer's clock may be off: for `exp`, `nbf` and `iat` alike.

    Raises:
        InvalidToken: it does not count, or not now, or needs a proof of possession.
    """
    registry = JWTClaimsRegistry(
        now=_now,
        leeway=leeway_secs,
        iss={"essential": True, "value": issuer.issuer},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        # Groups go by the newest token, so each has to say how new it is.
        iat={"essential": issuer.groups_claim is not None},
    )
    try:
        registry.validate(claims)
    except JoseError as error:
        raise InvalidToken(f"The token does not count: {error.description or error.error}.") from error
    if "cnf" in claims:
        # RFC 7800: it counts only with a proof of possession, which is not checked here.
        raise InvalidToken("The token is bound to a key and cannot be used as a bearer token.")


def read(claims: dict[str, Any], issuer: OidcIssuer, *, leeway_secs: int) -> Identity:
    """Who somebody is.

    Args:
        claims: of a token that was checked.
        issuer: whose it is.
        leeway_secs: by how much the issuer's clock may be off.

    Raises:
        InvalidToken: it names nobody.
    """
    subject = claims.get(issuer.subject_claim)
    if not isinstance(subject, str) or not subject or len(subject) > _LONGEST_SUBJECT or not _is_storable(subject):
        raise InvalidToken("The token does not count: it names no subject that could be anybody.")
    email = claims.get(issuer.email_claim)
    usable = isinstance(email, str) and _is_storable(email) and _is_verified(claims, issuer)
    return Identity(
        issuer.issuer,
        subject,
        email=email if usable else None,
        email_domains=issuer.email_domains,
        links=issuer.link_by_email,
        creates=issuer.create_users,
        name=claims.get(issuer.name_claim),
        groups=None if issuer.groups_claim is None else _groups(claims, issuer, issuer.groups_claim),
        issued_at=_issued_at(claims, leeway_secs),
        expires_at=_instant(claims["exp"]),
    )


def _issued_at(claims: dict[str, Any], leeway_secs: int) -> datetime | None:
    """Return the earliest time at which a token can have been issued; None where it does not say.

    `iat` is in whole seconds, mostly rounded down, and the issuer's clock may be ahead by the leeway.
    """
    issued_at = _instant(claims.get("iat"))
    return None if issued_at is None else issued_at - timedelta(seconds=leeway_secs)


def _instant(value: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else None
    except (ValueError, OverflowError, OSError):
        # Infinity, not a number, or beyond the calendar.
        return None


def _is_verified(claims: dict[str, Any], issuer: OidcIssuer) -> bool:
    name = issuer.email_verified_claim or _VERIFIED
    value = claims.get(name)
    # Exactly true: some issuers send "true", some "false", and both are true to a careless reader. Claims of another
    # name are an issuer's own: Entra sends its xms_edov as true, 1 or "1".
    return value is True or (name != _VERIFIED and type(value) in {int, str} and value in {1, "1"})


def _groups(claims: dict[str, Any], issuer: OidcIssuer, claim: str) -> GroupsSaid:
    said, elsewhere = claims.get(claim), claims.get("_claim_names")
    at = datetime.fromtimestamp(max(0, claims["iat"]), UTC)
    may_have = frozenset(issuer.groups_may_have)
    # OpenID Connect Core, section 5.6.2: whoever wants to know is to ask at another place. Entra does so with people
    # who are in too many groups for a token, or says `hasgroups`. They are in groups all the same.
    if (isinstance(elsewhere, dict) and claim in elsewhere) or (said is None and claims.get("hasgroups") is not None):
        return GroupsSaid(None, at, may_have, problem="the token has no room for them")
    # Some send a single one as it is. None at all is how others say that there are none.
    listed = [said] if isinstance(said, str) else [] if said is None else said
    if not isinstance(listed, list) or not all(isinstance(value, str) for value in listed):
        return GroupsSaid(None, at, may_have, problem="the claim is no list of texts")
    return GroupsSaid(frozenset(issuer.groups[value] for value in listed if value in issuer.groups), at, may_have)


def _is_storable(text: str) -> bool:
    try:
        storable(text)
    except ValueError:
        return False
    return True


def _now() -> int:
    return int(time.time())
