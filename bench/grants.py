"""Measure many grants: the memory of open ones, and the delay of those that end in the same second."""

from __future__ import annotations

import asyncio
import statistics
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from bench.bare_workflows import TASK_QUEUE, FloorTimer
from bench.house import MANY, Bench
from bench.load import Connection
from bench.servers import memory
from domain.actors import temporary_group_id

_RPC: Final = timedelta(seconds=30)


async def history(bench: Bench) -> None:
    """Count the events of a life: submit, approve, revoke."""
    token = bench.requesters[0][1]
    async with Connection(bench.api_port) as http:
        sent = (await http.call("POST", "/api/v1/access-requests", token, bench.submission)).json()
        path = f"/api/v1/access-requests/{sent['id']}"
        (await http.call("POST", f"{path}/approve", bench.approver, {})).json()
        (await http.call("POST", f"{path}/revoke", token, {})).json()
    handle = bench.client.get_workflow_handle(sent["workflow_id"])
    await handle.result()
    events = (await handle.fetch_history()).events
    scheduled = sum(event.HasField("activity_task_scheduled_event_attributes") for event in events)
    bench.table.note("history events, submit → approve → revoke", len(events), "")
    bench.table.note("regular activities of that", scheduled, "")


async def memory_held(bench: Bench, count: int) -> None:
    """Measure the memory that each program holds for an open grant, once all workflows wait."""
    before = memory()
    await _grants_until(bench, [uuid4() for _ in range(count)], datetime.now(UTC) + timedelta(days=1))
    async with asyncio.timeout(3_600):
        while await _waiting(bench) > 0:
            await asyncio.sleep(1)
    await asyncio.sleep(10)
    after = memory()
    for name in sorted(before):
        bench.table.note(f"{name}, for each of {count} open grants", (after[name] - before[name]) / count / 1000, "kB")


async def expiry_lag(bench: Bench, count: int) -> None:
    """How late grants end that all end at the same instant, by the clock of the database."""
    end = datetime.now(UTC) + timedelta(seconds=20 + count / 40)
    ids = [uuid4() for _ in range(count)]
    await _grants_until(bench, ids, end)
    slots = asyncio.Semaphore(MANY)

    async def bare(number: int) -> None:
        async with slots:
            await bench.client.start_workflow(
                FloorTimer.run, end, id=f"timer-{end.timestamp()}-{number}", task_queue=TASK_QUEUE, rpc_timeout=_RPC
            )

    # The workflows of the grants are started by the worker, from the rows.
    async with asyncio.timeout_at(asyncio.get_running_loop().time() + 600):
        while await _waiting(bench) > 0:
            await asyncio.sleep(0.5)
    await _sleep_until(end)
    async with asyncio.timeout(600):
        while await _open(bench, ids) > 0:
            await asyncio.sleep(0.5)
    lags = await _lags(bench, ids, end)
    end = datetime.now(UTC) + timedelta(seconds=10 + count / 60)
    await asyncio.gather(*map(bare, range(count)))
    await _sleep_until(end)
    floor = await _floor_lags(bench, count, end)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        bare_lag = _quantile(floor, share)
        bench.table.note(f"{count} bare timers at once, {name} lag", bare_lag, "s")
        bench.table.note(f"{count} grants end at once, {name} lag", _quantile(lags, share), "s", floor=bare_lag)


async def _grants_until(bench: Bench, ids: list[UUID], end: datetime) -> None:
    async with bench.db.transaction() as connection:
        await connection.execute(
            """
            CREATE TABLE IF NOT EXISTS bench_ended (request_id uuid, at timestamptz DEFAULT clock_timestamp());
            """
        )
        await connection.execute(
            """
            CREATE OR REPLACE FUNCTION bench_note_end() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO bench_ended (request_id) VALUES (NEW.id); RETURN NEW; END'
            """
        )
        await connection.execute(
            """
            CREATE OR REPLACE TRIGGER bench_note_end AFTER UPDATE OF status ON access_requests FOR EACH ROW
            WHEN (NEW.status = 'expired') EXECUTE FUNCTION bench_note_end()
            """
        )
        await connection.execute(
            """
            INSERT INTO access_requests (
                id, status, template_id, template_name, app_id, app_name, requester_id, requested_duration_mins,
                justification, snapshot, mapping_ids, admins_decide, decided_by, decided_at, expires_at, attention_at)
            SELECT given.id, 'approved', t.id, t.name, t.app_id, 'Internal DB', %(requester)s, 1, '',
                   '{"auto_approve": false}', t.mapping_ids, false, 'bench', now(), %(end)s, now()
            FROM unnest(%(ids)s::uuid[]) AS given (id), access_request_templates t WHERE t.id = %(template)s
            """,
            {"ids": ids, "end": end, "requester": bench.requesters[0][0], "template": bench.template_id},
        )
        await connection.execute(
            """
            INSERT INTO groups (id, name, description, system, request_id, expires_at)
            SELECT given.group_id, '__access_req_' || given.id, '', true, given.id, %s
            FROM unnest(%s::uuid[], %s::uuid[]) AS given (group_id, id)
            """,
            [end, [temporary_group_id(each) for each in ids], ids],
        )


async def _waiting(bench: Bench) -> int:
    return await _count(bench, "SELECT count(*) AS n FROM access_requests WHERE attention_at IS NOT NULL", [])


async def _open(bench: Bench, ids: list[UUID]) -> int:
    return await _count(
        bench, "SELECT count(*) AS n FROM access_requests WHERE id = ANY(%s) AND status = 'approved'", [ids]
    )


async def _count(bench: Bench, statement: str, parameters: list[Any]) -> int:
    async with bench.db.connection() as connection:
        row = await (await connection.execute(statement, parameters)).fetchone()
    return int(row["n"]) if row else 0


async def _lags(bench: Bench, ids: list[UUID], end: datetime) -> list[float]:
    async with bench.db.connection() as connection:
        rows = await connection.execute("SELECT at FROM bench_ended WHERE request_id = ANY(%s)", [ids])
        return [(row["at"] - end).total_seconds() for row in await rows.fetchall()]


async def _floor_lags(bench: Bench, count: int, end: datetime) -> list[float]:
    query = "WorkflowType = 'FloorTimer' AND ExecutionStatus = 'Completed'"
    prefix = f"timer-{end.timestamp()}"
    async with asyncio.timeout(600):
        while True:
            closed = [
                execution.close_time
                async for execution in bench.client.list_workflows(query)
                if execution.close_time and execution.id.startswith(prefix)
            ]
            if len(closed) >= count:
                return [(at - end).total_seconds() for at in closed]
            await asyncio.sleep(1)


def _quantile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


async def _sleep_until(moment: datetime) -> None:
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))
