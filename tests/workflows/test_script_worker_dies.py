"""A script worker that dies in the middle of a run: nothing it started goes on, and the row says what became of it."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from temporalio.client import Client

from activities import dispatching
from cli.dev.services import ScriptWorker
from db import runs
from tests.cli.conftest import served
from tests.servers import TestingTemporal
from tests.workflows.test_scripts import fired, over
from tests.workflows.world import eventually, open_world
from workflows import script_orders

_MARK = "98765.4321"
"""What a process that a script leaves running is known by."""
_SCRIPT = f"""
import subprocess, time

def run():
    subprocess.Popen(["sleep", "{_MARK}"], start_new_session=True)
    time.sleep(4)
    return "the whole of it"
"""


def _left() -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"]) if _MARK in (process.info["cmdline"] or [])]


async def test_what_it_ran_is_ended_and_repeated_where_the_task_says_so(
    database_url: str,
    temporal: TestingTemporal,
    temporal_client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(script_orders, "_ALIVE", script_orders._ALIVE / 3)
    monkeypatch.setattr(runs, "pause_after", lambda _: 0.1)
    async with open_world(database_url, temporal_client) as world:
        with ExitStack() as stack:
            chosen = world.settings.model_copy(update={"temporal_address": temporal.address})
            url = stack.enter_context(served(chosen))
            program = ScriptWorker(tmp_path / "scripts.log", temporal, url, tmp_path / "cache")
            await asyncio.to_thread(program.start)
            stack.callback(program.stop)
            _, repeated = await fired(world, _SCRIPT, mode="retry", max_retries=1, name="may be repeated")
            _, once = await fired(world, _SCRIPT, mode="ignore", name="may not")

            async def both_run() -> bool:
                await dispatching.dispatch(world.db, world.client)
                return len(_left()) == 2

            await eventually(both_run)
            assert program.process is not None
            program.process.kill()
            program.process.wait()

            async def nothing_goes_on() -> bool:
                return not _left()

            await eventually(nothing_goes_on)
            await asyncio.to_thread(program.start)
            lost = await over(world, once, "created")
            assert (lost["status"], lost["attempt"]) == ("lost", 1)
            assert lost["error"] == "The script worker died while the script ran."
            run = await over(world, repeated, "created")
            assert (run["status"], run["attempt"], run["output"]) == ("succeeded", 2, "the whole of it\n")
        await eventually(nothing_goes_on)
