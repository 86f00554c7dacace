"""The audit log has every administrative change, and shows when somebody changed it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

import psycopg
import pytest
from sqlmodel import SQLModel

from db import acting, applications, audit_log, groups, migrate, tokens, users
from db.administrators import OPERATOR
from db.database import Database
from db.paging import Position
from domain.audit_log import AuditEntry, Change, Kind
from domain.directory import GroupValues, UserValues
from domain.states import Action
from tests.record import Record

ALL: Final = tuple(Kind)


async def entries(db: Database, *kinds: Kind) -> list[AuditEntry]:
    """Oldest first."""
    page = await audit_log.list_entries(db, Position(200), kinds=kinds or ALL)
    assert page.next_cursor is None
    return page.items[::-1]


async def test_a_change_says_who_did_what_and_how_it_was_before(db: Database) -> None:
    with acting.acting("dana@example.com"):
        view = await users.create(db, UserValues(email="erin@example.com", name="Erin"))
        await users.replace(db, OPERATOR, view.id, UserValues(email="erin@example.com", name="Erin E."))
    first, second = await entries(db, Kind.USERS)
    assert (first.action, first.actor, first.before, first.object_id) == (
        Change.INSERT,
        "dana@example.com",
        None,
        str(view.id),
    )
    assert second.action is Change.UPDATE
    assert second.before is not None
    assert second.after is not None
    assert (second.before["name"], second.after["name"]) == ("Erin", "Erin E.")


async def test_whoever_changes_the_tables_by_themselves_is_seen(db: Database, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO groups (id, name, description) VALUES (gen_random_uuid(), 'by hand', '')")
    (entry,) = await entries(db, Kind.GROUPS)
    assert entry.actor.startswith("database:")


async def test_what_is_rolled_back_was_not(db: Database, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO groups (id, name, description) VALUES (gen_random_uuid(), 'by hand', '')")
        connection.rollback()
    assert await entries(db) == []


async def test_secrets_are_in_no_entry(db: Database, record: Record) -> None:
    user = await record.user()
    token = await tokens.create_token(db, user.id, "laptop", None)
    application = await record.application()
    secret = await applications.rotate_client_secret(db, application.id)
    again = await applications.rotate_client_secret(db, application.id)
    await db_use(db, token.token)
    said = json.dumps([entry.model_dump(mode="json") for entry in await entries(db)])
    for hushed in (token.token, tokens.digest(token.token).hex(), secret.client_secret, again.client_secret):
        assert hushed not in said
    (made,) = await entries(db, Kind.TOKENS)
    assert made.after is not None
    assert made.after["token_hash"] == "(hidden)"
    changed = (await entries(db, Kind.APPLICATIONS))[-1]
    assert changed.after is not None
    assert changed.after["client_secret_hash"] == "(hidden, changed)"


async def db_use(db: Database, token: str) -> None:
    assert await tokens.authenticate(db, token) is not None


async def test_no_column_that_holds_a_secret_is_logged(database_url: str) -> None:
    """Whatever is stored as bytes is a hash or sealed. A new such column fails here until it is hidden."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            """
            SELECT c.relname, t.tgargs FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgname = 'audit'
            """
        ).fetchall()
    assert {name for name, _ in rows} == {str(kind) for kind in Kind}
    for name, arguments in rows:
        hidden = arguments.split(b"\x00")[2].decode().strip("{}").split(",")
        sealed = {column.name for column in SQLModel.metadata.tables[name].columns if column.type.python_type is bytes}
        assert sealed <= set(hidden), name


async def test_what_grants_do_is_in_their_timelines_alone(db: Database, record: Record) -> None:
    cast = await record.cast()
    request_id = await record.submit(cast.template, cast.requester)
    before = len(await entries(db))
    await record.decide(request_id, Action.APPROVE, cast.approver)
    await record.decide(request_id, Action.REVOKE, cast.requester)
    assert len(await entries(db)) == before


async def test_bookkeeping_is_no_change(db: Database, record: Record) -> None:
    user = await record.user()
    token = await tokens.create_token(db, user.id, "laptop", None)
    await db_use(db, token.token)
    assert [entry.action for entry in await entries(db, Kind.TOKENS)] == [Change.INSERT]


async def test_changes_at_the_same_moment_make_one_chain(db: Database, record: Record) -> None:
    user = await record.user()
    person = await record.group(user)

    async def change(number: int) -> None:
        with acting.acting(f"admin-{number}@example.com"):
            group = await groups.create(db, OPERATOR, GroupValues(name=f"team {number}"))
            await groups.add_member(db, OPERATOR, group.id, user.id)
            await groups.replace(db, OPERATOR, person.id, GroupValues(name=f"renamed {number}"))

    await asyncio.gather(*(change(number) for number in range(20)))
    chain, broken = await audit_log.verify(db)
    assert broken is None
    assert chain.length == len(await entries(db))
    made = [entry for entry in await entries(db, Kind.GROUPS) if entry.after and entry.after["name"].startswith("team")]
    assert {entry.actor for entry in made} == {f"admin-{number}@example.com" for number in range(20)}


TAMPERED: Final = {
    "edited": "UPDATE audit_log SET entry = replace(entry, 'team', 'mob') WHERE id = 3",
    "blamed on another": "UPDATE audit_log SET actor = 'somebody' WHERE id = 3",
    "left out": "DELETE FROM audit_log WHERE id = 3",
    "left out, the others moved up": "DELETE FROM audit_log WHERE id = 3; "
    "UPDATE audit_log SET id = id - 1 WHERE id > 3",
    "swapped": "UPDATE audit_log SET id = -3 WHERE id = 3; UPDATE audit_log SET id = 3 WHERE id = 4; "
    "UPDATE audit_log SET id = 4 WHERE id = -3",
    "hash made anew": "UPDATE audit_log SET entry = replace(entry, 'team', 'mob'), "
    "hash = sha256(convert_to(replace(entry, 'team', 'mob'), 'UTF8')) WHERE id = 3",
}


async def _five(db: Database) -> None:
    for number in range(5):
        await groups.create(db, OPERATOR, GroupValues(name=f"team {number}"))


@pytest.mark.parametrize("how", TAMPERED)
async def test_tampering_is_found(db: Database, database_url: str, how: str) -> None:
    await _five(db)
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE audit_log DISABLE TRIGGER USER")
        connection.execute(TAMPERED[how])
    chain, broken = await audit_log.verify(db)
    assert broken is not None
    assert broken.id == 3
    assert chain.length == 2


async def test_an_anchor_shows_a_log_that_was_cut_off_or_written_anew(db: Database, database_url: str) -> None:
    await _five(db)
    chain, _ = await audit_log.verify(db)
    anchor = (chain.length, chain.head.hex())
    assert (await audit_log.verify(db, anchor=anchor))[1] is None
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE audit_log DISABLE TRIGGER USER")
        connection.execute("DELETE FROM audit_log WHERE id > 3")
        connection.execute("ALTER TABLE audit_log ENABLE TRIGGER USER")
    assert (await audit_log.verify(db))[1] is None
    cut = (await audit_log.verify(db, anchor=anchor))[1]
    assert cut is not None
    assert "cut off" in cut.why
    for number in range(2):
        await groups.create(db, OPERATOR, GroupValues(name=f"another {number}"))
    anew = (await audit_log.verify(db, anchor=anchor))[1]
    assert anew is not None
    assert "anew" in anew.why


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"]
)
async def test_entries_stay(db: Database, database_url: str, statement: str) -> None:
    await _five(db)
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.IntegrityError, match="append-only"):
        connection.execute(statement)


async def test_pages_follow_each_other(db: Database) -> None:
    await _five(db)
    first = await audit_log.list_entries(db, Position(2), kinds=ALL)
    second = await audit_log.list_entries(db, Position.of(2, first.next_cursor), kinds=ALL)
    assert [entry.id for entry in (*first.items, *second.items)] == [5, 4, 3, 2]
    assert [entry.id async for entry in audit_log.stream(db)] == [1, 2, 3, 4, 5]


def test_the_migration_goes_and_comes(new_database: Callable[[], AbstractContextManager[str]]) -> None:
    with new_database() as url:
        migrate.downgrade(url, "0007")
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO groups (id, name, description) VALUES (gen_random_uuid(), 'unseen', '')")
        migrate.upgrade(url)
        migrate.check(url)
