"""Signing in and out."""

from __future__ import annotations

import hmac
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Final
from urllib.parse import quote_plus, urlsplit

import httpx
from authlib.common.security import generate_token  # type: ignore[import-untyped]
from authlib.common.urls import add_params_to_uri  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from api.admission import admit
from api.issuers import Issuers, SignIn
from api.resources import AppSettings, Db
from db import demo, people, users, web_sessions
from db.database import Database
from db.paging import Position
from db.users import UserView
from domain.deciding import Person
from domain.errors import Forbidden, IssuerUnavailable, NotFound, Unauthenticated
from domain.text import FilterText
from settings import OidcIssuer, Settings
from web.authentication import read_form
from web.cookies import Cookies
from web.resources import Jar, Page, Trusted

router = APIRouter()
"""What somebody who is not signed in reaches."""

HOME: Final = "/"
_MOST_PEOPLE: Final = 50
_QUESTION: Final = "justiam_signing_in"
_PATIENCE_SECS: Final = 600
"""For as long as somebody may take at their issuer."""

Next = Annotated[str, Query(alias="next", max_length=2000)]
"""Where to go after signing in."""

Sought = Annotated[FilterText, Query(alias="q")]
"""Part of an email address."""


@router.get("/sign-in")
async def sign_in(
    request: Request, page: Page, db: Db, settings: AppSettings, target: Next = HOME, sought: Sought = ""
) -> Response:
    """Choose how to sign in."""
    sought = sought.strip()
    people_here = await _people(db, sought) if settings.dev_sign_in else []
    return await page.answer(
        request,
        "sign_in.html",
        target=local(target),
        people=people_here,
        sought=sought,
        development=settings.dev_sign_in,
        issuers=[urlsplit(issuer.issuer).hostname for issuer in _usable(settings)],
    )


async def _people(db: Database, sought: str) -> list[Person | UserView]:
    """Return the people to choose from: those whose address is sought, else those of the demo and the newest others."""
    first: list[Person | UserView] = []
    if not sought:
        async with db.connection() as connection:
            found = [await people.find(connection, email) for email in demo.emails()]
        first = [person for person in found if person is not None and person.active]
    listed = (await users.list_users(db, Position(_MOST_PEOPLE), email=sought or None)).items
    shown = {person.id for person in first}
    others = [user for user in listed if user.active and not user.owner_id and user.id not in shown]
    return [*first, *sorted(others, key=lambda user: user.name)]


@router.get("/sign-in/with/{number}")
async def sign_in_with(
    jar: Jar, settings: AppSettings, issuers: Trusted, number: Annotated[int, Path(ge=0, lt=100)], target: Next = HOME
) -> Response:
    """Lead to an issuer, with a question that only this browser can have answered."""
    chosen = _usable(settings)[number : number + 1]
    if not chosen:
        raise NotFound("People do not sign in there.")
    (issuer,) = chosen
    where = await issuers.endpoint(issuer.issuer, "authorization_endpoint")
    if where is None:
        raise IssuerUnavailable(f"{issuer.issuer} does not say where people sign in.")
    asked = {name: generate_token(48) for name in ("state", "nonce", "verifier")}
    began = datetime.now(UTC).isoformat()
    url = prepare_grant_uri(
        where,
        issuer.web_client_id,
        "code",
        redirect_uri=_callback(settings),
        scope=issuer.web_scope,
        state=asked["state"],
        nonce=asked["nonce"],
        code_challenge=create_s256_code_challenge(asked["verifier"]),
        code_challenge_method="S256",
    )
    response = RedirectResponse(url, status_code=303)
    jar.leave_note(
        response, _QUESTION, {**asked, "issuer": issuer.issuer, "next": local(target), "began": began}, _PATIENCE_SECS
    )
    return response


@router.get("/sign-in/callback")
async def callback(request: Request, jar: Jar, db: Db, settings: AppSettings, issuers: Trusted) -> Response:
    """What an issuer answers, brought by the browser that was sent there (OpenID Connect Core, section 3.1.2.5)."""
    asked = jar.note(request.cookies, _QUESTION, _PATIENCE_SECS)
    sent = request.query_params
    if asked is None or not hmac.compare_digest(sent.get("state", "").encode(), asked["state"].encode()):
        raise Unauthenticated("This sign-in was begun in another browser, or too long ago. Start again.")
    chosen = next((each for each in _usable(settings) if each.issuer == asked["issuer"]), None)
    # RFC 9207: an issuer that says who it is cannot be mixed up with another.
    if (
        chosen is None
        or sent.get("iss", chosen.issuer) != chosen.issuer
        or ("iss" not in sent and await issuers.names_itself(chosen.issuer))
    ):
        raise Unauthenticated("This answer is of another issuer than was asked. Start again.")
    if "error" in sent:
        denied = sent["error"] == "access_denied"
        raise Unauthenticated("You declined to sign in." if denied else f"{chosen.issuer} refused the sign-in.")
    if not sent.get("code"):
        raise Unauthenticated(f"{chosen.issuer} sent you back without an answer. Start again.")
    found = await _signed_in(issuers, settings, chosen, asked, sent["code"])
    # Not when the ID token was made: a deactivation in between ends the sign-in, also if the account is active again.
    began = datetime.fromisoformat(asked["began"]) if "began" in asked else datetime.fromtimestamp(0, UTC)
    person = await admit(db, replace(found.identity, issued_at=began))
    if person is None:
        known_as = found.email or found.identity.subject
        raise Forbidden(
            f"You are signed in at {urlsplit(chosen.issuer).hostname} as {known_as}, and no active account here is "
            "linked to that. Ask an administrator."
        )
    await _end_former(request, jar, db)
    response = welcome(jar, await web_sessions.begin(db, person.id, chosen.issuer, since=began), asked["next"])
    # A question is answered once.
    jar.drop_note(response, _QUESTION)
    return response


async def _signed_in(
    issuers: Issuers, settings: Settings, chosen: OidcIssuer, asked: dict[str, str], code: str
) -> SignIn:
    client_id, secret = chosen.web_client_id or "", chosen.web_client_secret
    sent = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": _callback(settings),
        "code_verifier": asked["verifier"],
    }
    # RFC 6749, section 2.3.1: the parts are encoded as in a form before they are joined.
    auth = httpx.BasicAuth(quote_plus(client_id), quote_plus(secret.get_secret_value())) if secret else None
    token = await issuers.redeem(chosen.issuer, sent if auth else {**sent, "client_id": client_id}, auth)
    return await issuers.verify_sign_in(token, issuer=chosen.issuer, client_id=client_id, nonce=asked["nonce"])


def _usable(settings: Settings) -> list[OidcIssuer]:
    return [issuer for issuer in settings.oidc_issuers if issuer.web_client_id is not None]


def _callback(settings: Settings) -> str:
    return f"{settings.token_issuer}/sign-in/callback"


async def farewell(issuers: Issuers, settings: Settings, issuer: str | None) -> str | None:
    """Where somebody signs out at the issuer that vouched for them; None where there is no such place."""
    chosen = next((each for each in _usable(settings) if each.issuer == issuer), None)
    if chosen is None:
        return None
    try:
        where = await issuers.endpoint(chosen.issuer, "end_session_endpoint")
    except IssuerUnavailable:
        return None
    back = {"client_id": chosen.web_client_id or "", "post_logout_redirect_uri": f"{settings.token_issuer}/sign-in"}
    return None if where is None else add_params_to_uri(where, list(back.items()))


@router.post("/sign-in/as")
async def sign_in_as(request: Request, jar: Jar, db: Db, settings: AppSettings) -> Response:
    """Development only: become somebody with one click."""
    if not settings.dev_sign_in:
        raise NotFound("Here people sign in with their identity provider.")
    form = await read_form(request, 10)
    async with db.connection() as connection:
        person = await people.find(connection, str(form.get("user_id", "")))
    if person is None or not person.active:
        raise NotFound("There is no such account, or it is deactivated.")
    await _end_former(request, jar, db)
    token = await web_sessions.begin(db, person.id, None)
    return welcome(jar, token, str(form.get("next", HOME)))


async def _end_former(request: Request, jar: Cookies, db: Database) -> None:
    # The browser forgets its token, so nobody could sign out of it any more.
    former = jar.session(request.cookies)
    if former is not None:
        await web_sessions.end(db, former)


def welcome(jar: Cookies, token: str, target: str) -> Response:
    """Lead somebody who has just signed in to where they wanted to go."""
    response = RedirectResponse(local(target), status_code=303)
    jar.start_session(response, token, int(web_sessions.LIFETIME.total_seconds()))
    return response


def local(target: str) -> str:
    """`target`, if it leads to a page of ours: nobody is sent elsewhere in our name."""
    plain = target.isprintable() and target.isascii() and "\\" not in target
    return target if plain and target.startswith("/") and not target.startswith("//") else HOME
