"""Deliveries and runs that are over are forgotten when an operator says so. Requests and their timelines never are."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pydantic import BaseModel

from db.database import Connection, Database
from domain.states import Status

_BATCH: Final = 1_000
"""Rows of one transaction: a fraction of a second, so that nobody waits for a lock and an interruption loses little."""


class Pruned(BaseModel):
    """How much was forgotten."""

    deliveries: int
    runs: int


async def prune(db: Database, older_than: timedelta) -> Pruned:
    """Forget the deliveries and the runs of tasks that were over before then, and whose request is closed."""
    return Pruned(
        deliveries=await _forget(db, "deliveries", older_than), runs=await _forget(db, "task_runs", older_than)
    )


async def _forget(db: Database, table: str, older_than: timedelta) -> int:
    forgotten = 0
    while True:
        async with db.transaction() as connection:
            batch = await forget_some(connection, table, older_than)
        forgotten += batch
        if batch < _BATCH:
            return forgotten


async def forget_some(connection: Connection, table: str, older_than: timedelta) -> int:
    """The oldest of them, `_BATCH` at most; answers how many."""
    # What is sent again at this moment is locked, and then no longer over.
    cursor = await connection.execute(
        f"""
        WITH gone AS (
            DELETE FROM {table} WHERE id = ANY(ARRAY(
                SELECT o.id FROM {table} o LEFT JOIN access_requests r ON r.id = o.request_id
                WHERE o.finished_at < now() - %(older_than)s
                  AND (r.id IS NULL OR r.status NOT IN ('{Status.PENDING}', '{Status.APPROVED}'))
                ORDER BY o.finished_at LIMIT {_BATCH} FOR UPDATE OF o SKIP LOCKED))
            RETURNING 1)
        SELECT count(*) AS forgotten FROM gone
        """,
        {"older_than": older_than},
    )
    [row] = await cursor.fetchall()
    forgotten: int = row["forgotten"]
    return forgotten
