"""Whether a process says that it can serve, when it can."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from activities import setup
from api import readiness
from api.orchestrator import Orchestrator
from cli.dev import TemporalDevServer
from tests.api.house import House, open_without_database


@pytest.fixture(autouse=True)
def looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_KNOWN_FOR_SECS", -1.0)


async def asked(house: House) -> tuple[int, Any]:
    answer = await house.client.get("/readyz")
    return answer.status_code, answer.json()


async def test_it_is_ready_while_all_it_stands_on_answers_and_until_it_is_told_to_stop(stack: House) -> None:
    stack.app.state.readiness = readiness.Readiness(stack.db, stack.app.state.orchestrator)
    assert await asked(stack) == (200, {"status": "ready", "missing": []})
    stack.app.state.readiness.drain()
    assert await asked(stack) == (503, {"status": "not ready", "missing": ["draining"]})


async def test_it_names_what_is_missing(standing_house: House) -> None:
    assert await asked(standing_house) == (503, {"status": "not ready", "missing": ["temporal"]})
    async with open_without_database() as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["missing"]) == (503, ["database", "temporal"])


async def test_however_many_ask_the_stores_are_asked_once(
    standing_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_KNOWN_FOR_SECS", 60.0)
    looks: list[None] = []
    found = readiness.Readiness(standing_house.db, standing_house.app.state.orchestrator)
    monkeypatch.setattr(found, "_temporal_answers", lambda: _noted(looks))
    for _ in range(5):
        assert (await found.look()).status == "ready"
    assert len(looks) == 1


async def _noted(looks: list[None]) -> bool:
    looks.append(None)
    return True


async def test_it_is_not_ready_while_temporal_reads_and_cannot_write(house: House, tmp_path: Path) -> None:
    file = tmp_path / "temporal.db"
    with TemporalDevServer(log_file=tmp_path / "temporal.log", database=file, ui_port=None) as server:
        chosen = house.app.state.settings.model_copy(update={"temporal_address": server.address})
        async with Orchestrator(chosen) as house.app.state.orchestrator:
            orchestrator = house.app.state.orchestrator
            await setup._search_attributes(orchestrator._connected)
            house.app.state.readiness = readiness.Readiness(house.db, orchestrator)
            asker = await house.person("asker")
            template = await house.template()
            with contextlib.closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as locking:
                locking.execute("BEGIN IMMEDIATE")
                sent = {"template_id": str(template.id), "requested_duration_mins": 60, "justification": "an incident"}
                answer = await house.call("POST", "/access-requests", asker, json=sent)
                assert answer.status_code == 201, answer.text
                assert await asked(house) == (503, {"status": "not ready", "missing": ["temporal"]})
                assert await orchestrator._connected.service_client.check_health()
                locking.execute("ROLLBACK")
            async with asyncio.timeout(90):
                while (await asked(house))[0] != 200:
                    await asyncio.sleep(0.1)
