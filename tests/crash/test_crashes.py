"""Nothing that was accepted is lost and nothing is done twice, whatever is killed (design, section 1).

Two hundred requests go their ways against the real processes while each of these is killed in turn, and then three of
them together. Clients do what clients do: they repeat a call that was not answered, with its key. Then the audit reads
both stores.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import psutil
import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client

from db import templates, tokens, users
from db.database import Database
from domain.directory import UserValues
from domain.templates import TemplateValues
from tests.dev.running import JUSTIAM, Dev, wait_until

REQUESTERS: Final = 25
TEMPLATES: Final = 8
KILLED_ALONE: Final = ("worker", "API", "Temporal", "PostgreSQL")
KILLED_TOGETHER: Final = ("worker", "API", "Temporal")
SETTLE_SECS: Final = 90.0
_FIRST_TASK_FINISHED: Final = 4
"""Event of every history: started, task scheduled, task started, task finished."""
PAUSES: Final = random.Random()  # noqa: S311 - spreads the load, guards nothing
WAYS: Final = {
    "granted, expires": [("approve", "bob")],
    "granted, revoked": [("approve", "bob"), ("revoke", "requester")],
    "granted for long": [("approve", "carol")],
    "denied": [("deny", "carol")],
    "cancelled": [("revoke", "requester")],
    "pending": [],
}
ENDS: Final = {
    "granted, expires": "expired",
    "granted, revoked": "revoked",
    "granted for long": "approved",
    "denied": "denied",
    "cancelled": "revoked",
    "pending": "pending",
}


@dataclass
class Load:
    """Clients that repeat what was not answered."""

    http: httpx.AsyncClient
    tokens: dict[str, str]
    ways: dict[str, str] = field(default_factory=dict)
    """How each accepted request goes, by its id."""
    repeated: Counter[str] = field(default_factory=Counter)

    async def go(self, requester: str, template_id: str, way: str) -> None:
        """One request from its submission as far as its way goes."""
        minutes = 1 if way == "granted, expires" else 480
        sent = {"template_id": template_id, "requested_duration_mins": minutes, "justification": way}
        request = await self.call(requester, "/access-requests", sent)
        self.ways[request["id"]] = way
        for action, who in WAYS[way]:
            await asyncio.sleep(PAUSES.uniform(0.0, 0.5))
            await self.call(requester if who == "requester" else who, f"/access-requests/{request['id']}/{action}", {})

    async def call(self, who: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST until there is an answer; the key makes it happen once."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}", "Idempotency-Key": uuid4().hex}
        while True:
            try:
                answer = await self.http.post(path, json=body, headers=headers)
            except httpx.TransportError as error:
                self.repeated[type(error).__name__] += 1
            else:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    assert answer.is_success, answer.text
                    request: dict[str, Any] = answer.json()
                    return request
                self.repeated[answer.json()["code"]] += 1
            await asyncio.sleep(0.5)


@pytest.fixture
def dev(tmp_path: Path) -> Any:
    with Dev(tmp_path / "data", JUSTIAM_SWEEP_INTERVAL_SECS="10", JUSTIAM_TEMPORAL_RPC_TIMEOUT_SECS="3") as running:
        yield running


@pytest.fixture
async def load(dev: Dev) -> AsyncIterator[Load]:
    described = dev.description
    known = {name: user["token"] for name, user in described["users"].items()}
    limits = httpx.Limits(max_connections=32)
    async with httpx.AsyncClient(
        base_url=f"{described['api_url']}/api/v1", timeout=15, limits=limits, trust_env=False
    ) as http:
        yield Load(http, known)


async def _furnish(dev: Dev, load: Load) -> list[str]:
    """People who ask, and templates to ask for; the ids of the templates."""
    async with Database(dev.description["database_url"]) as db:
        for number in range(REQUESTERS):
            name = f"requester-{number}"
            user = await users.create(db, UserValues(email=f"{name}@example.com", name=name))
            load.tokens[name] = (await tokens.create_token(db, user.id, "test", timedelta(hours=1))).token
        example = next(
            iter(
                dev.query(
                    "SELECT app_id, mapping_ids, approver_group_ids FROM access_request_templates"
                    " WHERE name = 'Database read-only access'"
                )
            )
        )
        made = []
        for number in range(TEMPLATES):
            values = TemplateValues(
                name=f"Template {number}", app_id=example[0], mapping_ids=example[1], approver_group_ids=example[2]
            )
            made.append(str((await templates.create(db, values, longest_mins=480)).id))
    return made


@pytest.mark.timeout(300)
async def test_nothing_is_lost_or_doubled_when_processes_are_killed_under_load(dev: Dev, load: Load) -> None:
    template_ids = await _furnish(dev, load)
    ways = list(WAYS)
    flows = [
        load.go(f"requester-{requester}", template_id, ways[(requester + number) % len(ways)])
        for number, template_id in enumerate(template_ids)
        for requester in range(REQUESTERS)
    ]
    slots = asyncio.Semaphore(8)

    async def paced(flow: Any) -> None:
        async with slots:
            await flow

    under_load = asyncio.gather(*(paced(flow) for flow in flows))
    killed = []
    for victims in (*((name,) for name in KILLED_ALONE), KILLED_TOGETHER):
        await asyncio.sleep(2.0)
        killed += await asyncio.to_thread(_kill, dev, victims)
    assert not under_load.done(), "everything was over before the last kill"
    await under_load
    await _disturb(dev, load)

    assert len(load.ways) == REQUESTERS * TEMPLATES
    assert len(killed) == len(KILLED_ALONE) + len(KILLED_TOGETHER)
    await asyncio.to_thread(wait_until, lambda: _expected(load) == _actual(dev), SETTLE_SECS)
    report = await asyncio.to_thread(_audit_until_it_holds, dev)
    assert report["holds"], json.dumps([found for found in report["invariants"] if found["violations"]], indent=1)
    assert report["open_requests"] == sum(ENDS[way] in {"pending", "approved"} for way in load.ways.values())


def _kill(dev: Dev, victims: tuple[str, ...]) -> list[int]:
    """Kill these at once, and wait until the supervisor has replaced them."""
    pids = {name: dev.pids()[name] for name in victims}
    for pid in pids.values():
        psutil.Process(pid).kill()

    def replaced() -> bool:
        now = dev.pids()
        return all(now.get(name, pid) != pid for name, pid in pids.items())

    wait_until(replaced, SETTLE_SECS)
    return list(pids.values())


async def _disturb(dev: Dev, load: Load) -> None:
    """What operators do by mistake: terminate some workflows, reset others."""
    client = await Client.connect(dev.description["temporal_address"])
    still_open = [request_id for request_id, way in load.ways.items() if ENDS[way] in {"pending", "approved"}]
    for request_id in still_open[:10]:
        await client.get_workflow_handle(f"access-request-{request_id}").terminate("by mistake")
    for request_id in still_open[10:20]:
        execution = WorkflowExecution(workflow_id=f"access-request-{request_id}")
        await client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=client.namespace,
                workflow_execution=execution,
                workflow_task_finish_event_id=_FIRST_TASK_FINISHED,
                request_id=uuid4().hex,
                reason="by mistake",
            )
        )


def _expected(load: Load) -> dict[str, str]:
    return {request_id: ENDS[way] for request_id, way in load.ways.items()}


def _actual(dev: Dev) -> dict[str, str]:
    return {str(request_id): status for request_id, status in dev.query("SELECT id, status FROM access_requests")}


def _audit_until_it_holds(dev: Dev) -> dict[str, Any]:
    """The command as an operator runs it; the sweep has a few runs to mend what was terminated."""
    described = dev.description
    environment = {
        "JUSTIAM_DATABASE_URL": described["database_url"],
        "JUSTIAM_TEMPORAL_ADDRESS": described["temporal_address"],
        "JUSTIAM_SECRET_KEY": "not needed to read, but long enough",
    }
    report: dict[str, Any] = {}

    def holds() -> bool:
        done = subprocess.run(
            [JUSTIAM, "audit", "invariants", "--json"], env=environment, capture_output=True, text=True, check=False
        )
        report.update(json.loads(done.stdout))
        return bool(report["holds"])

    try:
        wait_until(holds, SETTLE_SECS)
    except AssertionError:
        return report
    return report
