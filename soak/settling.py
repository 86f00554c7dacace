"""The end of a run: everything is healthy again, and what was left undone meanwhile gets done."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
from psycopg.rows import dict_row

from soak.calling import Line
from soak.receivers import Mailbox, Mood
from soak.record import Record, read
from soak.scene import FAILING_DIGITS, Scene
from soak.stack import Stack

_SETTLE_SECS: Final = 240.0
"""An attempt at a delivery whose worker was killed is noticed after two minutes."""
_AGAIN_AFTER_SECS: Final = 5.0
_LOOK_EVERY_SECS: Final = 1.0
_AUDIT_ATTEMPTS: Final = 4
_COMMAND_SECS: Final = 120.0
_POOL: Final = "justiam_database_pool_"
_LOOKS_AT_POOLS: Final = 12

_LEFT: Final = {
    "requests whose workflow was not told": "SELECT count(*) FROM access_requests WHERE attention_at IS NOT NULL",
    "grants whose end is not written down": "SELECT count(*) FROM access_requests"
    " WHERE status = 'approved' AND expires_at <= now()",
    "requests by themselves that are not granted": "SELECT count(*) FROM access_requests"
    " WHERE status = 'pending' AND (snapshot ->> 'auto_approve')::boolean",
    "escalations that are due": "SELECT count(*) FROM access_requests"
    " WHERE status = 'pending' AND escalates_at <= now() AND escalated_at IS NULL",
    "deliveries on their way": "SELECT count(*) FROM deliveries WHERE status IN ('pending', 'parked')"
    " AND not_before <= now()",
    "runs that are not over": "SELECT count(*) FROM task_runs WHERE status IN ('queued', 'running')"
    " AND cause <> 'schedule'",
}

_WRONG_RUNS: Final = (
    """
    SELECT 'run' AS what, id, format('(%%s, %%s) is %%s', cause, failure_mode, status) AS problem FROM task_runs
    WHERE (status = 'succeeded' AND task_name = 'Checks' AND right(id::text, 1) = ANY(%(failing)s))
       OR (status NOT IN ('queued', 'running', 'succeeded') AND failure_mode = 'retry')
    """,
    """
    SELECT 'request' AS what, t.request_id AS id,
           format('made %%s runs when it was %%s', count(n.id), t.kind) AS problem
    FROM access_request_timeline t
    JOIN access_requests r ON r.id = t.request_id AND r.snapshot ->> 'trigger_task_id' IS NOT NULL
    LEFT JOIN task_runs n ON n.timeline_id = t.id AND n.cause = 'trigger'
    WHERE t.kind IN ('submitted', 'approved', 'denied', 'revoked', 'expired')
      AND NOT (r.snapshot ->> 'trigger_task_failure_mode' = 'block' AND t.kind = 'approved')
    GROUP BY t.id HAVING count(n.id) <> 1
    """,
    """
    SELECT 'request' AS what, r.id, 'was granted without the run that has to succeed first' AS problem
    FROM access_requests r JOIN access_request_timeline t ON t.request_id = r.id
    WHERE r.snapshot ->> 'trigger_task_failure_mode' = 'block' AND t.kind = 'approved' AND NOT EXISTS (
        SELECT FROM task_runs n WHERE n.request_id = r.id AND n.event = 'approved' AND n.status = 'succeeded')
    """,
)


@dataclass
class Settled:
    """How the end went."""

    secs: float = 0.0
    left: dict[str, int] = field(default_factory=dict)
    """What is still not done."""
    due: Record = field(default_factory=Record)
    """The record as it was before nothing was left to do: whatever it says has been told by now."""
    redelivered: int = 0
    """Deliveries that were demanded anew, as an operator does it for a receiver that is back."""
    sweep: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    audits: int = 0
    """How often it was asked until it held."""
    held: dict[str, float] = field(default_factory=dict)
    """Connections that a program did not give back to its pool, and callers that still wait for one."""
    pooled: float = 0.0
    """Connections of all pools together."""
    verified: str = ""
    log_holds: bool = False


async def settle(stack: Stack, scene: Scene, line: Line, say: Callable[[str], None]) -> Settled:
    """Wait until nothing is left to do, within a bound; then a sweep, and both audits."""
    settled = Settled()
    for receiver, _ in scene.receivers.values():
        await receiver.become(Mood.WELL)
    began = time.monotonic()
    demanded: dict[str, float] = {}
    said = 0.0
    while time.monotonic() < began + _SETTLE_SECS:
        settled.due = await asyncio.to_thread(read, stack.database_url)
        settled.left = {what: count for what, count in (await asyncio.to_thread(_left, stack)).items() if count}
        if not settled.left:
            break
        if time.monotonic() > said + 10:
            say("left: " + ", ".join(f"{count} {what}" for what, count in settled.left.items()))
            said = time.monotonic()
        settled.redelivered += await _redeliver(stack, scene, line, demanded)
        await asyncio.sleep(_LOOK_EVERY_SECS)
    settled.secs = time.monotonic() - began
    settled.held, settled.pooled = await _held(stack)
    settled.sweep = json.loads((await command(stack, "sweep", "--json"))[1] or "{}")
    for settled.audits in range(1, _AUDIT_ATTEMPTS + 1):
        settled.audit = json.loads((await command(stack, "audit", "invariants", "--json"))[1] or "{}")
        if settled.audit.get("holds"):
            break
        await asyncio.sleep(_AGAIN_AFTER_SECS)
    code, settled.verified = await command(stack, "audit", "verify")
    settled.log_holds = code == 0
    return settled


async def _held(stack: Stack) -> tuple[dict[str, float], float]:
    """What each program says of its pool now that nothing goes on: the least of several looks, between its chores."""
    held: dict[str, float] = {}
    pooled: dict[str, float] = {}
    async with httpx.AsyncClient(trust_env=False) as http:
        for _ in range(_LOOKS_AT_POOLS):
            for name, service in stack.services.items():
                if name == "script worker":
                    continue
                scraped = await http.get(f"{service.watched_at}/metrics", timeout=_COMMAND_SECS)
                pool = {
                    line.split()[0].removeprefix(_POOL): float(line.split()[1])
                    for line in scraped.text.splitlines()
                    if line.startswith(_POOL)
                }
                taken = pool["connections"] - pool["idle"] + pool["waiting"]
                held[name] = min(held.get(name, taken), taken)
                pooled[name] = pool["connections"]
            await asyncio.sleep(_LOOK_EVERY_SECS / 3)
    return held, sum(pooled.values())


async def command(stack: Stack, *arguments: str) -> tuple[int, str]:
    """One of `justiam`'s, as an operator runs it: its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "justiam"),
        *arguments,
        env=stack.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_COMMAND_SECS):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return 1, ""
    return process.returncode or 0, printed.decode()


def _left(stack: Stack) -> dict[str, int]:
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        found = {}
        for what, statement in _LEFT.items():
            row = connection.execute(statement).fetchone()
            found[what] = int(row[0]) if row else 0
        return found


def _waiting(stack: Stack) -> list[tuple[str, str]]:
    """Deliveries whose next attempt is some time away, because attempts before failed."""
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        rows = connection.execute(
            """
            SELECT id::text, integration_id::text FROM deliveries
            WHERE status = 'parked'
               OR (status = 'pending' AND error IS NOT NULL AND last_attempt_at < now() - interval '5 seconds')
            """
        )
        return list(rows.fetchall())


async def _redeliver(stack: Stack, scene: Scene, line: Line, demanded: dict[str, float]) -> int:
    count = 0
    for delivery_id, integration_id in await asyncio.to_thread(_waiting, stack):
        if demanded.get(delivery_id, 0.0) > time.monotonic() - 30:
            continue
        demanded[delivery_id] = time.monotonic()
        path = f"/api/v1/integrations/{integration_id}/deliveries/{delivery_id}/redeliver"
        await line.call(scene.admin.token, "POST", path)
        count += 1
    return count


def runs_that_differ(database_url: str) -> list[str]:
    """Runs of tasks: one for each change, ended as the script ends; repeated until done; before a blocked grant."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        return [
            f"{row['what']} {row['id']} {row['problem']}"
            for statement in _WRONG_RUNS
            for row in connection.execute(statement, {"failing": list(FAILING_DIGITS)})
        ]


def mails_not_sent(database_url: str, mailbox: Mailbox) -> list[str]:
    """Mails: each delivery that counts as delivered has arrived."""
    arrived = {(recipient, message_id.partition("@")[0]) for recipient, message_id in mailbox.received}
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT id::text, recipient, event FROM deliveries WHERE target = 'email' AND status = 'delivered'"
        ).fetchall()
    return [
        f"a mail to {recipient} about {event} counts as delivered, and did not arrive"
        for delivery_id, recipient, event in rows
        if (recipient, delivery_id) not in arrived
    ]
