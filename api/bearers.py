"""Whom a bearer token stands for: an API token of ours, or a JSON Web Token of a configured issuer."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from api.admission import admit
from api.issuers import Issuers
from db import tokens
from db.database import Database
from domain.deciding import Person
from domain.errors import Unauthenticated


async def person_behind(connection: HTTPConnection, database: Database, token: str) -> Person:
    """The active person that a token stands for.

    Tokens that are issued here for applications are refused with those of all issuers that are not configured: our
    own issuer cannot be one of them.

    Raises:
        Unauthenticated: the token is unknown, expired or revoked, not for this API, or of somebody who has no account
            or whose account is deactivated.
        IssuerUnavailable: the token's issuer does not say which keys it signs with.
    """
    if token.startswith(tokens.PREFIX):
        person = await tokens.authenticate(database, token)
    else:
        issuers: Issuers = connection.app.state.issuers
        person = await admit(database, await issuers.verify(token))
    if person is None:
        raise Unauthenticated("The token is unknown, expired or revoked, or its owner is deactivated.")
    return person
