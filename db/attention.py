"""Telling open requests that the directory changed under them.

A marked request is looked at again by its workflow, which ends what somebody deactivated holds and asks others where
nobody is left who could decide.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from db.database import Connection, Database, driver_connection

UNANSWERED: Final = """
    (r.attention_at IS NOT NULL
     OR coalesce(r.status = 'pending' AND r.escalated_at IS NULL AND r.escalates_at < now() - %(late)s, false))
"""
"""SQL: the workflow of the open row `r` should have read it by now; a healthy one does so at once."""

START_GRACE: Final = timedelta(seconds=10)
"""The API starts the workflow right after the commit; where that is not confirmed by then, a worker does.

Longer than a start takes when hundreds are submitted at once: a workflow that is told again has more to do."""

_MARK: Final = """
    UPDATE access_requests SET attention_at = least(attention_at, now())
    WHERE id IN (
        SELECT id FROM access_requests
        WHERE (status IN ('pending', 'approved') AND requester_id = ANY(%(user_ids)s))
           OR (status = 'pending'
               AND (approver_group_ids && %(group_ids)s OR escalation_group_id = ANY(%(group_ids)s)))
        ORDER BY id FOR NO KEY UPDATE
    )
    RETURNING id
"""


async def mark(
    session: AsyncSession, *, group_ids: Collection[UUID] = (), user_ids: Collection[UUID] = ()
) -> list[UUID]:
    """Mark the open requests of these people, and the pending ones that these groups may decide.

    In the transaction of the change, as its last statement.

    Returns:
        The ids of the marked requests.
    """
    async with driver_connection(session) as connection:
        rows = await connection.execute(_MARK, {"group_ids": list(group_ids), "user_ids": list(user_ids)})
        return [row["id"] for row in await rows.fetchall()]


async def mark_late(
    db: Database, marked: list[UUID], *, group_ids: Collection[UUID] = (), user_ids: Collection[UUID] = ()
) -> list[UUID]:
    """Mark once more, after the commit.

    A request that was submitted while the change was on its way saw the directory as it was before, and was not there
    yet to be marked.

    Returns:
        `marked` and what was found now, each once.
    """
    async with db.session() as session:
        return list({*marked, *await mark(session, group_ids=group_ids, user_ids=user_ids)})


async def mark_one(connection: Connection, request_id: UUID) -> None:
    """Mark one request, where it is open, so that its workflow is told to look at it within seconds.

    A later mark is replaced: that of a submission would be cleared once the start is confirmed.
    """
    await connection.execute(
        "UPDATE access_requests SET attention_at = now() WHERE id = %s AND coalesce(attention_at > now(), true)"
        " AND status IN ('pending', 'approved')",
        [request_id],
    )


async def clear_started(db: Database, request_ids: Collection[UUID]) -> None:
    """Clear the marks that submissions left on these requests; a mark that came later stays.

    Args:
        db: the record.
        request_ids: requests whose workflows run with the state of their submission.
    """
    async with db.connection() as connection:
        await connection.execute(
            """
            UPDATE access_requests SET attention_at = NULL
            WHERE id = ANY(%s) AND attention_at = created_at + %s
              -- One that is due stays: a change in the directory after that moment does not alter it.
              AND attention_at > clock_timestamp()
            """,
            [list(request_ids), START_GRACE],
        )
