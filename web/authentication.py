"""Who looks at a page, and that a form is theirs."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import FormData

from api.authentication import take_call
from db import web_sessions
from domain.deciding import Person
from domain.errors import Forbidden
from settings import Settings
from web.cookies import Cookies

_MOST_FIELDS = 2_000
"""A template with all its custom fields has some hundred."""


class SignInNeeded(Exception):
    """Nobody is signed in, or not any more."""


async def signed_in(request: Request) -> Person:
    """The active person whose session the browser's cookie names.

    Raises:
        SignInNeeded: there is none.
        TooManyCalls: this person calls too often.
    """
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
    own = known or f"{request.url.scheme}://{request.headers.get('host', '')}"
    origin = request.headers.get("origin")
    if origin is None or _origin(origin) != _origin(own):
        raise Forbidden("This form was sent from another site. Open the page here and send it again.")


async def _own_form(request: Request) -> FormData:
    form = await request.form(max_files=0, max_fields=_MOST_FIELDS)
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


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)
