"""Claims: what an app mapping may put into a token."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints

from domain.text import SEEN_WHOLE, STORABLE, VISIBLE, at_most

REGISTERED: Final = frozenset(
    {
        # RFC 7519, JSON Web Token
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti"),
        # RFC 8693, token exchange; RFC 9068, access tokens; RFC 9396, rich authorization requests
        *("act", "may_act", "scope", "client_id", "authorization_details"),
        # OpenID Connect Core and its logout specifications
        *("azp", "nonce", "auth_time", "at_hash", "c_hash", "s_hash", "acr", "amr", "sid", "events"),
        *("email", "email_verified", "phone_number", "phone_number_verified", "preferred_username"),
        # RFC 7662, introspection; RFC 7800, proof of possession
        *("active", "token_type", "username", "cnf"),
    }
)
"""Names that say who somebody is or what a token may be used for. A mapping that set one of them could make a token
somebody else's, or valid for longer. `roles`, `groups` and `entitlements` (RFC 9068) are what mappings are for."""


def _free(name: str) -> str:
    if name.lower() in REGISTERED:
        raise ValueError(f"“{name}” has a meaning of its own in tokens; choose another name")
    return name


ClaimName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.:/-]*$", max_length=128), AfterValidator(_free)
]
"""The name of a claim: letters, digits and `_.:/-`, so that a URI is possible; none of the registered ones."""

ClaimValue = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=1000),
    STORABLE,
    SEEN_WHOLE,
    at_most(1000),
    VISIBLE,
]
"""One value of a claim."""
