"""Scheduled tasks: scripts, when they run, and what came of it (specification, Trigger Tasks)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Path, Response

from api.authentication import TasksManager, TasksReader
from api.orchestrator import Orchestrator
from api.problems import refusals
from api.reading import Paging, Reading
from api.resources import Db, Temporal
from api.versions import IfMatch, tagged
from db import run_history, runs, tasks
from db.database import Database
from db.paging import Page
from db.run_history import RunView
from db.tasks import TaskView
from domain.clocks import NextRuns, next_runs
from domain.deciding import Person
from domain.errors import Invalid
from domain.tasks import Language, RunCause, TaskValues
from script_tasks import checking

_log = structlog.get_logger(__name__)

router = APIRouter(prefix="/scheduled-tasks", tags=["Scheduled tasks"])

TaskId = Annotated[UUID, Path(description="Id of the scheduled task.")]
RunId = Annotated[UUID, Path(description="Id of the run.")]


@router.get("", summary="List scheduled tasks", responses=refusals("forbidden"))
async def list_tasks(database: Db, _: TasksReader, position: Paging) -> Page[TaskView]:
    """Needs `tasks.manage` or `access_requests.manage`. All scheduled tasks with their scripts, newest first."""
    return await tasks.list_tasks(database, position)


@router.get("/{task_id}", summary="Get a scheduled task", responses=refusals("forbidden", "not_found"))
async def get_task(database: Db, _: TasksReader, task_id: TaskId, response: Response) -> TaskView:
    """Needs `tasks.manage` or `access_requests.manage`. One scheduled task with its script."""
    return tagged(response, await tasks.get(database, task_id))


@router.post("", summary="Create a scheduled task", status_code=201, responses=refusals("forbidden", "in_use"))
async def create_task(
    database: Db, temporal: Temporal, caller: TasksManager, values: TaskValues, response: Response
) -> TaskView:
    """Needs `tasks.manage`. The secrets that it names have to exist.

    The script is checked without being run: Python compiles and defines `run()`; Go begins with `package task`, defines
    `func Run() (string, error)`, and closes its literals and brackets. Otherwise the answer is 422 on `script` with
    line and column.

    A template fires it as its `trigger_task_id`, an integration as its `task_id`; with `interval` or `cron` it runs by
    itself as well.
    """
    await _check_script(values)
    view = await tasks.create(database, values)
    await temporal.keep_schedule(database, view.id)
    await _prepare(temporal, view)
    response.headers["Location"] = f"/api/v1/scheduled-tasks/{view.id}"
    _log.info("task_created", task_id=str(view.id), name=view.name, by=str(caller.id))
    return tagged(response, view)


@router.put(
    "/{task_id}",
    summary="Update a scheduled task",
    responses=refusals("forbidden", "not_found", "in_use", "changed_meanwhile"),
)
async def update_task(  # noqa: PLR0917 - what FastAPI brings
    database: Db,
    temporal: Temporal,
    caller: TasksManager,
    task_id: TaskId,
    values: TaskValues,
    expected: IfMatch,
    response: Response,
) -> TaskView:
    """Needs `tasks.manage`. Replaces all values; whether it is paused stays, and `If-Match` does not look at it.

    A new script is checked as when a task is created. One that stays as it is does not keep other values from changing.
    Attempts that start from then on run the new script, those of earlier runs included.
    """
    try:
        await _check_script(values)
    except Invalid:
        before = await tasks.get(database, task_id)
        if (before.script, before.language) != (values.script, values.written_in):
            raise
    view = await tasks.replace(database, task_id, values, expected)
    await temporal.keep_schedule(database, view.id)
    await _prepare(temporal, view)
    _log.info("task_changed", task_id=str(view.id), name=view.name, by=str(caller.id))
    return tagged(response, view)


@router.delete(
    "/{task_id}",
    summary="Delete a scheduled task",
    status_code=204,
    responses=refusals("forbidden", "not_found", "in_use", "changed_meanwhile"),
)
async def delete_task(
    database: Db, temporal: Temporal, caller: TasksManager, task_id: TaskId, expected: IfMatch
) -> None:
    """Needs `tasks.manage`. Its runs stay with the requests that made them.

    Refused while a template or an integration fires it, or the approval of a pending request waits for it.
    """
    await tasks.delete(database, task_id, expected)
    await temporal.keep_schedule(database, task_id)
    _log.info("task_deleted", task_id=str(task_id), by=str(caller.id))


@router.post("/{task_id}/run", summary="Run a task now", status_code=201, responses=refusals("forbidden", "not_found"))
async def run_task(
    temporal: Temporal, caller: TasksManager, connection: Reading, task_id: TaskId, response: Response
) -> RunView:
    """Needs `tasks.manage`. Makes a run and answers it as queued; look at it again for what came of it.

    A run on demand is about no request: `config.get` knows its `run_id` alone.
    """
    run_id = await runs.make_on_its_own(connection, task_id, RunCause.MANUAL, started_by=caller.email)
    view = await run_history.get(connection, task_id, run_id)
    await temporal.start_run(run_id)
    response.headers["Location"] = f"/api/v1/scheduled-tasks/{task_id}/runs/{run_id}"
    _log.info("task_run", task_id=str(task_id), run_id=str(run_id), by=str(caller.id))
    return view


@router.post("/{task_id}/pause", summary="Pause a task", responses=refusals("forbidden", "not_found"))
async def pause_task(database: Db, temporal: Temporal, caller: TasksManager, task_id: TaskId) -> TaskView:
    """Needs `tasks.manage`. Its own times are passed over; it still runs when triggered or on demand."""
    return await _set_paused(database, temporal, caller, task_id, paused=True)


@router.post("/{task_id}/resume", summary="Resume a task", responses=refusals("forbidden", "not_found"))
async def resume_task(database: Db, temporal: Temporal, caller: TasksManager, task_id: TaskId) -> TaskView:
    """Needs `tasks.manage`. It runs at its own times again; those that were passed over are not made up for."""
    return await _set_paused(database, temporal, caller, task_id, paused=False)


@router.get(
    "/{task_id}/next-runs",
    summary="List the next times of a task",
    responses=refusals("forbidden", "not_found", "orchestrator_unavailable"),
)
async def list_next_runs(database: Db, temporal: Temporal, _: TasksReader, task_id: TaskId) -> NextRuns:
    """Needs `tasks.manage` or `access_requests.manage`. When it runs by itself, the soonest first.

    Of a time that the clocks skip or repeat until then, `clock_changes` says what becomes of it.
    """
    view = await tasks.get(database, task_id)
    return next_runs(view.cron, view.time_zone, await temporal.next_runs(task_id), datetime.now(UTC))


@router.get("/{task_id}/runs", summary="List the runs of a task", responses=refusals("forbidden", "not_found"))
async def list_task_runs(_: TasksReader, connection: Reading, task_id: TaskId, position: Paging) -> Page[RunView]:
    """Needs `tasks.manage` or `access_requests.manage`. All runs of a task, newest first; output shortened."""
    return await run_history.list_of_task(connection, task_id, position)


@router.get("/{task_id}/runs/{run_id}", summary="Get a run", responses=refusals("forbidden", "not_found"))
async def get_task_run(_: TasksReader, connection: Reading, task_id: TaskId, run_id: RunId) -> RunView:
    """Needs `tasks.manage` or `access_requests.manage`. One run with its whole output, at most 64 KiB."""
    return await run_history.get(connection, task_id, run_id)


async def _check_script(values: TaskValues) -> None:
    mistake = await checking.mistake(values.script, values.written_in)
    if mistake is not None:
        raise Invalid(("script", mistake))


async def _set_paused(
    database: Database, temporal: Orchestrator, caller: Person, task_id: UUID, *, paused: bool
) -> TaskView:
    view = await tasks.set_paused(database, task_id, paused=paused)
    await temporal.keep_schedule(database, task_id)
    _log.info("task_paused" if paused else "task_resumed", task_id=str(task_id), by=str(caller.id))
    return view


async def _prepare(temporal: Orchestrator, view: TaskView) -> None:
    """Have Go's library compiled when a script in Go is saved, so that its first run does not wait for that."""
    if view.language is Language.GO:
        await temporal.prepare_go()
