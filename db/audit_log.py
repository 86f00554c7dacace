"""The audit log: written by triggers of the database (migrations 0008 and 0010), read and verified here."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from db.database import Database
from db.paging import Page, Position
from domain.addresses import sought_address
from domain.audit_log import AuditEntry, Broken, Chain, Change, Kind, Link

_AT_ONCE: Final = 1_000
_INSERT: Final = 1 << 2
_KEPT: Final = 1 << 3 | 1 << 4 | 1 << 5
"""Deletions, updates and TRUNCATE, as `pg_trigger.tgtype` has them."""
_AT: Final = """to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
"""The time as an entry says it."""


async def list_entries(
    db: Database,
    position: Position,
    *,
    kinds: Collection[Kind],
    actor: str | None = None,
    object_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Page[AuditEntry]:
    """Changes, newest first.

    Args:
        db: the record.
        position: which page.
        kinds: of these things alone.
        actor: by this one alone, as the log names them; an address in any spelling, in the case that it has there.
        object_id: of this one thing.
        since: made then or later.
        until: made before.
    """
    by = ", ".join(name for name, value in (("actor", actor), ("object_id", object_id)) if value is not None)
    by = f"{by}, kind" if by else "kind"
    values = by.replace("actor", "%(actor)s").replace("object_id", "%(object_id)s").replace("kind", "wanted.kind")
    # Kind by kind, so that each is read by its index, however rare it is. And compared as rows: so there is one index
    # alone that has them in order, and the planner cannot take another and search for the few that fit.
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            WITH page AS (
                SELECT least(at, until) AS at, CASE WHEN at < until THEN %(before)s ELSE 0 END AS id
                FROM (SELECT coalesce((SELECT at FROM audit_log WHERE id = %(before)s), 'infinity') AS at,
                             coalesce(%(until)s, 'infinity'::timestamptz) AS until)
            )
            SELECT l.* FROM page, unnest(%(kinds)s::text[]) AS wanted (kind) CROSS JOIN LATERAL (
                SELECT id, at, actor, action, kind, object_id, entry, hash FROM audit_log
                WHERE ({by}, at, id) >= ({values}, coalesce(%(since)s, '-infinity'::timestamptz), 0)
                  AND ({by}, at, id) < ({values}, page.at, page.id)
                ORDER BY {by.replace(",", " DESC,")} DESC, at DESC, id DESC LIMIT %(limit)s
            ) l
            ORDER BY l.at DESC, l.id DESC LIMIT %(limit)s
            """,
            {
                "kinds": [str(kind) for kind in kinds],
                "actor": None if actor is None else sought_address(actor),
                "object_id": object_id,
                "since": since,
                "until": until,
                "before": position.before_number,
                "limit": position.limit + 1,
            },
        )
        entries = [_listed(row) for row in await rows.fetchall()]
    return Page.numbered(entries, position, lambda entry: entry.id)


async def names(db: Database, ids: Collection[UUID]) -> dict[UUID, str]:
    """What is called by these ids now; people by their address. What is gone is left out."""
    if not ids:
        return {}
    async with db.connection() as connection:
        rows = await connection.execute(
            """
            SELECT id, email AS name FROM users WHERE id = ANY(%(ids)s)
            UNION ALL SELECT id, name FROM groups WHERE id = ANY(%(ids)s)
            UNION ALL SELECT id, name FROM applications WHERE id = ANY(%(ids)s)
            UNION ALL SELECT id, name FROM app_mappings WHERE id = ANY(%(ids)s)
            UNION ALL SELECT id, name FROM access_request_templates WHERE id = ANY(%(ids)s)
            UNION ALL SELECT id, name FROM scheduled_tasks WHERE id = ANY(%(ids)s)
            """,
            {"ids": list(ids)},
        )
        return {row["id"]: row["name"] for row in await rows.fetchall()}


async def stream(
    db: Database, *, since: datetime | None = None, until: datetime | None = None
) -> AsyncIterator[AuditEntry]:
    """All entries of a time, oldest first, read in parts."""
    rows = _rows(
        db,
        """
        SELECT entry, hash FROM audit_log
        WHERE at >= coalesce(%(since)s, '-infinity'::timestamptz) AND at < coalesce(%(until)s, 'infinity'::timestamptz)
        ORDER BY id
        """,
        {"since": since, "until": until},
    )
    async with aclosing(rows):
        async for row in rows:
            yield _entry(row)


async def verify(db: Database, *, anchor: tuple[int, str] | None = None) -> tuple[Chain, Broken | None]:
    """Follow the chain from its first entry to its last.

    Args:
        db: the record.
        anchor: number and hash of an entry that was kept elsewhere. Without one, nobody can tell a chain whose end was
            cut off from one that ends there.

    Returns:
        The chain as far as it holds, and where it does not.
    """
    chain = Chain()
    # Whoever changed the log may have taken away what keeps values from being null, or numbers from being there twice.
    rows = _rows(
        db,
        f"""
        SELECT coalesce(id, 0) AS id, coalesce(entry, '') AS entry, coalesce(hash, '') AS hash, {_AT} AS at, actor,
               action, kind, object_id
        FROM audit_log ORDER BY audit_log.id NULLS FIRST
        """,
    )
    async with aclosing(rows):
        async for row in rows:
            link = Link(row.pop("id"), row.pop("entry"), hash=row.pop("hash"), columns=row)
            if (broken := chain.follow(link)) is not None:
                return chain, broken
            if anchor is not None and link.id == anchor[0] and link.hash.hex() != anchor[1].lower():
                return chain, Broken(link.id, "is not the one that was kept: the log was written anew")
    if anchor is not None and anchor[0] > chain.length:
        return chain, Broken(chain.length + 1, f"and those up to {anchor[0]} are missing: the end was cut off")
    return chain, None


async def unwatched(db: Database) -> list[str]:
    """The tables of which changes would go unseen now, since their triggers are gone or switched off."""
    async with db.connection() as connection:
        rows = await connection.execute(
            """
            SELECT w.name FROM (
                SELECT unnest(%(kinds)s::text[]) AS name, %(written)s AS events UNION ALL SELECT 'audit_log', %(kept)s
            ) w
            WHERE w.events & ~coalesce((
                SELECT bit_or(t.tgtype) FROM pg_trigger t
                WHERE t.tgrelid = to_regclass(w.name) AND t.tgenabled IN ('O', 'A') AND t.tgfoid IN (
                    'audit_change'::regproc, 'audit_refuse_truncate'::regproc, 'audit_append_only'::regproc)
            ), 0) <> 0
            ORDER BY w.name
            """,
            {"kinds": [str(kind) for kind in Kind], "written": _INSERT | _KEPT, "kept": _KEPT},
        )
        return [row["name"] for row in await rows.fetchall()]


async def _rows(
    db: Database, statement: str, parameters: dict[str, Any] | None = None
) -> AsyncGenerator[dict[str, Any]]:
    """Rows as they were at one moment, however many there are."""
    async with db.connection() as connection, connection.transaction(), connection.cursor("rows") as cursor:
        cursor.itersize = _AT_ONCE
        await cursor.execute(statement, parameters)
        async for row in cursor:
            yield row


def _entry(row: dict[str, Any]) -> AuditEntry:
    return AuditEntry(**json.loads(row["entry"]), hash=row["hash"].hex())


def _listed(row: dict[str, Any]) -> AuditEntry:
    """Return an entry or, where the database's owner made it unreadable, what the log is searched by."""
    try:
        return _entry(row)
    except (ValueError, TypeError, AttributeError, RecursionError):
        known = {name: row[name] for name in ("id", "at", "actor", "kind", "object_id")}
        action = Change(row["action"]) if row["action"] in set(Change) else Change.UPDATE
        seal = (row["hash"] or b"").hex()
        return AuditEntry(**known, action=action, request_id=None, before=None, after=None, hash=seal, unreadable=True)
