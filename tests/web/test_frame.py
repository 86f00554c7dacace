"""What holds for every page there is, also for those that are added later: routes are found, not listed."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote, urlencode
from uuid import uuid4

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from psycopg.types.json import Jsonb
from starlette.routing import Mount

from db import users, web_sessions
from db.administrators import OPERATOR
from domain.directory import UserReplacement
from tests.api.house import House, settings
from tests.conftest import Databases
from tests.web.conftest import ORIGIN, Visitor, open_pages, shown, visitor
from web.app import create_app
from web.cookies import Cookies
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


async def test_text_that_was_kept_before_it_was_checked_is_shown_and_turns_nothing(
    root: Visitor, filled: dict[str, str]
) -> None:
    old = "\u202eold\u2066\u200b\u3164"
    field = {"id": str(uuid4()), "label": old, "type": "select", "required": True, "placeholder": old, "options": [old]}
    async with root.house.db.connection() as connection:
        for statement in (
            "UPDATE users SET name = %(old)s WHERE id = %(user_id)s",
            "UPDATE groups SET name = %(old)s, description = %(old)s WHERE id = %(group_id)s",
            "UPDATE applications SET name = %(old)s, description = %(old)s WHERE id = %(app_id)s",
            "UPDATE app_mappings SET name = %(old)s, value = %(old)s WHERE id = %(mapping_id)s",
            "UPDATE scheduled_tasks SET name = %(old)s, script = %(old)s WHERE id = %(task_id)s",
            "UPDATE integrations SET name = %(old)s WHERE id = %(integration_id)s",
            "UPDATE access_request_templates SET name = %(old)s, description = %(old)s, custom_fields = %(fields)s",
            "UPDATE access_requests SET justification = %(old)s, template_name = %(old)s, app_name = %(old)s",
            "UPDATE access_requests SET custom_answers = %(answers)s",
            "UPDATE access_requests SET snapshot = jsonb_set(snapshot, '{custom_fields}', %(fields)s)",
        ):
            values = {**filled, "old": old, "fields": Jsonb([field]), "answers": Jsonb({field["id"]: old})}
            await connection.execute(statement, values)
    shows = 0
    for path in [*PAGES, f"/api/v1/access-requests/{filled['request_id']}"]:
        page = await root.get(_real(path, filled))
        assert page.status_code < 500, path
        if "json" not in page.headers.get("content-type", ""):
            assert not set("\u202e\u2066") & set(page.text), path
            shows += "\ufffdold" in page.text
    assert shows >= 15
    house = root.house
    for path in ("/access-requests/all", "/access-request-templates", "/groups", "/app-mappings", "/scheduled-tasks"):
        answer = await house.call("GET", path, house.admin)
        assert (answer.status_code, old in json.loads(answer.text)["items"][0].values()) == (200, True), path
    sent = {"template_id": filled["template_id"], "requested_duration_mins": 60, "justification": "an incident"}
    answers = {"custom_answers": {field["id"]: old}}
    answer = await house.call("POST", "/access-requests", house.admin, json={**sent, **answers})
    assert answer.status_code == 201, answer.text
    blank = {**sent, **answers, "justification": "\u200b\u3164"}
    answer = await house.call("POST", "/access-requests", await house.person("blank"), json=blank)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "justification")
    message = {"body": "\u2800"}
    answer = await house.call("POST", f"/access-requests/{filled['request_id']}/messages", house.admin, json=message)
    assert answer.status_code == 422


_GARBLED_URLS: Final = ("http://[", "http://]", "http://a:b", "http://a:99999999", "http://[::1", "[", "//", "", "\xff")


@pytest.mark.parametrize("garbled", _GARBLED_URLS)
async def test_an_origin_that_cannot_be_parsed_is_another_site(house: House, garbled: str) -> None:
    for host in ("service.test", garbled.removeprefix("http://")):
        for path in ("/sign-in/as", "/sign-out"):
            answer = await house.client.post(
                path, headers={b"Origin": garbled.encode("latin-1"), b"Host": host.encode("latin-1")}
            )
            assert answer.status_code == 403, (garbled, host, path)


async def test_a_garbled_host_equals_no_garbled_origin(new_database: Databases) -> None:
    with new_database() as url:
        # Without a public URL, pages are held to the Host header.
        async with open_pages(url, public_url=None) as house:
            for garbled in ("[", "]", "a:b", "[::1"):
                headers = {"Origin": f"http://{garbled}", "Host": garbled}
                assert (await house.client.post("/sign-in/as", headers=headers)).status_code == 403, garbled
                answer = await house.client.get("/history?status=denied", headers={"Host": garbled})
                assert answer.headers["location"] == "/sign-in?next=%2Fhistory%3Fstatus%3Ddenied", garbled


_ODD_BYTES: Final = (b"\xff\xfe", b"\xed\xa0\x80", b"x" * 9_000, b"[", b"%00%ff", b";,=\"'\\")
_ODD_HEADERS: Final = (
    b"Cookie",
    b"Accept",
    b"Referer",
    b"Host",
    b"Traceparent",
    b"Tracestate",
    b"X-Request-Id",
    b"Origin",
)


async def test_no_header_makes_a_page_fail(root: Visitor) -> None:
    session = f"justiam_session={root.cookies['justiam_session']}; ".encode()
    for name in _ODD_HEADERS:
        for odd in _ODD_BYTES:
            for value in (odd, b"00-" + odd, b"justiam_flash=" + odd):
                headers = {b"Cookie": session, name: session + value if name == b"Cookie" else value}
                answer = await root.house.client.get("/requests", headers=headers)
                assert answer.status_code in {200, 303}, (name, value)


@pytest.mark.parametrize("odd", ["%00", "%ff", "%ed%a0%80", "%e2%80%ae", "x" * 3_000, "%5b"])
async def test_no_part_of_a_path_and_no_filter_makes_a_page_fail(root: Visitor, odd: str) -> None:
    for path in PAGES:
        for garbled in {re.sub(r"{[^}]*}", odd, path), _filled(path) + "?" + "&".join(f"{n}={odd}" for n in _FILTERS)}:
            answer = await root.get(garbled)
            assert answer.status_code < 500, garbled
    for path in FORMS:
        answer = await root.post(re.sub(r"{[^}]*}", odd, path), {"form_token": "x"})
        assert answer.status_code < 500, path


_FILTERS: Final = (
    "limit",
    "cursor",
    "q",
    "status",
    "requester",
    "since",
    "until",
    "kind",
    "actor",
    "object_id",
    "next",
)


@pytest.fixture(scope="module")
async def filled(root: Visitor) -> dict[str, str]:
    """Something real for each parameter of a form's path."""
    house = root.house
    template = await house.template(
        name="Everything", custom_fields=[{"label": kind, "type": kind} for kind in ("text", "textarea", "checkbox")]
    )
    mapping = await house.mapping(template.app_id)
    group = await house.group("hostile forms")
    task = await house.task()
    person = await house.person("hostile-forms")
    made = {
        "template_id": template.id,
        "app_id": template.app_id,
        "mapping_id": mapping.id,
        "group_id": group.id,
        "task_id": task.id,
        "user_id": person.id,
        "request_id": await house.request(template, person),
    }
    sent: dict[str, dict[str, object]] = {
        "secrets": {"name": "HOSTILE", "value": "x"},
        "integrations": {"name": "hostile", "target": "email", "events": ["access_request.submitted"]},
        "api-tokens": {"name": "hostile", "expires_in_days": 1},
    }
    for kind, values in sent.items():
        answer = await house.call("POST", f"/{kind}", house.admin, json=values)
        assert answer.status_code == 201, answer.text
        made[f"{kind.removeprefix('api-').removesuffix('s')}_id"] = answer.json()["id"]
    return {name: str(value) for name, value in made.items()}


def _real(path: str, filled: dict[str, str]) -> str:
    return re.sub(r"{(\w+)[^}]*}", lambda part: filled.get(part[1], str(uuid4())), path)


@pytest.mark.parametrize(
    "hostile",
    ["nul", "invalid UTF-8", "surrogate", "nul in a name", "over-long", "repeated", "missing", "file", "garbled"],
)
async def test_no_form_makes_a_page_fail(root: Visitor, filled: dict[str, str], hostile: str) -> None:
    names = {"back", "do", "questions", "step", "action", "next", "field." + filled["template_id"]}
    for path in PAGES:
        names |= set(re.findall(r'\sname="([^"]+)"', (await root.get(_real(path, filled))).text))
    assert len(names) > 50
    names -= {"form_token"}
    token = f"form_token={root.house.app.state.cookies.form_token(root.session)}"
    kind = "application/x-www-form-urlencoded"
    value = {"nul": "%00", "invalid UTF-8": "%ff", "surrogate": "%ed%a0%80", "over-long": "x" * 900}.get(hostile, "x")
    names_sent = {quote(f"\0{name}" if hostile == "nul in a name" else name) for name in names}
    fields = [f"{name}={value}" for name in names_sent] * (2 if hostile == "repeated" else 1)
    body = "&".join([token, *([] if hostile == "missing" else fields)])
    if hostile in {"file", "garbled"}:
        kind = "multipart/form-data; boundary=b; charset=" + ("utf-7" if hostile == "garbled" else "utf-8")
        filename = '; filename="x"' if hostile == "file" else ""
        value = "+2AA-" if hostile == "garbled" else "x"
        body = "".join(
            f'--b\r\nContent-Disposition: form-data; name="{name}"{odd}\r\n\r\n{value}\r\n'
            for name, odd, value in (
                ("form_token", "", token.removeprefix("form_token=")),
                *((name, filename, value) for name in sorted(names)),
            )
        )
        body += "--b--\r\n"
    refused = {"nul": 422, "nul in a name": 422, "file": 400}.get(hostile)
    # What deletes comes last, and what ends the session is tried by itself.
    for path in sorted(FORMS, key=lambda path: "delete" in path):
        if path != "/sign-out" or refused:
            answer = await root._send(
                "POST", _real(path, filled), {"Content-Type": kind, "Origin": ORIGIN}, content=body
            )
            assert answer.status_code < 500, (path, shown(answer))
            assert refused in {None, answer.status_code}, (path, answer.status_code)


async def test_a_form_that_arrives_after_a_deactivation_does_nothing(house: House) -> None:
    dana = await house.person(f"dana-{uuid4().hex[:8]}")
    page = await visitor(house, dana)
    jar: Cookies = house.app.state.cookies
    form = urlencode({"form_token": jar.form_token(page.session), "name": "late"})

    async def late() -> AsyncIterator[bytes]:
        for active in (False, True):
            values = UserReplacement(email=dana.email, name="Dana", active=active)
            await users.replace(house.db, OPERATOR, dana.id, values)
        yield form.encode()

    cookie = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
    headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded", "Origin": ORIGIN}
    answer = await house.client.post("/tokens", content=late(), headers=headers)
    assert answer.status_code == 401
    assert "justiam_" not in answer.text
