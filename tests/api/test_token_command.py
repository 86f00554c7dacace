"""`justiam token` and the demo, which come through the same functions as the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from db import demo, groups, tokens, users
from db.administrators import OPERATOR
from db.database import Database
from domain.actors import Permission
from domain.deciding import Person
from domain.directory import UserValues
from tests.api.house import SECRET


@pytest.fixture
def database_url(
    new_database: Callable[[], AbstractContextManager[str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    with new_database() as url:
        monkeypatch.setenv("JUSTIAM_DATABASE_URL", url)
        monkeypatch.setenv("JUSTIAM_SECRET_KEY", SECRET)
        yield url


def _justiam(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["token", *arguments])


def _works(database_url: str, token: str) -> Person | None:
    async def authenticate() -> Person | None:
        async with Database(database_url, max_connections=1) as db:
            bearer = await tokens.authenticate(db, token)
            return None if bearer is None else bearer.person

    return asyncio.run(authenticate())


def _all_rows(database_url: str) -> dict[str, list[tuple[Any, ...]]]:
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        return {
            name: connection.execute(
                psycopg.sql.SQL("SELECT * FROM {} t ORDER BY 1").format(psycopg.sql.Identifier(name))
            ).fetchall()
            for (name,) in tables
        }


class TestCreate:
    def test_makes_an_administrator_whoever_made_a_group_of_the_name(self, database_url: str) -> None:
        with psycopg.connect(database_url) as connection:
            for name in ("Administrators", "administrators 2"):
                connection.execute(
                    """
                    INSERT INTO groups (id, name, description, permissions, system)
                    VALUES (gen_random_uuid(), %s, '', '{directory.manage}', false)
                    """,
                    [name],
                )
        for email in ("root@example.com", "other@example.com"):
            person = _works(database_url, _justiam("create", email, "--administrator").stdout.strip())
            assert person is not None
            assert person.permissions == set(Permission)
            assert len(person.group_ids) == 1

    def test_makes_the_first_administrator_of_a_new_installation(self, database_url: str) -> None:
        result = _justiam("create", "root@example.com", "--administrator")
        assert result.exit_code == 0, result.output
        person = _works(database_url, result.stdout.strip())
        assert person is not None
        assert person.email == "root@example.com"
        assert person.permissions == set(Permission)

    def test_prints_the_token_and_nothing_else(self, database_url: str) -> None:
        _justiam("create", "root@example.com", "--administrator")
        result = _justiam("create", "ROOT@example.com", "--name", "script", "--days", "7")
        assert result.stdout == result.stdout.strip() + "\n"
        assert _works(database_url, result.stdout.strip()) is not None

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["nobody@example.com"], "not_found: There is no user nobody@example.com."),
            (["not an address", "--administrator"], "valid email address"),
            (["root@example.com", "--name", ""], "at least 1 character"),
            (["root@example.com", "--days", "0"], "Invalid value"),
        ],
    )
    @pytest.mark.usefixtures("database_url")
    def test_says_in_one_line_what_is_wrong(self, arguments: list[str], said: str) -> None:
        result = _justiam("create", *arguments)
        assert result.exit_code != 0
        assert said in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
        assert result.stdout == ""


class TestListAndRevoke:
    def test_lists_and_ends_tokens(self, database_url: str) -> None:
        token = _justiam("create", "root@example.com", "--administrator", "--name", "laptop").stdout.strip()
        _justiam("create", "other@example.com", "--administrator")
        [line] = _justiam("list", "--user", "root@example.com").stdout.splitlines()
        assert "laptop" in line
        assert "until" in line
        assert token not in line
        assert len(_justiam("list").stdout.splitlines()) == 2
        [as_json] = _justiam("list", "--user", "root@example.com", "--json").stdout.splitlines()
        token_id = json.loads(as_json)["id"]
        for _ in range(2):
            assert _justiam("revoke", token_id).exit_code == 0
        assert _works(database_url, token) is None
        assert "revoked" in _justiam("list", "--user", "root@example.com").stdout

    @pytest.mark.usefixtures("database_url")
    def test_says_what_is_not_there(self) -> None:
        assert "There is no token with this id." in _justiam("revoke", str(uuid4())).stderr
        assert "There is no user nobody@example.com." in _justiam("list", "--user", "nobody@example.com").stderr


class TestDemo:
    def test_has_the_people_groups_and_templates_of_the_tour(self, database_url: str) -> None:
        people = demo.load(database_url, {})
        assert list(people) == ["admin", "alice", "bob", "carol", "erin"]
        held = {}
        for who, known in people.items():
            person = _works(database_url, known["token"])
            assert person is not None
            assert (
                (str(person.id), person.email) == (known["id"], known["email"]) == (known["id"], f"{who}@example.com")
            )
            held[who] = person.permissions
        assert held == {"admin": set(Permission), "alice": set(), "bob": set(), "carol": set(), "erin": set()}
        rows = _all_rows(database_url)
        assert len(rows["access_request_templates"]) == 5
        assert len(rows["group_members"]) == 4

    def test_changes_nothing_where_it_is_loaded(self, database_url: str) -> None:
        people = demo.load(database_url, {})
        before = _all_rows(database_url)
        assert demo.load(database_url, people) == people
        before.pop("api_tokens")
        after = _all_rows(database_url)
        assert len(after.pop("api_tokens")) == 5
        assert after == before

    def test_mints_tokens_that_are_lost_or_revoked_and_keeps_the_others(self, database_url: str) -> None:
        people = demo.load(database_url, {})

        async def revoke_bobs() -> None:
            async with Database(database_url, max_connections=1) as db, db.connection() as connection:
                await connection.execute(
                    "UPDATE api_tokens SET revoked_at = now() WHERE token_hash = %s",
                    [tokens.digest(people["bob"]["token"])],
                )

        asyncio.run(revoke_bobs())
        known = {who: people[who] for who in ("admin", "alice", "bob")}
        again = demo.load(database_url, known)
        kept = {who for who in people if again[who]["token"] == people[who]["token"]}
        assert kept == {"admin", "alice"}
        assert all(_works(database_url, person["token"]) for person in again.values())

    def test_leaves_what_people_changed(self, database_url: str) -> None:
        people = demo.load(database_url, {})

        async def change() -> None:
            async with Database(database_url, max_connections=2) as db:
                async with db.connection() as connection:
                    rows = await connection.execute("SELECT id FROM groups WHERE name = 'dba_team'")
                    [group] = await rows.fetchall()
                await groups.remove_member(db, OPERATOR, group["id"], UUID(people["bob"]["id"]))
                values = UserValues(email="erin@example.com", name="Erin", active=False)
                await users.replace(db, OPERATOR, UUID(people["erin"]["id"]), values)

        asyncio.run(change())
        assert demo.load(database_url, people) == people
        bob = _works(database_url, people["bob"]["token"])
        assert bob is not None
        assert not bob.group_ids
        assert _works(database_url, people["erin"]["token"]) is None


async def test_a_token_without_end_does_not_end(new_database: Callable[[], AbstractContextManager[str]]) -> None:
    with new_database() as url:
        async with Database(url, max_connections=2) as db:
            user = await users.create(db, UserValues(email="dana@example.com", name="Dana"))
            endless = await tokens.create_token(db, user.id, "demo", None)
            short = await tokens.create_token(db, "DANA@example.com", "short", timedelta(seconds=-1))
            assert endless.expires_at is None
            assert await tokens.authenticate(db, endless.token) is not None
            assert await tokens.authenticate(db, short.token) is None
