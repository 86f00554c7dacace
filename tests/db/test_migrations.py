"""Migrations: one line of them, no difference to the tables, back and forth, and never two at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.exc import OperationalError

from db import migrate
from db.database import Database
from tests.record import Record


@pytest.fixture
def empty(postgres: Callable[[str], str]) -> Iterator[str]:
    """A database without a schema."""
    name = sql.Identifier(f"empty_{uuid4().hex}")
    with psycopg.connect(postgres("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        yield postgres(name.as_string().strip('"'))
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def test_nothing_forks() -> None:
    assert len(migrate.heads()) == 1


def test_up_check_down_and_up_again(empty: str) -> None:
    applied = migrate.upgrade(empty)
    assert applied[-1:] == migrate.heads()
    migrate.check(empty)
    migrate.downgrade(empty, "base")
    with psycopg.connect(empty) as connection:
        left = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        ).fetchall()
    assert left == []
    assert migrate.upgrade(empty) == applied
    assert migrate.upgrade(empty) == []


def test_two_that_migrate_at_once_take_turns(empty: str) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        applied = processes.map(migrate.upgrade, [empty, empty])
    assert min(map(len, applied)) == 0
    migrate.check(empty)


def test_a_version_that_one_goes_back_to_leaves_a_later_schema_alone(empty: str) -> None:
    """Alembic fails at a revision that it does not know, and what waits for `justiam migrate` would never start."""
    migrate.upgrade(empty)
    with psycopg.connect(empty) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert migrate.upgrade(empty) == []
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


def test_one_that_cannot_have_its_lock_gives_up_and_leaves_everything(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than queue every reader behind itself."""
    monkeypatch.setattr(migrate, "_LOCK_TIMEOUT", "100ms")
    migrate.upgrade(empty, "0001")
    with psycopg.connect(empty) as reader:
        reader.execute("SELECT count(*) FROM applications")
        with pytest.raises(OperationalError, match="lock timeout"):
            migrate.upgrade(empty)
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    assert migrate.upgrade(empty)[-1:] == migrate.heads()


class TestTimeline:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE access_request_timeline SET actor = 'nobody'",
            "DELETE FROM access_request_timeline",
            "TRUNCATE access_request_timeline CASCADE",
        ],
    )
    async def test_is_append_only(self, record: Record, statement: str) -> None:
        cast = await record.cast()
        request_id = await record.submit(cast.template, cast.requester)
        with pytest.raises(psycopg.IntegrityError, match="append-only"):
            await record.execute(statement)
        assert await record.kinds(request_id) == ["submitted"]


async def test_every_foreign_key_has_an_index(db: Database) -> None:
    async with db.connection() as connection:
        rows = await connection.execute(
            """
            SELECT c.conrelid::regclass::text || '.' || a.attname AS bare
            FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
            WHERE c.contype = 'f' AND NOT EXISTS (
                SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])
            """
        )
        bare = {row["bare"] for row in await rows.fetchall()}
    # Users are never deleted, so nobody ever asks what refers to one of them.
    assert bare <= {"access_request_messages.author_id", "access_tokens.user_id"}


def test_names_that_become_one_do_not_stop_an_upgrade(empty: str) -> None:
    """The older one keeps its name; the audit log says what became of the other."""
    migrate.upgrade(empty, "0012")
    with psycopg.connect(empty) as connection:
        for table, column, values in (
            ("applications", "name", ("Straße", "STRASSE", "strasse (2)")),
            ("groups", "name", ("ομάδας", "ΟΜΆΔΑΣ")),
            ("users", "email", ("ς@example.com", "\u03c3@example.com")),
        ):
            for number, value in enumerate(values):
                row = {
                    "id": f"{number:08}-0000-4000-8000-000000000000",
                    column: value,
                    "created_at": f"2026-01-0{number + 1}",
                }
                row |= {"description": ""} if table != "users" else {"name": "x"}
                connection.execute(
                    sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                        sql.Identifier(table),
                        sql.SQL(", ").join(map(sql.Identifier, row)),
                        sql.SQL(", ").join(map(sql.Literal, row.values())),
                    )
                )
    migrate.upgrade(empty)
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT name FROM applications ORDER BY id").fetchall() == [
            ("Straße",),
            ("STRASSE (3)",),
            ("strasse (2)",),
        ]
        assert connection.execute("SELECT name FROM groups ORDER BY id").fetchall() == [("ομάδας",), ("ΟΜΆΔΑΣ (2)",)]
        assert connection.execute("SELECT email FROM users ORDER BY id").fetchall() == [
            ("ς@example.com",),
            ("\u03c3+2@example.com",),
        ]
        changed = connection.execute("SELECT kind FROM audit_log WHERE actor LIKE 'migration:%' ORDER BY id").fetchall()
        assert len(changed) == 3
    migrate.check(empty)
