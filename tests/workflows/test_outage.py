"""Workers and PostgreSQL may be away; what was due then happens when they are back, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from activities import processes
from domain.states import Action, Status
from tests.workflows.world import World, eventually


@asynccontextmanager
async def unreachable(postgres: Callable[[str], str], world: World) -> AsyncIterator[None]:
    """The world's database refuses connections and has dropped those there were."""
    database = str(conninfo_to_dict(world.settings.database_url.get_secret_value())["dbname"])
    with psycopg.connect(postgres("postgres"), autocommit=True) as connection:

        def allow(allowed: str) -> None:
            statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
            connection.execute(statement.format(sql.Identifier(database), sql.Literal(allowed)))

        allow("false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
        try:
            yield
        finally:
            allow("true")
            await eventually(lambda: answers(world))


async def answers(world: World) -> bool:
    """Whether the pool has replaced the connections that it lost."""
    with suppress(psycopg.OperationalError):
        return bool(await world.record.query("SELECT 1"))
    return False


async def move(world: World, request_id: UUID, column: str, *, seconds: float) -> datetime:
    """Bring an instant of the request near, and have its workflow set its timer anew.

    The real server skips no time, and the other one would not skip it past a workflow that nobody serves.
    """
    due = await world.now() + timedelta(seconds=seconds)
    await world.record.execute(
        f"UPDATE access_requests SET {column} = %s WHERE id = %s",  # noqa: S608 - a column named here
        due,
        request_id,
    )
    if column == "expires_at":
        await world.record.execute("UPDATE groups SET expires_at = %s WHERE request_id = %s", due, request_id)
    await world.reconcile(request_id)

    async def has_taken_over() -> bool:
        state = await world.state(request_id)
        return state is not None and getattr(state, column) == due

    await eventually(has_taken_over)
    return due


async def test_a_grant_that_ended_without_workers_is_ended_when_one_is_back(real_world: World) -> None:
    world = real_world
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    due = await move(world, request_id, "expires_at", seconds=1)
    async with world.without_worker():
        await passed(world, due)
        assert (await world.record.row(request_id))["status"] == Status.APPROVED
        # What is over is over, without anybody's help; the rest follows.
        assert await world.record.claims(cast.requester, cast.application) == {}
    row = await world.status_is(request_id, Status.EXPIRED)
    assert row["ended_at"] == due
    assert await world.record.temporary_groups(request_id) == []
    assert await world.record.kinds(request_id) == ["submitted", "approved", "expired"]


async def test_an_escalation_that_was_due_without_workers_happens_when_one_is_back(real_world: World) -> None:
    world = real_world
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast)
    due = await move(world, request_id, "escalates_at", seconds=1)
    async with world.without_worker():
        await passed(world, due)
        assert await world.record.kinds(request_id) == ["submitted"]
    await eventually(lambda: escalated(world, request_id))
    assert (await world.decide(request_id, Action.APPROVE, cast.manager)).status is Status.APPROVED
    assert await world.record.kinds(request_id) == ["submitted", "escalated", "approved"]


async def passed(world: World, moment: datetime) -> None:
    while await world.now() < moment + timedelta(milliseconds=200):
        await asyncio.sleep(0.05)


async def escalated(world: World, request_id: UUID) -> bool:
    return (await world.record.row(request_id))["escalated_at"] is not None


async def test_a_decision_outlasts_a_database_that_is_away(real_world: World, postgres: Callable[[str], str]) -> None:
    world = real_world
    cast = await world.record.cast()
    request_id = await world.request(cast)
    before = await world.now()
    async with unreachable(postgres, world):
        deciding = asyncio.create_task(world.decide(request_id, Action.APPROVE, cast.approver))
        await asyncio.sleep(0.5)
        assert not deciding.done()
    state = await deciding
    assert state.status is Status.APPROVED
    assert state.decided_at is not None
    assert state.decided_at >= before
    assert await world.record.kinds(request_id) == ["submitted", "approved"]
    assert len(await world.record.temporary_groups(request_id)) == 1


async def test_a_grant_that_ends_while_the_database_is_away_is_ended_after(
    real_world: World, postgres: Callable[[str], str]
) -> None:
    world = real_world
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    due = await move(world, request_id, "expires_at", seconds=0.5)
    async with unreachable(postgres, world):
        await passed(world, due)
    row = await world.status_is(request_id, Status.EXPIRED)
    assert row["ended_at"] == due
    assert await world.record.kinds(request_id) == ["submitted", "approved", "expired"]


async def test_a_workflow_that_starts_while_the_database_is_away_looks_when_it_is_back(
    real_world: World, postgres: Callable[[str], str]
) -> None:
    world = real_world
    cast = await world.record.cast()
    request_id = await world.submit(cast)
    head = await world.head(request_id)
    async with unreachable(postgres, world):
        await processes.start(world.client, head)
        await asyncio.sleep(0.3)
    assert (await world.decide(request_id, Action.DENY, cast.approver)).status is Status.DENIED
