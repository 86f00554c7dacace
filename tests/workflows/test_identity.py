"""A request's workflow is the one that has its id, and nobody else's."""

from __future__ import annotations

from uuid import uuid4

import pytest
from psycopg import DataError
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError

from db import transitions
from domain.actors import workflow_id
from domain.errors import Invalid
from domain.states import Action, Status
from domain.transitions import AccessRequestInput
from tests.workflows.world import World, eventually
from workflows import names
from workflows.access_request import AccessRequestWorkflow


async def test_a_workflow_in_the_place_of_another_requests_ends_at_once(world: World) -> None:
    cast = await world.record.cast()
    own = await world.submit(cast)
    impostor = await world.client.start_workflow(
        AccessRequestWorkflow.run,
        AccessRequestInput(request_id=uuid4()),
        id=workflow_id(own),
        task_queue=names.TASK_QUEUE,
    )

    async def over() -> bool:
        return (await impostor.describe()).status is WorkflowExecutionStatus.FAILED

    await eventually(over)
    with pytest.raises(WorkflowFailureError):
        await impostor.result()
    await world.start(own)
    await world.has_looked(own)
    await world.decide(own, Action.DENY, cast.approver)
    await world.status_is(own, Status.DENIED)


async def test_what_can_never_be_stored_is_refused_and_holds_up_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    carry_out = transitions.apply

    async def unstorable(*_: object, **__: object) -> None:
        raise DataError("no")

    monkeypatch.setattr(transitions, "apply", unstorable)
    with pytest.raises(Invalid):
        await world.decide(request_id, Action.APPROVE, cast.approver)
    monkeypatch.setattr(transitions, "apply", carry_out)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    await world.status_is(request_id, Status.APPROVED)
