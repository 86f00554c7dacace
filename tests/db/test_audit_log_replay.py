"""Whoever replays the audit log has what is in the tables now: nothing that changed them is missing from it.

Changes come by all means there are: through the functions of the product, by statements in `psql`, by what ends
together with what it belongs to, several in a transaction or one, while grants open and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.rows import dict_row
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError

from db import (
    applications,
    audit_log,
    groups,
    identities,
    integrations,
    secrets,
    signing_keys,
    tasks,
    templates,
    tokens,
    users,
)
from db.administrators import OPERATOR
from db.database import Database
from db.identities import GroupsSaid, Identity
from db.secrets import SecretVault
from domain.access_tokens import Algorithm
from domain.audit_log import Kind
from domain.directory import ApplicationValues, GroupValues, UserValues
from domain.errors import AccessError
from domain.events import Event
from domain.integrations import IntegrationValues, Target
from domain.secrets import NewSecret
from domain.states import Action
from domain.tasks import TaskValues
from tests.conftest import Databases
from tests.record import SECRET, Record

Row = dict[str, Any]
Tables = dict[str, dict[tuple[str, ...], Row]]

_AUDITED: Final = """
    SELECT DISTINCT t.tgrelid::regclass::text AS name, t.tgargs AS arguments FROM pg_trigger t
    WHERE t.tgfoid = 'audit_change'::regproc
"""
_GIVES_NO_ENTRY: Final = {
    "groups": "NOT system",
    "group_members": "group_id NOT IN (SELECT id FROM groups WHERE system)",
    "app_mapping_groups": "group_id NOT IN (SELECT id FROM groups WHERE system)",
}


@dataclass(frozen=True)
class Audited:
    """A table that the log has, and how."""

    name: str
    keys: list[str]
    ignored: list[str]
    hidden: list[str]

    @classmethod
    def all(cls, connection: psycopg.Connection[Any]) -> list[Audited]:
        rows = connection.execute(_AUDITED).fetchall()
        assert {row["name"] for row in rows} == set(Kind)
        return [
            cls(row["name"], *([*filter(None, each.decode().strip("{}").split(","))] for each in _split(row)))
            for row in rows
        ]

    def key(self, row: Row) -> tuple[str, ...]:
        return tuple(row[column] for column in self.keys)

    def shown(self, row: Row) -> Row:
        """Without what nobody may read, which is compared by whether it is there."""
        return {
            name: "(hidden)" if name in self.hidden and value is not None else value
            for name, value in row.items()
            if name not in self.ignored
        }

    def now(self, connection: psycopg.Connection[Any]) -> dict[tuple[str, ...], Row]:
        statement = sql.SQL("SELECT to_jsonb(t) AS row FROM {} t WHERE {}").format(
            sql.Identifier(self.name),
            sql.SQL(_GIVES_NO_ENTRY.get(self.name, "true")),
        )
        rows = [self.shown(each["row"]) for each in connection.execute(statement)]
        return {self.key(row): row for row in rows}


def _split(row: Row) -> list[bytes]:
    return bytes(row["arguments"]).split(b"\x00")[:3]


async def replayed(db: Database, audited: list[Audited]) -> Tables:
    """What the log says is there. Each entry has to know what was there before it."""
    tables: Tables = {table.name: {} for table in audited}
    by_name = {table.name: table for table in audited}
    async for entry in audit_log.stream(db):
        table, rows = by_name[entry.kind], tables[entry.kind]
        before, after = [None if row is None else table.shown(row) for row in (entry.before, entry.after)]
        if before is not None:
            assert rows.pop(table.key(before)) == before, entry
        if after is not None:
            assert table.key(after) not in rows, entry
            rows[table.key(after)] = after
        assert entry.object_id == "/".join(table.key(after or before or {}))
    return tables


@dataclass
class World:
    """A record, and whoever changes it; what a step is about is picked among what there is."""

    db: Database
    url: str
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    vault: SecretVault = field(default_factory=lambda: SecretVault(SecretStr(SECRET)))

    @property
    def record(self) -> Record:
        return Record(self.db)

    def name(self) -> str:
        return f"name {next(self.numbers)}"

    async def pick(self, kind: str, number: int, where: str = "true") -> Row:
        rows = await self.record.query(f"SELECT * FROM {kind} WHERE {where} ORDER BY 1, 2")  # noqa: S608 - by the steps below
        if not rows:
            raise _NothingThere
        return rows[number % len(rows)]

    async def group(self, number: int) -> Row:
        return await self.pick("groups", number, "NOT system")


class _NothingThere(Exception):
    """A step has nothing to be about yet."""


Step = Callable[[World, int, int], Awaitable[object]]


async def _hire(world: World, *_: int) -> None:
    await world.record.user()


async def _rename_person(world: World, one: int, two: int) -> None:
    user = await world.pick("users", one)
    values = UserValues(email=user["email"], name=world.name(), active=two % 3 > 0)
    await users.replace(world.db, OPERATOR, user["id"], values)


async def _group(world: World, *_: int) -> None:
    await world.record.group()


async def _rename_group(world: World, one: int, _: int) -> None:
    group = await world.group(one)
    await groups.replace(world.db, OPERATOR, group["id"], GroupValues(name=world.name()))


async def _delete_group(world: World, one: int, _: int) -> None:
    await groups.delete(world.db, OPERATOR, (await world.group(one))["id"])


async def _join(world: World, one: int, two: int) -> None:
    user = await world.pick("users", two)
    await groups.add_member(world.db, OPERATOR, (await world.group(one))["id"], user["id"])


async def _leave(world: World, one: int, _: int) -> None:
    member = await world.pick("group_members", one)
    await groups.remove_member(world.db, OPERATOR, member["group_id"], member["user_id"])


async def _application(world: World, *_: int) -> None:
    await world.record.application()


async def _rename_application(world: World, one: int, _: int) -> None:
    application = await world.pick("applications", one)
    await applications.replace_application(world.db, application["id"], ApplicationValues(name=world.name()))


async def _client_secret(world: World, one: int, _: int) -> None:
    await applications.rotate_client_secret(world.db, (await world.pick("applications", one))["id"])


async def _delete_application(world: World, one: int, _: int) -> None:
    await applications.delete_application(world.db, (await world.pick("applications", one))["id"])


async def _mapping(world: World, one: int, _: int) -> None:
    application = await applications.get_application(world.db, (await world.pick("applications", one))["id"])
    await world.record.mapping(application)


async def _attach(world: World, one: int, two: int) -> None:
    mapping = await world.pick("app_mappings", two)
    await applications.attach(world.db, mapping["id"], (await world.group(one))["id"])


async def _delete_mapping(world: World, one: int, _: int) -> None:
    await applications.delete_mapping(world.db, (await world.pick("app_mappings", one))["id"])


async def _template(world: World, one: int, two: int) -> None:
    group = await world.group(two)
    application = await world.pick("applications", one)
    named = {"approver_group_ids": [group["id"]]} if two % 2 else {"escalation_group_id": group["id"]}
    await world.record.template(app_id=application["id"], **named)


async def _delete_template(world: World, one: int, _: int) -> None:
    await templates.delete(world.db, (await world.pick("access_request_templates", one))["id"])


async def _grant(world: World, _: int, two: int) -> None:
    """Opens a temporary group, and every other time closes it again."""
    cast = await world.record.cast()
    request_id = await world.record.submit(cast.template, cast.requester)
    await world.record.decide(request_id, Action.APPROVE, cast.approver)
    if two % 2:
        await world.record.decide(request_id, Action.REVOKE, cast.requester)


async def _token(world: World, one: int, _: int) -> None:
    user = await world.pick("users", one)
    made = await tokens.create_token(world.db, user["id"], world.name(), timedelta(days=1))
    await tokens.authenticate(world.db, made.token)


async def _revoke_token(world: World, one: int, _: int) -> None:
    await tokens.revoke_token(world.db, (await world.pick("api_tokens", one))["id"])


async def _issuer_says(world: World, one: int, two: int) -> None:
    group = await world.group(two)
    identity = Identity(
        "https://issuer.example.com",
        f"subject {one % 3}",
        email=f"subject.{one % 3}@example.com",
        creates=True,
        groups=GroupsSaid(frozenset({group["name"]} if two % 2 else ()), await _moment(world)),
    )
    await identities.admit(world.db, identity)


async def _moment(world: World) -> Any:
    (row,) = await world.record.query("SELECT now() AS at")
    return row["at"]


async def _unlink(world: World, one: int, _: int) -> None:
    identity = await world.pick("user_identities", one)
    await identities.unlink(world.db, identity["issuer"], identity["subject"])


async def _signing_key(world: World, one: int, _: int) -> None:
    await signing_keys.rotate(
        world.db, signing_keys.Vault(SECRET), Algorithm.ES256, now=one % 2 > 0, compromised=one % 3 == 0
    )


async def _secret(world: World, *_: int) -> None:
    values = NewSecret(name=f"SECRET_{next(world.numbers)}", value=SecretStr("hush"))
    await secrets.create(world.db, world.vault, values)


async def _rotate_secrets(world: World, one: int, _: int) -> None:
    key = SecretStr(f"another key for {one % 3} that is long enough")
    world.vault = SecretVault(SecretStr(SECRET), (key,))
    await secrets.rotate(world.db, world.vault)


async def _task(world: World, *_: int) -> None:
    await tasks.create(world.db, TaskValues(name=world.name(), script="def run(): ..."))


async def _delete_task(world: World, one: int, _: int) -> None:
    await tasks.delete(world.db, (await world.pick("scheduled_tasks", one))["id"])


async def _integration(world: World, one: int, two: int) -> None:
    """Bound to a template or an application, with which it ends."""
    bound: dict[str, Any] = (
        {"template_id": (await world.pick("access_request_templates", one))["id"]}
        if two % 2
        else {"app_id": (await world.pick("applications", one))["id"]}
    )
    values = IntegrationValues(name=world.name(), target=Target.EMAIL, events=[Event.APPROVED], **bound)
    await integrations.create(world.db, world.vault, values)


async def _by_hand(world: World, one: int, two: int) -> None:
    """What somebody does in `psql`, in another time zone; a part is taken back, or the triggers have to hurry."""
    kind = list(Kind)[one % len(Kind)]
    texts = {"group_members": "issuer", "api_tokens": "name", "user_identities": None, "signing_keys": "algorithm",
             "app_mapping_groups": None, "users": "name"}  # fmt: skip
    column = texts.get(kind, "name")
    table = sql.Identifier(kind)
    ordinary = sql.SQL(_GIVES_NO_ENTRY.get(kind, "true"))
    row = sql.SQL("ctid = (SELECT ctid FROM {} WHERE {} ORDER BY ctid OFFSET {} LIMIT 1)").format(
        table, ordinary, sql.Literal(two % 5)
    )
    with psycopg.connect(world.url) as connection:
        connection.execute("SET timezone = 'Asia/Kathmandu'")
        if two % 2:
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        if column is not None:
            update = sql.SQL("UPDATE {} SET {} = {} WHERE {}")
            changed = sql.Literal(world.name() if kind != "secrets" else f"BY_HAND_{next(world.numbers)}")
            connection.execute(update.format(table, sql.Identifier(column), changed, row))
        with contextlib.suppress(psycopg.IntegrityError), connection.transaction():
            connection.execute(sql.SQL("DELETE FROM {} WHERE {}").format(table, row))
            if two % 3 == 0:
                raise psycopg.Rollback
        connection.execute(
            "INSERT INTO groups (id, name, description) VALUES (%s, %s, '')", [uuid4(), f"by hand {uuid4()}"]
        )


async def _many_by_hand(world: World, one: int, two: int) -> None:
    """A statement that changes many rows, and one that moves a key."""
    with (
        psycopg.connect(world.url) as connection,
        contextlib.suppress(psycopg.IntegrityError),
        connection.transaction(),
    ):
        connection.execute("UPDATE group_members SET issuer = NULL")
        connection.execute("UPDATE groups SET description = description || 'x', system = system")
        connection.execute("UPDATE applications SET client_secret_hash = '\\x00' WHERE client_secret_hash IS NULL")
        if one % 2:
            connection.execute("UPDATE groups SET id = gen_random_uuid() WHERE NOT system AND id NOT IN ("
                               "SELECT group_id FROM group_members UNION SELECT group_id FROM app_mapping_groups "
                               "UNION SELECT unnest(approver_group_ids || escalation_group_id) "
                               "FROM access_request_templates)")  # fmt: skip
        if two % 2:
            connection.execute(
                "DELETE FROM app_mapping_groups WHERE group_id NOT IN (SELECT id FROM groups WHERE system)"
            )


STEPS: Final[dict[str, Step]] = {
    step.__name__: step
    for step in (
        _hire, _rename_person, _group, _rename_group, _delete_group, _join, _leave, _application, _rename_application,
        _client_secret, _delete_application, _mapping, _attach, _delete_mapping, _template, _delete_template, _grant,
        _token, _revoke_token, _issuer_says, _unlink, _signing_key, _secret, _rotate_secrets, _task, _delete_task,
        _integration, _by_hand, _many_by_hand,
    )
}  # fmt: skip
_FIRST: Final = ("_hire", "_group", "_join", "_application", "_mapping", "_attach", "_template", "_grant")

numbers = st.integers(0, 99)


@settings(max_examples=15)
@example(steps=[(name, number, number) for number in range(1, 4) for name in sorted(STEPS)])
@given(steps=st.lists(st.tuples(st.sampled_from(sorted(STEPS)), numbers, numbers), min_size=10, max_size=40))
def test_the_log_replayed_is_what_is_there(new_database: Databases, steps: list[tuple[str, int, int]]) -> None:
    asyncio.run(_replay_after(new_database, [*((name, 0, 0) for name in _FIRST), *steps]))


async def test_each_step_changes_something(db: Database, database_url: str) -> None:
    """Or the test above would try less than it says."""
    world = World(db, database_url)
    for name in (*_FIRST, *STEPS):
        seen = await _length(world)
        for number in range(12):
            await _take(world, (name, number, number))
            if await _length(world) > seen:
                break
        else:
            pytest.fail(f"{name} changes nothing")


async def _take(world: World, step: tuple[str, int, int]) -> None:
    name, one, two = step
    # What stands in the way of a step is refused, as it is to anybody.
    with contextlib.suppress(_NothingThere, AccessError, IntegrityError, psycopg.IntegrityError):
        await STEPS[name](world, one, two)


async def _replay_after(new_database: Databases, steps: list[tuple[str, int, int]]) -> None:
    with new_database() as url:
        async with Database(url, max_connections=2) as db:
            world = World(db, url)
            for step in steps:
                await _take(world, step)
            with psycopg.connect(url, row_factory=dict_row, options="-c timezone=UTC") as connection:
                audited = Audited.all(connection)
                there = {table.name: table.now(connection) for table in audited}
            assert await replayed(db, audited) == there
            chain, broken = await audit_log.verify(db)
            assert broken is None
            assert chain.length > len(_FIRST)


async def _length(world: World) -> int:
    (row,) = await world.record.query("SELECT count(*) AS n FROM audit_log")
    return int(row["n"])
