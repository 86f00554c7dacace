"""The measurements of `make bench`, each beside its floor and its control in the same minute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import uuid4

from bench.bare_workflows import TASK_QUEUE, FloorGrant
from bench.house import MANY, Bench
from bench.load import Answer, Connection, Timings, in_parallel
from bench.servers import processor_secs

_RPC: Final = timedelta(seconds=30)
_READERS: Final = 8
"""Clients that read at once."""
_LATER_SECS: Final = 1.0
_BARE: Final = {"worker": "floor worker", "Temporal": "Temporal", "API": "control", "PostgreSQL": "PostgreSQL"}
"""Programs that serve a pair, and what does their work in the floor or in the control."""


@dataclass(frozen=True)
class Pair:
    """Times of a submission and its approval, in milliseconds."""

    submit: Timings
    approve: Timings

    @classmethod
    def empty(cls) -> Pair:
        """Return one without any."""
        return cls(Timings(), Timings())

    @property
    def together(self) -> Timings:
        """Return the time of each pair."""
        return Timings([sum(both) for both in zip(self.submit.taken, self.approve.taken, strict=True)])


async def _ours(bench: Bench, http: Connection, token: str, pair: Pair) -> str:
    """Submit and approve; return the path of the request."""
    answer = await pair.submit.of(http.call("POST", "/api/v1/access-requests", token, bench.submission))
    path = f"/api/v1/access-requests/{answer.json()['id']}"
    (await pair.approve.of(http.call("POST", f"{path}/approve", bench.approver, {}))).json()
    return path


async def _control(bench: Bench, http: Connection, token: str, pair: Pair) -> None:
    """Submit and approve at the control."""
    answer = await pair.submit.of(http.call("POST", "/requests", token, bench.control_submission))
    path = f"/requests/{answer.json()['id']}/approve"
    (await pair.approve.of(http.call("POST", path, bench.approver, {}))).json()


async def _floor(bench: Bench, pair: Pair) -> None:
    """Start a bare workflow and update it."""
    handle = await pair.submit.of(
        bench.client.start_workflow(FloorGrant.run, id=f"floor-{uuid4()}", task_queue=TASK_QUEUE, rpc_timeout=_RPC)
    )
    await pair.approve.of(handle.execute_update(FloorGrant.decide, rpc_timeout=_RPC))


async def warm_up(bench: Bench) -> None:
    """Have every program load what it loads with its first calls."""
    async with Connection(bench.api_port) as ours, Connection(bench.control_port) as control:
        for _, token in bench.requesters[:16]:
            await _ours(bench, ours, token, Pair.empty())
            await _control(bench, control, token, Pair.empty())
            await _floor(bench, Pair.empty())


async def one_client(bench: Bench, count: int) -> None:
    """One client after the other: each kind of call in turn, so that all meet the same machine."""
    ours, control, floor, insert, revoke = Pair.empty(), Pair.empty(), Pair.empty(), Timings(), Timings()
    token = bench.requesters[0][1]
    async with (
        Connection(bench.api_port) as api,
        Connection(bench.control_port) as plain,
        bench.db.connection() as connection,
    ):
        for _ in range(count):
            path = await _ours(bench, api, token, ours)
            await _control(bench, plain, token, control)
            await _floor(bench, floor)
            (await revoke.of(api.call("POST", f"{path}/revoke", token, {}))).json()
            await insert.of(
                connection.execute(
                    "INSERT INTO applications (id, name, description) VALUES (%s, %s, '')", [uuid4(), uuid4().hex]
                )
            )
        later = await _approved_later(bench, api)
    note, half = bench.table.note, 0.5
    note("start a bare workflow, p50", floor.submit.quantile(half), "ms")
    note("update a bare workflow, p50", floor.approve.quantile(half), "ms")
    note("one INSERT, p50", insert.quantile(half), "ms")
    least = floor.submit.quantile(half) + insert.quantile(half)
    for share in (half, 0.95):
        name = f"p{share * 100:.0f}"
        note(f"submit, {name}", ours.submit.quantile(share), "ms", floor=least, control=control.submit.quantile(share))
        note(
            f"approve at once, {name}",
            ours.approve.quantile(share),
            "ms",
            floor=floor.approve.quantile(share),
            control=control.approve.quantile(share),
        )
    note("approve a second later, p50", later.quantile(half), "ms", floor=floor.approve.quantile(half))
    note("revoke, p50", revoke.quantile(half), "ms", floor=floor.approve.quantile(half))


async def _approved_later(bench: Bench, api: Connection) -> Timings:
    """Time approvals that come when the workflows wait for them, as people's do."""
    paths = []
    for _, token in bench.requesters[1:41]:
        answer = await api.call("POST", "/api/v1/access-requests", token, bench.submission)
        paths.append(f"/api/v1/access-requests/{answer.json()['id']}/approve")
    await asyncio.sleep(_LATER_SECS)
    later = Timings()
    for path in paths:
        (await later.of(api.call("POST", path, bench.approver, {}))).json()
    return later


async def many_clients(bench: Bench, count: int) -> None:
    """Have sixty-four clients submit and approve: the floor, the control, the service."""
    floor, control, ours = Pair.empty(), Pair.empty(), Pair.empty()

    async def at_floor(_: int, __: int) -> None:
        await _floor(bench, floor)

    floor_rate, floor_spent = await _measured(count, at_floor)
    async with AsyncExitStack() as stack:
        plain = [await stack.enter_async_context(Connection(bench.control_port)) for _ in range(MANY)]
        api = [await stack.enter_async_context(Connection(bench.api_port)) for _ in range(MANY)]

        async def at_control(client: int, _: int) -> None:
            await _control(bench, plain[client], bench.requesters[client][1], control)

        async def at_ours(client: int, _: int) -> None:
            await _ours(bench, api[client], bench.requesters[client][1], ours)

        control_rate, control_spent = await _measured(count, at_control)
        rate, spent = await _measured(count, at_ours)
    note = bench.table.note
    note(f"bare workflow with one update, {MANY} clients", floor_rate, "/s")
    note(f"submit + approve, {MANY} clients", rate, "/s", floor=floor_rate, control=control_rate)
    note(
        f"a pair, {MANY} clients, p95",
        ours.together.quantile(0.95),
        "ms",
        floor=floor.together.quantile(0.95),
        control=control.together.quantile(0.95),
    )
    total = {name: sum(each.values()) for name, each in (("f", floor_spent), ("c", control_spent), ("o", spent))}
    note("processor of a pair, all programs", total["o"], "ms", floor=total["f"], control=total["c"])
    for program, bare in _BARE.items():
        note(
            f"  processor of a pair, {program}",
            spent[program],
            "ms",
            floor=floor_spent[bare] if bare in {"floor worker", "Temporal"} else None,
            control=control_spent[bare] if bare in {"control", "PostgreSQL"} else None,
        )


async def _measured(count: int, work: Callable[[int, int], Awaitable[None]]) -> tuple[float, dict[str, float]]:
    """Return the rate a second, and the milliseconds of a processor that each program spent on each."""
    before = processor_secs()
    rate = await in_parallel(MANY, count, work)
    after = processor_secs()
    return rate, {name: (after[name] - before.get(name, 0.0)) / count * 1000 for name in after}


async def reads(bench: Bench, count: int) -> None:
    """Have eight clients read: each list, one request, a token exchange; beside a bare route and the control's list."""
    user_id, token = bench.requesters[0]
    floor = await _repeated(bench.floor_port, "floor API", count, _get(f"/users/{user_id}", token))
    bench.table.note("bare route, one indexed SELECT", floor.rate, "/s")
    bench.table.note("bare route, processor of the API", floor.answering_ms, "ms")
    control = await _repeated(bench.control_port, "control", count, _get("/requests?limit=50", token))
    async with Connection(bench.api_port) as http:
        mine = (await http.call("GET", "/api/v1/access-requests?limit=50", token)).json()["items"]
        for _, each in bench.requesters[1:51]:
            (await http.call("POST", "/api/v1/access-requests", each, bench.submission)).json()
    request = f"/api/v1/access-requests/{mine[0]['id']}"
    for what, path, who, against in (
        (f"my requests, {len(mine)} rows", "/api/v1/access-requests?limit=50", token, control),
        ("awaiting me, 50 rows", "/api/v1/access-requests/pending?limit=50", bench.approver, None),
        ("one request", request, token, None),
        ("timeline", f"{request}/timeline", token, None),
        ("templates", "/api/v1/access-request-templates?limit=50", token, None),
    ):
        calls = await _repeated(bench.api_port, "API", count, _get(path, who))
        _note_calls(bench, what, calls, floor, against)
    async with bench.db.connection() as connection:
        row = await (
            await connection.execute("SELECT client_id FROM applications WHERE name = 'Internal DB'")
        ).fetchone()
    form = urlencode(
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": row["client_id"] if row else "",
        }
    )
    exchange = await _repeated(bench.api_port, "API", count, lambda http: http.call("POST", "/oauth2/token", form=form))
    _note_calls(bench, "token exchange", exchange, floor, None)


def _get(path: str, token: str) -> Callable[[Connection], Awaitable[Answer]]:
    return lambda http: http.call("GET", path, token)


@dataclass(frozen=True)
class _Calls:
    """Many calls by a few clients."""

    rate: float
    """A second."""
    answering_ms: float
    """Of a processor, for each, by the program that answers."""
    postgres_ms: float


def _note_calls(bench: Bench, what: str, calls: _Calls, floor: _Calls, control: _Calls | None) -> None:
    bench.table.note(what, calls.rate, "/s", floor=floor.rate, control=control.rate if control else None)
    for shown, ours, bare in (
        ("API", calls.answering_ms, floor.answering_ms),
        ("PostgreSQL", calls.postgres_ms, floor.postgres_ms),
    ):
        bench.table.note(f"  processor of {what}, {shown}", ours, "ms", floor=bare)


async def _repeated(port: int, program: str, count: int, call: Callable[[Connection], Awaitable[Answer]]) -> _Calls:
    """Have eight clients make a call again and again, after a tenth of that to warm up."""
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection(port)) for _ in range(_READERS)]

        async def one(client: int, _: int) -> None:
            (await call(connections[client])).json()

        await in_parallel(_READERS, count // 10, one)
        before = processor_secs()
        rate = await in_parallel(_READERS, count, one)
        after = processor_secs()
    took = {name: (after[name] - before[name]) / count * 1000 for name in (program, "PostgreSQL")}
    return _Calls(rate, took[program], took["PostgreSQL"])


async def statements(bench: Bench, count: int) -> None:
    """Count statements and bytes of write-ahead log for each call, of the service and of the control."""
    async with bench.db.connection() as connection:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    async def counted() -> tuple[int, int]:
        async with bench.db.connection() as connection:
            row = await (
                await connection.execute(
                    """
                    SELECT (SELECT sum(calls) FROM pg_stat_statements)::bigint AS calls,
                           pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS bytes
                    """
                )
            ).fetchone()
        return (row["calls"], row["bytes"]) if row else (0, 0)

    async def of(work: Callable[[str], Awaitable[object]]) -> tuple[float, float]:
        before = await counted()
        for number in range(count):
            await work(bench.requesters[number % MANY][1])
        # The workflows go on for a moment after their answers.
        await asyncio.sleep(_LATER_SECS)
        after = await counted()
        return (after[0] - before[0]) / count, (after[1] - before[1]) / count / 1000

    async with Connection(bench.api_port) as api, Connection(bench.control_port) as plain:
        control = await of(lambda token: _control(bench, plain, token, Pair.empty()))
        ours = await of(lambda token: _ours(bench, api, token, Pair.empty()))
        bench.table.note("statements of a pair, with BEGIN and COMMIT", ours[0], "", control=control[0])
        bench.table.note("write-ahead log of a pair", ours[1], "kB", control=control[1])
        calls, _ = await of(lambda token: api.call("GET", "/api/v1/access-requests?limit=50", token))
        bench.table.note("statements of my requests", calls, "")
