"""What callers may do to a request and see of it, whether they come over HTTP or by a page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4, uuid5

from activities.processes import Head
from api.orchestrator import Orchestrator
from db import attention, requests, submission, transitions
from db.database import Connection, Database
from db.requests import RequestView
from domain import deciding
from domain.actors import Permission
from domain.deciding import Asked, Person, Standing
from domain.errors import (
    AccessError,
    Forbidden,
    NotFound,
    OrchestratorUnavailable,
    RequestNotActive,
    RequestNotPending,
)
from domain.states import Action, after
from domain.submission import Submission
from domain.tasks import BLOCK_SECS
from domain.templates import TriggerFailureMode
from domain.transitions import Refused
from telemetry import metrics

_BLOCK: Final = timedelta(seconds=BLOCK_SECS)


@dataclass(frozen=True)
class Step:
    """One decision as a caller wants it."""

    request_id: UUID
    action: Action
    caller: Person
    comment: str = ""
    idempotency_key: str | None = None
    is_async: bool = False
    """Hand it over, and do not wait for what comes of it."""

    @property
    def id(self) -> str:
        """What the decision is known by: its own, or the same for everything with this caller's key."""
        if self.idempotency_key is None:
            return str(uuid4())
        return str(
            uuid5(self.request_id, f"{self.action}:{self.caller.id}:{self.caller.own_key(self.idempotency_key)}")
        )


@dataclass(frozen=True)
class Taken:
    """What became of a step: the request, and whether the step is done or only handed over."""

    view: RequestView
    is_done: bool = True


async def submit(
    db: Database,
    temporal: Orchestrator,
    caller: Person,
    sent: Submission,
    *,
    longest_mins: int,
    idempotency_key: str | None = None,
) -> RequestView:
    """Ask for access: the row, and the workflow as far as Temporal can be reached.

    Raises:
        AccessError: as `db.submission.submit`.
    """
    submitted = await submission.submit(db, caller, sent, longest_mins=longest_mins, idempotency_key=idempotency_key)
    if submitted.view is None:
        async with db.connection() as connection:
            view, _ = await _existing(connection, submitted.request_id)
        return view
    metrics.SUBMISSIONS.inc()
    await temporal.start(_head(submitted.view), submitted.state)
    return submitted.view


async def take(db: Database, temporal: Orchestrator, step: Step) -> Taken:
    """Approve, deny or revoke.

    Raises:
        NotFound: there is no such request.
        Forbidden: the caller may not see it, or not do this.
        AccessError: the step was refused, or Temporal is unavailable.
    """
    decision_id = step.id
    async with db.connection() as connection:
        view, asked = await readable(connection, step.request_id, step.caller)
        if step.idempotency_key is not None and await transitions.is_done(connection, view.id, decision_id):
            return Taken(view)
    await _refuse_at_the_edge(db, step, view, asked)
    if step.is_async:
        await temporal.signal(_head(view), step.caller, step.action, step.comment, decision_id)
        return Taken(view, is_done=False)
    failure: AccessError | None = None
    try:
        blocks = step.action is Action.APPROVE and view.trigger_task_failure_mode is TriggerFailureMode.BLOCK
        await temporal.decide(
            _head(view),
            step.caller,
            step.action,
            step.comment,
            decision_id,
            extra=_BLOCK if blocks else timedelta(),
        )
    except (RequestNotPending, RequestNotActive, OrchestratorUnavailable) as error:
        failure = error
    async with db.connection() as connection:
        # A worker that dies after its commit never answers; and who is asked again then knows of a request that is
        # no longer pending, but not by whom. The record does.
        done = failure is None or await transitions.is_done(connection, view.id, decision_id)
        view, _ = await _existing(connection, view.id)
        if failure is not None and not done:
            _refuse_what_is_over(step, view)
            if isinstance(failure, OrchestratorUnavailable):
                # A workflow that does not go on is found by this mark, and is started anew.
                await attention.mark_one(connection, view.id)
            raise failure
    return Taken(view)


async def readable(connection: Connection, request_id: UUID, caller: Person) -> tuple[RequestView, Asked]:
    """A request that the caller may see, and who was asked to decide it.

    Raises:
        NotFound: there is none with this id.
        Forbidden: the caller may not see it.
    """
    view, asked = await _existing(connection, request_id)
    if not deciding.may_read(Standing.of(caller, asked)):
        raise Forbidden("Only its requester, those who may decide it and administrators can see this request.")
    return view, asked


def may_see_output(caller: Person) -> bool:
    """Whether the caller sees what scripts print: it is not made for everybody who may read a request."""
    return caller.is_admin or caller.holds(Permission.TASKS)


async def _refuse_at_the_edge(db: Database, step: Step, view: RequestView, asked: Asked) -> None:
    """Turn away what cannot succeed, without troubling the workflow; the transition judges again."""
    standing = Standing.of(step.caller, asked)
    if not deciding.may_do(step.action, standing, view.status):
        reason = deciding.why_not(step.action, standing)
        refused = Refused(
            request_id=view.id,
            at=None,
            key=str(uuid4()),
            action=step.action.value,
            code=Forbidden.code,
            reason=reason,
            actor=step.caller.email,
        )
        await transitions.record_refusal(db, refused)
        raise Forbidden(reason)
    _refuse_what_is_over(step, view)


def _refuse_what_is_over(step: Step, view: RequestView) -> None:
    """Raise the refusal of a step that the state of the request does not allow, if it does not."""
    if after(view.status, step.action) is None:
        if step.action is Action.REVOKE:
            raise RequestNotActive(f"The request is over: it is {view.status}.")
        by = f", decided by {view.decided_by}" if view.decided_by else ""
        raise RequestNotPending(f"The request is no longer pending: it is {view.status}{by}.")


async def _existing(connection: Connection, request_id: UUID) -> tuple[RequestView, Asked]:
    found = await requests.get(connection, request_id)
    if found is None:
        raise NotFound(f"There is no request {request_id}.")
    return found


def _head(view: RequestView) -> Head:
    return Head(
        id=view.id,
        status=view.status,
        template_name=view.template_name,
        app_name=view.app_name,
        requester_email=view.requester.email,
        requested_duration_mins=view.requested_duration_mins,
        expires_at=view.expires_at,
    )
