"""Signing in to the pages with claims that make accounts and fill groups: at a provider of others, and at our own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from api.issuers import Issuers
from db import groups
from db.administrators import OPERATOR
from db.paging import Position
from domain.actors import Permission
from domain.directory import GroupValues
from settings import OidcIssuer
from tests.api.house import House
from tests.cli.authority import Authority, serve_authority
from tests.cli.test_sign_in import provider  # noqa: F401 - a fixture
from tests.conftest import Databases
from tests.web.conftest import ORIGIN, Visitor, open_pages, shown, visitor

CLIENT = "justiam-web"


@dataclass(frozen=True)
class _Door:
    """The pages with two issuers that make accounts and fill groups."""

    house: House
    provider: str
    authority: Authority

    async def leads(self, number: int, browser: Visitor) -> str:
        """Where somebody is led who chooses an issuer."""
        answer = await browser.get(f"/sign-in/with/{number}")
        assert answer.status_code == 303, shown(answer)
        return answer.headers["location"]

    async def come(self, **claims: Any) -> tuple[Visitor, httpx.Response]:
        """Sign in at the authority as somebody of whom it says this."""
        browser = Visitor(self.house, "")
        self.authority.id_claims = claims
        where = await self.leads(1, browser)
        async with httpx.AsyncClient(trust_env=False) as client:
            back = (await client.get(where)).headers["location"]
        return browser, await browser.get(back.removeprefix(ORIGIN))

    async def people(self, email: str) -> int:
        async with self.house.db.connection() as connection:
            rows = await connection.execute("SELECT count(*) AS n FROM users WHERE lower(email) = lower(%s)", [email])
            row = await rows.fetchone()
        assert row is not None
        return int(row["n"])

    async def held(self, email: str) -> list[str]:
        async with self.house.db.connection() as connection:
            rows = await connection.execute(
                "SELECT g.name FROM users u JOIN group_members m ON m.user_id = u.id "
                "JOIN groups g ON g.id = m.group_id WHERE u.email = %s ORDER BY g.name",
                [email],
            )
            return [row["name"] for row in await rows.fetchall()]


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with serve_authority() as authority:
        yield authority


@pytest.fixture(scope="module")
async def standing_door(
    new_database: Databases,
    provider: str,  # noqa: F811 - a fixture
    authority: Authority,
) -> AsyncIterator[_Door]:
    mapped: dict[str, Any] = {
        "audience": "api",
        "web_client_id": CLIENT,
        "create_users": True,
        "groups_claim": "groups",
        "groups": {"dba": "dba_team", "ops": "ops_team", "root": "administrators"},
    }
    issuers = (
        OidcIssuer(issuer=provider, **mapped, web_scope="openid email profile address"),
        OidcIssuer(issuer=authority.url, **mapped, email_domains=("corp.example",)),
    )
    with new_database() as url:
        async with open_pages(url, oidc_issuers=issuers) as house, Issuers(issuers, leeway_secs=5) as trusted:
            house.app.state.issuers = trusted
            for name, permissions in (("dba_team", []), ("ops_team", []), ("administrators", list(Permission))):
                async with house.db.connection() as connection:
                    rows = await connection.execute("SELECT FROM groups WHERE name = %s", [name])
                    if await rows.fetchone() is None:
                        await groups.create(house.db, OPERATOR, GroupValues(name=name, permissions=permissions))
            yield _Door(house, provider, authority)


@pytest.fixture
def door(standing_door: _Door) -> _Door:
    standing_door.authority.reset()
    return standing_door


def _somebody(**changed: Any) -> dict[str, Any]:
    email = f"{uuid4().hex}@corp.example"
    return {"email": email, "email_verified": True, "name": "Erin Vogt", **changed}


async def test_somebody_new_signs_in_at_a_provider_of_others(door: _Door) -> None:
    email, browser = "frank.new@example.com", Visitor(door.house, "")
    said = {"email": email, "email_verified": True, "name": "Frank Neu", "groups": ["dba", "root", "others"]}
    where = await door.leads(0, browser)
    assert parse_qs(urlsplit(where).query)["scope"] == ["openid email profile address"]
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.put(f"{door.provider}/users/frank-1", json=said)
        back = (await client.post(where, data={"sub": "frank-1"})).headers["location"]
    answer = await browser.get(back.removeprefix(ORIGIN))
    assert (answer.status_code, answer.headers["location"]) == (303, "/"), shown(answer)
    assert "Frank Neu" in (await browser.get("/requests")).text
    assert (await browser.get("/admin/people")).status_code == 403, "to be an administrator is not for it to say"
    assert await door.held(email) == ["dba_team"]


async def test_groups_are_those_of_the_last_sign_in(door: _Door) -> None:
    somebody = _somebody()
    for age, said, held in (
        (40, {"groups": ["dba", "ops"]}, ["dba_team", "ops_team"]),
        (30, {"groups": ["ops"]}, ["ops_team"]),
        (20, {"_claim_names": {"groups": "src1"}}, ["ops_team"]),
        (10, {}, []),
    ):
        _, answer = await door.come(**somebody, **said, iat=timedelta(seconds=-age))
        assert answer.status_code == 303, shown(answer)
        assert await door.held(somebody["email"]) == held
    assert await door.people(somebody["email"]) == 1


async def test_a_group_says_which_issuer_put_somebody_there(door: _Door) -> None:
    somebody = _somebody(groups=["ops"])
    await door.come(**somebody)
    [ops] = (await groups.list_groups(door.house.db, Position(10), name="ops_team")).items
    page = await (await visitor(door.house, door.house.admin)).get(f"/admin/groups/{ops.id}")
    assert f"by {door.authority.url}" in shown(page)


async def test_who_comes_with_anything_else_is_told_that_there_is_no_account(door: _Door) -> None:
    admin = door.house.admin.email
    for claims in (
        _somebody(email_verified=False),
        _somebody(email_verified="true"),
        _somebody(email=...),
        _somebody(email=["x@corp.example"]),
        _somebody(email="x@elsewhere.example"),
        _somebody(email=admin),
    ):
        door.authority.subject = uuid4().hex
        browser, answer = await door.come(**claims, groups=["dba"])
        assert answer.status_code == 403
        assert "no active account here is linked to that" in shown(answer)
        assert door.house.app.state.cookies.session(browser.cookies) is None
    assert await door.people(admin) == 1
    assert await door.people("x@elsewhere.example") == 0


async def test_a_name_of_control_characters_and_markup_does_nothing(door: _Door) -> None:
    for name, shows in (
        ("<b>Erin</b>", "&lt;b&gt;Erin&lt;/b&gt;"),
        ("Erin\x1b[31m\nAdmin", None),
        ({"first": "Erin"}, None),
    ):
        door.authority.subject = uuid4().hex
        somebody = _somebody(name=name)
        browser, _ = await door.come(**somebody)
        page = await browser.get("/requests")
        assert "<b>Erin" not in page.text
        assert (shows or somebody["email"]) in page.text


async def test_many_first_sign_ins_at_once_make_one_account(door: _Door) -> None:
    somebody = _somebody(groups=["dba"])
    came = await asyncio.gather(*(door.come(**somebody) for _ in range(8)))
    assert [answer.status_code for _, answer in came] == [303] * 8
    assert await door.people(somebody["email"]) == 1
    assert await door.held(somebody["email"]) == ["dba_team"]
    for browser, _ in came:
        assert (await browser.get("/requests")).status_code == 200


async def test_who_is_deactivated_stays_out_and_is_not_made_again(door: _Door) -> None:
    somebody = _somebody()
    browser, _ = await door.come(**somebody)
    async with door.house.db.connection() as connection:
        await connection.execute("UPDATE users SET active = false WHERE email = %s", [somebody["email"]])
    assert (await browser.get("/requests")).status_code == 303, "signed out at once"
    for subject in (door.authority.subject, uuid4().hex):
        door.authority.subject = subject
        _, answer = await door.come(**somebody, groups=["dba"])
        assert answer.status_code == 403
    assert await door.people(somebody["email"]) == 1
    assert await door.held(somebody["email"]) == []
