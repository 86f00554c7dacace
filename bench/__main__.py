"""`make bench`: measures the service and its floor in one run, prints a table, writes JSON.

Real servers on this machine: PostgreSQL (with fsync), Temporal's dev server in memory, one worker, one API process.
Nothing here is a test; what counts are the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID, uuid4

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from activities import setup
from bench.bare_workflows import TASK_QUEUE, FloorLifecycle, FloorTimer
from bench.load import Answer, Connection, Timings, in_parallel
from bench.servers import memory, process, processor_secs, wait_for
from cli.dev import PostgresServer, TemporalDevServer
from cli.dev.program import free_port
from db import migrate, tokens
from db.database import Database
from domain.actors import temporary_group_id

SECRET: Final = "a secret that lives as long as the benchmark"
MANY: Final = 64
"""Clients at once, where there are many."""
_BIN: Final = Path(sys.executable).parent
_RPC: Final = timedelta(seconds=30)


@dataclass
class Result:
    """One line of the table."""

    what: str
    value: float
    unit: str
    floor: float | None = None
    target: str = ""
    """The ratio to the floor that is aimed for, as `≤ 2` or `≥ 0.6`."""

    @property
    def ratio(self) -> float | None:
        """How `value` compares with the floor of the same run."""
        return self.value / self.floor if self.floor else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if not self.target or self.ratio is None:
            return None
        sign, bound = self.target.split()
        return self.ratio <= float(bound) if sign == "≤" else self.ratio >= float(bound)


@dataclass
class Bench:
    """The running servers, and who and what the load is made of."""

    db: Database
    client: Client
    api_port: int
    floor_port: int
    results: list[Result] = field(default_factory=list)
    requesters: list[tuple[UUID, str]] = field(default_factory=list)
    """Ids and tokens."""
    approver: str = ""
    template_id: UUID = field(default_factory=uuid4)

    def note(self, *results: Result) -> None:
        """Keep what was measured, and show it at once."""
        self.results += results
        for result in results:
            _print(result)


async def main() -> None:
    """Measure everything and write it down."""
    options = _options()
    async with _running(Path(tempfile.mkdtemp(prefix="bench-"))) as bench:
        await _furnish(bench)
        await _warm_up(bench)
        await _single_client(bench, options.count)
        await _many_clients(bench, options.lifecycles)
        await _exchanges(bench, options.reads, await _reads(bench, options.reads))
        await _history(bench)
        for count in options.expiries:
            await _expiry_lag(bench, count)
        if options.open:
            await _memory(bench, options.open)
    lines = [vars(result) | {"ratio": result.ratio, "met": result.met} for result in bench.results]
    options.json.write_text(json.dumps({"measured_at": datetime.now(UTC).isoformat(), "results": lines}, indent=1))
    sys.stdout.write(f"\nWritten to {options.json}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="requests of the single client")
    parser.add_argument("--lifecycles", type=int, default=640, help="lifecycles of the 64 clients together")
    parser.add_argument("--reads", type=int, default=2000, help="calls for each reading endpoint")
    parser.add_argument("--expiries", type=int, nargs="*", default=[500, 2000], help="grants that end at once")
    parser.add_argument("--open", type=int, default=20_000, help="grants that are open at once, for their memory")
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"), help="where the results are written")
    return parser.parse_args()


@asynccontextmanager
async def _running(directory: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(directory / "postgres"))
        postgres.create_database("bench")
        temporal = stack.enter_context(TemporalDevServer(log_file=directory / "temporal.log", ui_port=None))
        migrate.upgrade(postgres.url("bench"))
        api_port, floor_port = free_port(), free_port()
        environment = os.environ | {
            "JUSTIAM_DATABASE_URL": postgres.url("bench"),
            "JUSTIAM_TEMPORAL_ADDRESS": temporal.address,
            "JUSTIAM_SECRET_KEY": SECRET,
            "JUSTIAM_API_PORT": str(api_port),
            "JUSTIAM_LOG_LEVEL": "warning",
            "JUSTIAM_CALLS_PER_MINUTE": "1000000",
        }
        uvicorn = ["uvicorn", "bench.floor:app", "--factory", f"--port={floor_port}", "--log-level=warning"]
        for command in (
            [_BIN / "justiam", "worker"],
            [_BIN / "justiam", "api"],
            [sys.executable, "-m", "bench.floor"],
            [sys.executable, "-m", *uvicorn, "--loop=uvloop", "--http=httptools", "--no-access-log"],
        ):
            stack.enter_context(process([str(part) for part in command], environment))
        client = await Client.connect(temporal.address, data_converter=pydantic_data_converter)
        await setup.ensure(client, timedelta(minutes=5))
        db = await stack.enter_async_context(Database(postgres.url("bench")))
        await wait_for(api_port, floor_port)
        yield Bench(db, client, api_port, floor_port)


async def _furnish(bench: Bench) -> None:
    """Sixty-four requesters, an approver, and a template with nothing bound to it."""
    group, app, mapping, approver = uuid4(), uuid4(), uuid4(), uuid4()
    people = [(uuid4(), f"user-{number}@example.com") for number in range(MANY)]
    async with bench.db.transaction() as connection:
        for user_id, email in [*people, (approver, "approver@example.com")]:
            await connection.execute("INSERT INTO users (id, email, name) VALUES (%s, %s, %s)", [user_id, email, email])
        await connection.execute("INSERT INTO groups (id, name, description) VALUES (%s, 'approvers', '')", [group])
        await connection.execute("INSERT INTO group_members (group_id, user_id) VALUES (%s, %s)", [group, approver])
        await connection.execute(
            "INSERT INTO applications (id, name, description) VALUES (%s, 'Internal DB', '')", [app]
        )
        await connection.execute(
            "INSERT INTO app_mappings (id, app_id, name, claim, value) VALUES (%s, %s, 'role', 'roles', 'reader')",
            [mapping, app],
        )
        await connection.execute(
            """
            INSERT INTO access_request_templates (
                id, name, description, app_id, mapping_ids, approver_group_ids, prefer_requester_groups,
                require_justification, auto_approve, notification_policy, notification_count,
                trigger_task_failure_mode)
            VALUES (%s, 'Benchmark', '', %s, %s, %s, false, true, false, 'all', 1, 'ignore')
            """,
            [bench.template_id, app, [mapping], [group]],
        )
    bench.requesters = [
        (user_id, (await tokens.create_token(bench.db, user_id, "bench", None)).token) for user_id, _ in people
    ]
    bench.approver = (await tokens.create_token(bench.db, approver, "bench", None)).token


def _asked(bench: Bench) -> dict[str, object]:
    return {
        "template_id": str(bench.template_id),
        "requested_duration_mins": 480,
        "justification": "Need access to debug the production incident.",
    }


async def _lifecycle(bench: Bench, http: Connection, token: str, timings: dict[str, Timings]) -> str:
    """Submit, approve, revoke."""
    answer = await timings["submit"].of(http.call("POST", "/api/v1/access-requests", token, _asked(bench)))
    path = f"/api/v1/access-requests/{answer.json()['id']}"
    (await timings["approve"].of(http.call("POST", f"{path}/approve", bench.approver))).json()
    (await timings["revoke"].of(http.call("POST", f"{path}/revoke", token))).json()
    return str(answer.json()["workflow_id"])


async def _denied(bench: Bench, http: Connection, token: str) -> None:
    """Submit and deny: one decision, as the floor has one update."""
    answer = await http.call("POST", "/api/v1/access-requests", token, _asked(bench))
    path = f"/api/v1/access-requests/{answer.json()['id']}"
    (await http.call("POST", f"{path}/deny", bench.approver)).json()


def _timings() -> dict[str, Timings]:
    return {"submit": Timings(), "approve": Timings(), "revoke": Timings()}


async def _floor_lifecycle(bench: Bench, start: Timings, update: Timings) -> None:
    handle = await start.of(
        bench.client.start_workflow(FloorLifecycle.run, id=f"floor-{uuid4()}", task_queue=TASK_QUEUE, rpc_timeout=_RPC)
    )
    await update.of(handle.execute_update(FloorLifecycle.decide, rpc_timeout=_RPC))
    await handle.result()


async def _warm_up(bench: Bench) -> None:
    async with Connection(bench.api_port) as http:
        for _, token in bench.requesters[:8]:
            await _lifecycle(bench, http, token, _timings())
            await _floor_lifecycle(bench, Timings(), Timings())


async def _single_client(bench: Bench, count: int) -> None:
    timings, start, update, insert, ours = _timings(), *(Timings() for _ in range(4))
    async with Connection(bench.api_port) as http, bench.db.connection() as connection:
        for _ in range(count):
            # In turn, so that both meet the same machine.
            await ours.of(_lifecycle(bench, http, bench.requesters[0][1], timings))
            await _floor_lifecycle(bench, start, update)
            await insert.of(
                connection.execute(
                    "INSERT INTO applications (id, name, description) VALUES (%s, %s, '')", [uuid4(), uuid4().hex]
                )
            )
    submit_floor = start.quantile(0.5) + insert.quantile(0.5)
    bench.note(
        Result("start a bare workflow, p50", start.quantile(0.5), "ms"),
        Result("update a bare workflow, p50", update.quantile(0.5), "ms"),
        Result("one INSERT, p50", insert.quantile(0.5), "ms"),
        Result("submit, 1 client, p50", timings["submit"].quantile(0.5), "ms", submit_floor, "≤ 2"),
        Result("submit, 1 client, p95", timings["submit"].quantile(0.95), "ms"),
        Result("approve, 1 client, p50", timings["approve"].quantile(0.5), "ms", update.quantile(0.5), "≤ 2"),
        Result("approve, 1 client, p95", timings["approve"].quantile(0.95), "ms"),
        Result("revoke, 1 client, p50", timings["revoke"].quantile(0.5), "ms", update.quantile(0.5), "≤ 2"),
        # Without a floor: a bare lifecycle waits for its timer, a second.
        Result("full lifecycles, 1 client", 1000 / statistics.fmean(ours.taken), "/s"),
    )


async def _many_clients(bench: Bench, count: int) -> None:
    start, update, timings = Timings(), Timings(), _timings()

    async def bare(_: int, __: int) -> None:
        await _floor_lifecycle(bench, start, update)

    floor = await in_parallel(MANY, count, bare)
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection(bench.api_port)) for _ in range(MANY)]

        async def one(client: int, _: int) -> None:
            await _lifecycle(bench, connections[client], bench.requesters[client][1], timings)

        async def deny(client: int, _: int) -> None:
            await _denied(bench, connections[client], bench.requesters[client][1])

        ours = await in_parallel(MANY, count, one)
        denied = await in_parallel(MANY, count, deny)
    bench.note(
        Result(f"bare lifecycles, {MANY} clients", floor, "/s"),
        Result(f"full lifecycles, {MANY} clients", ours, "/s", floor, "≥ 0.6"),
        Result(f"submit and deny, {MANY} clients", denied, "/s", floor),
        Result(f"submit, {MANY} clients, p95", timings["submit"].quantile(0.95), "ms"),
        Result(f"approve, {MANY} clients, p95", timings["approve"].quantile(0.95), "ms"),
    )


@dataclass(frozen=True)
class _Calls:
    """Many calls by a few clients."""

    rate: float
    """A second."""
    answering_ms: float
    """Of a processor, for each, by the program that answers."""
    postgres_ms: float

    def results(self, what: str, floor: _Calls, target: str) -> list[Result]:
        """Lines of the table."""
        return [
            Result(what, self.rate, "/s", floor.rate, target),
            Result(f"{what}, processor of the API", self.answering_ms, "ms", floor.answering_ms),
            Result(f"{what}, processor of PostgreSQL", self.postgres_ms, "ms", floor.postgres_ms),
        ]


async def _repeated(port: int, program: str, count: int, call: Callable[[Connection], Awaitable[Answer]]) -> _Calls:
    """Have eight clients make a call again and again, after a tenth of that to warm up."""
    clients = 8
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection(port)) for _ in range(clients)]

        async def one(client: int, _: int) -> None:
            (await call(connections[client])).json()

        await in_parallel(clients, count // 10, one)
        before = processor_secs()
        rate = await in_parallel(clients, count, one)
        after = processor_secs()
    took = {name: (after[name] - before[name]) / count * 1000 for name in (program, "postgres")}
    return _Calls(rate, took[program], took["postgres"])


async def _reads(bench: Bench, count: int) -> _Calls:
    """How often a second each list is read; answers with the floor."""
    user_id, token = bench.requesters[0]

    async def read(port: int, program: str, path: str, token: str) -> _Calls:
        return await _repeated(port, program, count, lambda connection: connection.call("GET", path, token))

    floor = await read(bench.floor_port, "bench.floor:app", f"/users/{user_id}", token)
    bench.note(
        Result("bare route, one indexed SELECT", floor.rate, "/s"),
        Result("bare route, processor of the API", floor.answering_ms, "ms"),
        Result("bare route, processor of PostgreSQL", floor.postgres_ms, "ms"),
    )
    async with bench.db.connection() as connection:
        newest = await (
            await connection.execute(
                "SELECT id FROM access_requests WHERE requester_id = %s ORDER BY created_at DESC LIMIT 1", [user_id]
            )
        ).fetchone()
    request_id = newest["id"] if newest else None
    async with Connection(bench.api_port) as http:
        for _, each in bench.requesters[1:21]:
            (await http.call("POST", "/api/v1/access-requests", each, _asked(bench))).json()
    for what, path, who in (
        ("one request", f"/access-requests/{request_id}", token),
        ("my requests, 20 rows", "/access-requests?limit=20", token),
        ("awaiting me, 20 rows", "/access-requests/pending?limit=20", bench.approver),
        ("timeline", f"/access-requests/{request_id}/timeline", token),
        ("templates", "/access-request-templates?limit=20", token),
    ):
        calls = await read(bench.api_port, "justiam api", f"/api/v1{path}", who)
        bench.note(*calls.results(what, floor, "≥ 0.5"))
    return floor


async def _exchanges(bench: Bench, count: int, floor: _Calls) -> None:
    """Token exchange: who asks, what they hold for the application, a signature, a row."""
    async with bench.db.connection() as connection:
        rows = await connection.execute("SELECT client_id FROM applications WHERE name = 'Internal DB'")
        row = await rows.fetchone()
    form = urlencode(
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": bench.requesters[0][1],
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": row["client_id"] if row else "",
        }
    )
    calls = await _repeated(
        bench.api_port, "justiam api", count, lambda connection: connection.call("POST", "/oauth2/token", form=form)
    )
    bench.note(*calls.results("token exchange", floor, "≥ 0.4"))


async def _history(bench: Bench) -> None:
    async with Connection(bench.api_port) as http:
        name = await _lifecycle(bench, http, bench.requesters[0][1], _timings())
    handle = bench.client.get_workflow_handle(name)
    await handle.result()
    history = await handle.fetch_history()
    scheduled = sum(event.HasField("activity_task_scheduled_event_attributes") for event in history.events)
    bench.note(
        Result("history events, submit → approve → revoke", len(history.events), "events", 20, "≤ 1.1"),
        Result("regular activities of that", scheduled, "activities"),
    )


async def _memory(bench: Bench, count: int) -> None:
    """What each program holds more for every grant that lasts, once all their workflows sleep."""
    before = memory()
    await _grants_until(bench, [uuid4() for _ in range(count)], datetime.now(UTC) + timedelta(days=1))
    async with asyncio.timeout(3_600):
        while await _waiting(bench) > 0:
            await asyncio.sleep(1)
    await asyncio.sleep(10)
    after = memory()
    bench.note(
        *(
            Result(f"{name}, for each of {count} open grants", (after[name] - before[name]) / count / 1000, "kB")
            for name in sorted(before)
        )
    )


async def _expiry_lag(bench: Bench, count: int) -> None:
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
    bench.note(
        Result(f"{count} bare timers at once, p50 lag", _quantile(floor, 0.5), "s"),
        Result(f"{count} grants end at once, p50 lag", _quantile(lags, 0.5), "s", _quantile(floor, 0.5)),
        Result(f"{count} grants end at once, p99 lag", _quantile(lags, 0.99), "s", _quantile(floor, 0.99), "≤ 2"),
    )


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


def _print(result: Result) -> None:
    ratio = "" if result.ratio is None else f"{result.ratio:6.2f} of floor"
    verdict = {True: "met", False: "missed", None: ""}[result.met]
    sys.stdout.write(
        f"{result.what:<44}{result.value:>10.2f} {result.unit:<11}{ratio:<16}{result.target:<7}{verdict}\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
