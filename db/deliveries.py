"""Deliveries: made with the change that is told of, begun, ended, repeated.

A delivery is tried until it arrives, for a day; then it is parked, and waits for somebody to send it again. What is not
needed any more is dropped when its turn comes: whether a reminder is about access that still lasts is known then, not
before.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import DictRow
from pydantic import Field

from db.database import Connection, Database
from db.integrations import opened
from db.paging import Page, Position
from db.secrets import SecretVault
from db.views import Identified
from domain.deliveries import MOST_ATTEMPTS, Attempt, Contact, Envelope, Outgoing, RequestFacts, pause_after
from domain.errors import NotFound, SecretUnreadable
from domain.events import Event
from domain.integrations import REMINDER, DeliveryStatus, Role, Target, request_link
from domain.states import Status
from domain.text import made_storable

REMIND_BEFORE: Final = timedelta(minutes=15)
"""Unless `JUSTIAM_REMINDER_MINS` says something else."""

_CHANCE: Final = random.SystemRandom()
_UNDISPATCHED: Final = timedelta(seconds=30)
"""Until a delivery whose workflow was started, and has not begun, is started again."""
_LOOK_AGAIN: Final = timedelta(minutes=5)
"""How long after an attempt, or after the next should have begun, its workflow is started anew."""

# Whoever belongs to somebody is written to there: a service account has no mailbox.
_MAILBOXES: Final = """
    SELECT u.id, coalesce(u.owner_id, u.id) AS principal_id, coalesce(o.email, u.email) AS email
    FROM users u LEFT JOIN users o ON o.id = u.owner_id
    WHERE u.active AND coalesce(o.active, true)
"""

_TOLD: Final = f"""
    SELECT NULL::text AS recipient, NULL::text AS role, t.event, t.payload, now() AS not_before
    WHERE i.target <> 'email'
    UNION
    SELECT m.email, 'approver', t.event, t.payload, now()
    FROM ({_MAILBOXES}) m
    WHERE i.target = 'email' AND t.event IN ('{Event.SUBMITTED}', '{Event.ESCALATED}')
      AND i.settings -> 'roles' @> '"approver"'
      AND m.id IN (SELECT jsonb_array_elements_text(t.detail -> 'notified')::uuid)
      -- Who was asked at the submission is not asked again when it is escalated in the same moment.
      AND NOT EXISTS (
          SELECT FROM deliveries d
          WHERE d.request_id = r.id AND d.integration_id = i.id AND d.role = 'approver' AND d.recipient = m.email)
    UNION
    SELECT m.email, 'handled', t.event, t.payload, now()
    FROM ({_MAILBOXES}) m
    WHERE i.target = 'email' AND t.event IN ('{Event.APPROVED}', '{Event.DENIED}', '{Event.REVOKED}')
      AND i.settings -> 'roles' @> '"handled"'
      AND m.id = ANY(r.notified_ids)
      AND m.principal_id IS DISTINCT FROM (
          SELECT coalesce(a.owner_id, a.id) FROM users a WHERE folded_address(a.email) = folded_address(t.actor))
    UNION
    SELECT m.email, 'requester', t.event, t.payload, now()
    FROM ({_MAILBOXES}) m
    WHERE i.target = 'email'
      AND t.event IN ('{Event.APPROVED}', '{Event.DENIED}', '{Event.REVOKED}', '{Event.EXPIRED}')
      AND i.settings -> 'roles' @> '"requester"'
      AND m.id = r.requester_id
    UNION
    SELECT m.email, 'reminder', '{REMINDER}', t.payload - 'decided_by', r.expires_at - %(remind_before)s
    FROM ({_MAILBOXES}) m
    WHERE i.target = 'email' AND t.event = '{Event.APPROVED}'
      AND i.settings -> 'roles' @> '"reminder"'
      AND m.id = r.requester_id
      -- Access that is shorter than that is not worth a second mail.
      AND r.expires_at - %(remind_before)s > t.at
"""
"""Who is told what by an integration `i` of the entry `t` in the timeline of a request `r`."""

_ROWS: Final = f"""
    INSERT INTO deliveries (id, integration_id, target, event, payload, request_id, timeline_id, recipient, role,
                            status, not_before, attempts, dispatch_at)
    SELECT gen_random_uuid(), i.id, i.target, told.event, told.payload, r.id, t.id, told.recipient, told.role,
           'pending', told.not_before, 0, told.not_before
    FROM access_request_timeline t
    JOIN access_requests r ON r.id = t.request_id
    JOIN integrations i ON i.enabled AND i.target <> 'task' AND t.event = ANY(i.events)
     AND (i.template_id IS NULL OR i.template_id = r.template_id)
     AND (i.app_id IS NULL OR i.app_id = r.app_id)
    CROSS JOIN LATERAL ({_TOLD}) told
    WHERE t.transition_key = %(key)s
    FOR KEY SHARE OF i
    RETURNING id, not_before
"""
"""The integrations are locked, so that one that is deleted at the same moment fails no change."""


class DeliveryView(Identified):
    """An event on its way to one recipient, and how its last attempt went."""

    request_id: UUID
    event: str = Field(
        description=f"A lifecycle event, or `{REMINDER}` for the reminder before an access ends.",
        examples=[Event.APPROVED.value],
    )
    recipient: str | None = Field(description="`email`: the address.")
    role: Role | None = Field(description="`email`: why this person is told.")
    status: DeliveryStatus = Field(
        description="`pending`: to be tried, for the first time or again; `delivered`; `parked`: given up, it can be "
        "delivered again on demand; `dropped`: not needed any more."
    )
    not_before: datetime = Field(description="It is not sent before this time.")
    attempts: int = Field(description="How many were made; demanding it anew begins at zero.")
    last_attempt_at: datetime | None
    latency_ms: int | None = Field(description="Of the last attempt.")
    response_status: int | None = Field(description="HTTP status, or code of the mail server, of the last attempt.")
    response_head: str | None = Field(description="The first KiB of the answer to the last attempt.")
    error: str | None = Field(description="What went wrong at last, or why it was dropped.")
    created_at: datetime
    finished_at: datetime | None


async def rows_for(
    connection: Connection, key: str, *, remind_before: timedelta = REMIND_BEFORE
) -> AsyncCursor[DictRow]:
    """Make the deliveries of a change, in its transaction.

    Args:
        connection: in the transaction of the change, after the request and the timeline are written.
        key: the `transition_key` of the change's entry in the timeline.
        remind_before: how long before the end of a grant its holder is reminded.

    Returns:
        A cursor over `id` and `not_before` of what was made. Nothing is waited for until it is read.
    """
    return await connection.execute(_ROWS, {"key": key, "remind_before": remind_before})


async def begin(db: Database, vault: SecretVault, delivery_id: UUID, *, public_url: str | None) -> Outgoing | None:
    """What the next attempt at a delivery needs; counts it.

    Args:
        db: the record.
        vault: opens the integration's secrets.
        delivery_id: the delivery.
        public_url: where people reach the service, for the link.

    Returns:
        None where nothing is left to do, or its time has not come.
    """
    async with db.transaction() as connection:
        await connection.execute("SELECT FROM deliveries WHERE id = %s FOR UPDATE", [delivery_id])
        rows = await connection.execute(_OUTGOING, [delivery_id])
        row = await rows.fetchone()
        if row is None or row["status"] != DeliveryStatus.PENDING or row["early"]:
            return None
        needless = _needless(row)
        if needless is not None:
            await _close(connection, delivery_id, DeliveryStatus.DROPPED, needless)
            return None
        if row["attempts"] >= MOST_ATTEMPTS:
            error = row["error"] or "The last attempt was cut off by a crash."
            await _close(connection, delivery_id, DeliveryStatus.PARKED, error)
            return None
        secrets: dict[str, Any] | None = None
        unreadable: str | None = None
        try:
            secrets = opened(vault, row["integration_id"], row["sealed"])
        except SecretUnreadable as error:
            # For the operator to mend; it is looked at again like an attempt that was cut off.
            unreadable = error.detail
        await connection.execute(
            """
            UPDATE deliveries SET attempts = attempts + 1, last_attempt_at = now(), dispatch_at = now() + %s,
                error = coalesce(%s, error)
            WHERE id = %s
            """,
            [_LOOK_AGAIN, unreadable, delivery_id],
        )
    if secrets is None:
        return None
    return Outgoing(
        target=Target(row["target"]),
        settings=row["settings"],
        secrets=secrets,
        envelope=Envelope(
            delivery_id=delivery_id,
            event=row["event"],
            at=row["at"] or row["created_at"],
            payload=row["payload"],
            request=_facts(row, public_url),
        ),
        recipient=row["recipient"],
        role=None if row["role"] is None else Role(row["role"]),
    )


async def finish(db: Database, delivery_id: UUID, attempt: Attempt) -> timedelta | None:
    """Write down what came of an attempt.

    Returns:
        How long to wait before the next; None: there is none.
    """
    async with db.transaction() as connection:
        rows = await connection.execute(
            "SELECT status, attempts FROM deliveries WHERE id = %s FOR UPDATE", [delivery_id]
        )
        row = await rows.fetchone()
        if row is None or row["status"] != DeliveryStatus.PENDING:
            return None
        pause = None
        if attempt.retryable and not attempt.delivered:
            pause = pause_after(row["attempts"], _CHANCE, wanted_secs=attempt.retry_after_secs)
        failed = DeliveryStatus.PARKED if pause is None else DeliveryStatus.PENDING
        await connection.execute(
            """
            UPDATE deliveries SET status = %(status)s, latency_ms = %(latency_ms)s,
                response_status = %(response_status)s, response_head = %(response_head)s, error = %(error)s,
                dispatch_at = now() + %(pause)s::interval,
                finished_at = CASE WHEN %(pause)s::interval IS NULL THEN now() END
            WHERE id = %(id)s
            """,
            {
                "id": delivery_id,
                "status": (DeliveryStatus.DELIVERED if attempt.delivered else failed).value,
                "latency_ms": attempt.latency_ms,
                "response_status": attempt.response_status,
                "response_head": None if attempt.response_head is None else made_storable(attempt.response_head),
                "error": None if attempt.error is None else made_storable(attempt.error),
                "pause": None if pause is None else pause + _LOOK_AGAIN,
            },
        )
    return pause


async def claim_due(db: Database, limit: int) -> list[UUID]:
    """Deliveries whose workflow is to be started now; they are due again later, should that come to nothing."""
    async with db.connection() as connection:
        rows = await connection.execute(
            """
            UPDATE deliveries SET dispatch_at = now() + %s WHERE id IN (
                SELECT id FROM deliveries WHERE dispatch_at <= now()
                ORDER BY dispatch_at LIMIT %s FOR UPDATE SKIP LOCKED)
            RETURNING id
            """,
            [_UNDISPATCHED, limit],
        )
        return [row["id"] for row in await rows.fetchall()]


async def list_deliveries(connection: Connection, integration_id: UUID, position: Position) -> Page[DeliveryView]:
    """The deliveries of an integration, newest first.

    Raises:
        NotFound: there is no such integration.
    """
    rows = await connection.execute(
        """
        SELECT d.*, i.id AS known FROM integrations i LEFT JOIN LATERAL (
            SELECT id, request_id, event, recipient, role, status, not_before, attempts, last_attempt_at, latency_ms,
                   response_status, response_head, error, created_at, finished_at
            FROM deliveries
            WHERE integration_id = i.id
              AND (%(before_at)s::timestamptz IS NULL OR (created_at, id) < (%(before_at)s, %(before_id)s::uuid))
            ORDER BY created_at DESC, id DESC LIMIT %(limit)s
        ) d ON true
        WHERE i.id = %(integration_id)s ORDER BY d.created_at DESC, d.id DESC
        """,
        {"integration_id": integration_id, **position.parameters},
    )
    found = await rows.fetchall()
    if not found:
        raise NotFound("There is no integration with this id.")
    views = [DeliveryView.model_validate(row) for row in found if row["id"] is not None]
    return Page.dated(views, position, lambda view: (view.created_at, view.id))


async def redeliver(connection: Connection, integration_id: UUID, delivery_id: UUID) -> DeliveryView:
    """Have a delivery tried again from the start, whatever has come of it.

    Raises:
        NotFound: the integration has no such delivery.
    """
    rows = await connection.execute(
        """
        UPDATE deliveries SET status = 'pending', attempts = 0, not_before = now(), dispatch_at = now(),
            finished_at = NULL
        WHERE id = %s AND integration_id = %s RETURNING *
        """,
        [delivery_id, integration_id],
    )
    row = await rows.fetchone()
    if row is None:
        raise NotFound("The integration has no delivery with this id.")
    return DeliveryView.model_validate(row)


_OUTGOING: Final = """
    SELECT d.integration_id, d.target, d.event, d.payload, d.request_id, d.recipient, d.role, d.status, d.attempts,
           d.error, d.created_at, d.attempts = 0 AND d.not_before > now() AS early,
           i.enabled, i.settings, i.sealed, t.at,
           r.status AS request_status, r.template_name, r.app_name, r.requested_duration_mins, r.justification,
           r.decided_by, r.decision_comment, r.expires_at, r.ended_by, r.snapshot -> 'mappings' AS mappings,
           r.status = 'approved' AND r.expires_at > now() AS holds,
           u.email AS requester_email, u.name AS requester_name,
           (SELECT jsonb_agg(jsonb_build_object('email', a.email, 'name', a.name)
                             ORDER BY array_position(r.notified_ids, a.id))
            FROM users a WHERE a.id = ANY(r.notified_ids)) AS approvers
    FROM deliveries d
    JOIN integrations i ON i.id = d.integration_id
    JOIN access_requests r ON r.id = d.request_id
    JOIN users u ON u.id = r.requester_id
    LEFT JOIN access_request_timeline t ON t.id = d.timeline_id
    WHERE d.id = %s
"""


def _needless(row: dict[str, Any]) -> str | None:
    """Why nobody needs a delivery any more; None where somebody does."""
    if not row["enabled"]:
        return "The integration is disabled."
    if row["role"] == Role.REMINDER and not row["holds"]:
        return "The access has ended already."
    if row["role"] == Role.APPROVER and row["request_status"] != Status.PENDING:
        return f"The request is {row['request_status']} already."
    return None


def _facts(row: dict[str, Any], public_url: str | None) -> RequestFacts:
    return RequestFacts(
        id=row["request_id"],
        template_name=row["template_name"],
        app_name=row["app_name"],
        requester=Contact(email=row["requester_email"], name=row["requester_name"]),
        requested_duration_mins=row["requested_duration_mins"],
        justification=row["justification"],
        approvers=[Contact.model_validate(approver) for approver in row["approvers"] or []],
        status=row["request_status"],
        decided_by=row["decided_by"],
        decision_comment=row["decision_comment"],
        expires_at=row["expires_at"],
        ended_by=row["ended_by"],
        mappings=[mapping["name"] for mapping in row["mappings"] or []],
        link=request_link(public_url, row["request_id"]),
    )


async def _close(connection: Connection, delivery_id: UUID, status: DeliveryStatus, error: str) -> None:
    await connection.execute(
        "UPDATE deliveries SET status = %s, error = %s, finished_at = now(), dispatch_at = NULL WHERE id = %s",
        [status.value, error, delivery_id],
    )
