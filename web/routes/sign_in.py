"""Signing in and out."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from api.resources import AppSettings, Db
from db import people, users, web_sessions
from db.paging import Position
from domain.errors import NotFound
from web.cookies import Cookies
from web.resources import Jar, Page

router = APIRouter()
"""What somebody who is not signed in reaches."""

HOME: Final = "/"
_MOST_PEOPLE: Final = 50

Next = Annotated[str, Query(alias="next", max_length=2000)]
"""Where to go after signing in."""


@router.get("/sign-in")
async def sign_in(request: Request, page: Page, db: Db, settings: AppSettings, target: Next = HOME) -> Response:
    """Choose how to sign in."""
    people_here = []
    if settings.dev_sign_in:
        listed = (await users.list_users(db, Position(_MOST_PEOPLE))).items
        people_here = sorted((user for user in listed if user.active and not user.owner_id), key=lambda user: user.name)
    return await page.answer(
        request,
        "sign_in.html",
        target=local(target),
        people=people_here,
        development=settings.dev_sign_in,
        issuers=[],
    )


@router.post("/sign-in/as")
async def sign_in_as(request: Request, jar: Jar, db: Db, settings: AppSettings) -> Response:
    """Development only: become somebody with one click."""
    if not settings.dev_sign_in:
        raise NotFound("Here people sign in with their identity provider.")
    form = await request.form(max_files=0, max_fields=10)
    async with db.connection() as connection:
        person = await people.find(connection, str(form.get("user_id", "")))
    if person is None or not person.active:
        raise NotFound("There is no such account, or it is deactivated.")
    token = await web_sessions.begin(db, person.id, None)
    return welcome(jar, token, str(form.get("next", HOME)))


def welcome(jar: Cookies, token: str, target: str) -> Response:
    """Lead somebody who has just signed in to where they wanted to go."""
    response = RedirectResponse(local(target), status_code=303)
    jar.start_session(response, token, int(web_sessions.LIFETIME.total_seconds()))
    return response


def local(target: str) -> str:
    """`target`, if it leads to a page of ours: nobody is sent elsewhere in our name."""
    plain = target.isprintable() and target.isascii() and "\\" not in target
    return target if plain and target.startswith("/") and not target.startswith("//") else HOME
