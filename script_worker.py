"""The script worker: runs the scripts of tasks, with neither the database nor the keys of the service."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from typing import Final

import httpx
import structlog
from temporalio.client import Client
from temporalio.worker import Worker

import logs
import temporal_client
from activities.scripts import ScriptActivities
from script_tasks import compiling
from script_tasks.sandbox import harden_this_process, remove_leftovers
from settings import ScriptWorkerSettings
from telemetry import serving, tracing
from workflows import names

_log = structlog.get_logger(__name__)

_GRACE: Final = timedelta(seconds=10)
"""A script that still runs when the worker has to stop has this long; then it is killed."""
_PATIENCE_SECS: Final = 2.0
"""How long Temporal may take to say that it is there."""


async def main(settings: ScriptWorkerSettings) -> None:
    """Work until SIGTERM or SIGINT, then finish what is in hand and take nothing new."""
    logs.configure(settings.log_level, settings.log_format)
    work = asyncio.create_task(_run(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        _log.info("script_worker_stopped")
    finally:
        tracing.flush()


async def _run(settings: ScriptWorkerSettings) -> None:
    harden_this_process()
    await remove_leftovers()
    client = await temporal_client.connect_in_time(settings)
    # What is set for the machine's other programs (a proxy, say) is nothing that the API's answers should pass through.
    async with (
        httpx.AsyncClient(base_url=settings.script_api_url, trust_env=False) as http,
        serving.serving(
            settings.metrics_host,
            settings.metrics_port,
            missing=lambda: _missing(client),
            temporal_port=temporal_client.metrics_port(),
        ),
        worker(client, http, settings),
    ):
        _log.info("script_worker_started", temporal=settings.temporal_address, api=settings.script_api_url)
        if settings.script_warm_up:
            await compiling.warm_up(settings.script_cache_dir.expanduser())
        await asyncio.Event().wait()


async def _missing(client: Client) -> list[str]:
    return [] if await temporal_client.is_reachable(client, _PATIENCE_SECS) else ["temporal"]


def worker(client: Client, http: httpx.AsyncClient, settings: ScriptWorkerSettings) -> Worker:
    """The Temporal worker of the scripts' task queue."""
    return Worker(
        client,
        task_queue=names.SCRIPT_TASK_QUEUE,
        activities=ScriptActivities(http, settings.script_cache_dir.expanduser()).all,
        max_concurrent_activities=settings.script_slots,
        # Learns of a cancellation with its next heartbeat.
        max_heartbeat_throttle_interval=timedelta(seconds=2),
        default_heartbeat_throttle_interval=timedelta(seconds=2),
        graceful_shutdown_timeout=_GRACE,
    )
