"""Writing the runs of tasks: made with the change that causes them, begun, ended, repeated.

A run is in the hands of one attempt at a time, its `holder`. What an attempt reports counts only while it holds the
run, so that one that was given up cannot overwrite what came after it.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

from psycopg.types.json import Jsonb

from db.database import Connection, Database
from domain.errors import NotFound, Unauthenticated
from domain.tasks import (
    BLOCK_SECS,
    RUN_OVER,
    Attempt,
    BlockingRun,
    Ending,
    Language,
    Report,
    RunCause,
    RunNext,
    RunStatus,
    ScriptOrder,
    event_config,
    pause_after,
)
from domain.templates import TriggerFailureMode
from domain.text import made_storable

TICKET_PREFIX: Final = "justiam_run_"
_TICKET_BYTES: Final = 32
_TICKET_LIFETIME: Final = timedelta(minutes=15)
"""Longer than a script waits for a worker; then the attempt is over as well."""
_LOOK_AGAIN: Final = timedelta(minutes=5)
"""How long after an attempt should have ended its workflow is started anew."""
_UNDISPATCHED: Final = timedelta(seconds=30)
"""Until a run whose workflow was started, and has not begun, is started again."""

_NEW: Final = """
    id, task_id, task_name, cause, event, request_id, timeline_id, integration_id, failure_mode, config, status,
    attempt, output, output_truncated, dispatch_at
"""
_TIMELINE: Final = "(SELECT id FROM access_request_timeline WHERE transition_key = %(key)s)"


@dataclass(frozen=True)
class Change:
    """A change of a request's status, or its submission, that tasks are told of."""

    request_id: UUID
    key: str
    """The `transition_key` of its entry in the timeline."""
    trigger_event: str | None
    """`created`, `approved` …; None where the status stays as it is."""
    previous_status: str
    event: str
    """The lifecycle event."""
    payload: dict[str, Any]
    template_id: UUID | None
    template_name: str
    app_id: UUID | None
    app_name: str
    requester_id: UUID
    requester_email: str
    requester_name: str
    justification: str
    trigger_task_id: UUID | None
    trigger_mode: TriggerFailureMode

    def trigger_config(self) -> dict[str, str]:
        """The keys of a triggered script (specification, Available config keys in triggered scripts)."""
        event = self.trigger_event or ""
        return {
            "trigger_event": event,
            "request_id": str(self.request_id),
            "request_status": event,
            "previous_status": self.previous_status,
            "template_id": str(self.template_id or ""),
            "template_name": self.template_name,
            "app_id": str(self.app_id or ""),
            "app_name": self.app_name,
            "requester_id": str(self.requester_id),
            "requester_email": self.requester_email,
            "requester_name": self.requester_name,
            "justification": self.justification,
        }


@dataclass(frozen=True)
class Redeemed:
    """What an attempt needs, for the worker that came with its ticket."""

    run_id: UUID
    language: Language
    script: str
    config: dict[str, str]
    request_id: UUID | None
    secret_names: list[str]
    timeout_seconds: int
    network: bool


async def make_for_change(connection: Connection, change: Change, *, integrated: bool) -> None:
    """Queue what a change fires: its template's trigger task and the tasks of integrations.

    In the transaction of the change; nothing is waited for but a task or an integration that is being deleted.

    Args:
        connection: in the transaction of the change, after its entry in the timeline.
        change: what happened.
        integrated: whether any integration is enabled.
    """
    # A block trigger has run before the approval that it blocks; for other events it is as `ignore`.
    blocks = change.trigger_task_id is not None and change.trigger_mode is TriggerFailureMode.BLOCK
    ran = blocks and change.trigger_event == "approved"
    if change.trigger_task_id is not None and change.trigger_event is not None and not ran:
        mode = (
            TriggerFailureMode.RETRY if change.trigger_mode is TriggerFailureMode.RETRY else TriggerFailureMode.IGNORE
        )
        await connection.execute(
            f"""
            INSERT INTO task_runs ({_NEW})
            SELECT %(id)s, t.id, t.name, 'trigger', %(event)s, %(request_id)s, {_TIMELINE}, NULL, %(mode)s, %(config)s,
                   'queued', 0, '', false, now()
            FROM scheduled_tasks t WHERE t.id = %(task_id)s FOR KEY SHARE OF t
            """,
            {
                "id": uuid4(),
                "task_id": change.trigger_task_id,
                "event": change.trigger_event,
                "request_id": change.request_id,
                "key": change.key,
                "mode": mode.value,
                "config": Jsonb(change.trigger_config()),
            },
        )
    if ran:
        await connection.execute(
            f"""
            UPDATE task_runs SET timeline_id = {_TIMELINE}
            WHERE request_id = %(request_id)s AND timeline_id IS NULL
              AND failure_mode = 'block' AND status = 'succeeded'
            """,
            {"request_id": change.request_id, "key": change.key},
        )
    if integrated:
        await connection.execute(
            f"""
            INSERT INTO task_runs ({_NEW})
            SELECT gen_random_uuid(), t.id, t.name, 'integration', %(event)s, %(request_id)s, {_TIMELINE}, i.id,
                   'retry', %(config)s, 'queued', 0, '', false, now()
            FROM integrations i JOIN scheduled_tasks t ON t.id = i.task_id
            WHERE i.enabled AND %(event)s = ANY(i.events)
              AND (i.template_id IS NULL OR i.template_id = %(template_id)s)
              AND (i.app_id IS NULL OR i.app_id = %(app_id)s)
            FOR KEY SHARE OF i, t
            """,
            {
                "event": change.event,
                "request_id": change.request_id,
                "key": change.key,
                "template_id": change.template_id,
                "app_id": change.app_id,
                "config": Jsonb(event_config(change.payload)),
            },
        )


async def make_on_its_own(
    connection: Connection, task_id: UUID, cause: RunCause, *, run_id: UUID | None = None, started_by: str | None = None
) -> UUID:
    """A run that no request is behind: on demand, or by the task's schedule.

    Args:
        connection: the record.
        task_id: what to run.
        cause: `manual` or `schedule`.
        run_id: the same id makes one run, however often it is asked for.
        started_by: email address of who asked.

    Raises:
        NotFound: there is no such task.
    """
    run_id = run_id or uuid4()
    rows = await connection.execute(
        f"""
        WITH made AS (
            INSERT INTO task_runs ({_NEW}, started_by)
            SELECT %(id)s, t.id, t.name, %(cause)s, NULL, NULL, NULL, NULL, 'retry', '{{}}', 'queued', 0, '', false,
                   now() + %(soon)s, %(started_by)s
            FROM scheduled_tasks t WHERE t.id = %(task_id)s
            ON CONFLICT (id) DO NOTHING
        )
        SELECT id FROM scheduled_tasks WHERE id = %(task_id)s
        """,
        {"id": run_id, "task_id": task_id, "cause": cause.value, "started_by": started_by, "soon": _UNDISPATCHED},
    )
    if await rows.fetchone() is None:
        raise NotFound("There is no scheduled task with this id.")
    return run_id


async def make_blocking(connection: Connection, change: Change, *, holder: str, at: datetime) -> BlockingRun:
    """Begin the run that an approval waits for, in the transaction that judged it."""
    # The same for the same attempt at an approval, should it be begun twice.
    run_id = uuid5(change.request_id, f"{holder} {at.isoformat()}")
    ticket = _new_ticket()
    rows = await connection.execute(
        f"""
        INSERT INTO task_runs ({_NEW}, holder, started_at, finished_at, error, ticket_hash, ticket_expires_at)
        SELECT %(id)s, t.id, coalesce(t.name, '(deleted task)'), 'trigger', 'approved', %(request_id)s, NULL, NULL,
               'block', %(config)s, CASE WHEN t.id IS NULL THEN 'failed' ELSE 'running' END, 1, '', false,
               CASE WHEN t.id IS NOT NULL THEN now() + %(look_again)s END,
               %(holder)s, %(at)s, CASE WHEN t.id IS NULL THEN %(at)s::timestamptz END,
               CASE WHEN t.id IS NULL THEN 'The task does not exist any more.' END,
               CASE WHEN t.id IS NOT NULL THEN %(hash)s::bytea END, now() + %(lifetime)s
        FROM (SELECT %(task_id)s::uuid AS id) wanted LEFT JOIN scheduled_tasks t ON t.id = wanted.id
        ON CONFLICT (id) DO UPDATE SET ticket_hash = EXCLUDED.ticket_hash
        RETURNING task_id, (SELECT timeout_seconds FROM scheduled_tasks WHERE id = task_id) AS timeout_seconds
        """,
        {
            "id": run_id,
            "task_id": change.trigger_task_id,
            "request_id": change.request_id,
            "config": Jsonb(change.trigger_config()),
            "holder": holder,
            "at": at,
            "look_again": timedelta(seconds=BLOCK_SECS) + _UNDISPATCHED,
            "hash": _digest(ticket),
            "lifetime": timedelta(seconds=BLOCK_SECS),
        },
    )
    row = await rows.fetchone()
    if row is None or row["task_id"] is None:
        return BlockingRun(order=None, run_id=run_id)
    return BlockingRun(
        order=ScriptOrder(run_id=run_id, ticket=ticket, timeout_seconds=min(row["timeout_seconds"], BLOCK_SECS)),
        run_id=run_id,
    )


async def has_passed(connection: Connection, request_id: UUID, holder: str) -> bool:
    """Return whether the run that this approval had to wait for has succeeded.

    Args:
        connection: in the transaction of the approval.
        request_id: the request.
        holder: as in `make_blocking`.
    """
    rows = await connection.execute(
        """
        SELECT FROM task_runs
        WHERE request_id = %s AND holder = %s AND failure_mode = 'block' AND status = 'succeeded' LIMIT 1
        """,
        [request_id, holder],
    )
    return await rows.fetchone() is not None


async def begin(db: Database, attempt: Attempt) -> ScriptOrder | None:
    """Take a run into hand for an attempt; the same attempt begins once, and gets a new ticket when it asks again.

    Returns:
        None where nothing is left to do: the run is over, or is not to be repeated.
    """
    async with db.transaction() as connection:
        row = await _locked(connection, attempt.run_id)
        if row is None or row["status"] in RUN_OVER:
            return None
        interrupted = row["status"] == RunStatus.RUNNING and row["holder"] != attempt.holder
        if interrupted:
            gone = _after_a_crash(row)
            if gone is not None:
                await _close(
                    connection, attempt.run_id, gone, at=attempt.at, error="The attempt was cut off by a crash."
                )
                return None
        if row["task_id"] is None:
            await _close(
                connection, attempt.run_id, RunStatus.FAILED, at=attempt.at, error="The task does not exist any more."
            )
            return None
        ticket = _new_ticket()
        seconds = row["timeout_seconds"]
        await connection.execute(
            """
            UPDATE task_runs SET status = 'running', attempt = attempt + %(more)s, holder = %(holder)s,
                started_at = %(at)s, finished_at = NULL, error = NULL, ticket_hash = %(hash)s,
                ticket_expires_at = now() + %(lifetime)s, dispatch_at = now() + %(look_again)s
            WHERE id = %(id)s
            """,
            {
                "id": attempt.run_id,
                "holder": attempt.holder,
                "more": int(row["holder"] != attempt.holder),
                "at": attempt.at,
                "hash": _digest(ticket),
                "lifetime": _TICKET_LIFETIME,
                "look_again": _TICKET_LIFETIME + timedelta(seconds=seconds) + _LOOK_AGAIN,
            },
        )
    return ScriptOrder(run_id=attempt.run_id, ticket=ticket, timeout_seconds=seconds)


async def finish(db: Database, report: Report) -> RunNext:
    """Write down how an attempt ended, and say what follows; the same, however often it is written down.

    What an attempt reports that lost the run is dropped.
    """
    async with db.transaction() as connection:
        row = await _locked(connection, report.run_id)
        if row is None:
            return RunNext(status=RunStatus.LOST)
        if row["holder"] != report.holder or row["status"] != RunStatus.RUNNING:
            status = RunStatus(row["status"])
            # Written down before, and the answer was lost with its workflow task: the same answer, or nobody goes on.
            again = status is RunStatus.QUEUED and row["holder"] == report.holder
            return RunNext(status=status, pause_seconds=pause_after(row["attempt"]) if again else None)
        status = _status_after(row, report)
        result = report.result
        pause = pause_after(row["attempt"]) if status is RunStatus.QUEUED else None
        await connection.execute(
            """
            UPDATE task_runs SET status = %(status)s, finished_at = %(at)s, exit_code = %(exit_code)s,
                duration_ms = %(duration_ms)s, output = %(output)s, output_truncated = %(output_truncated)s,
                error = %(error)s, isolation = %(isolation)s, ticket_hash = NULL,
                dispatch_at = now() + %(pause)s::interval
            WHERE id = %(id)s
            """,
            {
                "id": report.run_id,
                "status": status.value,
                "at": report.at,
                "exit_code": result.exit_code if result else None,
                "duration_ms": result.duration_ms if result else None,
                "output": made_storable(result.output) if result else "",
                "output_truncated": result.output_truncated if result else False,
                "error": made_storable((result.error if result else report.error) or "") or None,
                "isolation": (result.isolation or None) if result else None,
                "pause": None if pause is None else timedelta(seconds=pause) + _LOOK_AGAIN,
            },
        )
    return RunNext(status=status, pause_seconds=pause)


async def link(connection: Connection, run_id: UUID, key: str) -> None:
    """Have the entry of the timeline with this `transition_key` name a run."""
    await connection.execute(
        f"UPDATE task_runs SET timeline_id = {_TIMELINE} WHERE id = %(run_id)s", {"key": key, "run_id": run_id}
    )


async def redeem(db: Database, ticket: str) -> Redeemed:
    """What the attempt with this ticket needs. A ticket works once.

    Raises:
        Unauthenticated: it is unknown, was redeemed before, or its time is up.
    """
    async with db.connection() as connection:
        rows = await connection.execute(
            """
            UPDATE task_runs r SET ticket_hash = NULL FROM scheduled_tasks t
            WHERE t.id = r.task_id AND r.ticket_hash = %s AND r.ticket_expires_at > now() AND r.status = 'running'
            RETURNING r.id, r.config, r.request_id, t.language, t.script, t.secret_names, t.timeout_seconds, t.network,
                      r.failure_mode
            """,
            [_digest(ticket)],
        )
        row = await rows.fetchone()
    if row is None:
        raise Unauthenticated("The ticket is unknown, was redeemed before, or its time is up.")
    block = row["failure_mode"] == TriggerFailureMode.BLOCK
    return Redeemed(
        run_id=row["id"],
        language=Language(row["language"]),
        script=row["script"],
        config={"run_id": str(row["id"]), **row["config"]},
        request_id=row["request_id"],
        secret_names=row["secret_names"],
        timeout_seconds=min(row["timeout_seconds"], BLOCK_SECS) if block else row["timeout_seconds"],
        network=row["network"],
    )


async def claim_due(db: Database, limit: int) -> list[UUID]:
    """Runs whose workflow is to be started now; they are due again later, should that come to nothing."""
    async with db.connection() as connection:
        rows = await connection.execute(
            """
            UPDATE task_runs SET dispatch_at = now() + %s WHERE id IN (
                SELECT id FROM task_runs WHERE dispatch_at <= now()
                ORDER BY dispatch_at LIMIT %s FOR UPDATE SKIP LOCKED)
            RETURNING id
            """,
            [_UNDISPATCHED, limit],
        )
        return [row["id"] for row in await rows.fetchall()]


def _after_a_crash(row: dict[str, Any]) -> RunStatus | None:
    """What a run becomes whose attempt was cut off; None: it is repeated."""
    if row["failure_mode"] == TriggerFailureMode.BLOCK:
        return RunStatus.FAILED
    if row["failure_mode"] == TriggerFailureMode.IGNORE or row["attempt"] > (row["max_retries"] or 0):
        return RunStatus.LOST
    return None


def _status_after(row: dict[str, Any], report: Report) -> RunStatus:
    if report.cancelled:
        return RunStatus.CANCELLED
    if report.lost:
        return _after_a_crash(row) or RunStatus.QUEUED
    result = report.result
    if result is not None and result.ending is Ending.SUCCEEDED:
        return RunStatus.SUCCEEDED
    if row["failure_mode"] == TriggerFailureMode.RETRY and row["attempt"] <= (row["max_retries"] or 0):
        return RunStatus.QUEUED
    timed_out = result is not None and result.ending is Ending.TIMED_OUT
    return RunStatus.TIMED_OUT if timed_out else RunStatus.FAILED


async def _locked(connection: Connection, run_id: UUID) -> dict[str, Any] | None:
    await connection.execute("SELECT FROM task_runs WHERE id = %s FOR UPDATE", [run_id])
    rows = await connection.execute(
        """
        SELECT r.*, t.max_retries, t.timeout_seconds
        FROM task_runs r LEFT JOIN scheduled_tasks t ON t.id = r.task_id WHERE r.id = %s
        """,
        [run_id],
    )
    return await rows.fetchone()


async def _close(connection: Connection, run_id: UUID, status: RunStatus, *, at: datetime, error: str) -> None:
    await connection.execute(
        """
        UPDATE task_runs SET status = %s, finished_at = %s, error = %s, ticket_hash = NULL, dispatch_at = NULL
        WHERE id = %s
        """,
        [status.value, at, error, run_id],
    )


def _new_ticket() -> str:
    return TICKET_PREFIX + secrets.token_urlsafe(_TICKET_BYTES)


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode(errors="replace")).digest()
