"""The audit log has every administrative change, and shows when somebody changed it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
import psycopg.sql
import pytest
from sqlmodel import SQLModel

from db import acting, applications, audit_log, groups, migrate, signing_keys, tokens, users
from db.administrators import OPERATOR
from db.database import Database
from db.paging import Position
from domain.audit_log import AuditEntry, Change, Kind
from domain.directory import GroupValues, UserValues
from domain.states import Action
from tests.record import SECRET, Record

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


async def test_a_table_of_the_same_name_catches_no_entry(db: Database, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TEMPORARY TABLE audit_log (LIKE public.audit_log)")
        connection.execute("INSERT INTO groups (id, name, description) VALUES (gen_random_uuid(), 'by hand', '')")
    assert len(await entries(db, Kind.GROUPS)) == 1


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
            SELECT c.relname, t.tgargs FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
            WHERE t.tgfoid = 'audit_change'::regproc
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


_ANEW: Final = "hash = sha256(coalesce((SELECT hash FROM audit_log WHERE id = 2), '') || convert_to({0}, 'UTF8'))"
TAMPERED: Final = {
    "edited": "UPDATE audit_log SET entry = replace(entry, 'team', 'mob') WHERE id = 3",
    "blamed on another": "UPDATE audit_log SET actor = 'somebody' WHERE id = 3",
    "dated back": "UPDATE audit_log SET at = at - interval '1 year' WHERE id = 3",
    "dated by a microsecond": "UPDATE audit_log SET at = at - interval '1 microsecond' WHERE id = 3",
    "dated never": "UPDATE audit_log SET at = '-infinity' WHERE id = 3",
    "listed as another change": "UPDATE audit_log SET action = 'delete' WHERE id = 3",
    "listed as another kind": "UPDATE audit_log SET kind = 'users' WHERE id = 3",
    "listed as another object": "UPDATE audit_log SET object_id = 'x' WHERE id = 3",
    "left out": "DELETE FROM audit_log WHERE id = 3",
    "left out, the others moved up": "DELETE FROM audit_log WHERE id = 3; "
    "UPDATE audit_log SET id = id - 1 WHERE id > 3",
    "swapped": "UPDATE audit_log SET id = -3 WHERE id = 3; UPDATE audit_log SET id = 3 WHERE id = 4; "
    "UPDATE audit_log SET id = 4 WHERE id = -3",
    "there twice": "ALTER TABLE audit_log DROP CONSTRAINT pk_audit_log; "
    "INSERT INTO audit_log SELECT * FROM audit_log WHERE id = 2",
    "without a number": "ALTER TABLE audit_log DROP CONSTRAINT pk_audit_log; "
    "ALTER TABLE audit_log ALTER id DROP NOT NULL; UPDATE audit_log SET id = NULL WHERE id = 3",
    "without a hash": "ALTER TABLE audit_log ALTER hash DROP NOT NULL; UPDATE audit_log SET hash = NULL WHERE id = 3",
    "without a text": "ALTER TABLE audit_log ALTER entry DROP NOT NULL; UPDATE audit_log SET entry = NULL WHERE id = 3",
    "without an actor": "ALTER TABLE audit_log ALTER actor DROP NOT NULL; "
    "UPDATE audit_log SET actor = NULL WHERE id = 3",
    "hash made anew": "UPDATE audit_log SET entry = replace(entry, 'team', 'mob'), "
    "hash = sha256(convert_to(replace(entry, 'team', 'mob'), 'UTF8')) WHERE id = 3",
    **{
        f"written as {text}": f"UPDATE audit_log SET entry = {text}, {_ANEW.format(text)} WHERE id = 3"  # noqa: S608 - written below
        for text in (
            "'no JSON'",
            "'[]'",
            "'null'",
            "'{}'",
            "repeat('[', 100000)",
            "replace(entry, '\"id\": 3', '\"id\": true')",
            "replace(entry, '\"id\": 3', '\"id\": 3.0')",
            "replace(entry, '\"before\": null', '\"before\": 7')",
            "replace(entry, '\"request_id\": null', '\"request_id\": [1]')",
            "(entry::jsonb - 'after')::text",
        )
    },
}
BEFORE_ALL: Final = {
    "numbered 0": "UPDATE audit_log SET id = 0 WHERE id = 3",
    "numbered below": "UPDATE audit_log SET id = -7 WHERE id = 3",
}


async def _five(db: Database) -> None:
    for number in range(5):
        await groups.create(db, OPERATOR, GroupValues(name=f"team {number}"))


def _tamper(database_url: str, statement: str) -> None:
    """As the owner of the database can."""
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE audit_log DISABLE TRIGGER USER")
        connection.execute(statement)


@pytest.mark.parametrize("how", TAMPERED)
async def test_tampering_is_found(db: Database, database_url: str, how: str) -> None:
    await _five(db)
    _tamper(database_url, TAMPERED[how])
    chain, broken = await audit_log.verify(db)
    assert broken is not None
    # What has no number is read first, and what is there twice is the second of the two.
    assert broken.id == {"there twice": 2, "without a number": 0}.get(how, 3)
    assert chain.length == {"without a number": 0}.get(how, 2)


@pytest.mark.parametrize("entry", ["nothing", "[]", "{}", '{"id": 3}', "null", "[" * 100_000])
async def test_an_entry_that_cannot_be_read_is_listed_as_such(db: Database, database_url: str, entry: str) -> None:
    await _five(db)
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE audit_log DISABLE TRIGGER USER")
        connection.execute("UPDATE audit_log SET entry = %s, action = 'lost' WHERE id = 3", [entry])
    listed = (await audit_log.list_entries(db, Position(), kinds=list(Kind))).items
    assert [each.id for each in listed] == [5, 4, 3, 2, 1]
    (unreadable,) = [each for each in listed if each.unreadable]
    assert (unreadable.id, unreadable.before, unreadable.after) == (3, None, None)
    assert unreadable.actor == listed[-1].actor


@pytest.mark.parametrize("how", BEFORE_ALL)
async def test_what_is_numbered_as_no_entry_is_found(db: Database, database_url: str, how: str) -> None:
    await _five(db)
    _tamper(database_url, BEFORE_ALL[how])
    chain, broken = await audit_log.verify(db)
    assert broken is not None
    assert broken.id < 1
    assert chain.length == 0


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


async def test_what_ends_with_its_group_or_mapping_has_an_entry(db: Database, record: Record) -> None:
    people = [await record.user() for _ in range(3)]
    group, other = await record.group(*people), await record.group()
    mapping, second = [await record.mapping(await record.application()) for _ in range(2)]
    for attached, to in ((mapping, group), (second, group), (second, other)):
        await applications.attach(db, attached.id, to.id)
    with acting.acting("dana@example.com"):
        await groups.delete(db, OPERATOR, group.id)
        await applications.delete_mapping(db, second.id)
    ended = [entry for entry in await entries(db) if entry.action is Change.DELETE]
    assert {entry.actor for entry in ended} == {"dana@example.com"}
    assert sorted((entry.kind, entry.object_id) for entry in ended) == sorted([
        (Kind.GROUPS, str(group.id)),
        (Kind.MAPPINGS, str(second.id)),
        *((Kind.MEMBERS, f"{group.id}/{person.id}") for person in people),
        *((Kind.MAPPING_GROUPS, f"{attached.id}/{to.id}") for attached, to in (
            (mapping, group), (second, group), (second, other)
        )),
    ])  # fmt: skip


@pytest.mark.parametrize("when", ["DEFERRED", "IMMEDIATE"])
async def test_who_deletes_by_hand_cannot_choose_what_has_an_entry(
    db: Database, record: Record, database_url: str, when: str
) -> None:
    """Whenever the triggers run, before the group is gone or after."""
    group = await record.group(await record.user())
    with psycopg.connect(database_url) as connection:
        connection.execute(f"SET CONSTRAINTS ALL {when}")
        connection.execute("UPDATE groups SET name = 'of no concern' WHERE id = %s", [group.id])
        connection.execute("DELETE FROM groups WHERE id = %s", [group.id])
    assert sorted(entry.kind for entry in await entries(db) if entry.action is Change.DELETE) == [
        "group_members",
        "groups",
    ]


@pytest.mark.parametrize("kind", Kind)
async def test_no_table_is_emptied_at_once(database_url: str, kind: Kind) -> None:
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.IntegrityError, match="do not truncate"):
        connection.execute(psycopg.sql.SQL("TRUNCATE {} CASCADE").format(psycopg.sql.Identifier(kind)))


async def test_a_group_is_temporary_or_not_for_ever(db: Database, record: Record) -> None:
    """By its id: or its members could be hidden from the log by making it one for a moment."""
    cast = await record.cast()
    request_id = await record.submit(cast.template, cast.requester)
    await record.decide(request_id, Action.APPROVE, cast.approver)
    (temporary,) = await record.temporary_groups(request_id)
    for turned_into, group_id in (
        ("system = false, request_id = NULL, expires_at = NULL", temporary["id"]),
        ("system = true, request_id = gen_random_uuid(), expires_at = now()", cast.team.id),
    ):
        with pytest.raises(psycopg.errors.CheckViolation, match="system_by_id"):
            await record.execute(f"UPDATE groups SET {turned_into} WHERE id = %s", group_id)  # noqa: S608 - above
    empty = await record.group()
    seen = len(await entries(db))
    await record.execute(
        """
        UPDATE groups SET id = overlay(id::text PLACING '8' FROM 15)::uuid, system = true,
            request_id = gen_random_uuid(), expires_at = now() WHERE id = %s
        """,
        empty.id,
    )
    (turned,) = (await entries(db))[seen:]
    assert turned.after is not None
    assert turned.after["system"]
    await record.execute(
        """
        UPDATE groups SET id = %s, system = false, request_id = NULL, expires_at = NULL WHERE id = %s
        """,
        empty.id,
        turned.after["id"],
    )
    assert (await entries(db))[-1].before == turned.after


async def test_a_temporary_group_of_the_version_before_is_given_an_id_that_tells(db: Database, record: Record) -> None:
    cast = await record.cast()
    before = len(await entries(db))
    await record.execute(
        """
        WITH granted AS (
            INSERT INTO groups (id, name, description, permissions, system, request_id, expires_at)
            VALUES (gen_random_uuid(), '__access_req_1', '', '{}', true, gen_random_uuid(), now()) RETURNING id
        ), member AS (INSERT INTO group_members (group_id, user_id) SELECT id, %s FROM granted)
        INSERT INTO app_mapping_groups (mapping_id, group_id) SELECT %s, id FROM granted
        """,
        cast.requester.id,
        cast.mapping.id,
    )
    (linked,) = await record.query(
        """
        SELECT g.id FROM groups g JOIN group_members m ON m.group_id = g.id
        JOIN app_mapping_groups l ON l.group_id = g.id WHERE g.system
        """
    )
    assert linked["id"].version == 8
    await record.execute("DELETE FROM groups WHERE system")
    assert len(await entries(db)) == before


async def test_a_grant_asks_nothing_of_the_triggers(record: Record) -> None:
    """Their WHEN clauses spare it: no function is called, when it opens or when it ends."""
    cast = await record.cast()
    request_id = await record.submit(cast.template, cast.requester)
    await record.execute(
        "CREATE OR REPLACE FUNCTION audit_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END'"
    )
    await record.decide(request_id, Action.APPROVE, cast.approver)
    assert len(await record.temporary_groups(request_id)) == 1
    await record.decide(request_id, Action.REVOKE, cast.requester)
    assert await record.temporary_groups(request_id) == []
    with pytest.raises(psycopg.errors.RaiseException, match="called"):
        await record.execute("INSERT INTO groups (id, name, description) VALUES (gen_random_uuid(), 'by hand', '')")


async def test_the_first_signing_key_is_made_by_the_service(db: Database) -> None:
    await signing_keys.ensure(db, signing_keys.Vault(SECRET))
    (made,) = await entries(db, Kind.SIGNING_KEYS)
    assert made.actor == "system:first-signing-key"
    assert made.after is not None
    assert made.after["private_key"] == "(hidden)"


async def test_the_list_is_by_time_and_its_filters_fit_exactly(db: Database, database_url: str) -> None:
    """Also where the clock of the database was put back."""
    await _five(db)
    _tamper(database_url, "UPDATE audit_log SET at = '2026-01-01Z'::timestamptz + CASE id WHEN 4 THEN 1 ELSE id END * "
                          "interval '1 hour'")  # fmt: skip

    async def found(**filters: Any) -> list[int]:
        ids, cursor = [], None
        while True:
            page = await audit_log.list_entries(db, Position.of(1, cursor), kinds=ALL, **filters)
            ids += [entry.id for entry in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return ids

    def at(hour: int) -> datetime:
        return datetime(2026, 1, 1, hour, tzinfo=UTC)

    assert await found() == [5, 3, 2, 4, 1]
    assert await found(since=at(2)) == [5, 3, 2]
    assert await found(until=at(3)) == [2, 4, 1]
    assert await found(since=at(1), until=at(2)) == [4, 1]
    assert await found(since=at(2), until=at(2)) == []
    (entry,) = (await audit_log.list_entries(db, Position(1), kinds=ALL)).items
    assert await found(object_id=entry.object_id, actor=entry.actor, since=at(5)) == [5]
    assert await found(object_id=entry.object_id, actor="somebody else") == []
    assert [each.id async for each in audit_log.stream(db, since=at(1), until=at(3))] == [1, 2, 4]


def test_the_migration_goes_and_comes(new_database: Callable[[], AbstractContextManager[str]]) -> None:
    with new_database() as url:
        migrate.downgrade(url, "0007")
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO groups (id, name, description) VALUES (gen_random_uuid(), 'unseen', '')")
        migrate.upgrade(url)
        migrate.check(url)
