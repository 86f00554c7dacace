"""The sweep and its helpers keep the process beside the record (design, section 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import RawValue
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from activities import auditing, dispatching, processes, setup, wedged
from db.tables import ScheduledTask
from domain.actors import SystemActor, workflow_id
from domain.states import Action, Status
from domain.sweeping import SweepReport
from tests.conftest import Databases
from tests.record import PROOFS
from tests.servers import SWEPT, UNFURNISHED, TestingTemporal
from tests.workflows.world import World, eventually, open_world
from workflows import names

LATER = timedelta(minutes=7)


async def connect(temporal: TestingTemporal, namespace: str) -> Client:
    return await Client.connect(temporal.address, namespace=namespace, data_converter=pydantic_data_converter)


@pytest.fixture(scope="module")
async def swept_client(temporal: TestingTemporal) -> Client:
    client = await connect(temporal, SWEPT)
    await setup._search_attributes(client)
    return client


@pytest.fixture
async def swept(database_url: str, swept_client: Client) -> AsyncIterator[World]:
    """A database and a namespace with nothing in them that the test has not made."""
    async with open_world(database_url, swept_client) as world:
        await listed(world)
        yield world


async def listed(world: World, *request_ids: UUID) -> None:
    """Wait until Temporal's list, which lags behind, has these workflows as running and no others."""
    query = f"WorkflowType = '{names.ACCESS_REQUEST_WORKFLOW}' AND ExecutionStatus = 'Running'"

    async def said() -> bool:
        running = {execution.id async for execution in world.client.list_workflows(query)}
        return running == {workflow_id(request_id) for request_id in request_ids}

    await eventually(said)


async def sweep(world: World) -> SweepReport:
    return await processes.sweep(world.db, world.client, PROOFS)


async def settle(world: World, request_id: UUID) -> None:
    """Make a request old enough to be missed."""
    await world.record.execute(
        "UPDATE access_requests SET created_at = created_at - interval '1 hour' WHERE id = %s", request_id
    )


async def runs(world: World, request_id: UUID) -> bool:
    try:
        return await world.is_running(request_id)
    except RPCError:
        return False


async def test_a_request_without_a_workflow_gets_one(swept: World) -> None:
    cast = await swept.record.cast()
    pending = await swept.submit(cast)
    granted = await swept.submit(cast, by=cast.manager)
    await swept.record.decide(granted, Action.APPROVE, cast.approver)
    for request_id in (pending, granted):
        await settle(swept, request_id)
    heard: list[int] = []
    report = await processes.sweep(swept.db, swept.client, PROOFS, lambda report: heard.append(report.started))
    assert report == SweepReport(open_requests=2, running_workflows=0, started=2)
    # A heartbeat after each repair: thousands take longer than the wait for one.
    assert {1, 2} <= set(heard)
    assert (await swept.decide(pending, Action.DENY, cast.approver)).status is Status.DENIED
    assert (await swept.decide(granted, Action.REVOKE, cast.manager)).status is Status.REVOKED


async def test_a_terminated_workflow_is_started_again(swept: World) -> None:
    cast = await swept.record.cast()
    request_id = await swept.request(cast)
    await settle(swept, request_id)
    await swept.handle(request_id).terminate()
    await listed(swept)
    assert (await sweep(swept)).started == 1
    assert (await swept.decide(request_id, Action.DENY, cast.approver)).status is Status.DENIED


async def test_a_request_that_was_just_submitted_is_left_alone(swept: World) -> None:
    """Temporal's list lags behind: what is not in it yet may well be running."""
    cast = await swept.record.cast()
    request_id = await swept.submit(cast)
    assert await sweep(swept) == SweepReport(open_requests=1)
    assert not await runs(swept, request_id)


async def test_an_overdue_grant_is_ended_at_once(swept: World) -> None:
    cast = await swept.record.cast()
    request_id = await swept.submit(cast)
    long_ago = datetime.now(UTC) - timedelta(minutes=61, seconds=30)
    await swept.record.decide(request_id, Action.APPROVE, cast.approver, at=long_ago)
    assert (await sweep(swept)).expired == 1
    row = await swept.record.row(request_id)
    assert (row["status"], row["ended_by"]) == (Status.EXPIRED, SystemActor.EXPIRY)
    assert row["ended_at"] == row["expires_at"]
    assert await swept.record.temporary_groups(request_id) == []
    assert await swept.record.kinds(request_id) == ["submitted", "approved", "expired"]


async def test_a_workflow_that_sleeps_over_the_end_is_overtaken_and_catches_up(swept: World) -> None:
    cast = await swept.record.cast()
    request_id = await swept.request(cast)
    await swept.decide(request_id, Action.APPROVE, cast.approver)
    await listed(swept, request_id)
    async with swept.without_worker():
        await swept.record.execute(
            "UPDATE access_requests SET expires_at = now() - interval '61 s' WHERE id = %s", request_id
        )
        assert (await sweep(swept)).expired == 1
        assert (await swept.record.row(request_id))["status"] == Status.EXPIRED
    await swept.ends(request_id)
    assert await swept.record.kinds(request_id) == ["submitted", "approved", "expired"]


async def test_a_grant_that_is_a_little_late_is_left_to_its_workflow(swept: World) -> None:
    cast = await swept.record.cast()
    request_id = await swept.submit(cast)
    await settle(swept, request_id)
    just = datetime.now(UTC) - timedelta(minutes=60, seconds=20)
    await swept.record.decide(request_id, Action.APPROVE, cast.approver, at=just)
    report = await sweep(swept)
    assert (report.expired, report.started) == (0, 1)
    await swept.status_is(request_id, Status.EXPIRED)
    await swept.ends(request_id)


async def test_a_workflow_that_fell_behind_is_told(swept: World) -> None:
    cast = await swept.record.cast()
    request_id = await swept.request(cast)
    await listed(swept, request_id)
    await swept.record.decide(request_id, Action.APPROVE, cast.approver)
    report = await sweep(swept)
    assert report == SweepReport(open_requests=1, running_workflows=1, reconciled=1)

    async def has_caught_up() -> bool:
        state = await swept.state(request_id)
        return state is not None and state.status is Status.APPROVED

    await eventually(has_caught_up)


async def test_a_workflow_of_a_closed_request_ends(swept: World) -> None:
    cast = await swept.record.cast()
    request_id = await swept.request(cast)
    await listed(swept, request_id)
    await swept.record.decide(request_id, Action.DENY, cast.approver)
    assert (await sweep(swept)).reconciled == 1
    await swept.ends(request_id, WorkflowExecutionStatus.COMPLETED)


@pytest.mark.parametrize("change", ["nobody can decide", "the requester is gone"])
async def test_a_change_in_the_directory_that_nobody_reported_is_noticed(swept: World, change: str) -> None:
    cast = await swept.record.cast()
    request_id = await swept.request(cast)
    await listed(swept, request_id)
    if change == "nobody can decide":
        await swept.record.execute("DELETE FROM group_members WHERE group_id = %s", cast.team.id)
        last = "escalated"
    else:
        await swept.record.execute("UPDATE users SET active = false WHERE id = %s", cast.requester.id)
        last = "revoked"
    assert (await sweep(swept)).reconciled == 1

    async def happened() -> bool:
        return (await swept.record.kinds(request_id))[-1] == last

    await eventually(happened)


async def test_what_is_in_order_costs_pages_and_not_rows(swept: World, monkeypatch: pytest.MonkeyPatch) -> None:
    count, page = 12, 5
    request_ids = []
    for _ in range(count):
        request_ids.append(await swept.request(await swept.record.cast()))
        await settle(swept, request_ids[-1])
    await listed(swept, *request_ids)
    calls: Counter[str] = Counter()
    connection = swept.client.service_client
    call = connection._rpc_call

    async def counted(*args: Any, **kwargs: Any) -> Any:
        calls[kwargs.get("rpc") or args[0]] += 1
        return await call(*args, **kwargs)

    monkeypatch.setattr(connection, "_rpc_call", counted)
    monkeypatch.setattr(processes, "_PAGE", page)
    assert await sweep(swept) == SweepReport(open_requests=count, running_workflows=count)
    assert calls == {"list_workflow_executions": 3}


async def test_a_repair_that_fails_is_counted_and_does_not_stop_the_rest(
    swept: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = await swept.record.cast()
    broken, whole = await swept.submit(cast), await swept.submit(cast, by=cast.manager)
    for request_id in (broken, whole):
        await settle(swept, request_id)
    start = processes.start

    async def start_most(client: Client, head: processes.Head, **options: Any) -> None:
        if head.id == broken:
            # As Temporal refuses what breaks one of its limits.
            await client.get_workflow_handle("no-such-workflow").signal("x")
        await start(client, head, **options)

    monkeypatch.setattr(processes, "start", start_most)
    report = await sweep(swept)
    assert (report.failed, report.started) == (1, 1)
    assert await runs(swept, whole)


async def attention(world: World, request_id: UUID) -> float | None:
    """In how many seconds a worker will look after the request; None if it need not."""
    (row,) = await world.record.query(
        "SELECT extract(epoch FROM attention_at - now())::float AS secs FROM access_requests WHERE id = %s", request_id
    )
    secs: float | None = row["secs"]
    return secs


async def test_a_start_that_was_never_confirmed_is_made_up_for_within_seconds(swept: World) -> None:
    cast = await swept.record.cast()
    request_id = await swept.submit(cast)
    # The API has these few seconds to do it.
    assert 5 < (await attention(swept, request_id) or 0) <= 10
    assert await processes.attend(swept.db, swept.client) == 0
    await swept.record.execute("UPDATE access_requests SET attention_at = now() WHERE id = %s", request_id)
    assert await processes.attend(swept.db, swept.client) == 1
    await swept.has_looked(request_id)
    assert await attention(swept, request_id) is None
    assert await processes.attend(swept.db, swept.client) == 0


async def test_what_was_told_is_not_told_again_for_a_while(swept: World) -> None:
    cast = await swept.record.cast()
    async with swept.without_worker():
        request_id = await swept.submit(cast)
        await swept.record.execute("UPDATE access_requests SET attention_at = now() WHERE id = %s", request_id)
        assert await processes.attend(swept.db, swept.client) == 1
        assert await processes.attend(swept.db, swept.client) == 0
        assert 25 < (await attention(swept, request_id) or 0) <= 30
        assert (await swept.events(request_id)).count("WORKFLOW_EXECUTION_SIGNALED") == 1
    await swept.has_looked(request_id)


async def test_what_could_not_be_told_is_told_soon(swept: World, temporal: TestingTemporal) -> None:
    cast = await swept.record.cast()
    request_id = await swept.submit(cast)
    await swept.record.execute("UPDATE access_requests SET attention_at = now() WHERE id = %s", request_id)
    nowhere = await connect(temporal, "no-such-namespace")
    with pytest.raises(RPCError):
        await processes.attend(swept.db, nowhere)
    assert 1 < (await attention(swept, request_id) or 0) <= 3


async def test_temporal_is_furnished_once_and_repaired(temporal: TestingTemporal, new_database: Databases) -> None:
    client = await connect(temporal, UNFURNISHED)
    everything = [f"search attribute {key.name}" for key in names.SEARCH_ATTRIBUTES]
    assert await setup.ensure(client, LATER) == [*everything, f"schedule {names.EXPIRY_SCHEDULE}"]
    assert await setup.ensure(client, LATER) == []
    schedule = client.get_schedule_handle(names.EXPIRY_SCHEDULE)
    (spec,) = (await schedule.describe()).schedule.spec.intervals
    assert spec.every == LATER

    assert await setup.ensure(client, LATER * 2) == [f"interval of schedule {names.EXPIRY_SCHEDULE}"]
    (spec,) = (await schedule.describe()).schedule.spec.intervals
    assert spec.every == LATER * 2

    await schedule.delete()
    assert await setup.ensure(client, LATER) == [f"schedule {names.EXPIRY_SCHEDULE}"]

    # What an operator paused stays paused.
    await schedule.pause(note="maintenance")
    assert await setup.ensure(client, LATER) == []
    assert (await schedule.describe()).schedule.state.paused
    await schedule.unpause()

    # A run really happens, with the worker of the product: it finds what was lost.
    with new_database() as url:
        async with open_world(url, client) as world:
            cast = await world.record.cast()
            request_id = await world.submit(cast)
            await settle(world, request_id)
            await schedule.trigger()
            await eventually(lambda: runs(world, request_id))
            assert (await world.decide(request_id, Action.DENY, cast.approver)).status is Status.DENIED
    await schedule.delete()


async def test_a_run_that_nobody_started_is_started_once(swept: World) -> None:
    task = ScheduledTask(name="nobody started it", language="python", script="def run(): ...")
    async with swept.db.session() as session:
        session.add(task)
    cast = await swept.record.cast(trigger_task_id=task.id)
    request_id = await swept.request(cast)
    await swept.has_looked(request_id)
    await swept.record.execute("UPDATE task_runs SET dispatch_at = now() - interval '1 hour'")
    (run,) = await swept.record.query("SELECT id FROM task_runs WHERE request_id = %s", request_id)
    assert (await sweep(swept)).dispatched == 1
    assert (await swept.client.get_workflow_handle(names.delivery_id(run["id"])).describe()).status is (
        WorkflowExecutionStatus.RUNNING
    )
    # It is not due again for a while: the same run is not started by each sweep.
    assert (await sweep(swept)).dispatched == 0


async def started_unreadable(world: World, name: str, workflow_type: str, **options: Any) -> str:
    """A workflow whose input nobody can read, with its task failing; the id of its run."""
    garbage = RawValue(Payload(metadata={"encoding": b"binary/encrypted"}, data=b"\x01\x02"))
    handle = await world.client.start_workflow(
        workflow_type, garbage, id=name, **{"task_queue": names.TASK_QUEUE, **options}
    )
    if options.get("task_queue", names.TASK_QUEUE) == names.TASK_QUEUE:

        async def fails() -> bool:
            found = (await handle.describe()).raw_description
            return found.pending_workflow_task.attempt > wedged._FAILURES

        await eventually(fails)
    assert handle.first_execution_run_id is not None
    return handle.first_execution_run_id


@pytest.fixture
def soon_wedged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporal pauses longer and longer between the attempts at a task."""
    monkeypatch.setattr(wedged, "_FAILURES", 1)


@pytest.mark.usefixtures("soon_wedged")
@pytest.mark.parametrize("kind", ["unanswered", "as it should be", "another type", "another queue"])
async def test_a_workflow_that_does_not_go_on_is_started_anew(swept: World, kind: str) -> None:
    cast = await swept.record.cast()
    request_id = await swept.submit(cast)
    await settle(swept, request_id)
    head = await swept.head(request_id)
    options: dict[str, Any] = {"another queue": {"task_queue": "nobody"}}.get(kind, {})
    if kind == "as it should be":
        # It carries the attributes of a healthy one: what gives it away is that it does not answer.
        options = {"search_attributes": head.start_options["search_attributes"]}
    elif kind != "unanswered":
        await swept.record.execute("UPDATE access_requests SET attention_at = NULL WHERE id = %s", request_id)
    workflow_type = names.TASK_RUN_WORKFLOW if kind == "another type" else names.ACCESS_REQUEST_WORKFLOW
    first = await started_unreadable(swept, workflow_id(request_id), workflow_type, **options)
    if kind != "another type":
        await listed(swept, request_id)
        audit = await auditing.audit(swept.db, swept.client)
        assert [
            (violation.request_id, violation.what)
            for invariant in audit.invariants
            if invariant.name == "workflow_goes_on"
            for violation in invariant.violations
        ] == [(str(request_id), (await named(swept, request_id)).why)]
    assert (await sweep(swept)).restarted == 1
    assert (await swept.decide(request_id, Action.DENY, cast.approver)).status is Status.DENIED
    await swept.ends(request_id)
    old = await swept.client.get_workflow_handle(workflow_id(request_id), run_id=first).describe()
    assert old.status is WorkflowExecutionStatus.TERMINATED
    assert (await sweep(swept)).restarted == 0


async def named(world: World, request_id: UUID) -> wedged.Wedged:
    found = await wedged.look(world.client, workflow_id(request_id), names.ACCESS_REQUEST_WORKFLOW)
    assert found is not None
    return found


@pytest.mark.usefixtures("soon_wedged")
async def test_a_workflow_of_a_closed_request_that_does_not_go_on_is_ended(swept: World) -> None:
    cast = await swept.record.cast()
    request_id = await swept.submit(cast)
    await swept.record.decide(request_id, Action.DENY, cast.approver)
    await started_unreadable(swept, workflow_id(request_id), names.ACCESS_REQUEST_WORKFLOW)
    await listed(swept, request_id)
    assert (await sweep(swept)).restarted == 1
    await swept.ends(request_id, WorkflowExecutionStatus.TERMINATED)


async def test_a_workflow_that_waits_for_a_worker_is_left_alone(swept: World) -> None:
    cast = await swept.record.cast()
    async with swept.without_worker():
        request_id = await swept.submit(cast)
        await settle(swept, request_id)
        await swept.start(request_id)
        await listed(swept, request_id)
        assert (await sweep(swept)).restarted == 0
    await swept.has_looked(request_id)


@pytest.mark.usefixtures("soon_wedged")
async def test_a_run_whose_workflow_does_not_go_on_is_started_anew(swept: World) -> None:
    task = ScheduledTask(name="wedged", language="python", script="def run(): ...")
    async with swept.db.session() as session:
        session.add(task)
    cast = await swept.record.cast(trigger_task_id=task.id)
    await swept.request(cast)
    (run,) = await swept.record.query("SELECT id FROM task_runs WHERE task_id = %s", task.id)
    name = names.delivery_id(run["id"])
    first = await started_unreadable(swept, name, names.TASK_RUN_WORKFLOW)
    await swept.record.execute("UPDATE task_runs SET dispatch_at = now() WHERE id = %s", run["id"])
    assert (await sweep(swept)).dispatched == 1
    assert (await swept.client.get_workflow_handle(name).describe()).run_id != first
    await swept.client.get_workflow_handle(name).terminate()


@pytest.mark.usefixtures("soon_wedged")
async def test_two_workers_may_find_the_same_run_that_does_not_go_on(
    swept: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = names.delivery_id(run_id := uuid4())
    first = await started_unreadable(swept, name, names.TASK_RUN_WORKFLOW)
    end, others = wedged.end, []

    async def end_and_lose_the_race(client: Client, found: wedged.Wedged) -> None:
        await end(client, found)
        others.append(await started_unreadable(swept, name, names.TASK_RUN_WORKFLOW))

    monkeypatch.setattr(wedged, "end", end_and_lose_the_race)
    # Raising here would end the worker.
    await dispatching.start_run(swept.client, run_id)
    handle = swept.client.get_workflow_handle(name)
    assert [(await handle.describe()).run_id] == others
    assert first not in others
    await handle.terminate()
