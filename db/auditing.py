"""What always holds in the record, as statements that find where it does not (design, sections 1 and 2)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from db.attention import UNANSWERED
from db.database import Database
from domain.auditing import Invariant, Violation

_MOST_NAMED: Final = 100

_NO_STEPS: Final = "('refused', 'trigger_failed')"
"""Entries of a timeline that changed nothing: they have no event, and may come at any time."""

_INVARIANTS: Final[dict[str, tuple[str, str]]] = {
    "one_ending": (
        "A closed request was closed once, an open one not yet; the timeline says how.",
        """
        SELECT r.id, format('is %s, its timeline has %s', r.status, coalesce(t.kinds::text, 'no ending')) AS what
        FROM access_requests r LEFT JOIN LATERAL (
            SELECT array_agg(t.kind ORDER BY t.id) AS kinds FROM access_request_timeline t
            WHERE t.request_id = r.id AND t.kind IN ('denied', 'revoked', 'expired')
        ) t ON true
        WHERE t.kinds IS DISTINCT FROM
              CASE WHEN r.status IN ('pending', 'approved') THEN NULL ELSE ARRAY[r.status] END
        """,
    ),
    "one_decision": (
        "A request was granted at most once, and its row names the same decider as its timeline.",
        """
        SELECT r.id, format('decided by %s, its timeline has %s', r.decided_by, t.actors) AS what
        FROM access_requests r JOIN LATERAL (
            SELECT array_agg(t.actor ORDER BY t.id) AS actors FROM access_request_timeline t
            WHERE t.request_id = r.id AND (t.kind IN ('approved', 'denied')
                  OR (t.kind = 'revoked' AND NOT (t.detail ->> 'cancelled')::boolean))
        ) t ON true
        WHERE t.actors IS DISTINCT FROM CASE WHEN r.decided_by IS NOT NULL THEN ARRAY[r.decided_by] END
        """,
    ),
    "timeline_in_order": (
        "A timeline starts with the submission; nothing but failed attempts follows the end; grant before expiry.",
        f"""
        SELECT t.request_id AS id, format('the order is %s', t.kinds) AS what
        FROM (SELECT request_id, array_agg(kind ORDER BY id) FILTER (WHERE kind NOT IN {_NO_STEPS}) AS kinds
              FROM access_request_timeline GROUP BY request_id) t
        WHERE array_to_string(t.kinds, ' ') !~
              '^submitted( escalated)*( approved( revoked| expired)?| denied| revoked)?$'
        """,
    ),
    "timeline_for_each": (
        "Every request has a timeline.",
        """
        SELECT r.id, 'has no timeline' AS what FROM access_requests r
        WHERE NOT EXISTS (SELECT FROM access_request_timeline t WHERE t.request_id = r.id)
        """,
    ),
    "event_for_each_step": (
        "Every step of a request's life is a lifecycle event with its payload.",
        f"""
        SELECT t.request_id AS id, format('%s without its event', t.kind) AS what FROM access_request_timeline t
        WHERE t.kind NOT IN {_NO_STEPS} AND t.event IS DISTINCT FROM 'access_request.' || t.kind
        """,
    ),
    "group_for_each_grant": (
        "An approved request has its temporary group, with the requester alone, the mappings asked for and its end.",
        """
        SELECT r.id, 'its temporary group is missing or differs' AS what
        FROM access_requests r LEFT JOIN groups g ON g.request_id = r.id AND g.system
        WHERE r.status = 'approved' AND (
            g.id IS NULL OR g.expires_at IS DISTINCT FROM r.expires_at
            OR ARRAY(SELECT m.user_id FROM group_members m WHERE m.group_id = g.id) <> ARRAY[r.requester_id]
            OR ARRAY(SELECT l.mapping_id FROM app_mapping_groups l WHERE l.group_id = g.id ORDER BY 1)
               <> ARRAY(SELECT unnest(r.mapping_ids) ORDER BY 1))
        """,
    ),
    "no_group_without_grant": (
        "A temporary group belongs to an approved request.",
        """
        SELECT g.request_id AS id, 'its temporary group outlived the grant' AS what
        FROM groups g LEFT JOIN access_requests r ON r.id = g.request_id AND r.status = 'approved'
        WHERE g.system AND r.id IS NULL
        """,
    ),
    "no_grant_overdue": (
        "A grant is ended in the record within five minutes of its end.",
        """
        SELECT r.id, format('should have ended at %s', r.expires_at) AS what
        FROM access_requests r WHERE r.status = 'approved' AND r.expires_at < now() - interval '5 minutes'
        """,
    ),
}


async def count_requests(db: Database) -> int:
    """All requests of the record."""
    async with db.connection() as connection:
        row = await (await connection.execute("SELECT count(*) AS requests FROM access_requests")).fetchone()
    return int(row["requests"]) if row else 0


async def open_request_ids(db: Database, *, settled_secs: float) -> tuple[set[UUID], set[UUID]]:
    """The open requests, and those of them that are old enough to be in Temporal's list."""
    async with db.connection() as connection:
        rows = await (
            await connection.execute(
                """
                SELECT id, created_at < now() - make_interval(secs => %s) AS settled FROM access_requests
                WHERE status IN ('pending', 'approved')
                """,
                [settled_secs],
            )
        ).fetchall()
    return {row["id"] for row in rows}, {row["id"] for row in rows if row["settled"]}


async def unanswered_request_ids(db: Database, *, settled_secs: float) -> set[UUID]:
    """Return the open requests that a workflow should have looked at for at least this long."""
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            SELECT r.id FROM access_requests r
            WHERE r.status IN ('pending', 'approved') AND r.created_at < now() - %(late)s AND {UNANSWERED}
            """,
            {"late": timedelta(seconds=settled_secs)},
        )
        return {row["id"] for row in await rows.fetchall()}


async def record_invariants(db: Database) -> list[Invariant]:
    """Every invariant of the record, judged on one snapshot. Reads whole tables: for an audit, not for a probe."""
    found = []
    async with db.transaction() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await connection.execute("SET LOCAL statement_timeout = 0")
        with connection.patiently():
            for name, (meaning, statement) in _INVARIANTS.items():
                rows = await (await connection.execute(f"{statement} LIMIT {_MOST_NAMED}")).fetchall()
                violations = [Violation(request_id=str(row["id"]), what=row["what"]) for row in rows]
                found.append(Invariant(name=name, meaning=meaning, violations=violations))
    return found
