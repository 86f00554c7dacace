"""Carrying out scripts: what `justiam script-worker` serves. It has no database and no keys; it comes with a ticket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.heartbeats import beating
from domain.tasks import REDEEM_PATH, Ending, RunResult, ScriptJob, ScriptOrder
from script_tasks import compiling
from script_tasks.running import Approver, Job, run, unavailable
from workflows import names

_log = structlog.get_logger(__name__)

_REDEEM_TIMEOUT_SECS: Final = 10.0
_REDEEM_PAUSE_SECS: Final = 1.0
_REDEEM_ATTEMPTS: Final = 20
"""An API that is restarted is back by then. Only what never reached it is sent again: a ticket works once."""


class ScriptActivities:
    """Fetches what an order needs, and runs the script in a process of its own."""

    def __init__(self, http: httpx.AsyncClient, cache: Path) -> None:
        self._http = http
        self._cache = cache

    @property
    def all(self) -> list[Callable[..., Any]]:
        """For the worker."""
        return [self.run_script, self.prepare_go]

    @activity.defn(name=names.RUN_SCRIPT)
    async def run_script(self, order: ScriptOrder) -> RunResult:
        """Carry out an order; cancelled, it kills the script."""
        async with beating():
            job = await self._redeem(order)
            problem = unavailable(job.language)
            if problem is not None:
                return RunResult(ending=Ending.FAILED, error=problem)
            _log.info("script_started", run_id=str(order.run_id), language=job.language.value)
            result = await run(job, cache=self._cache)
            _log.info("script_ended", run_id=str(order.run_id), ending=result.ending, duration_ms=result.duration_ms)
            return result

    @activity.defn(name=names.PREPARE_GO)
    async def prepare_go(self) -> None:
        """Compile Go's library, where that was not done before, so that the first script in Go does not wait for it."""
        async with beating():
            await compiling.warm_up(self._cache)

    async def _redeem(self, order: ScriptOrder) -> Job:
        for attempt in range(1, _REDEEM_ATTEMPTS + 1):
            try:
                answer = await self._http.post(REDEEM_PATH, json={"ticket": order.ticket}, timeout=_REDEEM_TIMEOUT_SECS)
            except httpx.ConnectError as error:
                if attempt == _REDEEM_ATTEMPTS:
                    raise _failed(f"The API could not be reached for what the script needs: {error}") from error
                await asyncio.sleep(_REDEEM_PAUSE_SECS)
                continue
            except httpx.HTTPError as error:
                raise _failed(f"The API did not answer with what the script needs: {error!r}") from error
            if answer.is_success:
                return _job(ScriptJob.model_validate_json(answer.content))
            raise _failed(_detail(answer))
        raise AssertionError("unreachable")


def _job(sent: ScriptJob) -> Job:
    return Job(
        run_id=str(sent.run_id),
        language=sent.language,
        script=sent.script,
        config=sent.config,
        approvers=[Approver(**approver.model_dump(mode="json")) for approver in sent.approvers],
        secrets=sent.secrets,
        timeout_seconds=sent.timeout_seconds,
        network=sent.network,
    )


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"The API answered {answer.status_code}."


def _failed(message: str) -> ApplicationError:
    return ApplicationError(message, type="order_not_redeemed", non_retryable=True)
