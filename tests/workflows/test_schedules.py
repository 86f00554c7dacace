"""Tasks that run by themselves: the Schedules of the real server are what the record says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from temporalio.client import Client, ScheduleHandle
from temporalio.service import RPCError

from activities import schedules
from domain import clocks
from domain.cron import checked_cron
from domain.tasks import ScheduleType
from tests.domain.test_cron import TAKEN
from tests.workflows.test_tasks import a_task
from tests.workflows.world import World, eventually
from workflows import names


def handle(world: World, task_id: UUID) -> ScheduleHandle:
    return world.client.get_schedule_handle(names.schedule_id(task_id))


async def update(world: World, task_id: UUID, **values: Any) -> None:
    sets = ", ".join(f"{name} = %({name})s" for name in values)
    await world.record.execute(
        f"UPDATE scheduled_tasks SET {sets}, updated_at = now() WHERE id = %(id)s",  # noqa: S608
        id=task_id,
        **values,
    )


async def test_the_record_says_which_schedules_there_are(real_world: World) -> None:
    every = await a_task(real_world, schedule_type="interval", interval_seconds=3600)
    cron = await a_task(real_world, schedule_type="cron", cron="0 6 * * 1-5", time_zone="Europe/Berlin")
    once = await a_task(real_world)
    # And, where another test left one in this Temporal, it is put away.
    made = await schedules.ensure_all(real_world.db, real_world.client)
    assert {f"scheduled-task-{task_id}" for task_id in (every, cron)} <= set(made)
    assert f"scheduled-task-{once}" not in made
    times = await schedules.next_runs(real_world.client, cron)
    assert {moment.astimezone(UTC).hour for moment in times} <= {4, 5}, "six o'clock in Berlin"
    assert await schedules.next_runs(real_world.client, once) == []

    assert await schedules.ensure_all(real_world.db, real_world.client) == []
    await update(real_world, every, paused=True)
    await update(real_world, cron, schedule_type="once", cron=None)
    assert len(await schedules.ensure_all(real_world.db, real_world.client)) == 2
    assert (await handle(real_world, every).describe()).schedule.state.paused
    assert await schedules.next_runs(real_world.client, every) == []
    with pytest.raises(RPCError):
        await handle(real_world, cron).describe()

    async with real_world.db.connection() as connection:
        await connection.execute("DELETE FROM scheduled_tasks WHERE id = %s", [every])
        await schedules.bring_up_to_date(connection, real_world.client, every)
    with pytest.raises(RPCError):
        await handle(real_world, every).describe()


async def test_what_a_schedule_starts_is_a_run(real_world: World) -> None:
    task_id = await a_task(real_world, schedule_type="interval", interval_seconds=3600)
    await schedules.ensure_all(real_world.db, real_world.client)
    await handle(real_world, task_id).trigger()

    async def made() -> list[dict[str, Any]]:
        return await real_world.record.query("SELECT * FROM task_runs WHERE task_id = %s", task_id)

    (run,) = await eventually(made)
    assert (run["cause"], run["failure_mode"]) == ("schedule", "retry")
    assert run["created_at"] <= datetime.now(UTC)
    await handle(real_world, task_id).delete()


@pytest.mark.parametrize("expression", TAKEN)
async def test_temporal_reads_every_cron_expression_that_is_taken(temporal_client: Client, expression: str) -> None:
    for moment in await _next_times(temporal_client, expression):
        assert moment.second == 0


async def test_the_day_of_the_month_and_that_of_the_week_both_have_to_fit(temporal_client: Client) -> None:
    times = await _next_times(temporal_client, checked_cron("0 6 13 * fri"))
    assert times
    assert {(moment.day, moment.weekday(), moment.hour) for moment in times} == {(13, 4, 6)}


def _next_change(zone: ZoneInfo, *, forward: bool) -> datetime:
    """The day, in local time, on which clocks go forward or back next."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=2)
    while True:
        before, after = (moment.astimezone(zone).utcoffset() for moment in (day, day + timedelta(days=1)))
        assert before is not None
        assert after is not None
        if after != before and (after > before) == forward:
            return day.astimezone(zone)
        day += timedelta(days=1)


async def test_half_past_two_does_not_come_when_clocks_go_forward(temporal_client: Client) -> None:
    zone = ZoneInfo("Europe/Berlin")
    day = _next_change(zone, forward=True)
    cron = f"30 2 {day.day - 1}-{day.day + 1} {day.month} *"
    times = await _next_times(temporal_client, cron, zone.key)
    shown = [moment.astimezone(zone) for moment in times if moment.year == day.year]
    assert [(moment.day - day.day, moment.hour, moment.minute) for moment in shown] == [(-1, 2, 30), (1, 2, 30)]
    [change] = clocks.next_runs(cron, zone.key, times[:2], datetime.now(UTC)).clock_changes
    assert (change.local[-6:], change.effect) == ("T02:30", "skipped")


async def test_half_past_two_comes_once_when_clocks_go_back(temporal_client: Client) -> None:
    zone = ZoneInfo("Europe/Berlin")
    day = _next_change(zone, forward=False)
    cron = f"30 2 {day.day - 1}-{day.day} {day.month} *"
    times = await _next_times(temporal_client, cron, zone.key)
    shown = [moment.astimezone(zone) for moment in times if moment.year == day.year]
    assert [(moment.day - day.day, moment.hour, moment.minute) for moment in shown] == [(-1, 2, 30), (0, 2, 30)]
    changes = clocks.next_runs(cron, zone.key, times[:3], datetime.now(UTC)).clock_changes
    assert (changes[0].local[-6:], changes[0].effect) == ("T02:30", "once")


async def test_a_time_that_half_an_hour_skips_is_moved(temporal_client: Client) -> None:
    zone = ZoneInfo("Australia/Lord_Howe")
    day = _next_change(zone, forward=True)
    cron = f"15 2 {day.day}-{day.day + 1} {day.month} *"
    times = await _next_times(temporal_client, cron, zone.key)
    changes = clocks.next_runs(cron, zone.key, times, datetime.now(UTC)).clock_changes
    assert ("T02:15", "moved") in {(change.local[-6:], change.effect) for change in changes}


async def _next_times(client: Client, expression: str, time_zone: str = "UTC") -> list[datetime]:
    plan = schedules.Plan(
        task_id=uuid4(),
        name="A task",
        schedule_type=ScheduleType.CRON,
        interval_seconds=None,
        cron=expression,
        time_zone=time_zone,
        paused=False,
        version="1",
    )
    await schedules._put(client, plan)
    try:
        return await schedules.next_runs(client, plan.task_id)
    finally:
        await schedules._delete(client, names.schedule_id(plan.task_id))
