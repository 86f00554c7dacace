"""The life of one access request (design, sections 1 to 3).

The workflow owns every change of state after submission, but never the state itself: it loads the record when it
starts, asks for each step through `apply_transition` and adopts what comes back. So it can be lost, reset or started
anew at any moment and goes on from wherever the record is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ApplicationErrorCategory,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from domain.actors import SystemActor, workflow_id
    from domain.errors import (
        DecisionInProgress,
        Forbidden,
        Invalid,
        NotFound,
        RequestNotActive,
        RequestNotPending,
        TriggerTaskFailed,
    )
    from domain.states import PEOPLES_ACTIONS, Action, Status, after
    from domain.tasks import Report, RunNext, RunStatus, ScriptOrder
    from domain.text import made_storable
    from domain.transitions import (
        REFUSALS_KEPT,
        AccessRequestInput,
        AccessRequestResult,
        BlockBegun,
        Channel,
        Decision,
        Outcome,
        Refused,
        RequestState,
        ServiceStep,
        Transition,
    )
    from workflows import names
    from workflows.script_orders import start_script, unanswered

_ATTEMPT: Final = timedelta(seconds=10)
"""A transition is a few statements; one that takes this long is stuck and is tried again."""
_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=100), backoff_coefficient=2, maximum_interval=timedelta(seconds=10)
)
"""For ever: nobody's access may outlast a database that is down, and a transition is idempotent."""
_RETRY_IN_PLACE: Final = timedelta(seconds=5)
"""Waits shorter than this keep the workflow task open; longer ones become a timer."""
_LOOK_AGAIN: Final = timedelta(minutes=1)
"""When a step that is due changed nothing: the record knows better, and is asked once more later."""

_IN_PROGRESS: Final = "Another approval is being carried out; its task runs."
_BLOCKED: Final = "The task that has to succeed before the approval did not"
_STILL_PENDING: Final = "The request is still pending; approving it again runs the task again."
_NO_DECISION: Final = "The argument is no JSON object with actor, comment and proof."


@workflow.defn(name=names.ACCESS_REQUEST_WORKFLOW)
class AccessRequestWorkflow:
    """The life of one access request, from submission until access has ended."""

    @workflow.init
    def __init__(self, start: AccessRequestInput) -> None:
        self._request_id = start.request_id
        # As it was submitted: good enough to wait for a decision, not to take a step.
        self._state = start.state if _is_as_submitted(start) else None
        self._submitted = self._state is not None
        self._loaded = self._submitted
        self._stale = False
        self._changes = 0
        self._auto_tried = False
        # An approval waits for its task. Not under the lock below: who denies or cancels meanwhile wins at once.
        self._approving = False
        # One step at a time, in the order of arrival: of two decisions exactly one finds the request pending.
        self._turn = asyncio.Lock()

    @workflow.run
    async def run(self, _: AccessRequestInput) -> AccessRequestResult:
        """Load the record, then wait for decisions and timers until the request is closed."""
        if workflow.info().workflow_id != workflow_id(self._request_id):
            # In the place of another request's workflow it would keep that one from ever being started.
            raise _refused(Forbidden.code, "A request's workflow has the id of its request.")
        try:
            if self._submitted:
                self._adopt(self._state)
                self._submitted = True
            else:
                await self._load()
            await self._live()
        except (asyncio.CancelledError, ActivityError) as error:
            # Cancelled while it waited, or in the middle of a step.
            if not is_cancelled_exception(error):
                raise
            # An operator cancelled the workflow: the same as a revoke by the operator.
            await self._take(ServiceStep(Action.REVOKE, SystemActor.OPERATOR, "operator"))
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise
        await workflow.wait_condition(workflow.all_handlers_finished)
        state = self._state
        return AccessRequestResult(
            request_id=str(self._request_id),
            status=state.status if state else None,
            decided_by=state.decided_by if state else None,
            ended_by=state.ended_by if state else None,
        )

    @workflow.query(name=names.STATE_QUERY)
    def state(self) -> RequestState | None:
        """The request as this workflow knows it; null before its first look at the record."""
        return self._state

    @workflow.update(name=Action.APPROVE.value)
    async def approve(self, decision: Decision) -> RequestState:
        """Grant the access, from now on for the requested time."""
        return await self._decide(Action.APPROVE, decision)

    @workflow.update(name=Action.DENY.value)
    async def deny(self, decision: Decision) -> RequestState:
        """Refuse the access."""
        return await self._decide(Action.DENY, decision)

    @workflow.update(name=Action.REVOKE.value)
    async def revoke(self, decision: Decision) -> RequestState:
        """Cancel a pending request, or end a grant."""
        return await self._decide(Action.REVOKE, decision)

    @approve.validator
    def _refuse_approve(self, decision: Decision) -> None:
        self._refuse_early(Action.APPROVE, decision)

    @deny.validator
    def _refuse_deny(self, decision: Decision) -> None:
        self._refuse_early(Action.DENY, decision)

    @revoke.validator
    def _refuse_revoke(self, decision: Decision) -> None:
        self._refuse_early(Action.REVOKE, decision)

    @workflow.signal(dynamic=True)
    async def on_signal(self, name: str, args: Sequence[RawValue]) -> None:
        """`approve`, `deny`, `revoke` and `reconcile`.

        Dynamic, so that a signal with a wrong name, number or shape of arguments is written to the timeline instead of
        being dropped.
        """
        if name == names.RECONCILE_SIGNAL:
            self._stale = True
            self._changes += 1
            return
        key = str(workflow.uuid4())
        await workflow.wait_condition(lambda: self._loaded)
        try:
            action, decision = _read_signal(name, args)
        except ValueError as error:
            await self._record_refusal(name, key, str(error))
            return
        outcome = await self._apply_in_turn(
            action, Channel.SIGNAL, key, decision.actor, decision.comment, decision.proof
        )
        if outcome.refusal == DecisionInProgress.code:
            await self._record_refusal(name, key, outcome.detail, code=outcome.refusal)
        elif outcome.refusal == TriggerTaskFailed.code:
            # Without what the script printed at last: the timeline is for all who may read the request.
            reason = f"{_BLOCKED}. {_STILL_PENDING}"
            await self._record_refusal(name, key, reason, code=outcome.refusal, actor=outcome.actor)

    async def _live(self) -> None:
        while self._state is not None and self._state.is_open:
            if self._stale:
                await self._load()
                continue
            if workflow.info().is_continue_as_new_suggested():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(AccessRequestInput(request_id=self._request_id))
            seen, wait = self._changes, None
            step = self._due_step(self._state)
            if step is not None:
                if self._submitted:
                    await self._load()
                    continue
                self._auto_tried = self._auto_tried or step.action is Action.APPROVE
                if await self._take(step):
                    continue
                wait = _LOOK_AGAIN
            else:
                due = _next_instant(self._state)
                wait = None if due is None else due - workflow.now()
            await self._until_change(seen, wait)

    def _due_step(self, state: RequestState) -> ServiceStep | None:
        now = workflow.now()
        if not state.requester_active:
            return ServiceStep(Action.REVOKE, SystemActor.DEACTIVATED, "deactivated")
        if state.status is Status.APPROVED:
            over = state.expires_at is not None and state.expires_at <= now
            return ServiceStep(Action.EXPIRE, SystemActor.EXPIRY, "expire") if over else None
        if state.auto_approve and not self._auto_tried:
            return ServiceStep(Action.APPROVE, SystemActor.AUTO, "auto")
        if not state.decidable:
            # Nobody asked so far can decide. The escalation group first; where that was asked, the administrators.
            return ServiceStep(Action.ESCALATE, SystemActor.ESCALATION, "admins" if state.escalated_at else "escalate")
        if state.escalated_at is None and state.escalates_at is not None and state.escalates_at <= now:
            return ServiceStep(Action.ESCALATE, SystemActor.ESCALATION, "escalate")
        return None

    async def _until_change(self, seen: int, wait: timedelta | None) -> None:
        summary = "until the grant ends" if self._status is Status.APPROVED else "until escalation"
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                # Signals that nobody can read change nothing, but fill the history as well.
                lambda: self._changes != seen or workflow.info().is_continue_as_new_suggested(),
                timeout=wait,
                timeout_summary=summary if wait else None,
            )

    async def _take(self, step: ServiceStep) -> bool:
        """Take a step of the service; whether anything changed."""
        before = self._state
        await self._apply_in_turn(step.action, Channel.SYSTEM, step.key, step.actor.value)
        return self._state != before

    async def _decide(self, action: Action, decision: Decision) -> RequestState:
        await workflow.wait_condition(lambda: self._loaded)
        info = workflow.current_update_info()
        key = info.id if info is not None else str(workflow.uuid4())
        outcome = await self._apply_in_turn(
            action, Channel.UPDATE, key, decision.actor, decision.comment, decision.proof
        )
        if outcome.refusal is not None or outcome.state is None:
            raise _refused(outcome.refusal or NotFound.code, outcome.detail)
        return outcome.state

    async def _apply_in_turn(
        self,
        action: Action,
        channel: Channel,
        key: str,
        actor: str | None,
        comment: str = "",
        proof: str | None = None,
    ) -> Outcome:
        """Carry out a step when it is its turn; an approval that a task can block, after that task."""
        if action is Action.APPROVE and self._submitted and self._state is not None and self._state.approval_blocks:
            # A forged state could have a task run for an approval that does not wait for it.
            await self._load()
        if action is Action.APPROVE and self._state is not None and self._state.approval_blocks:
            if self._approving:
                return Outcome(state=self._state, refusal=DecisionInProgress.code, detail=_IN_PROGRESS)
            self._approving = True
            try:
                refused = await self._run_trigger(self._transition(action, channel, key, actor, comment, proof))
            finally:
                self._approving = False
            if refused is not None:
                return refused
        async with self._turn:
            return await self._apply(action, channel, key, actor, comment, proof)

    async def _run_trigger(self, transition: Transition) -> Outcome | None:
        """Run the task that the approval waits for; what to answer where it does not go on."""
        async with self._turn:
            begun: BlockBegun = await workflow.execute_local_activity(
                names.BEGIN_BLOCK,
                transition,
                result_type=BlockBegun,
                start_to_close_timeout=_ATTEMPT,
                retry_policy=_RETRY,
                local_retry_threshold=_RETRY_IN_PLACE,
            )
            self._adopt(begun.outcome.state)
        if begun.run is None:
            return begun.outcome
        run, problem = begun.run, "The task does not exist any more."
        if run.order is not None:
            report = await self._carry_out(run.order, begun.holder)
            following: RunNext = await workflow.execute_local_activity(
                names.END_BLOCK,
                args=[report, self._request_id],
                result_type=RunNext,
                start_to_close_timeout=_ATTEMPT,
                retry_policy=_RETRY,
                local_retry_threshold=_RETRY_IN_PLACE,
            )
            if report.cancelled or following.status is RunStatus.SUCCEEDED:
                # Where it was overtaken, the record says by what.
                return None
            problem = (report.result.error if report.result else report.error) or "It failed."
        return Outcome(
            state=self._state,
            refusal=TriggerTaskFailed.code,
            detail=f"{_BLOCKED} (run {run.run_id}): {problem} {_STILL_PENDING}",
            actor=begun.actor,
        )

    async def _carry_out(self, order: ScriptOrder, holder: str) -> Report:
        script = start_script(order, blocking=True)
        await workflow.wait_condition(lambda: script.done() or self._status is not Status.PENDING)
        result, error, cancelled = None, None, False
        if not script.done():
            script.cancel()
            error, cancelled = "The request was decided or cancelled meanwhile.", True
        else:
            try:
                result = await script
            except ActivityError as failure:
                error, _ = unanswered(failure)
        return Report(
            run_id=order.run_id, holder=holder, at=workflow.now(), result=result, error=error, cancelled=cancelled
        )

    def _transition(
        self, action: Action, channel: Channel, key: str, actor: str | None, comment: str, proof: str | None
    ) -> Transition:
        return Transition(
            request_id=self._request_id,
            action=action,
            channel=channel,
            at=workflow.now(),
            key=key,
            actor=actor,
            comment=comment,
            proof=proof,
        )

    async def _apply(
        self,
        action: Action,
        channel: Channel,
        key: str,
        actor: str | None,
        comment: str = "",
        proof: str | None = None,
    ) -> Outcome:
        outcome: Outcome = await workflow.execute_local_activity(
            names.APPLY_TRANSITION,
            self._transition(action, channel, key, actor, comment, proof),
            result_type=Outcome,
            start_to_close_timeout=_ATTEMPT,
            retry_policy=_RETRY,
            local_retry_threshold=_RETRY_IN_PLACE,
            summary=f"{action.value} by {actor}" if actor else action.value,
        )
        self._adopt(outcome.state)
        return outcome

    async def _load(self) -> None:
        async with self._turn:
            self._stale = False
            outcome: Outcome = await workflow.execute_local_activity(
                names.LOAD_REQUEST,
                AccessRequestInput(request_id=self._request_id),
                result_type=Outcome,
                start_to_close_timeout=_ATTEMPT,
                retry_policy=_RETRY,
                local_retry_threshold=_RETRY_IN_PLACE,
            )
            self._adopt(outcome.state)
            self._loaded = True

    async def _record_refusal(
        self, name: str, key: str, reason: str, *, code: str = Invalid.code, actor: str | None = None
    ) -> None:
        if self._state is None or self._state.refusals >= REFUSALS_KEPT:
            return
        self._state.refusals += 1
        await workflow.execute_local_activity(
            names.RECORD_REFUSAL,
            Refused(
                request_id=self._request_id,
                at=workflow.now(),
                key=key,
                action=made_storable(name[:100]),
                code=code,
                reason=made_storable(reason),
                actor=actor,
            ),
            start_to_close_timeout=_ATTEMPT,
            retry_policy=_RETRY,
            local_retry_threshold=_RETRY_IN_PLACE,
        )

    def _adopt(self, state: RequestState | None) -> None:
        self._state = state
        self._submitted = False
        self._changes += 1
        if state is None:
            return
        wanted = names.search_attributes(
            status=state.status,
            template_name=state.template_name,
            app_name=state.app_name,
            requester_email=state.requester_email,
            expires_at=state.expires_at,
        )
        changes = names.attribute_changes(workflow.info().typed_search_attributes, wanted)
        if changes:
            workflow.upsert_search_attributes(changes)
        workflow.set_current_details(_details(state))

    @property
    def _status(self) -> Status | None:
        return self._state.status if self._state is not None else None

    def _refuse_early(self, action: Action, decision: object) -> None:
        """Turn away what is no decision or plainly too late, without a trace in the history."""
        if not isinstance(decision, Decision):
            # A null or binary payload is handed over as it is, whatever type was asked for.
            raise _refused(Invalid.code, _NO_DECISION)
        status = self._status
        if status is not None and after(status, action) is None:
            kind = RequestNotActive if action is Action.REVOKE else RequestNotPending
            raise _refused(kind.code, f"The request is {status.value}.")
        if action is Action.APPROVE and self._approving:
            raise _refused(DecisionInProgress.code, _IN_PROGRESS)


def _is_as_submitted(start: AccessRequestInput) -> bool:
    """Return whether the workflow can begin with the state in its input.

    A new request is pending and nothing was refused yet. Another state would have the workflow end, turn decisions
    away or leave refusals out of the timeline without a look at the record.
    """
    state = start.state
    return (
        state is not None
        and state.request_id == start.request_id
        and state.status is Status.PENDING
        and state.refusals == 0
    )


def _next_instant(state: RequestState) -> datetime | None:
    if state.status is Status.APPROVED:
        return state.expires_at
    return state.escalates_at if state.escalated_at is None else None


def _read_signal(name: str, args: Sequence[RawValue]) -> tuple[Action, Decision]:
    if name not in PEOPLES_ACTIONS:
        msg = f"There is no signal “{name[:100]}”; there are approve, deny, revoke and reconcile."
        raise ValueError(msg)
    if len(args) != 1:
        msg = f"The signal takes one argument, an object with actor, comment and proof; it came with {len(args)}."
        raise ValueError(msg)
    try:
        decision: object = workflow.payload_converter().from_payload(args[0].payload, Decision)
    except ValidationError as error:
        msg = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'input'}: {item['msg']}" for item in error.errors())
        raise ValueError(msg[:1000]) from error
    except Exception as error:
        raise ValueError(_NO_DECISION) from error
    if not isinstance(decision, Decision):
        # A null or binary payload is handed over as it is, whatever type was asked for.
        raise ValueError(_NO_DECISION)  # noqa: TRY004 - what was sent is wrong, not how this was called
    return Action(name), decision


def _refused(code: str, detail: str) -> ApplicationError:
    return ApplicationError(detail, type=code, non_retryable=True, category=ApplicationErrorCategory.BENIGN)


def _details(state: RequestState) -> str:
    """What an operator reads in the Temporal UI."""
    match state.status:
        case Status.PENDING:
            text = f"Waiting for {', '.join(state.waiting_for) or 'its approvers'}"
            if state.escalated_at is None and state.escalates_at is not None:
                return f"{text}, escalates {_clock(state.escalates_at)}"
            return f"{text}, escalated {_clock(state.escalated_at)}" if state.escalated_at else text
        case Status.APPROVED:
            return f"Granted by {state.decided_by}, ends {_clock(state.expires_at)}"
        case Status.DENIED:
            return f"Denied by {state.decided_by}"
        case Status.EXPIRED:
            return f"Granted by {state.decided_by}, ended {_clock(state.ended_at)}"
        case Status.REVOKED:
            verb = "Cancelled" if state.decided_by is None else "Revoked"
            return f"{verb} by {state.ended_by}, {_clock(state.ended_at)}"


def _clock(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC") if moment is not None else "never"
