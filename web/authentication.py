"""Who looks at a page, and that a form is theirs."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import FormData

from api.authentication import take_call
from db import web_sessions
from domain.deciding import Person
from domain.errors import Forbidden, Invalid
from domain.text import made_storable, storable
from settings import Settings
from web.cookies import Cookies

_MOST_FIELDS = 2_000
"""A template with all its custom fields has some hundred."""
_LONGEST_NAME: Final = 200
"""Characters of a field's name that an error repeats."""


class SignInNeeded(Exception):
    """Nobody is signed in, or not any more."""


async def signed_in(request: Request) -> Person:
    """The active person whose session the browser's cookie names.

    Raises:
        SignInNeeded: there is none.
        TooManyCalls: this person calls too often.
    """
    # The form first: its sender decides how long it takes to arrive, and may be deactivated meanwhile.
    await request.body()
    cookies: Cookies = request.app.state.cookies
    token = cookies.session(request.cookies)
    person = None if token is None else await web_sessions.holder(request.app.state.database, token)
    if person is None:
        raise SignInNeeded
    request.state.session = token
    request.state.person = person
    take_call(request, person)
    return person


async def refuse_foreign_forms(request: Request) -> None:
    """Hold what changes something to having been sent from a page of ours.

    Raises:
        Forbidden: it comes from another site, or from nobody knows where.
    """
    if request.method in {"GET", "HEAD"}:
        return
    settings: Settings = request.app.state.settings
    # With sign-in for development, not under any name that leads here: a site of another's could give itself one.
    known = settings.token_issuer if settings.dev_sign_in else settings.public_url
    # From the scope: `request.url` cannot be parsed where the Host header is garbled.
    own = _origin(known or f"{request.scope['scheme']}://{request.headers.get('host', '')}")
    # Where the service's own origin cannot be parsed either, the form is refused as well.
    if own is None or _origin(request.headers.get("origin", "")) != own:
        raise Forbidden("This form was sent from another site. Open the page here and send it again.")


async def read_form(request: Request, most_fields: int) -> FormData:
    """Return the form of a request, held to what a JSON body is held to.

    Raises:
        HTTPException: 400, it is not a form that can be read, or has files or more than `most_fields` fields.
        Invalid: a name or a value cannot be stored.
    """
    form = await request.form(max_files=0, max_fields=most_fields)
    for name, value in form.multi_items():
        for text in (name, value):
            try:
                storable(str(text))
            except ValueError as error:
                raise Invalid((made_storable(name)[:_LONGEST_NAME], str(error))) from None
    return form


async def _own_form(request: Request) -> FormData:
    form = await read_form(request, _MOST_FIELDS)
    cookies: Cookies = request.app.state.cookies
    token = form.get("form_token")
    if not isinstance(token, str) or not cookies.is_form_token(request.state.session, token):
        raise Forbidden("This form was made before you signed in. Open the page again and send it from there.")
    return form


async def own_form(request: Request) -> FormData | None:
    """The form that was sent, made for this session; None where nothing is sent.

    Raises:
        Forbidden: it was made for another session, or by somebody else.
    """
    return None if request.method in {"GET", "HEAD"} else await _own_form(request)


Form = Annotated[FormData, Depends(own_form)]
"""What was sent with a form."""


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of a URL; None where it has no host or cannot be parsed."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
