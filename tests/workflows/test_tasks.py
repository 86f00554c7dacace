"""Runs of tasks, and approvals that wait for one, where no script worker is to be found."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from activities import dispatching
from db import runs
from db.tables import ScheduledTask
from domain.errors import DecisionInProgress, Forbidden, RequestNotPending, TriggerTaskFailed
from domain.states import Action, Status
from domain.tasks import RunCause
from tests.record import Cast
from tests.workflows.world import World, eventually
from workflows import names, script_orders


async def a_task(world: World, **values: Any) -> UUID:
    given = {"name": f"task {uuid4()}", "language": "python", "script": "def run(): ...", "max_retries": 1}
    task = ScheduledTask(**{**given, **values})
    async with world.db.session() as session:
        session.add(task)
    return task.id


async def blocking(world: World, **values: Any) -> tuple[Cast, UUID]:
    cast = await world.record.cast(trigger_task_id=await a_task(world), trigger_task_failure_mode="block", **values)
    return cast, await world.request(cast)


async def runs_of(world: World, request_id: UUID, event: str) -> list[dict[str, Any]]:
    return await world.record.query(
        "SELECT * FROM task_runs WHERE request_id = %s AND event = %s ORDER BY created_at", request_id, event
    )


async def is_asked_for(world: World, request_id: UUID) -> bool:
    return bool(await runs_of(world, request_id, "approved"))


class TestBlock:
    """On the real server: an update that waits stops the test server's clock."""

    @pytest.fixture(autouse=True)
    def a_second_and_a_half(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(script_orders, "BLOCK_SECS", 1.5)

    async def test_without_a_script_worker_the_request_stays_pending_and_may_be_approved_again(
        self, real_world: World
    ) -> None:
        cast, request_id = await blocking(real_world)
        for number in (1, 2):
            approving = asyncio.create_task(real_world.decide(request_id, Action.APPROVE, cast.approver))

            async def asked(number: int = number) -> bool:
                return len(await runs_of(real_world, request_id, "approved")) == number

            await eventually(asked)
            with pytest.raises(TriggerTaskFailed) as refused:
                await approving
            run = (await runs_of(real_world, request_id, "approved"))[-1]
            assert str(run["id"]) in refused.value.detail
            assert (run["status"], run["failure_mode"], run["attempt"]) == ("failed", "block", 1)
            assert run["dispatch_at"] is None
        assert (await real_world.record.row(request_id))["status"] == Status.PENDING
        kinds = await real_world.record.kinds(request_id)
        assert kinds == ["submitted", "trigger_failed", "trigger_failed"]

    async def test_an_update_id_that_cannot_be_stored_keeps_no_decision_from_being_carried_out(
        self, real_world: World
    ) -> None:
        cast, request_id = await blocking(real_world)
        with pytest.raises(Forbidden):
            await real_world.update(request_id, Action.APPROVE, {"actor": cast.approver.email}, id="a\x00b")
        assert await real_world.record.kinds(request_id) == ["submitted", "refused"]
        assert (await real_world.decide(request_id, Action.DENY, cast.approver)).status is Status.DENIED

    @pytest.mark.parametrize("action", [Action.DENY, Action.REVOKE])
    async def test_who_denies_or_cancels_meanwhile_wins_at_once(self, real_world: World, action: Action) -> None:
        cast, request_id = await blocking(real_world)
        approving = asyncio.create_task(real_world.decide(request_id, Action.APPROVE, cast.approver))
        await eventually(lambda: is_asked_for(real_world, request_id))
        by = cast.second_approver if action is Action.DENY else cast.requester
        state = await real_world.decide(request_id, action, by)
        assert state.status in {Status.DENIED, Status.REVOKED}
        with pytest.raises(RequestNotPending):
            await approving
        (run,) = await runs_of(real_world, request_id, "approved")
        assert run["status"] == "cancelled"
        await real_world.ends(request_id)
        assert "trigger_failed" not in await real_world.record.kinds(request_id)

    async def test_a_second_approval_is_told_that_one_is_in_progress(self, real_world: World) -> None:
        cast, request_id = await blocking(real_world)
        approving = asyncio.create_task(real_world.decide(request_id, Action.APPROVE, cast.approver))
        await eventually(lambda: is_asked_for(real_world, request_id))
        with pytest.raises(DecisionInProgress):
            await real_world.decide(request_id, Action.APPROVE, cast.second_approver)
        await real_world.decide(request_id, Action.DENY, cast.second_approver)
        await asyncio.gather(approving, return_exceptions=True)
        assert len(await runs_of(real_world, request_id, "approved")) == 1

    async def test_who_may_not_approve_starts_no_task(self, real_world: World) -> None:
        cast, request_id = await blocking(real_world)
        for by in (cast.requester, cast.manager):
            await asyncio.gather(real_world.decide(request_id, Action.APPROVE, by), return_exceptions=True)
        assert await runs_of(real_world, request_id, "approved") == []

    async def test_a_task_that_was_deleted_blocks(self, real_world: World) -> None:
        cast, request_id = await blocking(real_world)
        await real_world.record.execute("UPDATE access_request_templates SET trigger_task_id = NULL")
        await real_world.record.execute("DELETE FROM scheduled_tasks")
        with pytest.raises(TriggerTaskFailed, match="does not exist any more"):
            await real_world.decide(request_id, Action.APPROVE, cast.approver)
        assert (await real_world.record.row(request_id))["status"] == Status.PENDING

    async def test_an_automatic_approval_that_is_blocked_leaves_the_request_to_people(self, real_world: World) -> None:
        cast = await real_world.record.cast(
            trigger_task_id=await a_task(real_world), trigger_task_failure_mode="block", auto_approve=True
        )
        request_id = await real_world.request(cast)
        await eventually(lambda: is_asked_for(real_world, request_id))

        async def failed() -> bool:
            return "trigger_failed" in await real_world.record.kinds(request_id)

        await eventually(failed)
        assert (await real_world.record.row(request_id))["status"] == Status.PENDING
        state = await real_world.decide(request_id, Action.DENY, cast.approver)
        assert state.decided_by == cast.approver.email

    async def test_a_run_cut_off_with_everything_else_has_failed(self, real_world: World) -> None:
        cast, request_id = await blocking(real_world)
        approving = asyncio.create_task(real_world.decide(request_id, Action.APPROVE, cast.approver))
        await eventually(lambda: is_asked_for(real_world, request_id))
        await real_world.handle(request_id).terminate("everything died")
        await asyncio.gather(approving, return_exceptions=True)
        (run,) = await runs_of(real_world, request_id, "approved")
        await dispatching.start_run(real_world.client, run["id"])

        async def closed() -> bool:
            return bool((await runs_of(real_world, request_id, "approved"))[0]["status"] == "failed")

        await eventually(closed)


class TestRuns:
    """On the real server: the test server's clock stands still while an activity waits for its worker."""

    @pytest.fixture(autouse=True)
    def no_patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(script_orders, "_FETCHED", timedelta(seconds=1))
        monkeypatch.setattr(runs, "pause_after", lambda attempt: 0.1 * attempt)

    async def a_run(self, real_world: World) -> UUID:
        async with real_world.db.connection() as connection:
            run_id = await runs.make_on_its_own(connection, await a_task(real_world), RunCause.MANUAL)
        await real_world.record.execute("UPDATE task_runs SET dispatch_at = now() WHERE id = %s", run_id)
        return run_id

    async def test_what_is_due_is_started_and_given_up_after_its_retries(self, real_world: World) -> None:
        run_id = await self.a_run(real_world)
        assert await dispatching.dispatch(real_world.db, real_world.client) >= 1
        handle = real_world.client.get_workflow_handle(names.delivery_id(run_id))

        async def over() -> bool:
            (row,) = await real_world.record.query("SELECT * FROM task_runs WHERE id = %s", run_id)
            return bool(row["status"] == "failed" and row["attempt"] == 2) and "script-worker" in row["error"]

        await eventually(over)
        assert await handle.result() == "failed"

    async def test_an_operator_who_cancels_its_workflow_cancels_the_run(self, real_world: World) -> None:
        run_id = await self.a_run(real_world)
        await dispatching.start_run(real_world.client, run_id)

        async def status() -> str:
            (row,) = await real_world.record.query("SELECT status FROM task_runs WHERE id = %s", run_id)
            return str(row["status"])

        await eventually(lambda: _is(status, "running"))
        await real_world.client.get_workflow_handle(names.delivery_id(run_id)).cancel()
        await eventually(lambda: _is(status, "cancelled"))


async def _is(look: Any, wanted: str) -> bool:
    return bool(await look() == wanted)
