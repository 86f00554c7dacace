"""Keeping the process beside the record: starting, nudging and sweeping the workflows of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog
from psycopg import Error as DatabaseError
from temporalio import activity
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities import dispatching, wedged
from db import transitions
from db.attention import UNANSWERED
from db.database import Database
from db.transitions import DECIDABLE, REQUESTER_ACTIVE
from domain.actors import SystemActor, workflow_id
from domain.proofs import ProofKey
from domain.states import Action, Status
from domain.sweeping import SweepReport
from domain.transitions import AccessRequestInput, AccessRequestResult, Channel, RequestState, Transition
from telemetry import metrics
from workflows import names
from workflows.access_request import AccessRequestWorkflow

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_CALL: Final = timedelta(seconds=10)
_OVERDUE: Final = timedelta(seconds=60)
"""How late a workflow may be with the end of a grant before the sweep ends it."""
_SETTLED: Final = timedelta(seconds=30)
"""Temporal's list lags behind; a request younger than this is not missed yet."""
_LOOK_AWAITED: Final = timedelta(seconds=30)
"""Until a workflow that was told and has not looked is told again."""
_TELL_AGAIN: Final = timedelta(seconds=3)
"""Until Temporal is tried again after it could not be reached."""
_ATTENTION_BATCH: Final = 200
_PAGE: Final = 1000
_AT_ONCE: Final = 16
"""Calls to Temporal under way at a time."""


@dataclass(frozen=True)
class Head:
    """What a workflow is started with: its id, and what operators see of it."""

    id: UUID
    status: Status
    template_name: str
    app_name: str
    requester_email: str
    requested_duration_mins: int
    expires_at: datetime | None

    @classmethod
    def of(cls, row: dict[str, Any]) -> Head:
        """From a row with `_HEAD`."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__} | {"status": Status(row["status"])})

    @property
    def start_options(self) -> dict[str, Any]:
        """The same for every way of starting; a workflow that runs already is left alone."""
        return {
            "id": workflow_id(self.id),
            "task_queue": names.TASK_QUEUE,
            "id_conflict_policy": WorkflowIDConflictPolicy.USE_EXISTING,
            "search_attributes": names.search_attributes(
                status=self.status,
                template_name=self.template_name,
                app_name=self.app_name,
                requester_email=self.requester_email,
                expires_at=self.expires_at,
            ),
            "static_summary": names.summary(
                requester_email=self.requester_email,
                template_name=self.template_name,
                duration_mins=self.requested_duration_mins,
            ),
        }

    def start_operation(self) -> WithStartWorkflowOperation[AccessRequestWorkflow, AccessRequestResult]:
        """For update-with-start: what to start where nothing runs."""
        return WithStartWorkflowOperation(
            AccessRequestWorkflow.run, AccessRequestInput(request_id=self.id), **self.start_options
        )


_HEAD: Final = """
    r.id, r.status, r.template_name, r.app_name, u.email AS requester_email, r.requested_duration_mins, r.expires_at
"""


async def start(
    client: Client,
    head: Head,
    *,
    state: RequestState | None = None,
    rpc_timeout: timedelta = _CALL,
    signal: str | None = None,
    conflict: WorkflowIDConflictPolicy = WorkflowIDConflictPolicy.USE_EXISTING,
) -> None:
    """Make sure that a request's workflow runs, and send it `signal`, if any.

    Args:
        client: of Temporal.
        head: the request.
        state: what a new workflow begins with; None has it load the record.
        rpc_timeout: of one attempt at the call.
        signal: sent to the workflow, whether it ran before or not.
        conflict: FAIL to be told where one runs already.

    Raises:
        RPCError: Temporal cannot be reached or refuses.
        WorkflowAlreadyStartedError: one runs, and `conflict` is FAIL.
    """
    await client.start_workflow(
        AccessRequestWorkflow.run,
        AccessRequestInput(request_id=head.id, state=state),
        start_signal=signal,
        rpc_timeout=rpc_timeout,
        **head.start_options | {"id_conflict_policy": conflict},
    )


async def attend(db: Database, client: Client) -> int:
    """Start or nudge the workflows whose requests ask for it.

    Returns:
        How many were told.

    Raises:
        RPCError: Temporal cannot be reached; what was not told is tried again within seconds.
    """
    told = 0
    while heads := await _claim_attention(db):
        slots = asyncio.Semaphore(_AT_ONCE)

        async def tell(head: Head, slots: asyncio.Semaphore = slots) -> None:
            async with slots:
                await start(client, head, signal=names.RECONCILE_SIGNAL)

        results = await asyncio.gather(*map(tell, heads), return_exceptions=True)
        failed = [(head.id, result) for head, result in zip(heads, results, strict=True) if result is not None]
        told += len(heads) - len(failed)
        if failed:
            await _mark(db, [request_id for request_id, _ in failed], _TELL_AGAIN)
            raise failed[0][1]
        if len(heads) < _ATTENTION_BATCH:
            break
    return told


async def _claim_attention(db: Database) -> list[Head]:
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            UPDATE access_requests r SET attention_at = now() + %s
            FROM users u
            WHERE u.id = r.requester_id AND r.id IN (
                SELECT id FROM access_requests WHERE attention_at <= now()
                ORDER BY attention_at LIMIT %s FOR UPDATE SKIP LOCKED)
            RETURNING {_HEAD}
            """,
            [_LOOK_AWAITED, _ATTENTION_BATCH],
        )
        return [Head.of(row) for row in await rows.fetchall()]


async def _mark(db: Database, request_ids: list[UUID], after: timedelta) -> None:
    async with db.connection() as connection:
        await connection.execute(
            "UPDATE access_requests SET attention_at = now() + %s WHERE id = ANY(%s) AND attention_at IS NOT NULL",
            [after, request_ids],
        )


async def reconcile(client: Client, request_id: UUID, *, rpc_timeout: timedelta = _CALL) -> None:
    """Tell a running workflow to look at the record again; nothing where none runs.

    Raises:
        RPCError: Temporal cannot be reached.
    """
    await _reconcile(client, workflow_id(request_id), rpc_timeout)


async def _reconcile(client: Client, name: str, rpc_timeout: timedelta = _CALL) -> None:
    try:
        await client.get_workflow_handle(name).signal(names.RECONCILE_SIGNAL, rpc_timeout=rpc_timeout)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


async def sweep(
    db: Database, client: Client, proofs: ProofKey, on_progress: Callable[[SweepReport], None] = lambda _: None
) -> SweepReport:
    """Compare Temporal's running workflows with the open requests and mend what differs.

    Reads Temporal's list page by page beside the rows in the order of their ids, and asks about no row by itself.

    Raises:
        RPCError: Temporal's list cannot be read. Repairs that fail are counted and left to the next sweep.
    """
    report = SweepReport()

    def listed(count: int) -> None:
        report.running_workflows = count
        on_progress(report)

    running = await running_workflows(client, listed)
    last = UUID(int=0)
    while rows := await _open_rows(db, last):
        last = rows[-1]["id"]
        report.open_requests += len(rows)
        await _mend_page(db, client, proofs, rows, running, report, on_progress=on_progress)
        on_progress(report)
    # What is left runs for a request that is closed, or that the record does not know.
    await _each(list(running), lambda name: _tell_or_end(client, name), report, on_progress)
    report.dispatched = await dispatching.dispatch(db, client)
    on_progress(report)
    return report


async def running_workflows(
    client: Client, on_progress: Callable[[int], None] = lambda _: None
) -> dict[str, str | None]:
    """The running workflows of requests by their id, each with its status attribute; read page by page.

    Raises:
        RPCError: Temporal's list cannot be read.
    """
    running: dict[str, str | None] = {}
    query = f"WorkflowType = '{names.ACCESS_REQUEST_WORKFLOW}' AND ExecutionStatus = 'Running'"
    async for execution in client.list_workflows(query, page_size=_PAGE, rpc_timeout=_CALL):
        running[execution.id] = execution.typed_search_attributes.get(names.STATUS)
        if len(running) % _PAGE == 0:
            on_progress(len(running))
    on_progress(len(running))
    return running


async def _open_rows(db: Database, after: UUID) -> list[dict[str, Any]]:
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            SELECT {_HEAD}, {DECIDABLE} AS decidable, {REQUESTER_ACTIVE} AS requester_active, now() AS now,
                   r.created_at < now() - %(settled)s AS settled,
                   coalesce(r.status = 'approved' AND r.expires_at < now() - %(overdue)s, false) AS overdue,
                   {UNANSWERED} AS unanswered
            FROM access_requests r JOIN users u ON u.id = r.requester_id
            WHERE r.status IN ('pending', 'approved') AND r.id > %(after)s
            ORDER BY r.id LIMIT %(page)s
            """,
            {"after": after, "page": _PAGE, "settled": _SETTLED, "overdue": _OVERDUE, "late": _OVERDUE},
        )
        return await rows.fetchall()


async def _mend_page(
    db: Database,
    client: Client,
    proofs: ProofKey,
    rows: list[dict[str, Any]],
    running: dict[str, str | None],
    report: SweepReport,
    *,
    on_progress: Callable[[SweepReport], None],
) -> None:
    missing, differing, overdue = [], [], []
    for row in rows:
        name = workflow_id(row["id"])
        runs = name in running
        attribute = running.pop(name, None)
        if row["overdue"]:
            overdue.append(row)
        elif not runs:
            if row["settled"]:
                missing.append(Head.of(row))
        elif (
            attribute != row["status"]
            or not row["decidable"]
            or not row["requester_active"]
            or (row["unanswered"] and row["settled"])
        ):
            differing.append(Head.of(row))

    async def finish(row: dict[str, Any]) -> str:
        await _expire(db, proofs, row)
        await reconcile(client, row["id"])
        return "expired"

    async def start_missing(head: Head) -> str:
        try:
            await start(client, head, conflict=WorkflowIDConflictPolicy.FAIL)
        except WorkflowAlreadyStartedError:
            # Temporal's list lags behind, or a workflow of another kind has its id.
            return await _tell_or_restart(client, head)
        return "started"

    await _each(overdue, finish, report, on_progress)
    await _each(missing, start_missing, report, on_progress)
    await _each(differing, lambda head: _tell_or_restart(client, head), report, on_progress)


async def _tell_or_restart(client: Client, head: Head) -> str:
    """Tell a workflow to look at its row; terminate one that does not go on, and start it anew from the row."""
    done = await _tell_or_end(client, workflow_id(head.id))
    if done == "restarted":
        await start(client, head)
    return done


async def _tell_or_end(client: Client, name: str) -> str:
    found = await wedged.look(client, name, names.ACCESS_REQUEST_WORKFLOW)
    if found is None:
        await _reconcile(client, name)
        return "reconciled"
    await wedged.end(client, found)
    return "restarted"


async def _expire(db: Database, proofs: ProofKey, row: dict[str, Any]) -> RequestState | None:
    transition = Transition(
        request_id=row["id"],
        action=Action.EXPIRE,
        channel=Channel.SYSTEM,
        at=row["now"],
        key="expire",
        actor=SystemActor.EXPIRY.value,
    )
    return (await transitions.apply(db, proofs, transition, trust_claimed_actors=False)).state


async def _each(
    items: list[T],
    repair: Callable[[T], Awaitable[str]],
    report: SweepReport,
    on_progress: Callable[[SweepReport], None],
) -> None:
    """Repair each item, and count under the name that its repair returns.

    Reports progress after each: thousands of repairs with a slow Temporal take longer than a heartbeat may.
    """
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(item: T) -> None:
        async with slots:
            try:
                counter = await repair(item)
            except (RPCError, DatabaseError) as error:
                report.failed += 1
                _log.warning("sweep_repair_failed", error=str(error))
            else:
                setattr(report, counter, getattr(report, counter) + 1)
            on_progress(report)

    await asyncio.gather(*map(one, items))


class SweepActivities:
    """The sweep as an activity."""

    def __init__(self, db: Database, client: Client, proofs: ProofKey) -> None:
        self._db = db
        self._client = client
        self._proofs = proofs

    @activity.defn(name=names.SWEEP)
    async def sweep(self) -> SweepReport:
        """One pass over both stores."""
        report = await sweep(self._db, self._client, self._proofs, activity.heartbeat)
        for what in ("started", "reconciled", "restarted", "expired", "dispatched", "failed"):
            metrics.SWEPT.labels(what).inc(getattr(report, what))
        return report
