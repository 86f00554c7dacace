"""Migrations on a record that is in use: what is there stays, and the version before goes on working beside them.

Revisions and tables are found, not listed. What a later migration adds is filled with rows and tried like all the rest.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final
from uuid import uuid4

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg.rows import dict_row

from bench.populate import populate
from db import audit_log, auditing, migrate
from db.database import Database
from domain.states import Action
from tests.conftest import Databases
from tests.record import Record

Connection = psycopg.Connection[dict[str, Any]]
Contents = dict[str, list[dict[str, Any]]]

_COLUMNS: Final = """
    SELECT c.relname AS relation, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
           a.attidentity <> '' OR a.attgenerated <> '' AS assigned,
           f.confrelid::regclass::text AS refers_to, r.attname AS referred,
           (regexp_match(pg_get_constraintdef(k.oid), $$'([a-z_.]+)'$$))[1] AS known,
           EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND (
               a.attnum = ANY(i.indkey) OR pg_get_expr(i.indexprs, i.indrelid) ~ ('\\m' || a.attname || '\\M')
           )) AS one_of_a_kind
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_constraint f ON f.conrelid = c.oid AND f.contype = 'f' AND f.conkey = ARRAY[a.attnum]
    LEFT JOIN pg_attribute r ON r.attrelid = f.confrelid AND r.attnum = f.confkey[1]
    LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'c' AND k.conname LIKE '%known'
         AND k.conkey = ARRAY[a.attnum]
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'alembic_version'
    ORDER BY c.relname, a.attnum
"""
_FRESH: Final = {
    "uuid": "gen_random_uuid()",
    "text": "'made-' || gen_random_uuid()",
    "bytea": "sha256(gen_random_uuid()::text::bytea)",
    "timestamp with time zone": "now()",
    "boolean": "false",
    "integer": "1",
    "bigint": "1",
    "jsonb": "'{}'::jsonb",
    "uuid[]": "'{}'::uuid[]",
    "text[]": "'{}'::text[]",
    "bigint[]": "'{}'::bigint[]",
}
_ATTEMPTS: Final = 60
_LOG: Final = "audit_log"
"""Written by the database; every change here adds to it."""
_VERSION_OF_A_UUID: Final = re.compile(
    r"(?<=[0-9a-f]{8}-[0-9a-f]{4}-)[48](?=[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})"
)
"""Migration 0010 changes it in the ids of temporary groups."""


@dataclass(frozen=True)
class Column:
    """A column as the database has it."""

    name: str
    type: str
    assigned: bool
    refers_to: str | None
    referred: str | None
    known: str | None
    """A value that it may have, where these are listed."""
    one_of_a_kind: bool

    def value(self, *, copied: bool) -> str:
        """An SQL expression for a new row: that of the row it is copied from, unless there may be no other like it."""
        name = f't."{self.name}"'
        if copied and not self.one_of_a_kind:
            return name
        if self.refers_to is not None:
            made = f'(SELECT "{self.referred}" FROM {self.refers_to} ORDER BY random() LIMIT 1)'  # noqa: S608 - named by the database
        elif self.known is not None:
            made = f"'{self.known}'"
        else:
            made = _FRESH[self.type]
        return f"CASE WHEN {name} IS NOT NULL THEN {made} END" if copied else made


Schema = dict[str, list[Column]]


def schema_of(connection: Connection) -> Schema:
    found: Schema = {}
    for row in connection.execute(_COLUMNS):
        found.setdefault(row.pop("relation"), []).append(Column(**row))
    return found


@contextmanager
def looking(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, row_factory=dict_row, options="-c timezone=UTC") as connection:
        yield connection


def add_row(connection: Connection, table: str, columns: list[Column]) -> None:
    """A row more, in the columns that are named and no others, as a program writes one that knows no others."""
    given = [column for column in columns if not column.assigned]
    names = ", ".join(f'"{column.name}"' for column in given)
    for attempt in range(_ATTEMPTS):
        (there,) = connection.execute(f"SELECT EXISTS (SELECT FROM {table}) AS are").fetchall()  # noqa: S608 - named by the database
        values = ", ".join(column.value(copied=there["are"]) for column in given)
        source = f"FROM {table} t ORDER BY random() LIMIT 1" if there["are"] else ""
        try:
            with connection.transaction():
                connection.execute(f"INSERT INTO {table} ({names}) SELECT {values} {source}")
                # What is told at the commit as well.
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                connection.execute("SET CONSTRAINTS ALL DEFERRED")
        except (psycopg.errors.UniqueViolation, psycopg.errors.CheckViolation):
            # Another row to copy, or another one to refer to.
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def fill(url: str, schema: Schema | None = None) -> None:
    """A row more in each table, what others refer to first."""
    with looking(url) as connection:
        tables = schema or schema_of(connection)
        left = {name: columns for name, columns in tables.items() if name != _LOG}
        while left:
            ready = [
                name
                for name, columns in left.items()
                if not any(column.refers_to in left and column.refers_to != name for column in columns)
            ]
            assert ready, f"refer to each other: {sorted(left)}"
            for name in ready:
                add_row(connection, name, left.pop(name))


def contents(url: str) -> Contents:
    with looking(url) as connection:
        return {
            name: [
                json.loads(_VERSION_OF_A_UUID.sub("x", row["row"]))
                for row in connection.execute(f"SELECT to_jsonb(t)::text AS row FROM {name} t")  # noqa: S608 - named by the database
            ]
            for name in schema_of(connection)
        }


def assert_survived(before: Contents, after: Contents, *, revision: str) -> None:
    """What both have a place for is the same."""
    for name in before.keys() & after.keys():
        was, now = before[name], after[name]
        assert name == _LOG or len(was) == len(now), f"{revision}: {name} has other rows"
        common = set(was[0]) & set(now[0]) if was and now else set()
        had, has = [
            Counter(json.dumps({column: row[column] for column in sorted(common)}) for row in rows)
            for rows in (was, now)
        ]
        assert not had - has, f"{revision}: {name} lost {list(had - has)[:3]}"


def use_as_before(url: str, before: Schema, *, revision: str) -> None:
    """What a program does that knows the columns of the revision before: reads, makes and changes rows by name."""
    with looking(url) as connection:
        now = schema_of(connection)
        for name, columns in before.items():
            types = {column.name: column.type for column in now.get(name, [])}
            for column in columns:
                assert types.get(column.name) == column.type, f"{revision} takes {name}.{column.name} away"
            names = ", ".join(f'"{column.name}"' for column in columns)
            connection.execute(f"SELECT {names} FROM {name} LIMIT 1")  # noqa: S608 - named by the database
            changed = ", ".join(f'"{column.name}" = "{column.name}"' for column in columns if not column.assigned)
            with connection.transaction(force_rollback=True):
                try:
                    connection.execute(f"UPDATE {name} SET {changed}")  # noqa: S608 - named by the database
                except psycopg.IntegrityError as error:
                    if "append-only" not in str(error):
                        raise
    fill(url, before)


@pytest.fixture
def used(new_database: Databases) -> Iterator[str]:
    """A record that has everything in it."""
    with new_database() as url:
        populate(url, requests=300, vacuum=False)
        asyncio.run(_grant(url))
        fill(url)
        assert all(contents(url).values())
        yield url


async def _grant(url: str) -> None:
    """A grant that lasts."""
    async with Database(url) as db:
        record = Record(db)
        cast = await record.cast()
        await record.decide(await record.submit(cast.template, cast.requester), Action.APPROVE, cast.approver)


def revisions() -> list[str]:
    """Oldest first."""
    return [script.revision for script in ScriptDirectory.from_config(migrate._config()).walk_revisions()][::-1]


def test_each_revision_goes_down_and_up_on_data(used: str) -> None:
    for newer, older in pairwise(revisions()[::-1]):
        there = contents(used)
        migrate.downgrade(used, older)
        assert_survived(there, contents(used), revision=f"down from {newer}")
    for older, newer in pairwise(revisions()):
        fill(used)
        with looking(used) as connection:
            schema = schema_of(connection)
        there = contents(used)
        assert all(there[name] for name in schema), older
        migrate.upgrade(used, newer)
        assert_survived(there, contents(used), revision=f"up to {newer}")
        use_as_before(used, schema, revision=newer)
    migrate.check(used)
    migrate.downgrade(used, "base")
    with looking(used) as connection:
        assert schema_of(connection) == {}


async def test_the_newest_revision_is_reached_from_the_first_in_one_go(used: str) -> None:
    """As by somebody who left out every version in between; all in one transaction."""
    first, *_, newest = revisions()
    migrate.downgrade(used, first)
    there = contents(used)
    assert migrate.upgrade(used)[-1] == newest
    assert_survived(there, contents(used), revision="up from the first")
    migrate.check(used)
    fill(used)
    async with Database(used) as db:
        chain, broken = await audit_log.verify(db)
        assert broken is None
        assert chain.length > 0


async def test_temporary_groups_keep_their_members_mappings_and_tokens_when_their_ids_change(
    new_database: Databases,
) -> None:
    """Migration 0010. What an older program still makes has such an id as well."""
    with new_database() as url:
        await _grant(url)
        migrate.downgrade(url, "0009")
        drawn_on, ordinary = uuid4(), uuid4()
        with looking(url) as connection:
            (group,) = connection.execute("SELECT * FROM groups WHERE system ORDER BY id LIMIT 1").fetchall()
            connection.execute(
                """
                WITH m AS (UPDATE group_members SET group_id = %(new)s WHERE group_id = %(old)s),
                     l AS (UPDATE app_mapping_groups SET group_id = %(new)s WHERE group_id = %(old)s)
                UPDATE groups SET id = %(new)s WHERE id = %(old)s
                """,
                {"new": drawn_on, "old": group["id"]},
            )
            connection.execute(
                """
                INSERT INTO access_tokens (jti, user_id, app_id, group_ids, expires_at)
                SELECT gen_random_uuid(), u.id, a.id, %s, now() FROM users u, applications a LIMIT 1
                """,
                [[ordinary, drawn_on]],
            )
        there = contents(url)
        migrate.upgrade(url)
        assert_survived(there, contents(url), revision="0010")
        with looking(url) as connection:
            (row,) = connection.execute("SELECT group_ids FROM access_tokens").fetchall()
            assert row["group_ids"][0] == ordinary
            assert row["group_ids"][1].version == 8
            (kept,) = connection.execute(
                "SELECT id FROM groups WHERE request_id = %s", [group["request_id"]]
            ).fetchall()
            assert kept["id"] == row["group_ids"][1]
        async with Database(url) as db:
            assert [each.name for each in await auditing.record_invariants(db) if each.violations] == []
