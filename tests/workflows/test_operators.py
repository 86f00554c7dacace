"""What operators see and do in Temporal, and what whoever may start workflows there cannot do."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from temporalio import workflow
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from domain.actors import SystemActor
from domain.errors import Forbidden
from domain.states import Action, Status
from domain.transitions import Channel, Transition
from tests.workflows.world import World, eventually
from workflows import names

_METADATA_QUERY = "__temporal_workflow_metadata"


async def details(world: World, request_id: UUID) -> str:
    """The line that the Temporal UI shows."""
    metadata: WorkflowMetadata = await world.handle(request_id).query(_METADATA_QUERY, result_type=WorkflowMetadata)
    return metadata.current_details


async def test_cancelling_ends_a_pending_request(real_world: World) -> None:
    cast = await real_world.record.cast()
    request_id = await real_world.request(cast)
    await real_world.handle(request_id).cancel()
    await real_world.ends(request_id, WorkflowExecutionStatus.CANCELED)
    row = await real_world.record.row(request_id)
    assert (row["status"], row["decided_by"], row["ended_by"]) == (
        Status.REVOKED,
        SystemActor.OPERATOR,
        SystemActor.OPERATOR,
    )
    assert await real_world.record.kinds(request_id) == ["submitted", "revoked"]


async def test_cancelling_ends_a_grant(real_world: World) -> None:
    cast = await real_world.record.cast()
    request_id = await real_world.request(cast)
    await real_world.decide(request_id, Action.APPROVE, cast.approver)
    await real_world.handle(request_id).cancel()
    await real_world.ends(request_id, WorkflowExecutionStatus.CANCELED)
    row = await real_world.record.row(request_id)
    assert (row["status"], row["decided_by"], row["ended_by"]) == (
        Status.REVOKED,
        cast.approver.email,
        SystemActor.OPERATOR,
    )
    assert await real_world.record.temporary_groups(request_id) == []
    assert await real_world.record.claims(cast.requester, cast.application) == {}


async def test_cancelling_in_the_middle_of_an_approval_ends_the_grant(real_world: World) -> None:
    cast = await real_world.record.cast()
    request_id = await real_world.request(cast)
    async with real_world.db.transaction() as connection:
        await connection.execute("SELECT FROM access_requests WHERE id = %s FOR UPDATE", [request_id])
        await (await connection.execute("SELECT 1")).fetchone()
        approving = asyncio.create_task(real_world.decide(request_id, Action.APPROVE, cast.approver))
        await asyncio.sleep(0.3)
        await real_world.handle(request_id).cancel()
        await asyncio.sleep(0.3)
    await real_world.ends(request_id, WorkflowExecutionStatus.CANCELED)
    await asyncio.gather(approving, return_exceptions=True)
    row = await real_world.record.row(request_id)
    assert (row["status"], row["ended_by"]) == (Status.REVOKED, SystemActor.OPERATOR)
    assert await real_world.record.temporary_groups(request_id) == []


async def test_cancelling_before_the_first_look_at_the_record(real_world: World) -> None:
    cast = await real_world.record.cast()
    request_id = await real_world.submit(cast)
    async with real_world.without_worker():
        await real_world.start(request_id)
        await real_world.handle(request_id).cancel()
    await real_world.ends(request_id, WorkflowExecutionStatus.CANCELED)
    assert (await real_world.record.row(request_id))["ended_by"] == SystemActor.OPERATOR


async def test_the_list_of_workflows_says_what_each_is_about(real_world: World) -> None:
    cast = await real_world.record.cast(escalation_after_mins=30)
    request_id = await real_world.request(cast, minutes=480)
    description = await real_world.handle(request_id).describe()
    assert await description.static_summary() == f"{cast.requester.email} → {cast.template.name}, 8 h"
    attributes = description.typed_search_attributes
    assert attributes.get(names.STATUS) == "pending"
    assert attributes.get(names.TEMPLATE) == cast.template.name
    assert attributes.get(names.APP) == cast.application.name
    assert attributes.get(names.REQUESTER) == cast.requester.email
    assert attributes.get(names.EXPIRES_AT) is None
    escalates_at = (await real_world.record.row(request_id))["escalates_at"]
    assert await details(real_world, request_id) == (
        f"Waiting for {cast.team.name}, escalates {escalates_at:%Y-%m-%d %H:%M} UTC"
    )

    granted = await real_world.decide(request_id, Action.APPROVE, cast.approver)

    async def has_status(status: Status) -> bool:
        described = await real_world.handle(request_id).describe()
        return described.typed_search_attributes.get(names.STATUS) == status

    await eventually(lambda: has_status(Status.APPROVED))
    attributes = (await real_world.handle(request_id).describe()).typed_search_attributes
    expires_at = attributes.get(names.EXPIRES_AT)
    assert expires_at is not None
    assert granted.expires_at is not None
    assert abs(expires_at - granted.expires_at) < timedelta(milliseconds=1)
    assert await details(real_world, request_id) == (
        f"Granted by {cast.approver.email}, ends {granted.expires_at:%Y-%m-%d %H:%M} UTC"
    )

    await real_world.decide(request_id, Action.REVOKE, cast.requester)
    await real_world.ends(request_id)
    await eventually(lambda: has_status(Status.REVOKED))
    assert (await details(real_world, request_id)).startswith(f"Revoked by {cast.requester.email}, ")


async def test_workflows_are_found_by_their_attributes(real_world: World) -> None:
    cast = await real_world.record.cast()
    request_id = await real_world.request(cast)

    async def found() -> bool:
        query = f"AccessRequestRequester = '{cast.requester.email}' AND AccessRequestStatus = 'pending'"
        return [execution.id async for execution in real_world.client.list_workflows(query)] == [
            real_world.handle(request_id).id
        ]

    await eventually(found)


async def test_details_follow_escalation_and_cancel(world: World) -> None:
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast)
    await world.skip(minutes=31)
    state = await world.state(request_id)
    assert state is not None
    assert state.waiting_for == [cast.team.name, cast.managers.name]
    await world.decide(request_id, Action.REVOKE, cast.requester)
    await world.ends(request_id)
    state = await world.state(request_id)
    assert state is not None
    assert (state.status, state.ended_by) == (Status.REVOKED, cast.requester.email)


async def test_the_query_answers_with_the_request(real_world: World) -> None:
    cast = await real_world.record.cast()
    request_id = await real_world.request(cast)
    state = await real_world.handle(request_id).query(names.STATE_QUERY)
    assert state["request_id"] == str(request_id)
    assert (state["status"], state["requester_email"]) == ("pending", cast.requester.email)


@workflow.defn
class HostileWorkflow:
    """Whoever may start workflows in the namespace schedules activities of the service by their names."""

    @workflow.run
    async def run(self, activity: str, argument: dict[str, Any]) -> object:
        return await workflow.execute_activity(
            activity,
            argument,
            task_queue=names.TASK_QUEUE,
            schedule_to_close_timeout=timedelta(seconds=10),
        )


@pytest.mark.parametrize("activity", [names.APPLY_TRANSITION, names.LOAD_REQUEST, names.RECORD_REFUSAL])
async def test_the_steps_of_requests_serve_their_workflow_only(real_world: World, activity: str) -> None:
    cast = await real_world.record.cast(auto_approve=True)
    request_id = await real_world.submit(cast)
    transition = Transition(
        request_id=request_id,
        action=Action.APPROVE,
        channel=Channel.SYSTEM,
        at=await real_world.now(),
        key="auto",
        actor=SystemActor.AUTO,
    )
    queue = f"hostile-{uuid4()}"
    more = {"code": "forbidden", "reason": "hostile"}
    async with Worker(
        real_world.client,
        task_queue=queue,
        workflows=[HostileWorkflow],
        # Its module imports the tests' machinery, which the sandbox would not let in.
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        with pytest.raises(WorkflowFailureError) as failure:
            await real_world.client.execute_workflow(
                HostileWorkflow.run,
                args=[activity, {**transition.model_dump(mode="json"), **more}],
                id=queue,
                execution_timeout=timedelta(seconds=20),
                task_queue=queue,
            )
    cause = failure.value.cause
    assert isinstance(cause, ActivityError)
    assert isinstance(cause.cause, ApplicationError)
    assert cause.cause.type == Forbidden.code
    assert (await real_world.record.row(request_id))["status"] == Status.PENDING
    assert await real_world.record.kinds(request_id) == ["submitted"]


async def test_a_life_without_integrations_is_cheap(world: World) -> None:
    """Transitions are local activities, and nothing is dispatched that is not bound."""
    cast = await world.record.cast()
    request_id = await world.submit(cast)
    await world.start(request_id)

    # Not asked for its state, which would cost a task.
    async def has_looked() -> bool:
        return (await world.record.row(request_id))["attention_at"] is None

    await eventually(has_looked)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    await world.skip(minutes=61)
    await world.ends(request_id)
    events = await world.events(request_id)
    assert len(events) <= 20, events
    assert not [event for event in events if event.startswith("ACTIVITY_TASK") or "CHILD" in event]
