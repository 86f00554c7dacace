"""Scripts from the change that fires them to what they did, by a real script worker, which has only a ticket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from temporalio.client import Client
from temporalio.service import RPCError

import script_worker
from activities import dispatching
from api.app import create_app
from api.orchestrator import Orchestrator
from db import runs
from db.secrets import SecretVault
from db.tables import ScheduledTask, Secret
from domain.errors import TriggerTaskFailed
from domain.states import Action, Status
from script_tasks import compiling
from settings import ScriptWorkerSettings
from tests.conftest import Databases
from tests.record import Cast
from tests.servers import TestingTemporal
from tests.workflows.world import World, eventually, open_world
from workflows import names

SECRET = "what only the script may know"


@pytest.fixture(scope="module")
async def house(
    new_database: Databases,
    temporal: TestingTemporal,
    temporal_client: Client,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    """A world with the API and a script worker, which know each other by HTTP alone."""
    cache: Path = tmp_path_factory.mktemp("scripts")
    async with AsyncExitStack() as stack:
        url = stack.enter_context(new_database())
        world = await stack.enter_async_context(open_world(url, temporal_client))
        app = create_app(world.settings.model_copy(update={"temporal_address": temporal.address}))
        await stack.enter_async_context(app.router.lifespan_context(app))
        http = await stack.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api.test")
        )
        settings = ScriptWorkerSettings(script_cache_dir=cache)
        await stack.enter_async_context(script_worker.worker(temporal_client, http, settings))
        yield world


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "pause_after", lambda _: 0.1)


async def a_task(world: World, script: str, **values: Any) -> UUID:
    task = ScheduledTask(**{"name": f"task {script} {values}", "language": "python", "script": script, **values})
    async with world.db.session() as session:
        session.add(task)
    return task.id


async def fired(world: World, script: str, *, mode: str = "ignore", **values: Any) -> tuple[Cast, UUID]:
    cast = await world.record.cast(
        trigger_task_id=await a_task(world, script, **values), trigger_task_failure_mode=mode
    )
    return cast, await world.request(cast)


async def over(world: World, request_id: UUID, event: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        await dispatching.dispatch(world.db, world.client)
        rows = await world.record.query(
            "SELECT * FROM task_runs WHERE request_id = %s AND event = %s", request_id, event
        )
        return rows[0] if rows and rows[0]["status"] not in {"queued", "running"} else None

    return await eventually(look)


async def test_a_trigger_reads_what_happened_whom_it_concerns_and_its_secrets(house: World) -> None:
    secret = Secret(name="TOKEN", sealed=b"")
    vault = SecretVault(house.settings.secret_key, house.settings.encryption_keys)
    secret.sealed = vault.seal(f"secret:TOKEN:{secret.id}", SECRET)
    async with house.db.session() as session:
        session.add(secret)
    script = """
from justiam import config, idp, secrets

def run():
    print([approver.email for approver in idp.get_access_request_approvers(config.get("request_id"))])
    print(config.get("trigger_event"), config.get("requester_email"), len(secrets.get("TOKEN")))
    return secrets.get("TOKEN")
"""
    cast, request_id = await fired(house, script, secret_names=["TOKEN"])
    run = await over(house, request_id, "created")
    assert run["status"] == "succeeded", run
    approvers = [cast.approver.email, cast.second_approver.email]
    assert run["output"] == f"{approvers}\ncreated {cast.requester.email} {len(SECRET)}\n********\n"
    assert (run["attempt"], run["exit_code"], run["error"]) == (1, 0, None)
    assert run["isolation"]
    # Neither its history nor its row ever held the secret.
    handle = house.client.get_workflow_handle(names.delivery_id(run["id"]))
    history = await handle.fetch_history()
    assert SECRET.encode() not in b"".join(event.SerializeToString() for event in history.events)
    assert SECRET not in str(run)


async def test_ignore_runs_once_and_retry_as_often_as_the_task_says(house: World) -> None:
    script = "def run():\n    raise ValueError('broken')"
    for mode, attempts in (("ignore", 1), ("retry", 3)):
        _, request_id = await fired(house, script, mode=mode, max_retries=2, name=f"broken {mode}")
        run = await over(house, request_id, "created")
        assert (run["status"], run["attempt"], run["error"]) == ("failed", attempts, "ValueError: broken")


async def test_what_takes_too_long_has_timed_out(house: World) -> None:
    script = "import time\ndef run():\n    time.sleep(60)"
    _, request_id = await fired(house, script, timeout_seconds=1)
    assert (await over(house, request_id, "created"))["status"] == "timed_out"


class TestBlock:
    async def test_an_approval_waits_for_its_task(self, house: World) -> None:
        script = "from justiam import config\ndef run():\n    return config.get('previous_status')"
        cast, request_id = await fired(house, script, mode="block")
        state = await house.decide(request_id, Action.APPROVE, cast.approver)
        assert (state.status, state.decided_by) == (Status.APPROVED, cast.approver.email)
        rows = await house.record.query("SELECT * FROM task_runs WHERE request_id = %s ORDER BY created_at", request_id)
        # The block was the run of this event: it is not fired once more by the approval.
        assert [(row["event"], row["failure_mode"]) for row in rows] == [("created", "ignore"), ("approved", "block")]
        assert (rows[1]["status"], rows[1]["output"]) == ("succeeded", "pending\n")
        assert await self.entry_of(house, rows[1]) == "approved"

    async def test_a_failure_leaves_the_request_pending_until_the_task_succeeds(self, house: World) -> None:
        cast, request_id = await fired(house, "def run():\n    raise ValueError('not today')", mode="block")
        with pytest.raises(TriggerTaskFailed, match="not today"):
            await house.decide(request_id, Action.APPROVE, cast.approver)
        assert (await house.record.row(request_id))["status"] == Status.PENDING
        await house.record.execute(
            "UPDATE scheduled_tasks SET script = 'def run(): ...' WHERE id = %s", cast.template.trigger_task_id
        )
        assert (await house.decide(request_id, Action.APPROVE, cast.approver)).status is Status.APPROVED
        assert await house.record.kinds(request_id) == ["submitted", "trigger_failed", "approved"]
        (run,) = await house.record.query(
            "SELECT * FROM task_runs WHERE request_id = %s AND failure_mode = 'block' AND status = 'failed'", request_id
        )
        assert await self.entry_of(house, run) == "trigger_failed"
        (entry,) = await house.record.query(
            "SELECT detail FROM access_request_timeline WHERE id = %s", run["timeline_id"]
        )
        assert (run["error"], entry["detail"]["reason"]) == ("ValueError: not today", "It ended with exit code 1.")

    async def entry_of(self, house: World, run: dict[str, Any]) -> str:
        """What the timeline links the run to."""
        (entry,) = await house.record.query(
            "SELECT kind FROM access_request_timeline WHERE id = %s", run["timeline_id"]
        )
        return str(entry["kind"])

    async def test_an_approval_by_signal_waits_for_its_task_as_well(self, house: World) -> None:
        cast, request_id = await fired(house, "def run():\n    return 'by signal'", mode="block")
        await house.signal(request_id, Action.APPROVE, cast.approver)
        assert (await over(house, request_id, "approved"))["output"] == "by signal\n"

        async def approved() -> bool:
            row = await house.record.row(request_id)
            return bool(row["status"] == Status.APPROVED and row["decided_by"] == cast.approver.email)

        await eventually(approved)

    async def test_signals_that_come_while_a_task_runs_are_judged_and_recorded(self, house: World) -> None:
        script = "import time\ndef run():\n    time.sleep(2)"
        cast, request_id = await fired(house, script, mode="block")
        approving = asyncio.create_task(house.decide(request_id, Action.APPROVE, cast.approver))

        async def running() -> bool:
            found = await house.record.query(
                "SELECT ticket_hash FROM task_runs WHERE request_id = %s AND event = 'approved'", request_id
            )
            return bool(found) and found[0]["ticket_hash"] is None

        await eventually(running)
        await house.signal(request_id, Action.APPROVE, cast.second_approver)
        await house.signal(request_id, Action.APPROVE, cast.requester)
        assert (await approving).decided_by == cast.approver.email
        entries = await house.record.query(
            "SELECT detail FROM access_request_timeline WHERE request_id = %s AND kind = 'refused'", request_id
        )
        assert [entry["detail"]["code"] for entry in entries] == ["decision_in_progress"] * 2

    async def test_who_cancels_meanwhile_stops_the_script(self, house: World) -> None:
        script = "import time\ndef run():\n    time.sleep(25)\n    return 'too late'"
        cast, request_id = await fired(house, script, mode="block")
        approving = asyncio.create_task(house.decide(request_id, Action.APPROVE, cast.approver))

        async def running() -> bool:
            found = await house.record.query(
                "SELECT ticket_hash FROM task_runs WHERE request_id = %s AND event = 'approved'", request_id
            )
            return bool(found) and found[0]["ticket_hash"] is None

        await eventually(running)
        assert (await house.decide(request_id, Action.REVOKE, cast.requester)).status is Status.REVOKED
        await asyncio.gather(approving, return_exceptions=True)
        assert (await over(house, request_id, "approved"))["status"] == "cancelled"
        assert (await house.record.row(request_id))["status"] == Status.REVOKED

    async def test_what_a_failing_script_says_is_not_in_the_timeline_of_a_signal_either(self, house: World) -> None:
        """Who may read the request is not to read what its tasks print."""
        cast, request_id = await fired(house, f"def run():\n    raise ValueError('{SECRET}')", mode="block")
        await house.signal(request_id, Action.APPROVE, cast.approver)

        async def refused() -> bool:
            return "refused" in await house.record.kinds(request_id)

        await eventually(refused)
        entries = await house.record.timeline(request_id)
        assert [entry["kind"] for entry in entries] == ["submitted", "trigger_failed", "refused"]
        assert entries[-1]["detail"]["code"] == TriggerTaskFailed.code
        assert "The request is still pending" in entries[-1]["detail"]["reason"]
        assert (entries[-1]["actor"], entries[-1]["verified"]) == (cast.approver.email, True)
        assert SECRET not in str(entries)


async def test_go_is_prepared_by_a_script_worker(house: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling itself, which takes half a minute, is tried in tests/script_tasks."""
    prepared: list[Path] = []

    async def warm_up(cache: Path) -> None:
        prepared.append(cache)

    monkeypatch.setattr(compiling, "warm_up", warm_up)
    handle = house.client.get_workflow_handle(names.PREPARE_GO_ID)
    with contextlib.suppress(RPCError):
        # A test that saved a script in Go on this server has left one that waited for a script worker.
        await handle.terminate()
    async with Orchestrator(
        house.settings.model_copy(update={"temporal_address": house.client.service_client.config.target_host})
    ) as temporal:
        await temporal.prepare_go()
        await handle.result()
    assert len(prepared) == 1
