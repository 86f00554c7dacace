"""The audit log: written by triggers of the database (migration 0008), read and verified here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from datetime import datetime
from typing import Any, Final

from db.database import Database
from db.paging import Page, Position
from domain.audit_log import AuditEntry, Broken, Chain, Kind, Link

_AT_ONCE: Final = 1_000
_COLUMNS: Final = ("actor", "action", "kind", "object_id")


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
        actor: by this one alone, exactly as the log names them.
        object_id: of this one thing.
        since: made then or later.
        until: made before.
    """
    conditions = ["l.id < %(before)s"]
    for value, condition in (
        (actor, "l.actor = %(actor)s"),
        (object_id, "l.object_id = %(object_id)s"),
        (since, "l.at >= %(since)s"),
        (until, "l.at < %(until)s"),
    ):
        if value is not None:
            conditions.append(condition)
    # Kind by kind, so that each is read by its index, however rare it is.
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            SELECT l.entry, l.hash FROM unnest(%(kinds)s::text[]) AS wanted (kind) CROSS JOIN LATERAL (
                SELECT l.id, l.entry, l.hash FROM audit_log l
                WHERE l.kind = wanted.kind AND {" AND ".join(conditions)} ORDER BY l.id DESC LIMIT %(limit)s
            ) l
            ORDER BY l.id DESC LIMIT %(limit)s
            """,
            {
                "kinds": [str(kind) for kind in kinds],
                "actor": actor,
                "object_id": object_id,
                "since": since,
                "until": until,
                "before": position.before_number,
                "limit": position.limit + 1,
            },
        )
        entries = [_entry(row) for row in await rows.fetchall()]
    return Page.numbered(entries, position, lambda entry: entry.id)


async def stream(
    db: Database, *, since: datetime | None = None, until: datetime | None = None
) -> AsyncIterator[AuditEntry]:
    """All entries of a time, oldest first, read in parts."""
    last = 0
    while True:
        async with db.connection() as connection:
            rows = await connection.execute(
                """
                SELECT id, entry, hash FROM audit_log
                WHERE id > %(last)s AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
                  AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
                ORDER BY id LIMIT %(limit)s
                """,
                {"last": last, "since": since, "until": until, "limit": _AT_ONCE},
            )
            found = await rows.fetchall()
        for row in found:
            yield _entry(row)
        if len(found) < _AT_ONCE:
            return
        last = found[-1]["id"]


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
    while True:
        async with db.connection() as connection:
            rows = await connection.execute(
                """
                SELECT id, entry, actor, action, kind, object_id, hash FROM audit_log
                WHERE id > %s ORDER BY id LIMIT %s
                """,
                [chain.length, _AT_ONCE],
            )
            found = await rows.fetchall()
        links = [Link(row["id"], row["entry"], {name: row[name] for name in _COLUMNS}, row["hash"]) for row in found]
        if anchor is not None and (passed := next((link for link in links if link.id == anchor[0]), None)):
            if passed.hash.hex() != anchor[1].lower():
                return chain, Broken(passed.id, "is not the one that was kept: the log was written anew")
            anchor = None
        if (broken := chain.follow(links)) is not None:
            return chain, broken
        if len(found) < _AT_ONCE:
            break
    if anchor is not None:
        return chain, Broken(chain.length + 1, f"and those up to {anchor[0]} are missing: the end was cut off")
    return chain, None


def _entry(row: dict[str, Any]) -> AuditEntry:
    return AuditEntry(**json.loads(row["entry"]), hash=row["hash"].hex())
