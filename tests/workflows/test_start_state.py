"""A workflow can begin with the state that its submission committed; it takes no step by that alone."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from db import attention
from domain.errors import TriggerTaskFailed
from domain.states import Action, Status
from tests.workflows.test_tasks import a_task
from tests.workflows.world import World


async def attention_at(world: World, request_id: UUID) -> Any:
    return (await world.record.row(request_id))["attention_at"]


async def test_the_first_task_looks_at_nothing(real_world: World) -> None:
    cast = await real_world.record.cast()
    submitted = await real_world.submitted(cast)
    request_id = await real_world.start_with(submitted, submitted.state)
    assert "MARKER_RECORDED" not in await real_world.events(request_id)
    granted = await real_world.decide(request_id, Action.APPROVE, cast.approver)
    assert granted.status is Status.APPROVED
    assert (await real_world.events(request_id)).count("MARKER_RECORDED") == 1
    # The decision has cleared what the submission left for the case that no workflow is started.
    assert await attention_at(real_world, request_id) is None


async def test_the_state_is_what_the_workflow_would_load(real_world: World) -> None:
    cast = await real_world.record.cast(escalation_after_mins=30)
    submitted = await real_world.submitted(cast)
    request_id = await real_world.start_with(submitted, None)
    assert await real_world.state(request_id) == submitted.state


@pytest.mark.parametrize(
    "values", [{"auto_approve": True}, {"approver_group_ids": []}], ids=["approved automatically", "without approvers"]
)
async def test_where_a_step_is_due_at_once_the_workflow_begins_with_the_record(
    real_world: World, values: dict[str, Any]
) -> None:
    cast = await real_world.record.cast(**values)
    if "approver_group_ids" in values:
        await real_world.record.execute("UPDATE users SET active = false WHERE id = %s", cast.admin.id)
        await real_world.record.execute("UPDATE groups SET permissions = '{}'")
    submitted = await real_world.submitted(cast)
    assert submitted.state is None or submitted.state.decidable


async def test_it_escalates_in_time(world: World) -> None:
    cast = await world.record.cast(escalation_after_mins=30)
    submitted = await world.submitted(cast)
    assert submitted.state is not None
    # The test server's clock is ahead of the record's.
    behind = await world.now() - submitted.state.created_at
    assert submitted.state.escalates_at is not None
    state = submitted.state.model_copy(update={"escalates_at": submitted.state.escalates_at + behind})
    await world.record.execute(
        "UPDATE access_requests SET created_at = created_at + %s, escalates_at = escalates_at + %s WHERE id = %s",
        behind,
        behind,
        submitted.request_id,
    )
    request_id = await world.start_with(submitted, state)
    await world.skip(minutes=31)
    assert await world.record.kinds(request_id) == ["submitted", "escalated"]


async def test_a_change_of_the_directory_is_seen(real_world: World) -> None:
    cast = await real_world.record.cast()
    submitted = await real_world.submitted(cast)
    request_id = await real_world.start_with(submitted, submitted.state)
    await real_world.record.execute(
        "UPDATE users SET active = false, deactivated_at = now() WHERE id = %s", cast.requester.id
    )
    await real_world.reconcile(request_id)
    await real_world.status_is(request_id, Status.REVOKED)
    await real_world.ends(request_id)


class TestForged:
    """Everyone who may write to the namespace can start a request's workflow first, with a state of their own."""

    async def test_an_approval_still_waits_for_its_task(self, real_world: World) -> None:
        task_id = await a_task(real_world)
        cast = await real_world.record.cast(trigger_task_id=task_id, trigger_task_failure_mode="block")
        submitted = await real_world.submitted(cast)
        assert submitted.state is not None
        assert submitted.state.approval_blocks
        forged = submitted.state.model_copy(update={"approval_blocks": False})
        request_id = await real_world.start_with(submitted, forged)
        with pytest.raises(TriggerTaskFailed):
            await real_world.decide(request_id, Action.APPROVE, cast.approver)
        assert (await real_world.record.row(request_id))["status"] == Status.PENDING

    @pytest.mark.parametrize(
        "claim",
        [{"decidable": False}, {"auto_approve": True}, {"requester_active": False}],
        ids=lambda claim: next(iter(claim)),
    )
    async def test_no_step_is_taken_by_what_it_claims(self, real_world: World, claim: dict[str, bool]) -> None:
        cast = await real_world.record.cast(escalation_after_mins=30)
        submitted = await real_world.submitted(cast)
        assert submitted.state is not None
        request_id = await real_world.start_with(submitted, submitted.state.model_copy(update=claim))
        assert (await real_world.decide(request_id, Action.DENY, cast.approver)).status is Status.DENIED
        assert await real_world.record.kinds(request_id) == ["submitted", "denied"]
        await real_world.ends(request_id)

    async def test_the_state_of_another_request_is_ignored(self, real_world: World) -> None:
        cast, other = await real_world.record.cast(), await real_world.record.cast()
        submitted, elsewhere = await real_world.submitted(cast), await real_world.submitted(other)
        request_id = await real_world.start_with(submitted, elsewhere.state)
        assert await real_world.state(request_id) == submitted.state

    @pytest.mark.parametrize("claim", [{"status": Status.DENIED}, {"status": Status.APPROVED}, {"refusals": 100}])
    async def test_what_no_submission_commits_is_ignored(self, real_world: World, claim: dict[str, Any]) -> None:
        cast = await real_world.record.cast()
        submitted = await real_world.submitted(cast)
        assert submitted.state is not None
        request_id = await real_world.start_with(submitted, submitted.state.model_copy(update=claim))
        assert (await real_world.decide(request_id, Action.APPROVE, cast.approver)).status is Status.APPROVED

    async def test_no_task_runs_for_an_approval_that_waits_for_none(self, real_world: World) -> None:
        cast = await real_world.record.cast()
        submitted = await real_world.submitted(cast)
        assert submitted.state is not None
        forged = submitted.state.model_copy(update={"approval_blocks": True})
        request_id = await real_world.start_with(submitted, forged)
        assert (await real_world.decide(request_id, Action.APPROVE, cast.approver)).status is Status.APPROVED
        assert not await real_world.record.query("SELECT id FROM task_runs WHERE request_id = %s", request_id)


class TestMark:
    """What a submission leaves on its row, so that a worker starts the workflow where the API could not."""

    async def test_is_cleared_once_the_start_is_confirmed(self, real_world: World) -> None:
        submitted = [await real_world.submitted(await real_world.record.cast()) for _ in range(3)]
        ids = [each.request_id for each in submitted]
        assert all([await attention_at(real_world, each) for each in ids])
        await attention.clear_started(real_world.db, ids[:2])
        assert [await attention_at(real_world, each) is None for each in ids] == [True, True, False]

    async def test_stays_where_the_directory_has_changed_since(self, real_world: World) -> None:
        cast = await real_world.record.cast()
        submitted = await real_world.submitted(cast)
        async with real_world.db.session() as session:
            await attention.mark(session, user_ids=[cast.requester.id])
        await attention.clear_started(real_world.db, [submitted.request_id])
        marked = await attention_at(real_world, submitted.request_id)
        (row,) = await real_world.record.query("SELECT now() AS now")
        assert marked is not None
        assert marked <= row["now"]

    async def test_an_unanswered_decision_replaces_it(self, real_world: World) -> None:
        submitted = await real_world.submitted(await real_world.record.cast())
        async with real_world.db.connection() as connection:
            await attention.mark_one(connection, submitted.request_id)
        await attention.clear_started(real_world.db, [submitted.request_id])
        assert await attention_at(real_world, submitted.request_id) is not None

    async def test_stays_where_it_is_due(self, real_world: World) -> None:
        submitted = await real_world.submitted(await real_world.record.cast())
        await real_world.record.execute(
            "UPDATE access_requests SET created_at = created_at - interval '11 seconds',"
            " attention_at = attention_at - interval '11 seconds' WHERE id = %s",
            submitted.request_id,
        )
        await attention.clear_started(real_world.db, [submitted.request_id])
        assert await attention_at(real_world, submitted.request_id) is not None
