"""A request from the command line, on the whole stack: API, worker, a Temporal server, PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest

import worker
from activities import setup
from settings import Settings
from tests.api.house import House, open_house, settings
from tests.cli.conftest import PATIENCE_SECS, Desk, served
from tests.cli.scene import Scene
from tests.conftest import Databases
from tests.servers import TestingTemporal


@pytest.fixture(scope="module")
async def chosen(temporal: TestingTemporal, new_database: Databases) -> AsyncIterator[Settings]:
    with new_database() as url:
        chosen = settings(url).model_copy(update={"temporal_address": temporal.address})
        async with worker.connected(chosen, wait=False) as stores:
            await setup.ensure(stores.client, timedelta(minutes=5))
            async with worker.worker(stores, chosen):
                yield chosen


@pytest.fixture(scope="module")
async def house(chosen: Settings) -> AsyncIterator[House]:
    async with open_house(chosen.database_url.get_secret_value()) as house:
        yield house


@pytest.fixture(scope="module")
def address(chosen: Settings) -> Iterator[str]:
    with served(chosen) as url:
        yield url


async def test_a_request_is_watched_from_its_submission_to_its_end(desk: Desk, house: House) -> None:
    scene = await Scene(house).set()
    submission = ["request", "submit", scene.slug, "-d", "8h", "-j", "an incident"]
    request = await desk.json(*submission, by=scene.alice)
    watch = ["request", "watch", request["id"]]
    async with (
        asyncio.timeout(PATIENCE_SECS),
        desk.beside(*watch, "--json", by=scene.alice) as watching,
        desk.beside(*watch, "--until", "decided", by=scene.bob) as until_decided,
    ):
        assert watching.stdout is not None
        assert json.loads(await watching.stdout.readline())["kind"] == "submitted"

        approve = ["request", "approve", request["id"][:8], "--comment", "For this incident.", "--yes"]
        done = await desk.justiam(*approve, by=scene.bob)
        assert done.exit_code == 0, done.stderr
        assert done.stdout.startswith(f"Approved: Read {scene.mark} for {scene.alice.email}, until ")
        assert f"justiam request revoke {request['id']}" in done.stdout
        assert json.loads(await watching.stdout.readline())["kind"] == "approved"
        shown, _ = await until_decided.communicate()
        assert (until_decided.returncode, "“For this incident.”" in shown.decode()) == (0, True)
        held = await desk.json("access", by=scene.alice)
        assert held["mapping_values"] == {request["app_id"]: {"roles": ["db_readonly"]}}

        done = await desk.justiam("request", "deny", request["id"], "--yes", by=scene.bob)
        assert done.exit_code == 1
        assert done.stderr.startswith("request_not_pending: ")

        ended = await desk.json("request", "revoke", request["id"][:8], "--yes", by=scene.alice)
        assert (ended["status"], ended["decided_by"]) == ("revoked", scene.bob.email)
        assert json.loads(await watching.stdout.readline())["kind"] == "revoked"
        assert await watching.wait() == 0
    assert (await desk.json("access", by=scene.alice))["items"] == []


async def test_a_denial_and_a_cancellation_are_told_apart(desk: Desk, house: House) -> None:
    scene = await Scene(house).set()
    request_id = str(await scene.request())
    done = await desk.justiam("request", "deny", request_id, "-c", "Use the replica.", "--yes", by=scene.bob)
    assert (done.exit_code, done.stdout) == (0, f"Denied: Read {scene.mark} for {scene.alice.email}.\n")
    request_id = str(await scene.request())
    done = await desk.justiam("request", "revoke", request_id[:8], "--yes", by=scene.alice)
    assert (done.exit_code, done.stdout) == (0, f"Cancelled: Read {scene.mark} for {scene.alice.email}.\n")
    done = await desk.justiam("request", "list", by=scene.alice)
    assert f"denied by {scene.bob.email}" in done.stdout
    assert "revoked  cancelled" in done.stdout
    done = await desk.justiam("request", "watch", request_id, by=scene.alice)
    assert (done.exit_code, done.stderr) == (5, "Nothing was granted: the request was cancelled.\n")
