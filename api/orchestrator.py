"""The API's way to the workflows: start, decide, signal, nudge. Every call is bounded in time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, Self
from uuid import UUID

import structlog
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

import temporal_client
from activities import dispatching, processes, schedules
from activities.processes import Head
from api.start_marks import StartMarks
from db.database import Database
from domain.actors import workflow_id
from domain.deciding import Person
from domain.errors import ERRORS_BY_CODE, OrchestratorUnavailable, refusal
from domain.proofs import ProofKey
from domain.states import Action
from domain.transitions import AccessRequestInput, Decision, RequestState
from settings import Settings
from temporal_client import UNREACHABLE
from workflows import names
from workflows.access_request import AccessRequestWorkflow
from workflows.preparation import PrepareGoWorkflow

_log = structlog.get_logger(__name__)

_START: Final = timedelta(seconds=2)
"""Who submits does not wait longer for Temporal than this; a worker starts the workflow later."""
_NUDGE: Final = timedelta(seconds=2)
"""For all the workflows that one call nudges."""
_MOST_NUDGED: Final = 200
"""By one call; a worker tells the others. A group may be asked in thousands of requests."""
_ATTEMPTS: Final = 4
"""Sends of a decision that Temporal drops. It is carried out once, however often it is sent."""
_DROPPED: Final = frozenset({RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION})
"""How Temporal answers an update that arrived while its workflow's last task was under way, and one whose workflow
task was refused, because a signal came in between, say."""


class Orchestrator:
    """Talks to Temporal on behalf of one API process; connects with the first call."""

    def __init__(self, settings: Settings, marks: StartMarks | None = None) -> None:
        # None: workers clear the marks of submissions.
        self._settings = settings
        self._timeout = timedelta(seconds=settings.temporal_rpc_timeout_secs)
        self.proofs = ProofKey(settings.secret_key.get_secret_value())
        self._client: Client | None = None
        self._unwritten = False
        """True after a write got no answer, until `is_reachable` sees Temporal write again."""
        self._marks = marks

    async def __aenter__(self) -> Self:
        self._client = await temporal_client.connect(self._settings, lazy=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client = None

    async def start(self, head: Head, state: RequestState | None = None) -> None:
        """Start a request's workflow. A request is accepted without it: what fails here, a worker does later.

        Args:
            head: the request.
            state: what the workflow begins with; None has it load the record, which clears the mark of the submission.
        """
        try:
            async with _at_most(_START):
                await processes.start(self._connected, head, state=state, rpc_timeout=_START)
        except UNREACHABLE as error:
            self._unwritten = True
            _log.warning("workflow_not_started", request_id=str(head.id), error=_said(error))
        else:
            if state is not None and self._marks is not None:
                self._marks.started(head.id)

    async def decide(
        self,
        head: Head,
        person: Person,
        action: Action,
        comment: str,
        decision_id: str,
        *,
        extra: timedelta = timedelta(),
    ) -> RequestState:
        """Have the workflow carry out a decision, starting it where it is missing.

        Args:
            head: the request.
            person: who decides; proven to the workflow by a proof made here.
            action: approve, deny or revoke.
            comment: shown with the decision.
            decision_id: the same id is carried out once.
            extra: how much longer than usual the answer may take, because a task has to run first.

        Raises:
            AccessError: the decision was refused, by its code.
            OrchestratorUnavailable: no answer in time; the decision may or may not be carried out.
        """
        proof = self.proofs.mint(head.id, action, person.id, jti=decision_id, now=datetime.now(UTC))
        decision = Decision(comment=comment, proof=proof)
        patience = self._timeout + extra
        try:
            async with _at_most(patience):
                return await self._update(head, action, decision, decision_id, patience)
        except WorkflowUpdateFailedError as error:
            # In each attempt, the workflow ended before it answered.
            raise _unavailable() from error
        except (WorkflowUpdateRPCTimeoutOrCancelledError, *UNREACHABLE) as error:
            self._unwritten = True
            _log.warning("decision_unanswered", request_id=str(head.id), action=action.value, error=_said(error))
            raise _unavailable() from error

    async def _update(
        self, head: Head, action: Action, decision: Decision, decision_id: str, patience: timedelta
    ) -> RequestState:
        """Return the workflow's answer; where none runs, that of one that is started from the record."""
        for attempt in range(_ATTEMPTS):
            # Nearly every decision finds its workflow waiting, and a start with it costs Temporal a fifth more.
            send = self._send if attempt == 0 else self._send_with_start
            try:
                return await send(head, action, decision, decision_id, patience)
            except WorkflowUpdateFailedError as error:
                if isinstance(error.cause, ApplicationError) and error.cause.type in ERRORS_BY_CODE:
                    raise refusal(error.cause.type, error.cause.message) from error
                # The workflow ended before it could answer: terminated, say, because it did not go on.
                if attempt == _ATTEMPTS - 1:
                    raise
            except RPCError as error:
                if error.status not in _DROPPED or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def _send(
        self, head: Head, action: Action, decision: Decision, decision_id: str, patience: timedelta
    ) -> RequestState:
        state: RequestState = await self._connected.get_workflow_handle(workflow_id(head.id)).execute_update(
            action.value,
            decision,
            result_type=RequestState,
            id=self.proofs.update_id(decision_id),
            rpc_timeout=patience,
        )
        return state

    async def _send_with_start(
        self, head: Head, action: Action, decision: Decision, decision_id: str, patience: timedelta
    ) -> RequestState:
        operation = head.start_operation()
        try:
            state: RequestState = await self._connected.execute_update_with_start_workflow(
                action.value,
                decision,
                result_type=RequestState,
                start_workflow_operation=operation,
                id=self.proofs.update_id(decision_id),
                rpc_timeout=patience,
            )
        except (RPCError, WorkflowUpdateRPCTimeoutOrCancelledError):
            _seen(operation)
            raise
        return state

    async def signal(self, head: Head, person: Person, action: Action, comment: str, decision_id: str) -> None:
        """Hand a decision over without waiting for its outcome (`Prefer: respond-async`).

        Raises:
            OrchestratorUnavailable: Temporal did not take it.
        """
        proof = self.proofs.mint(head.id, action, person.id, jti=decision_id, now=datetime.now(UTC))
        try:
            async with _at_most(self._timeout):
                await self._connected.start_workflow(
                    AccessRequestWorkflow.run,
                    AccessRequestInput(request_id=head.id),
                    start_signal=action.value,
                    start_signal_args=[Decision(comment=comment, proof=proof)],
                    rpc_timeout=self._timeout,
                    **head.start_options,
                )
        except UNREACHABLE as error:
            self._unwritten = True
            raise _unavailable() from error

    async def reconcile(self, request_ids: Iterable[UUID]) -> None:
        """Nudge workflows to look at the record again; what fails here, a worker does within seconds."""

        async def nudge(request_id: UUID) -> None:
            try:
                await processes.reconcile(self._connected, request_id, rpc_timeout=_NUDGE)
            except (RPCError, RuntimeError) as error:
                _log.warning("reconcile_not_sent", request_id=str(request_id), error=_said(error))

        try:
            async with _at_most(_NUDGE):
                await asyncio.gather(*map(nudge, islice(request_ids, _MOST_NUDGED)))
        except TimeoutError as error:
            _log.warning("reconcile_not_sent", error=_said(error))

    async def start_run(self, run_id: UUID) -> None:
        """Start the workflow of a run; what fails here, a worker does within a minute."""
        try:
            async with _at_most(_START):
                await dispatching.start_run(self._connected, run_id, rpc_timeout=_START)
        except UNREACHABLE as error:
            _log.warning("run_not_started", run_id=str(run_id), error=_said(error))

    async def prepare_go(self) -> None:
        """Have a script worker compile Go's library; what fails here, the first run of a script in Go does."""
        try:
            async with _at_most(_START):
                await self._connected.start_workflow(
                    PrepareGoWorkflow.run,
                    id=names.PREPARE_GO_ID,
                    task_queue=names.TASK_QUEUE,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    rpc_timeout=_START,
                )
        except UNREACHABLE as error:
            _log.warning("go_not_prepared", error=_said(error))

    async def keep_schedule(self, db: Database, task_id: UUID) -> None:
        """Give a task the Schedule that the record says it has; what fails here, a worker does within a minute."""
        try:
            async with db.connection() as connection, _at_most(self._timeout):
                await schedules.bring_up_to_date(connection, self._connected, task_id)
        except UNREACHABLE as error:
            _log.warning("schedule_not_kept", task_id=str(task_id), error=_said(error))

    async def next_runs(self, task_id: UUID) -> list[datetime]:
        """When a task runs next by itself, the soonest first.

        Raises:
            OrchestratorUnavailable: Temporal does not say.
        """
        try:
            async with _at_most(self._timeout):
                return await schedules.next_runs(self._connected, task_id)
        except UNREACHABLE as error:
            raise OrchestratorUnavailable(
                "Temporal, which keeps the times, does not answer. Try again in a moment."
            ) from error

    async def is_reachable(self, patience_secs: float) -> bool:
        """Return whether Temporal answers within this time; after a failed write, whether it also writes again."""
        if not await temporal_client.is_reachable(self._connected, patience_secs):
            return False
        if self._unwritten:
            self._unwritten = not await temporal_client.takes_writes(self._connected, patience_secs)
        return not self._unwritten

    @property
    def _connected(self) -> Client:
        if self._client is None:
            raise RuntimeError("use the orchestrator with `async with`")
        return self._client


def _at_most(limit: timedelta) -> asyncio.Timeout:
    """A limit for a call with all its repetitions.

    The time-out that Temporal's client knows is that of one attempt, and where no server listens it makes attempts for
    ten seconds.
    """
    return asyncio.timeout(limit.total_seconds())


def _said(error: BaseException) -> str:
    return str(error) or "no answer in time"


def _seen(operation: WithStartWorkflowOperation[Any, Any]) -> None:
    """Look at why nothing was started, which is known already: asyncio logs with a traceback what nobody looked at."""
    asyncio.ensure_future(operation.workflow_handle()).add_done_callback(
        lambda task: task.cancelled() or task.exception()
    )


def _unavailable() -> OrchestratorUnavailable:
    return OrchestratorUnavailable(
        "The workflow did not answer in time. Look at the request again in a moment; repeat the call with the same "
        "Idempotency-Key and it is carried out once."
    )
