"""Scheduled tasks: scripts, when they run, and what came of it (specification, Trigger Tasks)."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Path, Response

from api.authentication import TasksManager, TasksReader
from api.problems import refusals
from api.reading import Paging, Reading
from api.resources import Db
from db import run_history, tasks
from db.paging import Page
from db.run_history import RunView
from db.tasks import TaskView
from domain.tasks import TaskValues

_log = structlog.get_logger(__name__)

router = APIRouter(prefix="/scheduled-tasks", tags=["Scheduled tasks"])

TaskId = Annotated[UUID, Path(description="Id of the scheduled task.")]
RunId = Annotated[UUID, Path(description="Id of the run.")]


@router.get("", summary="List scheduled tasks", responses=refusals("forbidden"))
async def list_tasks(database: Db, _: TasksReader, position: Paging) -> Page[TaskView]:
    """Needs `tasks.manage` or `access_requests.manage`. All scheduled tasks with their scripts, newest first."""
    return await tasks.list_tasks(database, position)


@router.get("/{task_id}", summary="Get a scheduled task", responses=refusals("forbidden", "not_found"))
async def get_task(database: Db, _: TasksReader, task_id: TaskId) -> TaskView:
    """Needs `tasks.manage` or `access_requests.manage`. One scheduled task with its script."""
    return await tasks.get(database, task_id)


@router.post("", summary="Create a scheduled task", status_code=201, responses=refusals("forbidden", "in_use"))
async def create_task(database: Db, caller: TasksManager, values: TaskValues, response: Response) -> TaskView:
    """Needs `tasks.manage`. The secrets that it names have to exist.

    A template fires it as its `trigger_task_id`, an integration as its `task_id`; with `interval` or `cron` it runs by
    itself as well.
    """
    view = await tasks.create(database, values)
    response.headers["Location"] = f"/api/v1/scheduled-tasks/{view.id}"
    _log.info("task_created", task_id=str(view.id), name=view.name, by=str(caller.id))
    return view


@router.put("/{task_id}", summary="Update a scheduled task", responses=refusals("forbidden", "not_found", "in_use"))
async def update_task(database: Db, caller: TasksManager, task_id: TaskId, values: TaskValues) -> TaskView:
    """Needs `tasks.manage`. Replaces all values; whether it is paused stays.

    Attempts that start from then on run the new script, those of earlier runs included.
    """
    view = await tasks.replace(database, task_id, values)
    _log.info("task_changed", task_id=str(view.id), name=view.name, by=str(caller.id))
    return view


@router.delete(
    "/{task_id}",
    summary="Delete a scheduled task",
    status_code=204,
    responses=refusals("forbidden", "not_found", "in_use"),
)
async def delete_task(database: Db, caller: TasksManager, task_id: TaskId) -> None:
    """Needs `tasks.manage`. Its runs stay with the requests that made them.

    Refused while a template or an integration fires it, or the approval of a pending request waits for it.
    """
    await tasks.delete(database, task_id)
    _log.info("task_deleted", task_id=str(task_id), by=str(caller.id))


@router.get("/{task_id}/runs", summary="List the runs of a task", responses=refusals("forbidden", "not_found"))
async def list_task_runs(_: TasksReader, connection: Reading, task_id: TaskId, position: Paging) -> Page[RunView]:
    """Needs `tasks.manage` or `access_requests.manage`. All runs of a task, newest first; output shortened."""
    return await run_history.list_of_task(connection, task_id, position)


@router.get("/{task_id}/runs/{run_id}", summary="Get a run", responses=refusals("forbidden", "not_found"))
async def get_task_run(_: TasksReader, connection: Reading, task_id: TaskId, run_id: RunId) -> RunView:
    """Needs `tasks.manage` or `access_requests.manage`. One run with its whole output, at most 64 KiB."""
    return await run_history.get(connection, task_id, run_id)
