"""Whatever a command of an operator changes is in the audit log as theirs."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable
from typing import Any, Final

import psycopg
import pytest
import typer.main
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from cli.dev import furnish
from cli.main import app
from db import migrate, secrets, tokens
from db.database import Database
from db.secrets import SecretVault
from domain.secrets import NewSecret
from tests.record import SECRET, Record

EMAIL: Final = "somebody@example.com"
ISSUER: Final = "https://issuer.example.com"
CHANGES: Final = {
    "token create": (["--administrator", EMAIL], {"users", "groups", "group_members", "api_tokens"}),
    "token revoke": (["{token}"], {"api_tokens"}),
    "signing-key rotate": ([], {"signing_keys"}),
    "identity link": (["{user}", ISSUER, "subject"], {"user_identities"}),
    "identity unlink": ([ISSUER, "another"], {"user_identities"}),
    "secrets rotate": ([], {"secrets"}),
}
"""With what each is called, and of what it makes entries."""
NO_CHANGES: Final = {
    "token list",
    "signing-key list",
    "identity list",
    "secrets list",
    "audit invariants",
    "audit verify",
    "audit export",
    "settings",
    # These change the schema, Temporal, requests, whose timelines say so, or what is kept of deliveries and runs.
    "migrate",
    "prune",
    "setup-temporal",
    "sweep",
}
RUN: Final = {"api", "worker", "script-worker", "dev"}
"""They stay: what is changed through them is changed by people, but for the demo (below) and the first signing key."""


def _modules(group: Any, *path: str) -> dict[str, str]:
    """Every command, and the module that it is in."""
    found: dict[str, str] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= _modules(command, *path, name)
        else:
            found[" ".join((*path, name))] = command.callback.__module__
    return found


def test_each_command_is_known_to_change_the_record_or_not() -> None:
    # Those for people go over HTTP, and are known there by the token that they bring.
    modules = _modules(typer.main.get_command(app))
    of_operators = {name for name, module in modules.items() if not module.startswith("cli.people")}
    assert of_operators == {*CHANGES, *NO_CHANGES, *RUN}


@pytest.fixture
def justiam(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("JUSTIAM_DATABASE_URL", database_url)
    monkeypatch.setenv("JUSTIAM_SECRET_KEY", SECRET)
    monkeypatch.setenv("JUSTIAM_ENCRYPTION_KEYS", "one more key that is long enough for that")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("command", CHANGES)
def test_what_a_command_changes_is_logged_as_the_operators(
    command: str, justiam: Callable[..., Result], database_url: str
) -> None:
    there = asyncio.run(_furnished(database_url))
    arguments, kinds = CHANGES[command]
    done = justiam(*command.split(), *(argument.format(**there) for argument in arguments))
    assert done.exit_code == 0, done.output
    assert _entries(database_url, after=int(there["entries"])) == {
        (kind, f"operator:{getpass.getuser()}") for kind in kinds
    }


def test_migrate_says_which_postgresql_is_needed(
    justiam: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_OLDEST_POSTGRESQL", 99)
    done = justiam("migrate")
    assert done.exit_code == 1
    assert done.stderr.startswith("PostgreSQL 99 or newer is needed; the server is PostgreSQL 18. Nothing was changed.")
    assert "Temporal" not in done.stderr


async def _furnished(database_url: str) -> dict[str, str]:
    async with Database(database_url) as db:
        record = Record(db)
        user = await record.user()
        token = await tokens.create_token(db, user.id, "laptop", None)
        await secrets.create(db, SecretVault(SecretStr(SECRET)), NewSecret(name="ONE", value=SecretStr("hush")))
        await record.execute(
            "INSERT INTO user_identities (issuer, subject, user_id) VALUES (%s, 'another', %s)", ISSUER,
            (await record.user()).id,
        )  # fmt: skip
        (row,) = await record.query("SELECT max(id) AS n FROM audit_log")
        return {"user": user.email, "token": str(token.id), "entries": str(row["n"])}


def test_the_demo_is_loaded_by_the_operator(database_url: str) -> None:
    furnish.people(database_url, {})
    assert {actor for _, actor in _entries(database_url)} == {f"operator:{getpass.getuser()}"}


def _entries(database_url: str, *, after: int = 0) -> set[tuple[str, str]]:
    with psycopg.connect(database_url) as connection:
        return set(connection.execute("SELECT kind, actor FROM audit_log WHERE id > %s", [after]).fetchall())
