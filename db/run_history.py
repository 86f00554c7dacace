"""Reading the runs of tasks: those of one task, those of one request."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Self
from uuid import UUID

from pydantic import BaseModel, Field, model_validator

from db.database import Connection
from db.paging import Page, Position
from domain.errors import NotFound
from domain.tasks import RunCause, RunStatus, pause_after
from domain.templates import TriggerFailureMode

EXCERPT_CHARS: Final = 2_000
"""What a list shows of each output: a page of whole ones could have megabytes."""


class RunView(BaseModel):
    """One run of a task: why, when, and what came of it. Times are UTC."""

    id: UUID
    task_id: UUID | None = Field(description="Null once the task is deleted.")
    task_name: str = Field(description="As it was when the run was made.")
    cause: RunCause = Field(description="`trigger` (of a template), `integration`, `schedule` or `manual`.")
    event: str | None = Field(
        description="What happened to the request: `approved` for a trigger, for an integration "
        "`access_request.approved`."
    )
    request_id: UUID | None = Field(description="Null where no request is behind it.")
    timeline_id: int | None = Field(
        description="The entry of the request's timeline that it was made with; null for one that blocked an approval."
    )
    integration_id: UUID | None
    started_by: str | None = Field(description="Email address of who ran it on demand.")
    failure_mode: TriggerFailureMode = Field(description="What a failure means; `retry` where no template says.")
    status: RunStatus = Field(
        description="`queued`: also between two attempts, where `next_attempt_at` is set. `lost`: cut off by a crash "
        "and not repeated, so that nobody knows what it did. `cancelled`: the approval that it blocked was overtaken."
    )
    attempt: int = Field(description="Attempts begun so far.")
    created_at: datetime
    started_at: datetime | None = Field(description="When the last attempt began.")
    finished_at: datetime | None = Field(description="When it ended.")
    next_attempt_at: datetime | None = Field(
        default=None, description="The last attempt failed, and the next one begins then; null: none is to come."
    )
    exit_code: int | None = Field(description="Of the last attempt; null where it was killed, or never started.")
    duration_ms: int | None = Field(description="Of the last attempt.")
    output: str | None = Field(
        description="What the last attempt printed and returned, secrets masked. Lists have the first "
        f"{EXCERPT_CHARS:,} characters. Null for callers without `tasks.manage` or `access_requests.manage`."
    )
    output_truncated: bool = Field(description="Whether there was more than `output` has.")
    error: str | None = Field(
        description="What went wrong, in one line: the last one that a failing script printed, for callers who see "
        "`output`."
    )
    isolation: str | None = Field(description="What kept the script apart.")

    @model_validator(mode="after")
    def _expect_next_attempt(self) -> Self:
        if self.status is RunStatus.QUEUED and self.attempt and self.finished_at is not None:
            self.next_attempt_at = self.finished_at + timedelta(seconds=pause_after(self.attempt))
        return self


_COLUMNS: Final = """
    id, task_id, task_name, cause, event, request_id, timeline_id, integration_id, started_by, failure_mode, status,
    attempt, created_at, started_at, finished_at, exit_code, duration_ms, isolation
"""
_WHOLE: Final = "error, output, output_truncated"
_EXCERPT: Final = f"""
    error, left(output, {EXCERPT_CHARS}) AS output,
    output_truncated OR char_length(output) > {EXCERPT_CHARS} AS output_truncated
"""
# Where a script failed by itself, what went wrong is the last line that it printed.
_WITHHELD: Final = """
    CASE WHEN exit_code > 0 AND status <> 'timed_out' THEN 'It ended with exit code ' || exit_code || '.' ELSE error
    END AS error,
    NULL AS output, output_truncated OR output <> '' AS output_truncated
"""


async def list_of_task(connection: Connection, task_id: UUID, position: Position) -> Page[RunView]:
    """The runs of a task, newest first.

    Raises:
        NotFound: there is no such task.
    """
    page = await _list(connection, "task_id", task_id, position, _EXCERPT)
    if not page.items:
        rows = await connection.execute("SELECT FROM scheduled_tasks WHERE id = %s", [task_id])
        if await rows.fetchone() is None:
            raise NotFound("There is no scheduled task with this id.")
    return page


async def list_of_request(
    connection: Connection, request_id: UUID, position: Position, *, with_output: bool
) -> Page[RunView]:
    """The runs that a request's changes made, newest first."""
    return await _list(connection, "request_id", request_id, position, _EXCERPT if with_output else _WITHHELD)


async def get(connection: Connection, task_id: UUID, run_id: UUID) -> RunView:
    """One run with its whole output.

    Raises:
        NotFound: the task has no such run.
    """
    rows = await connection.execute(
        f"SELECT {_COLUMNS}, {_WHOLE} FROM task_runs WHERE id = %s AND task_id = %s", [run_id, task_id]
    )
    row = await rows.fetchone()
    if row is None:
        raise NotFound("The scheduled task has no run with this id.")
    return RunView.model_validate(row)


async def _list(connection: Connection, column: str, of: UUID, position: Position, output: str) -> Page[RunView]:
    # Column and output are those written above.
    before = "AND (created_at, id) < (%(before_at)s, %(before_id)s)" if position.before else ""
    rows = await connection.execute(
        f"""
        SELECT {_COLUMNS}, {output} FROM task_runs WHERE {column} = %(of)s {before}
        ORDER BY created_at DESC, id DESC LIMIT %(limit)s
        """,
        {"of": of, **position.parameters},
    )
    runs = [RunView.model_validate(row) for row in await rows.fetchall()]
    return Page.dated(runs, position, lambda run: (run.created_at, run.id))
