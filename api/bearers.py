"""Whom a bearer token stands for: an API token of ours, or a JSON Web Token of a configured issuer."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from api.admission import admit
from api.issuers import Issuers
from db import tokens
from db.database import Database
from db.tokens import Bearer
from domain.errors import Unauthenticated


async def bearer_of(connection: HTTPConnection, database: Database, token: str) -> Bearer:
    """Return the active person that a token stands for, and when the token ends.

    Tokens that are issued here for applications are refused with those of all issuers that are not configured: our
    own issuer cannot be one of them.

    Raises:
        Unauthenticated: the token is unknown, expired or revoked, not for this API, or of somebody who has no account
            or whose account is deactivated, or was deactivated after the token was issued.
        IssuerUnavailable: the token's issuer does not say which keys it signs with.
    """
    if token.startswith(tokens.PREFIX):
        bearer = await tokens.authenticate(database, token)
    else:
        issuers: Issuers = connection.app.state.issuers
        identity = await issuers.verify(token)
        person = await admit(database, identity)
        bearer = None if person is None else Bearer(person, identity.expires_at)
    if bearer is None:
        raise Unauthenticated(
            "The token is unknown, expired or revoked, or its owner is deactivated or was since it was issued."
        )
    return bearer
