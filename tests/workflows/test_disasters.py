"""What is lost together: Temporal's whole database, or worker and server in the worst moment."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from temporalio.service import RPCError

import worker
from db.database import Database
from domain.states import Action, Status
from tests.workflows.processes import Site, open_site
from tests.workflows.world import World, eventually

LONG_SECS = 60.0
"""Several runs of the sweep, on a machine that is busy."""


@pytest.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    async with open_site(tmp_path, database_url) as site:
        yield site


async def runs(world: World, request_id: UUID) -> bool:
    with suppress(RPCError):
        return await world.is_running(request_id)
    return False


async def has_status(world: World, request_id: UUID, status: Status) -> bool:
    return bool((await world.record.row(request_id))["status"] == status)


async def attended(world: World, request_id: UUID) -> bool:
    """Whether a workflow has looked at the request."""
    return (await world.record.row(request_id))["attention_at"] is None


async def all_attended(world: World, *request_ids: UUID) -> None:
    """Have the worker start these workflows now, and wait for it."""
    await world.record.execute(
        "UPDATE access_requests SET attention_at = now(), created_at = created_at - interval '1 min'"
    )
    for request_id in request_ids:
        await eventually(lambda request_id=request_id: attended(world, request_id))  # type: ignore[misc]


async def ends_in(world: World, request_id: UUID, seconds: float) -> None:
    """Have a grant end soon, as far as the record is concerned."""
    await world.record.execute(
        """
        WITH soon AS (
            UPDATE access_requests SET expires_at = now() + %(secs)s WHERE id = %(id)s RETURNING id, expires_at
        )
        UPDATE groups g SET expires_at = soon.expires_at FROM soon WHERE g.request_id = soon.id
        """,
        secs=timedelta(seconds=seconds),
        id=request_id,
    )


async def test_wiping_temporal_loses_no_request_and_no_expiry(site: Site, db: Database) -> None:
    world = await site.world(db)
    cast = await world.record.cast(escalation_after_mins=30)
    pending = await world.submit(cast)
    escalating = await world.submit(cast, by=cast.manager)
    ending = await world.submit(cast, by=cast.admin)
    await all_attended(world, pending, escalating, ending)
    await world.decide(ending, Action.APPROVE, cast.approver)

    site.kill(site.temporal)
    site.wipe_temporal()
    await ends_in(world, ending, 3)
    await world.record.execute("UPDATE access_requests SET escalates_at = now() WHERE id = %s", escalating)
    await site.start_temporal()

    # From here on nothing is called by hand: the worker furnishes Temporal, and its Schedule does the rest.
    async def escalated() -> bool:
        return (await world.record.row(escalating))["escalated_at"] is not None

    await eventually(escalated, within_secs=LONG_SECS)
    await eventually(lambda: has_status(world, ending, Status.EXPIRED), within_secs=LONG_SECS)
    world = await site.world(db)
    await eventually(lambda: runs(world, pending), within_secs=LONG_SECS)
    assert (await world.decide(pending, Action.APPROVE, cast.approver)).status is Status.APPROVED
    row = await world.record.row(ending)
    assert row["ended_at"] == row["expires_at"]
    assert await world.record.kinds(ending) == ["submitted", "approved", "expired"]
    assert await world.record.temporary_groups(ending) == []
    assert await world.record.kinds(escalating) == ["submitted", "escalated"]


async def waits_for_lock(world: World) -> bool:
    """Whether a transition of the worker waits for the row that the test has locked."""
    return bool(
        await world.record.query(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


async def test_killed_between_commit_and_report_the_grant_still_ends_on_time(site: Site, db: Database) -> None:
    """The row says granted, the workflow's history does not, and the update is not delivered again."""
    world = await site.world(db)
    cast = await world.record.cast()
    request_id = await world.submit(cast)
    await all_attended(world, request_id)

    async with world.db.transaction() as connection:
        await connection.execute("SELECT FROM access_requests WHERE id = %s FOR UPDATE", [request_id])
        await (await connection.execute("SELECT 1")).fetchone()
        deciding = asyncio.create_task(world.decide(request_id, Action.APPROVE, cast.approver))
        await eventually(lambda: waits_for_lock(world))
        # The transition is under way. From now on the server hears nothing, and the row is released.
        assert site.temporal.process is not None
        site.temporal.process.send_signal(signal.SIGSTOP)
    await world.status_is(request_id, Status.APPROVED)
    site.kill(site.temporal, site.worker)
    deciding.cancel()
    await asyncio.gather(deciding, return_exceptions=True)

    await ends_in(world, request_id, 8)
    await site.start_temporal()
    world = await site.world(db)
    events = await world.events(request_id)
    assert "WORKFLOW_EXECUTION_UPDATE_COMPLETED" not in events
    assert "TIMER_STARTED" not in events
    await site.start_worker()

    async def has_caught_up() -> bool:
        state = await world.state(request_id)
        return state is not None and state.status is not Status.PENDING

    await eventually(has_caught_up, within_secs=LONG_SECS)
    await eventually(lambda: has_status(world, request_id, Status.EXPIRED), within_secs=LONG_SECS)
    row = await world.record.row(request_id)
    assert row["ended_at"] == row["expires_at"]
    assert await world.record.kinds(request_id) == ["submitted", "approved", "expired"]
    assert await world.record.temporary_groups(request_id) == []
    await world.ends(request_id)


async def a_day_passes(world: World) -> None:
    """As far as the record is concerned."""
    await world.record.execute(
        """
        UPDATE access_requests SET created_at = created_at - day, escalates_at = escalates_at - day,
            escalated_at = escalated_at - day, decided_at = decided_at - day, expires_at = expires_at - day,
            attention_at = attention_at - day
        FROM (SELECT interval '1 day' AS day) passed
        """
    )
    await world.record.execute("UPDATE groups SET expires_at = expires_at - interval '1 day' WHERE system")


async def all_is_in_order(world: World) -> bool:
    report = await worker.audit(world.settings)
    return report.holds


async def test_a_day_without_temporal_loses_nothing_that_was_asked_for_meanwhile(site: Site, db: Database) -> None:
    world = await site.world(db)
    cast = await world.record.cast(escalation_after_mins=30)
    granted = await world.submit(cast)
    await all_attended(world, granted)
    await world.decide(granted, Action.APPROVE, cast.approver)

    site.kill(site.temporal)
    automatic = await world.record.cast(auto_approve=True)
    plain = await world.record.cast()
    asked = [await world.submit(cast, by=cast.admin), await world.submit(plain), await world.submit(automatic)]
    await a_day_passes(world)
    await site.start_temporal()

    world = await site.world(db)
    escalating, pending, approved = asked
    for request_id in asked:
        await eventually(lambda request_id=request_id: runs(world, request_id), within_secs=LONG_SECS)  # type: ignore[misc]
    await eventually(lambda: has_status(world, granted, Status.EXPIRED), within_secs=LONG_SECS)
    await eventually(lambda: has_status(world, approved, Status.APPROVED), within_secs=LONG_SECS)
    row = await world.record.row(granted)
    assert row["ended_at"] == row["expires_at"], (
        "it ended when its time was up, not when somebody came to write it down"
    )
    assert (await world.decide(pending, Action.APPROVE, plain.approver)).status is Status.APPROVED
    assert (await world.decide(escalating, Action.DENY, cast.manager)).status is Status.DENIED
    assert await world.record.kinds(escalating) == ["submitted", "escalated", "denied"]
    await eventually(lambda: all_is_in_order(world), within_secs=LONG_SECS)


async def test_one_sweep_is_enough_for_a_temporal_that_lost_everything(site: Site, db: Database) -> None:
    world = await site.world(db)
    cast = await world.record.cast(escalation_after_mins=30)
    pending, escalated, granted, overdue, denied = [
        await world.submit(cast, by=by)
        for by in (cast.requester, cast.manager, cast.admin, cast.second_approver, cast.approver)
    ]
    await world.record.take(escalated, Action.ESCALATE, "system:escalation", key="escalate")
    for request_id in (granted, overdue):
        await world.record.decide(request_id, Action.APPROVE, cast.approver)
    await world.record.decide(denied, Action.DENY, cast.second_approver)
    await ends_in(world, overdue, -120)
    await world.record.execute(
        "UPDATE access_requests SET created_at = created_at - interval '1 min', attention_at = NULL"
    )

    # Nobody who would repair anything by the way.
    site.kill(site.worker, site.temporal)
    site.wipe_temporal()
    await site.start_temporal()
    await worker.setup_temporal(world.settings)
    report = await worker.sweep(world.settings)
    assert (report.started, report.expired, report.failed) == (3, 1, 0)
    assert (await world.record.row(overdue))["status"] == Status.EXPIRED
    await site.start_worker()
    world = await site.world(db)
    assert (await world.decide(pending, Action.APPROVE, cast.approver)).status is Status.APPROVED
    assert (await world.decide(escalated, Action.DENY, cast.approver)).status is Status.DENIED
    assert (await world.decide(granted, Action.REVOKE, cast.admin)).status is Status.REVOKED
    assert await world.record.kinds(overdue) == ["submitted", "approved", "expired"]
    await eventually(lambda: all_is_in_order(world), within_secs=LONG_SECS)
