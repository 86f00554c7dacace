"""The worker: runs the workflows and activities, and keeps Temporal furnished and requests attended to."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from psycopg import Error as DatabaseError
from psycopg_pool import PoolTimeout
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

import logs
import temporal_client
from activities import auditing, dispatching, processes, schedules, setup
from activities.deliveries import DeliveryActivities
from activities.processes import SweepActivities
from activities.runs import RunActivities
from activities.transitions import TransitionActivities
from db import overview
from db.database import Database
from db.secrets import SecretVault
from domain.auditing import AuditReport
from domain.proofs import ProofKey
from domain.sweeping import SweepReport
from settings import Settings
from telemetry import metrics, serving, tracing
from workflows import names
from workflows.access_request import AccessRequestWorkflow
from workflows.delivery import DeliveryWorkflow
from workflows.expiry_sweep import AccessRequestExpirySweep
from workflows.preparation import PrepareGoWorkflow
from workflows.task_run import ScheduledTaskWorkflow, TaskRunWorkflow

_log = structlog.get_logger(__name__)

_GRACE: Final = timedelta(seconds=10)
"""What is in hand when the worker is told to stop has this long to finish."""
_FURNISH_EVERY: Final = 10.0
"""Seconds between two looks whether Temporal still has the Schedule and the search attributes, which are two reads.

Where its database was wiped, no workflow can be started until it has them again."""
_ATTEND_EVERY: Final = 2.0
"""Seconds between two looks for requests whose workflow has to be started or nudged."""
_SCHEDULES_EVERY: Final = 30.0
"""Seconds between two looks whether Temporal has the Schedules of tasks that the record says."""
_DISPATCH_EVERY: Final = 1.0
"""Seconds between two looks for runs that are due: two reads by an index that is empty most of the time."""
_PATIENCE_SECS: Final = 2.0
"""How long a store may take to say that it is there."""


@dataclass(frozen=True)
class Stores:
    """The record and the process, connected."""

    db: Database
    client: Client
    proofs: ProofKey


@asynccontextmanager
async def connected(settings: Settings, *, wait: bool) -> AsyncIterator[Stores]:
    """Both stores.

    Args:
        settings: where they are.
        wait: until Temporal can be reached, however long that takes.

    Raises:
        RuntimeError: Temporal cannot be reached, and `wait` is false.
    """
    async with Database(settings.database_url.get_secret_value(), max_connections=settings.database_pool_max) as db:
        connect = temporal_client.connect_in_time if wait else temporal_client.connect
        client = await connect(settings)
        yield Stores(db, client, ProofKey(settings.secret_key.get_secret_value()))


async def main(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then finish what is in hand and take nothing new."""
    logs.configure(settings.log_level, settings.log_format)
    work = asyncio.create_task(run(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        _log.info("worker_stopped")
    finally:
        tracing.flush()


async def run(settings: Settings) -> None:
    """Work until cancelled."""
    async with (
        connected(settings, wait=True) as stores,
        observed(stores, settings),
        _schema_awaited(stores.db),
        worker(stores, settings),
        asyncio.TaskGroup() as chores,
    ):
        _log.info("worker_started", temporal=settings.temporal_address, namespace=settings.temporal_namespace)
        interval = timedelta(seconds=settings.sweep_interval_secs)
        chores.create_task(_repeat("furnish", _FURNISH_EVERY, lambda: setup.ensure(stores.client, interval)))
        chores.create_task(
            _repeat("schedules", _SCHEDULES_EVERY, lambda: schedules.ensure_all(stores.db, stores.client))
        )
        chores.create_task(_repeat("attend", _ATTEND_EVERY, lambda: processes.attend(stores.db, stores.client)))
        chores.create_task(_repeat("dispatch", _DISPATCH_EVERY, lambda: dispatching.dispatch(stores.db, stores.client)))


@asynccontextmanager
async def _schema_awaited(db: Database) -> AsyncIterator[None]:
    """Take no work before the record has what this version writes to; workers of the version before go on with it."""
    said = float("-inf")
    while (problem := await db.problem(_PATIENCE_SECS)) is not None and problem.missing == "schema":
        if time.monotonic() - said >= logs.REPEATED_EVERY_SECS:
            said = time.monotonic()
            _log.warning("not_ready", missing=problem.missing, error=problem.why)
        await asyncio.sleep(_PATIENCE_SECS)
    yield


@asynccontextmanager
async def observed(stores: Stores, settings: Settings) -> AsyncIterator[None]:
    """Tell operators how the worker is, as long as the block lasts."""

    async def missing() -> list[str]:
        problem, serves = await asyncio.gather(
            stores.db.problem(_PATIENCE_SECS), temporal_client.is_reachable(stores.client, _PATIENCE_SECS)
        )
        return [*([problem.missing] if problem else []), *([] if serves else ["temporal"])]

    async def refresh() -> None:
        async with stores.db.connection() as connection:
            metrics.show_record(await overview.figures(connection))

    metrics.watch_pool(stores.db)
    async with serving.serving(
        settings.metrics_host,
        settings.metrics_port,
        missing=missing,
        refresh=refresh,
        temporal_port=temporal_client.metrics_port(),
    ):
        yield


def worker(stores: Stores, settings: Settings) -> Worker:
    """The Temporal worker with everything this version serves."""
    transitions = TransitionActivities(
        stores.db,
        stores.proofs,
        trust_signal_actors=settings.trust_signal_actors,
        remind_before=timedelta(minutes=settings.reminder_mins),
    )
    vault = SecretVault(settings.secret_key, settings.encryption_keys)
    deliveries = DeliveryActivities(stores.db, vault, settings.outbound, settings.public_url)
    sweeps = SweepActivities(stores.db, stores.client, stores.proofs)
    return Worker(
        stores.client,
        task_queue=names.TASK_QUEUE,
        workflows=[
            AccessRequestWorkflow,
            AccessRequestExpirySweep,
            TaskRunWorkflow,
            ScheduledTaskWorkflow,
            DeliveryWorkflow,
            PrepareGoWorkflow,
        ],
        activities=[*transitions.all, *RunActivities(stores.db).all, *deliveries.all, sweeps.sweep],
        workflow_runner=workflow_runner(settings),
        graceful_shutdown_timeout=_GRACE,
    )


def workflow_runner(settings: Settings) -> WorkflowRunner:
    """Return what runs workflow code: without the sandbox unless the setting asks for it.

    Tests run in the sandbox, a lint forbids what it forbids, and stored histories replay; so programs do without it.
    """
    return SandboxedWorkflowRunner() if settings.workflow_sandbox else UnsandboxedWorkflowRunner()


async def setup_temporal(settings: Settings) -> list[str]:
    """Create the search attributes and the Schedule where they are missing; says what was created.

    Raises:
        RuntimeError: Temporal cannot be reached.
        RPCError: Temporal refuses.
    """
    return await setup.ensure(await temporal_client.connect(settings), timedelta(seconds=settings.sweep_interval_secs))


async def sweep(settings: Settings) -> SweepReport:
    """One pass of the sweep, now and here.

    Raises:
        RuntimeError: Temporal cannot be reached.
        psycopg.Error: PostgreSQL cannot be reached.
    """
    async with connected(settings, wait=False) as stores:
        return await processes.sweep(stores.db, stores.client, stores.proofs)


async def audit(settings: Settings) -> AuditReport:
    """Prove the invariants on both stores; reads only.

    Raises:
        RuntimeError: Temporal cannot be reached.
        psycopg.Error: PostgreSQL cannot be reached.
    """
    async with connected(settings, wait=False) as stores:
        return await auditing.audit(stores.db, stores.client)


async def _repeat(chore: str, every_secs: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` again and again. A store that is away is no reason to stop; the next round tries again."""
    failures, said = 0, 0.0
    while True:
        try:
            done = await work()
            if done:
                _log.info(chore, done=done)
            if failures:
                _log.info(f"{chore}_works_again", failures=failures)
                failures = 0
        except (RPCError, DatabaseError, PoolTimeout, RuntimeError) as error:
            # RuntimeError is what Temporal's client raises where it cannot connect.
            metrics.CHORE_FAILURES.labels(chore).inc()
            failures += 1
            if failures == 1 or time.monotonic() - said >= logs.REPEATED_EVERY_SECS:
                said = time.monotonic()
                _log.warning(f"{chore}_failed", error=str(error), failures=failures)
        await asyncio.sleep(every_secs)
