"""Runs of tasks: their rows, as local activities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid5

from temporalio import activity

from activities.transitions import refuse_remote
from db import runs
from db.database import Database
from domain.errors import NotFound
from domain.tasks import Attempt, Begun, Report, RunCause, RunNext
from telemetry import metrics
from workflows import names


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
        metrics.RUNS.labels("lost" if report.result is None else report.result.ending.value).inc()
        return await runs.finish(self._db, report)
