"""Orders that cannot be carried out, and a script worker that finds nobody: each says why, and none hangs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from pydantic import ValidationError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import scripts
from activities.scripts import ScriptActivities
from cli.dev.program import free_port
from domain.tasks import Ending, Language, RunResult, ScriptJob, ScriptOrder
from script_tasks import compiling
from tests.deliveries.receiver import receiving, response

ROOT = Path(__file__).parents[2]


async def ordered(url: str, cache: Path) -> RunResult:
    """What becomes of an order whose ticket is redeemed there."""
    order = ScriptOrder(run_id=uuid4(), ticket="a ticket", timeout_seconds=20)
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        result: RunResult = await ActivityEnvironment().run(ScriptActivities(http, cache).run_script, order)
    return result


def job(language: Language, script: str) -> bytes:
    sent = ScriptJob(
        run_id=uuid4(),
        language=language,
        script=script,
        config={},
        approvers=[],
        secrets={},
        timeout_seconds=20,
        network=True,
    )
    return sent.model_dump_json().encode()


async def test_the_error_of_an_answer_that_does_not_fit_quotes_no_secret(tmp_path: Path) -> None:
    sent = json.loads(job(Language.PYTHON, "def run(): ..."))
    for wrong in ({**sent, "secrets": "hush"}, {**sent, "secrets": {"TOKEN": ["hush"]}}):
        async with receiving() as api:
            api.answer = response(200, json.dumps(wrong).encode())
            with pytest.raises(ValidationError) as caught:
                await ordered(f"http://{api.authority}", tmp_path)
        assert "secrets" in str(caught.value)
        assert "hush" not in str(caught.value)


async def test_without_a_compiler_a_go_script_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "toolchain", lambda: None)
    async with receiving() as api:
        api.answer = response(200, job(Language.GO, "package task"))
        result = await ordered(f"http://{api.authority}", tmp_path)
        assert result.ending is Ending.FAILED
        assert "pip install 'justiam[go]'" in (result.error or "")
        api.answer = response(200, job(Language.PYTHON, "def run():\n    return 'ran'"))
        assert (await ordered(f"http://{api.authority}", tmp_path)).output == "ran\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (response(401, json.dumps({"detail": "This ticket is not valid."}).encode()), "This ticket is not valid."),
        (response(502, b"<html>"), "The API answered 502."),
        (response(500, b"[]"), "The API answered 500."),
        (b"", "The API did not answer with what the script needs"),
    ],
)
async def test_a_ticket_is_sent_once_and_what_the_api_says_is_told(tmp_path: Path, answer: bytes, said: str) -> None:
    async with receiving() as api:
        api.answer = answer
        with pytest.raises(ApplicationError, match=said) as failed:
            await ordered(f"http://{api.authority}", tmp_path)
        assert failed.value.non_retryable
        (received,) = api.received
    assert json.loads(received.body) == {"ticket": "a ticket"}


async def test_an_api_that_is_away_is_waited_for_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "_REDEEM_PAUSE_SECS", 0.01)
    with pytest.raises(ApplicationError, match="The API could not be reached for what the script needs"):
        await ordered(f"http://127.0.0.1:{free_port()}", tmp_path)


async def test_a_script_worker_that_waits_for_temporal_ends_when_it_is_told_to(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from cli.main import app; app()", "script-worker"),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("JUSTIAM_")}
        | {
            "JUSTIAM_TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
            "JUSTIAM_SCRIPT_CACHE_DIR": str(tmp_path),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b"temporal_unreachable" not in (line := await process.stdout.readline()):
            assert line, "it ended by itself"
        process.send_signal(signal.SIGTERM)
        rest = await process.stdout.read()
        assert await process.wait() == 0, rest.decode()
    assert b"script_worker_stopped" in rest
