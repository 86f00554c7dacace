"""Who calls: a bearer token becomes a person (RFC 6750, in the header only)."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from api.bearers import bearer_of
from api.limits import CallLimit
from db import acting
from domain.actors import Permission
from domain.deciding import Person
from domain.errors import Forbidden, Unauthenticated


class _KnownCaller(SecurityBase):
    """Whom the bearer token of a call stands for.

    A security scheme, so that OpenAPI shows it, and one dependency without others below it: FastAPI walks through a
    dependency's own each time it is mentioned, which for authentication in several took longer than its statement.
    """

    def __init__(self, *, scheme_name: str, description: str) -> None:
        self.model = HTTPBearerModel(description=description)
        self.scheme_name = scheme_name

    async def __call__(self, request: Request) -> Person:
        """The active person whose token this request carries.

        Raises:
            Unauthenticated: there is no token, more than one, or one that is unknown, expired, revoked, not for this
                API or belongs to somebody deactivated, or who was since it was issued.
            IssuerUnavailable: the token's issuer does not say which keys it signs with.
            TooManyCalls: this person calls too often.
        """
        # The body first: its caller decides how long it takes to arrive, and may be deactivated meanwhile.
        await request.body()
        token = _bearer_token(request.headers.getlist("authorization"))
        person = (await bearer_of(request, request.app.state.database, token)).person
        take_call(request, person)
        return person


caller: Final = _KnownCaller(
    scheme_name="token",
    description="An API token: `justiam_…`. `justiam dev` prints one for each demo person; "
    "`justiam token create <email>` makes another. Or a token of a configured OpenID Connect issuer.",
)
"""Refuses calls of nobody; as a dependency it is the person who calls."""

Caller = Annotated[Person, Depends(caller)]
"""The person who calls; every route under /api/v1 has one."""


def requires(*permissions: Permission) -> Any:  # noqa: ANN401 - what FastAPI's Depends returns
    """A caller who holds one of `permissions`, for use in `Annotated[Person, …]`; others are refused (403)."""

    async def permitted(person: Caller) -> Person:
        if not any(person.holds(permission) for permission in permissions):
            raise Forbidden(f"This needs the permission {' or '.join(permissions)}.")
        return person

    return Depends(permitted)


RequestsManager = Annotated[Person, requires(Permission.REQUESTS)]
"""A caller who holds `access_requests.manage`."""

DirectoryManager = Annotated[Person, requires(Permission.DIRECTORY)]
"""A caller who holds `directory.manage`."""

TasksManager = Annotated[Person, requires(Permission.TASKS)]
"""A caller who holds `tasks.manage`."""

TasksReader = Annotated[Person, requires(Permission.TASKS, Permission.REQUESTS)]
"""A caller who may see tasks and their runs: whoever manages them, or the templates that fire them."""

DirectoryReader = Annotated[Person, requires(Permission.DIRECTORY, Permission.REQUESTS)]
"""A caller who may see everybody: whoever manages the directory or the requests."""


def take_call(request: Request, person: Person) -> None:
    """Take a call of `person`: counted, and remembered as theirs for whatever it changes.

    Raises:
        TooManyCalls: they call too often.
    """
    limit: CallLimit = request.app.state.call_limit
    limit.take(person.principal_id)
    acting.note(person.email)


def _bearer_token(headers: list[str]) -> str:
    if len(headers) > 1:
        # Which one counts would depend on who reads them: a proxy before this service, or this service.
        raise Unauthenticated("Send one Authorization header, not several.")
    scheme, _, token = headers[0].partition(" ") if headers else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("Send a token as Authorization: Bearer <token>.")
    return token.strip()
