"""Templates: what may be asked for (specification, Templates and Template Deletion)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import Field
from sqlalchemy import ColumnElement, func, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from db.database import Database
from db.paging import Page, Position
from db.tables import AccessRequest, Application, AppMapping, Group, ScheduledTask, Template
from db.views import Versioned
from domain.errors import Invalid, NotFound, TemplateInUse
from domain.states import Status
from domain.templates import TemplateValues
from domain.text import STORED
from domain.versions import ANY_VERSION, Expected

_VALUES: Final = set(TemplateValues.model_fields)
_COLUMNS: Final = ", ".join(f"t.{name}" for name in ("id", *TemplateValues.model_fields, "created_at", "updated_at"))


class TemplateView(TemplateValues, Versioned):
    """A template. Times are UTC."""

    VERSIONED = frozenset(TemplateValues.model_fields)

    app_name: str = Field(description="Name of the application.")
    created_at: datetime
    updated_at: datetime


async def list_templates(db: Database, position: Position) -> Page[TemplateView]:
    """All templates, newest first."""
    before = "WHERE (t.created_at, t.id) < (%(before_at)s, %(before_id)s)" if position.before else ""
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            SELECT {_COLUMNS}, a.name AS app_name
            FROM access_request_templates t JOIN applications a ON a.id = t.app_id
            {before} ORDER BY t.created_at DESC, t.id DESC LIMIT %(limit)s
            """,
            position.parameters,
        )
        views = [TemplateView.model_validate(row, context=STORED) for row in await rows.fetchall()]
    return Page.dated(views, position, lambda view: (view.created_at, view.id))


async def get(db: Database, template_id: UUID) -> TemplateView:
    """One template.

    Raises:
        NotFound: there is none with this id.
    """
    query = (
        select(Template, col(Application.name))
        .join(Application, col(Application.id) == col(Template.app_id))
        .where(Template.id == template_id)
    )
    async with db.session() as session:
        row = (await session.exec(query)).one_or_none()
    if row is None:
        raise _not_found()
    return _view(*row)


async def create(db: Database, values: TemplateValues, *, longest_mins: int) -> TemplateView:
    """Make a template.

    Args:
        db: the record.
        values: everything that an administrator sets.
        longest_mins: the longest duration that may be allowed (`JUSTIAM_MAX_DURATION_MINS`).

    Raises:
        Invalid: it names what does not exist or does not fit together, each by its field.
    """
    async with db.session() as session:
        app_name = await _check(session, values, longest_mins)
        template = Template(**_columns(values))
        session.add(template)
        await session.flush()
        await session.refresh(template)
        return _view(template, app_name)


async def replace(
    db: Database,
    template_id: UUID,
    values: TemplateValues,
    *,
    longest_mins: int,
    expected: Expected = ANY_VERSION,
) -> TemplateView:
    """Set every value of a template. Requests made before keep the values of their submission.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        Invalid: as for `create`, or another application is named.
    """
    async with db.session() as session:
        template = await session.get(Template, template_id)
        if template is None:
            raise _not_found()
        if template.app_id != values.app_id:
            raise Invalid(("app_id", "cannot be changed; make another template"))
        # First what the template names, then the template: whoever deletes a group locks in this order too.
        app_name = await _check(session, values, longest_mins)
        locked = select(Template).where(Template.id == template_id).with_for_update(key_share=True)
        template = (await session.exec(locked.execution_options(populate_existing=True))).one_or_none()
        if template is None:
            raise _not_found()
        if expected != ANY_VERSION:
            # Only where a version is expected: a stored template that today's rules refuse has no view and no version,
            # and still has to be replaceable.
            expected.check(_view(template, app_name).version)
        template.sqlmodel_update({**_columns(values), "updated_at": func.now()})
        await session.flush()
        await session.refresh(template)
        return _view(template, app_name)


async def delete(db: Database, template_id: UUID, expected: Expected = ANY_VERSION) -> None:
    """Delete a template; its closed requests stay, with its name.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        TemplateInUse: pending requests or grants that last were made from it.
    """
    async with db.session() as session:
        # A submission holds a lock that this one waits for, so that its request is counted below.
        query = select(Template).where(Template.id == template_id).with_for_update()
        template = (await session.exec(query)).one_or_none()
        if template is None:
            raise _not_found()
        if expected != ANY_VERSION:
            # Only where a version is expected: a stored template that today's rules refuse has no view and no version,
            # and still has to be deletable.
            expected.check(_view(template, "").version)
        open_requests = select(func.count()).where(AccessRequest.template_id == template_id, still_open())
        count = (await session.exec(open_requests)).one()
        if count:
            what = "1 open request was" if count == 1 else f"{count} open requests were"
            raise TemplateInUse(
                f"{what} made from this template. Decide what is pending; revoke what is granted, or wait for its end."
            )
        await session.delete(template)


def still_open() -> ColumnElement[bool]:
    """The condition for requests that are pending or granted; a grant whose time is up is over."""
    return or_(
        col(AccessRequest.status) == Status.PENDING,
        (col(AccessRequest.status) == Status.APPROVED) & (col(AccessRequest.expires_at) > func.now()),
    )


async def _check(session: AsyncSession, values: TemplateValues, longest_mins: int) -> str:
    """Hold the values to the directory, and keep what they name from being deleted meanwhile.

    Returns:
        The name of the application.
    """
    errors: list[tuple[str, str]] = []
    application = (
        await session.exec(
            select(Application).where(Application.id == values.app_id).with_for_update(read=True, key_share=True)
        )
    ).one_or_none()
    if application is None:
        errors.append(("app_id", "there is no application with this id"))
    mappings = await session.exec(
        select(AppMapping)
        .where(col(AppMapping.id).in_(values.mapping_ids), AppMapping.app_id == values.app_id)
        .order_by(col(AppMapping.id))
        .with_for_update(read=True, key_share=True)
    )
    mapping_ids = {mapping.id for mapping in mappings}
    errors += [
        (f"mapping_ids.{index}", "the application has no mapping with this id")
        for index, mapping_id in enumerate(values.mapping_ids)
        if mapping_id not in mapping_ids
    ]
    named = {
        **{f"approver_group_ids.{index}": group_id for index, group_id in enumerate(values.approver_group_ids)},
        **{f"allowed_group_ids.{index}": group_id for index, group_id in enumerate(values.allowed_group_ids)},
    }
    if values.escalation_group_id is not None:
        named["escalation_group_id"] = values.escalation_group_id
    groups = await session.exec(
        select(Group)
        .where(col(Group.id).in_(set(named.values())))
        .order_by(col(Group.id))
        .with_for_update(read=True, key_share=True)
    )
    system = {group.id: group.system for group in groups}
    for field, group_id in named.items():
        if group_id not in system:
            errors.append((field, "there is no group with this id"))
        elif system[group_id]:
            errors.append((field, "is the temporary group of an access request"))
    errors += [
        (f"allowed_durations.{index}", f"must be at most {longest_mins} minutes")
        for index, minutes in enumerate(values.allowed_durations)
        if minutes > longest_mins
    ]
    if values.trigger_task_id is not None and not await _task_exists(session, values.trigger_task_id):
        errors.append(("trigger_task_id", "there is no scheduled task with this id"))
    if application is None or errors:
        raise Invalid(*errors)
    return application.name


async def _task_exists(session: AsyncSession, task_id: UUID) -> bool:
    # Locked, so that it is not deleted before the template that names it is there.
    statement = select(ScheduledTask.id).where(ScheduledTask.id == task_id).with_for_update(read=True, key_share=True)
    return (await session.exec(statement)).first() is not None


def _columns(values: TemplateValues) -> dict[str, Any]:
    columns = values.model_dump()
    columns["custom_fields"] = [field.model_dump(mode="json") for field in values.custom_fields]
    return columns


def _view(template: Template, app_name: str) -> TemplateView:
    return TemplateView.model_validate(
        {
            **template.model_dump(include=_VALUES | {"id", "created_at", "updated_at"}),
            "app_name": app_name,
        },
        context=STORED,
    )


def _not_found() -> NotFound:
    return NotFound("There is no template with this id.")
