"""A workflow goes on from the row, whatever state the row is in and whatever became of the workflow before."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from domain.actors import SystemActor, workflow_id
from domain.errors import RequestNotActive, RequestNotPending
from domain.states import Action, Status
from domain.transitions import AccessRequestInput, Decision
from tests.workflows.world import World
from workflows import names
from workflows.access_request import AccessRequestWorkflow


async def lose(world: World, request_id: UUID) -> None:
    await world.handle(request_id).terminate("lost")
    await world.ends(request_id, WorkflowExecutionStatus.TERMINATED)


async def test_a_pending_request_goes_on_with_its_escalation(world: World) -> None:
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast)
    await lose(world, request_id)
    await world.skip(minutes=20)
    await world.start(request_id)
    await world.has_looked(request_id)
    assert await world.record.kinds(request_id) == ["submitted"]
    # Ten minutes are left: the timer is counted from the submission.
    await world.skip(minutes=11)
    assert await world.record.kinds(request_id) == ["submitted", "escalated"]
    assert (await world.decide(request_id, Action.APPROVE, cast.manager)).status is Status.APPROVED


async def test_an_escalated_request_is_not_escalated_again(world: World) -> None:
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast)
    await world.skip(minutes=31)
    await lose(world, request_id)
    await world.start(request_id)
    await world.has_looked(request_id)
    await world.skip(days=1)
    assert await world.record.kinds(request_id) == ["submitted", "escalated"]
    assert (await world.decide(request_id, Action.DENY, cast.manager)).status is Status.DENIED


async def test_a_grant_ends_when_it_was_meant_to(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    granted = await world.decide(request_id, Action.APPROVE, cast.approver)
    await lose(world, request_id)
    await world.skip(minutes=50)
    await world.start(request_id)
    await world.has_looked(request_id)
    await world.skip(minutes=9)
    assert (await world.record.row(request_id))["status"] == Status.APPROVED
    await world.skip(minutes=2)
    row = await world.status_is(request_id, Status.EXPIRED)
    assert row["expires_at"] == granted.expires_at
    await world.ends(request_id)


async def test_a_grant_whose_time_is_up_ends_at_once(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    granted = await world.decide(request_id, Action.APPROVE, cast.approver)
    await lose(world, request_id)
    await world.skip(days=3)
    await world.start(request_id)
    row = await world.status_is(request_id, Status.EXPIRED)
    assert row["ended_at"] == granted.expires_at


async def test_on_a_closed_request_it_ends_at_once(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.DENY, cast.approver)
    await world.ends(request_id)
    before = await world.record.timeline(request_id)
    await world.start(request_id)
    await world.ends(request_id)
    assert await world.record.timeline(request_id) == before


@pytest.mark.parametrize("action", [Action.APPROVE, Action.DENY, Action.REVOKE])
async def test_a_decision_that_starts_it_on_a_closed_request_is_refused(real_world: World, action: Action) -> None:
    world = real_world
    cast = await world.record.cast()
    request_id = await world.submit(cast)
    await world.record.decide(request_id, Action.DENY, cast.approver)
    head = await world.head(request_id)
    proof = world.record.proof(request_id, action, cast.second_approver)
    with pytest.raises(WorkflowUpdateFailedError) as error:
        await world.client.execute_update_with_start_workflow(
            action.value, Decision(proof=proof), id=str(uuid4()), start_workflow_operation=head.start_operation()
        )
    assert isinstance(error.value.cause, ApplicationError)
    kind = RequestNotActive if action is Action.REVOKE else RequestNotPending
    assert error.value.cause.type == kind.code
    await world.ends(request_id)
    assert (await world.record.row(request_id))["decided_by"] == cast.approver.email


async def test_a_decision_heals_a_missing_workflow(real_world: World) -> None:
    world = real_world
    cast = await world.record.cast()
    request_id = await world.submit(cast)
    head = await world.head(request_id)
    proof = world.record.proof(request_id, Action.APPROVE, cast.approver)
    state = await world.client.execute_update_with_start_workflow(
        Action.APPROVE.value,
        Decision(proof=proof),
        id=str(uuid4()),
        start_workflow_operation=head.start_operation(),
    )
    assert state["status"] == Status.APPROVED
    assert await world.is_running(request_id)


async def test_a_decision_finds_the_record_ahead(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.record.decide(request_id, Action.APPROVE, cast.approver, at=await world.now())
    with pytest.raises(RequestNotPending):
        await world.decide(request_id, Action.DENY, cast.second_approver)
    # It has adopted the grant with its timer.
    state = await world.state(request_id)
    assert state is not None
    assert (state.status, state.decided_by) == (Status.APPROVED, cast.approver.email)
    await world.skip(minutes=61)
    await world.status_is(request_id, Status.EXPIRED)
    assert await world.record.kinds(request_id) == ["submitted", "approved", "refused", "expired"]


async def test_a_reconcile_finds_the_record_ahead(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.record.decide(request_id, Action.APPROVE, cast.approver, at=await world.now())
    await world.reconcile(request_id)
    await world.skip(minutes=61)
    await world.status_is(request_id, Status.EXPIRED)
    assert await world.record.kinds(request_id) == ["submitted", "approved", "expired"]


async def test_a_reconcile_finds_the_request_closed(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.record.decide(request_id, Action.REVOKE, cast.requester, at=await world.now())
    await world.reconcile(request_id)
    await world.ends(request_id)
    assert await world.record.kinds(request_id) == ["submitted", "revoked"]


@pytest.mark.parametrize(("action", "last"), [(Action.APPROVE, "expired"), (Action.DENY, "denied")])
async def test_a_timer_finds_the_record_ahead(world: World, action: Action, last: str) -> None:
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast, minutes=60)
    await world.record.decide(request_id, action, cast.approver, at=await world.now())
    await world.skip(minutes=31)
    assert "escalated" not in await world.record.kinds(request_id)
    await world.skip(minutes=31)
    await world.ends(request_id)
    kinds = await world.record.kinds(request_id)
    assert kinds == [kind for kind in ("submitted", "approved", last) if kind != "approved" or last == "expired"]


async def test_the_end_of_a_grant_that_the_sweep_wrote_is_not_written_again(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    granted = await world.decide(request_id, Action.APPROVE, cast.approver)
    outcome = await world.record.take(
        request_id, Action.EXPIRE, SystemActor.EXPIRY, key="expire", at=granted.expires_at
    )
    assert outcome.state is not None
    assert outcome.state.status is Status.EXPIRED
    await world.skip(minutes=61)
    await world.ends(request_id)
    assert await world.record.kinds(request_id) == ["submitted", "approved", "expired"]


async def test_a_request_that_nobody_knows_ends_cleanly(world: World) -> None:
    handle = await world.client.start_workflow(
        AccessRequestWorkflow.run,
        AccessRequestInput(request_id=(unknown := uuid4())),
        id=workflow_id(unknown),
        task_queue=names.TASK_QUEUE,
    )
    result = await handle.result()
    assert (result.request_id, result.status) == (str(unknown), None)


async def test_a_reset_goes_on_with_what_was_decided(real_world: World) -> None:
    world = real_world
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    handle = world.handle(request_id)
    history = await handle.fetch_history()
    first_task = next(
        event.event_id for event in history.events if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    )
    reset = ResetWorkflowExecutionRequest(
        namespace=world.client.namespace,
        reason="an operator tries something",
        workflow_task_finish_event_id=first_task,
        request_id=str(uuid4()),
    )
    reset.workflow_execution.workflow_id = workflow_id(request_id)
    await world.client.workflow_service.reset_workflow_execution(reset)
    await world.has_looked(request_id)
    state = await world.state(request_id)
    assert state is not None
    assert state.status is Status.APPROVED
    assert (await world.decide(request_id, Action.REVOKE, cast.requester)).status is Status.REVOKED
    await world.ends(request_id)
    assert await world.record.kinds(request_id) == ["submitted", "approved", "revoked"]


async def test_two_minutes_early_is_not_over(world: World) -> None:
    """A step of the service that comes too early changes nothing."""
    cast = await world.record.cast()
    request_id = await world.request(cast)
    granted = await world.decide(request_id, Action.APPROVE, cast.approver)
    assert granted.expires_at is not None
    early = granted.expires_at - timedelta(minutes=2)
    await world.record.take(request_id, Action.EXPIRE, SystemActor.EXPIRY, key="expire", at=early)
    assert (await world.record.row(request_id))["status"] == Status.APPROVED
    await world.skip(minutes=61)
    await world.status_is(request_id, Status.EXPIRED)
