"""Administering scheduled tasks: what there is to run, and when it runs by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import Field
from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from db.database import Database
from db.paging import Page, Position, newest_first
from db.tables import AccessRequest, Integration, ScheduledTask, Secret, Template
from db.uniqueness import unique
from db.views import Versioned
from domain.errors import InUse, Invalid, NotFound
from domain.states import Status
from domain.tasks import Language, ScheduleType, TaskType, TaskValues
from domain.templates import TriggerFailureMode
from domain.versions import ANY_VERSION, Expected

_NAME_TAKEN: Final = {"uq_scheduled_tasks_name": "Another scheduled task has this name."}


class TaskView(TaskValues, Versioned):
    """A script, and when it runs by itself. Times are UTC."""

    VERSIONED = frozenset({*TaskValues.model_fields, "language_inferred"})

    language: Language = Field(description="What the script is written in, given or inferred.")
    language_inferred: bool = Field(description="Whether the language follows from the script.")
    paused: bool = Field(description="Its times are passed over; it still runs when triggered or on demand.")
    created_at: datetime
    updated_at: datetime


async def list_tasks(db: Database, position: Position) -> Page[TaskView]:
    """All scheduled tasks, newest first."""
    query = newest_first(select(ScheduledTask), position, col(ScheduledTask.created_at), col(ScheduledTask.id))
    async with db.session() as session:
        views = [_view(task) for task in await session.exec(query)]
    return Page.dated(views, position, lambda view: (view.created_at, view.id))


async def get(db: Database, task_id: UUID) -> TaskView:
    """One scheduled task.

    Raises:
        NotFound: there is none with this id.
    """
    async with db.session() as session:
        task = await session.get(ScheduledTask, task_id)
    if task is None:
        raise _unknown()
    return _view(task)


async def create(db: Database, values: TaskValues) -> TaskView:
    """Make a scheduled task.

    Raises:
        Invalid: a secret that it is to read does not exist.
        InUse: another one has the name.
    """
    with unique(_NAME_TAKEN):
        async with db.session() as session:
            await _check_secrets(session, values.secret_names)
            task = ScheduledTask(**_columns(values))
            session.add(task)
            await session.flush()
            await session.refresh(task)
            return _view(task)


async def replace(db: Database, task_id: UUID, values: TaskValues, expected: Expected = ANY_VERSION) -> TaskView:
    """Set every value of a scheduled task; whether it is paused stays. Runs that start from then on go by the new ones.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        Invalid: a secret that it is to read does not exist.
        InUse: another one has the name.
    """
    with unique(_NAME_TAKEN):
        async with db.session() as session:
            # Not from those who make runs of it: they only count on its being there.
            query = select(ScheduledTask).where(ScheduledTask.id == task_id).with_for_update(key_share=True)
            task = (await session.exec(query)).one_or_none()
            if task is None:
                raise _unknown()
            expected.check(_view(task).version)
            await _check_secrets(session, values.secret_names)
            task.sqlmodel_update({**_columns(values), "updated_at": func.now()})
            await session.flush()
            await session.refresh(task)
            return _view(task)


async def set_paused(db: Database, task_id: UUID, *, paused: bool) -> TaskView:
    """Pass a task's own times over, or no longer; a task without any just keeps it in mind.

    Raises:
        NotFound: there is none with this id.
    """
    async with db.session() as session:
        query = select(ScheduledTask).where(ScheduledTask.id == task_id).with_for_update(key_share=True)
        task = (await session.exec(query)).one_or_none()
        if task is None:
            raise _unknown()
        task.paused = paused
        await session.flush()
        return _view(task)


async def delete(db: Database, task_id: UUID, expected: Expected = ANY_VERSION) -> None:
    """Delete a scheduled task that nothing fires; its runs stay, with its name.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        InUse: a template or an integration fires it, or the approval of a pending request waits for it.
    """
    async with db.session() as session:
        # Whoever names it in a template or an integration holds a lock that this one waits for.
        query = select(ScheduledTask).where(ScheduledTask.id == task_id).with_for_update()
        task = (await session.exec(query)).one_or_none()
        if task is None:
            raise _unknown()
        expected.check(_view(task).version)
        templates = select(col(Template.name)).where(Template.trigger_task_id == task_id).order_by(col(Template.name))
        if names := (await session.exec(templates)).all():
            raise InUse(f"Templates fire it: {_quoted(names)}. Change or delete them first.")
        integrations = (
            select(col(Integration.name)).where(Integration.task_id == task_id).order_by(col(Integration.name))
        )
        if names := (await session.exec(integrations)).all():
            raise InUse(f"Integrations fire it: {_quoted(names)}. Change or delete them first.")
        # Without it, they could never be approved: the template that they were made from does not count any more.
        snapshot = col(AccessRequest.snapshot)
        waiting = select(col(AccessRequest.id), col(AccessRequest.template_name)).where(
            AccessRequest.status == Status.PENDING,
            snapshot["trigger_task_failure_mode"].astext == TriggerFailureMode.BLOCK,
            snapshot["trigger_task_id"].astext == str(task_id),
        )
        if (request := (await session.exec(waiting.limit(1))).first()) is not None:
            request_id, template_name = request
            raise InUse(
                f"The approval of a pending request waits for it: {request_id}, made from “{template_name}”. "
                "Deny or cancel that first."
            )
        await session.delete(task)


async def _check_secrets(session: AsyncSession, names: Sequence[str]) -> None:
    """Hold the names to what there is, and keep that from being deleted meanwhile."""
    if not names:
        return
    query = (
        select(Secret)
        .where(col(Secret.name).in_(names))
        .order_by(col(Secret.name))
        .with_for_update(read=True, key_share=True)
    )
    known = {secret.name for secret in await session.exec(query)}
    missing = [
        (f"secret_names.{index}", "there is no secret with this name")
        for index, name in enumerate(names)
        if name not in known
    ]
    if missing:
        raise Invalid(*missing)


def _columns(values: TaskValues) -> dict[str, Any]:
    return {
        **values.model_dump(mode="json"),
        "language": values.written_in.value,
        "language_given": values.language is not None,
    }


def _view(task: ScheduledTask) -> TaskView:
    # Not validated again: rules that became stricter, or a time zone that this machine does not know, are for writers.
    return TaskView.model_construct(
        **{
            **task.model_dump(exclude={"language_given"}),
            "task_type": TaskType(task.task_type),
            "language": Language(task.language),
            "schedule_type": ScheduleType(task.schedule_type),
            "language_inferred": not task.language_given,
        }
    )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"“{name}”" for name in names)


def _unknown() -> NotFound:
    return NotFound("There is no scheduled task with this id.")
