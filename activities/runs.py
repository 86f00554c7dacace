"""Runs of tasks: their rows, as local activities, and starting the workflows of those that are due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy

from activities.transitions import refuse_remote
from db import runs
from db.database import Database
from domain.errors import NotFound
from domain.tasks import Attempt, Begun, Report, RunCause, RunNext, TaskRunInput
from workflows import names
from workflows.task_run import TaskRunWorkflow

_BATCH: Final = 200
_AT_ONCE: Final = 16
_CALL: Final = timedelta(seconds=10)


async def start_run(client: Client, run_id: UUID, *, rpc_timeout: timedelta = _CALL) -> None:
    """Make sure that a run's workflow runs.

    Raises:
        RPCError: Temporal cannot be reached or refuses.
    """
    await client.start_workflow(
        TaskRunWorkflow.run,
        TaskRunInput(run_id=run_id),
        id=names.delivery_id(run_id),
        task_queue=names.TASK_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        rpc_timeout=rpc_timeout,
    )


async def dispatch(db: Database, client: Client) -> int:
    """Start the workflows of the runs that are due.

    Returns:
        How many.

    Raises:
        RPCError: Temporal cannot be reached; what was not started is due again within a minute.
    """
    started = 0
    while due := await runs.claim_due(db, _BATCH):
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(run_id: UUID, slots: asyncio.Semaphore = slots) -> None:
            async with slots:
                await start_run(client, run_id)

        results = await asyncio.gather(*map(one, due), return_exceptions=True)
        started += results.count(None)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if len(due) < _BATCH:
            break
    return started


class RunActivities:
    """What the workflow of a run does to its row."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @property
    def all(self) -> list[Callable[..., Any]]:
        """For the worker."""
        return [self.make_scheduled_run, self.begin_run, self.finish_run]

    @activity.defn(name=names.MAKE_SCHEDULED_RUN)
    async def make_scheduled_run(self, wanted: Attempt) -> Begun:
        """A run of the task `run_id`, one for each `holder`."""
        refuse_remote()
        run_id = uuid5(wanted.run_id, wanted.holder)
        try:
            async with self._db.connection() as connection:
                await runs.make_on_its_own(connection, wanted.run_id, RunCause.SCHEDULE, run_id=run_id)
        except NotFound:
            return Begun()
        return Begun(run_id=run_id)

    @activity.defn(name=names.BEGIN_RUN)
    async def begin_run(self, attempt: Attempt) -> Begun:
        """Take the run into hand."""
        refuse_remote()
        return Begun(run_id=attempt.run_id, order=await runs.begin(self._db, attempt))

    @activity.defn(name=names.FINISH_RUN)
    async def finish_run(self, report: Report) -> RunNext:
        """Write down how an attempt ended."""
        refuse_remote()
        return await runs.finish(self._db, report)
