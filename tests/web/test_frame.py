"""What holds for every page there is, also for those that are added later: routes are found, not listed."""

from __future__ import annotations

import re
from typing import Final
from uuid import uuid4

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from db import web_sessions
from tests.api.house import House, settings
from tests.conftest import Databases
from tests.web.conftest import ORIGIN, Visitor, open_pages, shown, visitor
from web.app import create_app
from web.routes.sign_in import local

_ANYBODYS: Final = "/sign-in"
_ADMINISTRATORS: Final = ("/admin", "/history", "/overview")
_ENDLESS: Final = "/live"
_LARGEST_BYTES: Final = 60_000


def _paths(method: str) -> list[str]:
    """The paths of all pages that answer to a method."""
    below = create_app(settings("postgresql://nowhere/justiam")).routes[-1]
    assert isinstance(below, Mount)
    found = {route.path for route in iter_route_contexts(below.routes) if method in (route.methods or ())}
    assert len(found) >= 5
    return sorted(path for path in found if path is not None and path != _ENDLESS)


def _filled(path: str) -> str:
    return re.sub(r"{[^}]*}", str(uuid4()), path)


PAGES: Final = [path for path in _paths("GET") if not path.startswith(_ANYBODYS)]
FORMS: Final = [path for path in _paths("POST") if not path.startswith(_ANYBODYS)]


@pytest.fixture(scope="module")
async def somebody(house: House) -> Visitor:
    """Somebody without any permission."""
    return await visitor(house, await house.person(f"somebody-{uuid4()}"))


@pytest.mark.parametrize("path", PAGES)
async def test_who_is_not_signed_in_is_led_to_where_one_does(house: House, path: str) -> None:
    answer = await Visitor(house, "").get(_filled(path))
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in?next=%2F")


@pytest.mark.parametrize("path", FORMS)
async def test_a_form_counts_only_from_who_is_signed_in_and_from_a_page_of_ours(
    house: House, somebody: Visitor, path: str
) -> None:
    path = _filled(path)
    assert (await Visitor(house, "").post(path)).status_code == 401
    for foreign in ("https://evil.example", "null", ORIGIN + ".evil.example", ORIGIN.replace("http", "https")):
        answer = await somebody.post(path, Origin=foreign)
        assert answer.status_code == 403, foreign
        assert "another site" in shown(answer)
    other = await visitor(house, house.admin)
    forged = other.house.app.state.cookies.form_token(other.session)
    for token in (forged, "", "x"):
        answer = await somebody.post(path, {"form_token": token})
        assert answer.status_code == 403, token
        assert "before you signed in" in shown(answer)


async def test_a_form_without_an_origin_is_refused(house: House, somebody: Visitor) -> None:
    token = house.app.state.cookies.form_token(somebody.session)
    answer = await house.client.post(
        "/sign-out",
        data={"form_token": token},
        headers={"Cookie": f"justiam_session={somebody.cookies['justiam_session']}"},
    )
    assert answer.status_code == 403


@pytest.mark.parametrize("path", [path for path in [*PAGES, *FORMS] if path.startswith(_ADMINISTRATORS)])
async def test_the_administration_is_for_who_holds_a_permission(somebody: Visitor, path: str) -> None:
    answer = await (somebody.post if path in FORMS and path not in PAGES else somebody.get)(_filled(path))
    assert answer.status_code == 403, shown(answer)


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_held_to_itself_and_kept_by_nobody(root: Visitor, path: str) -> None:
    answer = await root.get(_filled(path))
    assert answer.status_code < 500, shown(answer)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    if answer.headers.get("content-type", "").startswith("text/html"):
        # What the policy would not let run is not there either.
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", answer.text)


async def test_looking_changes_nothing(new_database: Databases) -> None:
    with new_database() as url:
        async with open_pages(url) as house:
            root = await visitor(house, house.admin)
            async with house.db.connection() as connection:
                rows = await connection.execute("SELECT current_database() AS name")
                name = (await rows.fetchone() or {})["name"]
                await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        app = create_app(settings(url))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, cookies=root.cookies) as client:
                for path in PAGES:
                    answer = await client.get(_filled(path))
                    assert answer.status_code < 500, path


async def test_a_page_is_small(root: Visitor) -> None:
    for path in (path for path in PAGES if not re.search(r"[{.]", path) and path != "/admin"):
        page = await root.get(path)
        parts = [await root.get(part) for part in set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text))]
        assert len(parts) == 3
        assert all(part.status_code == 200 for part in parts)
        assert all("immutable" in part.headers["cache-control"] for part in parts)
        assert len(page.content) + sum(len(part.content) for part in parts) < _LARGEST_BYTES, path


async def test_a_session_ends_with_its_row_with_its_time_and_with_the_account(house: House) -> None:
    person = await house.person(f"leaver-{uuid4()}")
    for end in (
        "DELETE FROM web_sessions WHERE user_id = %s",
        "UPDATE web_sessions SET expires_at = now() WHERE user_id = %s",
        "UPDATE users SET active = false WHERE id = %s",
    ):
        leaver = await visitor(house, person)
        assert (await leaver.get("/")).status_code == 200
        async with house.db.connection() as connection:
            await connection.execute(end, [person.id])
        assert (await leaver.get("/")).status_code == 303


async def test_a_cookie_that_was_not_signed_here_costs_no_look_into_the_record(house: House) -> None:
    person = await house.person(f"forger-{uuid4()}")
    token = await web_sessions.begin(house.db, person.id, None)
    for cookie in (token, f"{token}.AAAA", "."):
        stranger = Visitor(house, "", {"justiam_session": cookie})
        assert (await stranger.get("/")).status_code == 303


async def test_an_api_token_opens_no_page_and_a_session_no_api(house: House, root: Visitor) -> None:
    answer = await house.client.get("/requests", headers={"Authorization": f"Bearer {house.admin.token}"})
    assert answer.status_code == 303
    answer = await root.get("/api/v1/users/me")
    assert answer.status_code == 401


async def test_programs_get_problem_documents_also_where_there_is_nothing(root: Visitor) -> None:
    for path in ("/api/nothing", "/api/v1/nothing", "/.well-known/nothing", "/oauth2/nothing"):
        answer = await root.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\/evil",
        "javascript:alert(1)",
        "",
        "/\t/evil",
        "/é",
    ],
)
def test_nobody_is_sent_elsewhere_in_our_name(target: str) -> None:
    assert local(target) == "/"


async def test_the_development_sign_in_is_not_there_unless_it_is_asked_for(house: House) -> None:
    answer = await Visitor(house, "").post("/sign-in/as", {"user_id": str(house.admin.id), "form_token": ""})
    assert answer.status_code == 404
    assert not answer.cookies
