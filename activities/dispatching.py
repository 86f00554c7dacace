"""Starting the workflows of runs and deliveries from their rows.

A row is written in the transaction of the change that causes it, whoever carries that out: a workflow, the API at a
submission, or the sweep. So nobody has to hand it over: whoever looks finds what is due, and what was lost on the way
is due again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities import wedged
from db import deliveries, runs
from db.database import Database
from domain.deliveries import DeliveryInput
from domain.tasks import TaskRunInput
from workflows import names
from workflows.delivery import DeliveryWorkflow
from workflows.task_run import TaskRunWorkflow

_BATCH: Final = 200
_AT_ONCE: Final = 16
_CALL: Final = timedelta(seconds=10)


async def start_run(client: Client, run_id: UUID, *, rpc_timeout: timedelta = _CALL) -> None:
    """Make sure that a run's workflow runs; one that does not go on is replaced.

    Raises:
        RPCError: Temporal cannot be reached or refuses.
    """

    async def start() -> None:
        await client.start_workflow(
            TaskRunWorkflow.run, TaskRunInput(run_id=run_id), **_options(run_id), rpc_timeout=rpc_timeout
        )

    await _ensure_runs(client, run_id, names.TASK_RUN_WORKFLOW, start)


async def start_delivery(client: Client, delivery_id: UUID) -> None:
    """Make sure that a delivery's workflow runs and looks whether it is due; one that does not go on is replaced.

    Raises:
        RPCError: Temporal cannot be reached or refuses.
    """

    async def start() -> None:
        await client.start_workflow(
            DeliveryWorkflow.run, DeliveryInput(delivery_id=delivery_id), **_options(delivery_id), rpc_timeout=_CALL
        )

    if not await _ensure_runs(client, delivery_id, names.DELIVERY_WORKFLOW, start):
        try:
            handle = client.get_workflow_handle(names.delivery_id(delivery_id))
            await handle.signal(names.AGAIN_SIGNAL, rpc_timeout=_CALL)
        except RPCError as error:
            # Where it has ended since, the delivery is over, or due again.
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise


def _options(row_id: UUID) -> dict[str, Any]:
    return {
        "id": names.delivery_id(row_id),
        "task_queue": names.TASK_QUEUE,
        "id_conflict_policy": WorkflowIDConflictPolicy.FAIL,
    }


async def _ensure_runs(client: Client, row_id: UUID, workflow_type: str, start: Callable[[], Awaitable[None]]) -> bool:
    """Start a workflow where none goes on; whether it was started."""
    try:
        await start()
    except WorkflowAlreadyStartedError:
        found = await wedged.look(client, names.delivery_id(row_id), workflow_type)
        if found is None:
            return False
        await wedged.end(client, found)
        # Another worker that found the same may have been faster.
        with contextlib.suppress(WorkflowAlreadyStartedError):
            await start()
    return True


async def dispatch(db: Database, client: Client) -> int:
    """Start the workflows of the runs and deliveries that are due.

    Returns:
        How many.

    Raises:
        RPCError: Temporal cannot be reached; what was not started is due again within a minute.
    """
    return await _each(db, client, runs.claim_due, start_run) + await _each(
        db, client, deliveries.claim_due, start_delivery
    )


async def _each(
    db: Database,
    client: Client,
    claim: Callable[[Database, int], Awaitable[list[UUID]]],
    start: Callable[[Client, UUID], Awaitable[None]],
) -> int:
    started, slots = 0, asyncio.Semaphore(_AT_ONCE)

    async def one(row_id: UUID) -> None:
        async with slots:
            await start(client, row_id)

    while due := await claim(db, _BATCH):
        results = await asyncio.gather(*map(one, due), return_exceptions=True)
        started += results.count(None)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if len(due) < _BATCH:
            break
    return started
