"""Administering applications and their mappings.

What an open request asks for stays as it was asked for: a mapping in use keeps its claim, value and application, and
neither it nor its application can be deleted. A submission locks the mappings it names, so that it and a change take
turns.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, func
from sqlalchemy import delete as deletion
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from db import groups
from db.database import Database
from db.paging import Page, Position, newest_first
from db.tables import AccessRequest, Application, AppMapping, AppMappingGroup, Group, Template
from db.templates import still_open
from db.uniqueness import unique
from db.views import Versioned
from domain.deciding import Person
from domain.directory import ApplicationValues, MappingValues, refuse_giving
from domain.errors import InUse, Invalid, NotFound
from domain.versions import ANY_VERSION, Expected

CLIENT_SECRET_PREFIX: Final = "justiam_secret_"  # noqa: S105 - what all of them start with
"""What every client secret starts with, so that scanners for leaked secrets recognise it."""

_SECRET_BYTES: Final = 32
_NO_DIGEST: Final = bytes(hashlib.sha256().digest_size)
"""Compared with where nothing is stored. No secret has this digest that anybody could find."""
_NAME_TAKEN: Final = {"uq_applications_name": "Another application has this name."}
_MAPPING_NAME_TAKEN: Final = {"uq_app_mappings_name": "Another mapping of the application has this name."}


class ApplicationView(ApplicationValues, Versioned):
    """Something that access is granted to."""

    VERSIONED = frozenset(ApplicationValues.model_fields)

    client_id: str = Field(description="Its name in OAuth: the `audience` of a token exchange. Assigned by the server.")
    client_secret_created_at: datetime | None = Field(
        description="When the secret that it authenticates with was made; null: it has none yet."
    )
    created_at: datetime


class NewClientSecret(BaseModel):
    """A client secret as it is shown once, when it is made."""

    client_id: str = Field(description="The application's name in OAuth.")
    client_secret: str = Field(description="Keep it like a password; it is not shown again.")
    created_at: datetime


@dataclass(frozen=True)
class Client:
    """An application that has shown its secret."""

    app_id: UUID
    client_id: str


class MappingView(MappingValues, Versioned):
    """A claim and its value for one application, and who gets it."""

    VERSIONED = frozenset({*MappingValues.model_fields, "group_ids"})

    group_ids: list[UUID] = Field(description="Groups whose members get the claim; temporary ones are left out.")
    created_at: datetime


async def list_applications(db: Database, position: Position) -> Page[ApplicationView]:
    """All applications, newest first."""
    query = newest_first(select(Application), position, col(Application.created_at), col(Application.id))
    async with db.session() as session:
        views = [_application_view(application) for application in await session.exec(query)]
    return Page.dated(views, position, lambda view: (view.created_at, view.id))


async def get_application(db: Database, app_id: UUID) -> ApplicationView:
    """One application.

    Raises:
        NotFound: there is none with this id.
    """
    async with db.session() as session:
        application = await session.get(Application, app_id)
    if application is None:
        raise _no_application()
    return _application_view(application)


async def create_application(db: Database, values: ApplicationValues) -> ApplicationView:
    """Make an application.

    Raises:
        InUse: another one has the name.
    """
    with unique(_NAME_TAKEN):
        async with db.session() as session:
            application = Application(**values.model_dump())
            session.add(application)
            await session.flush()
            await session.refresh(application)
            return _application_view(application)


async def replace_application(
    db: Database, app_id: UUID, values: ApplicationValues, expected: Expected = ANY_VERSION
) -> ApplicationView:
    """Set every value of an application.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        InUse: another one has the name.
    """
    with unique(_NAME_TAKEN):
        async with db.session() as session:
            application = await _locked_application(session, app_id, expected)
            application.sqlmodel_update(values.model_dump())
            await session.flush()
            return _application_view(application)


async def delete_application(db: Database, app_id: UUID, expected: Expected = ANY_VERSION) -> None:
    """Delete an application without mappings.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        InUse: an open request, a template or a mapping is for it.
    """
    async with db.session() as session:
        application = await _locked_application(session, app_id, expected)
        await _refuse_used(
            session, requests=col(AccessRequest.app_id) == app_id, templates=col(Template.app_id) == app_id
        )
        names = await session.exec(
            select(col(AppMapping.name)).where(AppMapping.app_id == app_id).order_by(col(AppMapping.name))
        )
        if mappings := names.all():
            raise InUse(f"It has mappings: {_quoted(mappings)}. Delete them first.")
        await session.delete(application)


async def rotate_client_secret(db: Database, app_id: UUID) -> NewClientSecret:
    """Give an application a new secret; the one before, where there is one, works no more.

    Raises:
        NotFound: there is none with this id.
    """
    secret = CLIENT_SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    async with db.administration() as connection:
        rows = await connection.execute(
            """
            UPDATE applications SET client_secret_hash = %s, client_secret_created_at = now() WHERE id = %s
            RETURNING client_id, client_secret_created_at
            """,
            [_digest(secret), app_id],
        )
        row = await rows.fetchone()
    if row is None:
        raise _no_application()
    return NewClientSecret(client_id=row["client_id"], client_secret=secret, created_at=row["client_secret_created_at"])


async def authenticate_client(db: Database, client_id: str, secret: str) -> Client | None:
    """The application that has this id and this secret.

    An id that is unknown, an application without a secret and a wrong secret take the same way through this function.
    """
    async with db.connection() as connection:
        rows = await connection.execute(
            "SELECT id, client_secret_hash FROM applications WHERE client_id = %s", [client_id]
        )
        row = await rows.fetchone()
    stored = (row["client_secret_hash"] if row else None) or _NO_DIGEST
    right = hmac.compare_digest(_digest(secret), stored)
    return Client(row["id"], client_id) if row and right else None


async def list_mappings(db: Database, position: Position, *, app_id: UUID | None = None) -> Page[MappingView]:
    """All mappings, newest first; of one application where `app_id` is given."""
    query = select(AppMapping, _group_ids())
    if app_id is not None:
        query = query.where(AppMapping.app_id == app_id)
    async with db.session() as session:
        rows = await session.exec(newest_first(query, position, col(AppMapping.created_at), col(AppMapping.id)))
        views = [_mapping_view(mapping, group_ids) for mapping, group_ids in rows]
    return Page.dated(views, position, lambda view: (view.created_at, view.id))


async def get_mapping(db: Database, mapping_id: UUID) -> MappingView:
    """One mapping.

    Raises:
        NotFound: there is none with this id.
    """
    async with db.session() as session:
        return await _read_mapping(session, mapping_id)


async def create_mapping(db: Database, values: MappingValues) -> MappingView:
    """Make a mapping; nobody gets its claim until it is attached to a group or granted by a request.

    Raises:
        Invalid: the application is unknown.
        InUse: another mapping of the application has the name.
    """
    with unique(_MAPPING_NAME_TAKEN):
        async with db.session() as session:
            known = (
                select(Application).where(Application.id == values.app_id).with_for_update(read=True, key_share=True)
            )
            if (await session.exec(known)).one_or_none() is None:
                raise Invalid(("app_id", "there is no application with this id"))
            mapping = AppMapping(**values.model_dump())
            session.add(mapping)
            await session.flush()
            await session.refresh(mapping)
            return _mapping_view(mapping, [])


async def replace_mapping(
    db: Database,
    mapping_id: UUID,
    values: MappingValues,
    expected: Expected = ANY_VERSION,
    *,
    by: Person | None = None,
) -> MappingView:
    """Set every value of a mapping. The groups that it is attached to stay, and are a part of its version.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        Forbidden: its claim or value would change for a group with permissions that `by` does not hold; None: the
            operator acts.
        InUse: another mapping of the application has the name, or an open request uses this one and its claim, value
            or application would change.
        Invalid: the application would change.
    """
    with unique(_MAPPING_NAME_TAKEN):
        async with db.session() as session:
            mapping = await _locked_mapping(session, mapping_id, expected)
            granted = (values.claim, values.value, values.app_id)
            if granted != (mapping.claim, mapping.value, mapping.app_id):
                await _refuse_attached(session, mapping_id, by)
                await _refuse_used(session, requests=col(AccessRequest.mapping_ids).contains([mapping_id]))
            if values.app_id != mapping.app_id:
                raise Invalid(("app_id", "cannot be changed; make another mapping"))
            mapping.sqlmodel_update(values.model_dump())
            await session.flush()
            return await _read_mapping(session, mapping_id)


async def delete_mapping(
    db: Database, mapping_id: UUID, expected: Expected = ANY_VERSION, *, by: Person | None = None
) -> None:
    """Delete a mapping; nobody has its claim from then on.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        Forbidden: it is attached to a group with permissions that `by` does not hold; None: the operator acts.
        InUse: an open request or a template names it.
    """
    async with db.session() as session:
        mapping = await _locked_mapping(session, mapping_id, expected)
        await _refuse_attached(session, mapping_id, by)
        await _refuse_used(
            session,
            requests=col(AccessRequest.mapping_ids).contains([mapping_id]),
            templates=col(Template.mapping_ids).contains([mapping_id]),
        )
        await session.delete(mapping)


async def attach(db: Database, mapping_id: UUID, group_id: UUID, *, by: Person | None = None) -> None:
    """Give a mapping's claim to the members of a group.

    Raises:
        NotFound: there is no such mapping, or no such group.
        SystemGroup: it is a temporary group.
        Forbidden: the group has permissions that `by` does not hold; None: the operator acts.
    """
    async with db.session() as session:
        kept = select(AppMapping).where(AppMapping.id == mapping_id).with_for_update(read=True, key_share=True)
        if (await session.exec(kept)).one_or_none() is None:
            raise _no_mapping()
        _refuse_powerful(await groups.lock(session, group_id), by)
        attaching = insert(AppMappingGroup).values(mapping_id=mapping_id, group_id=group_id)
        await session.exec(attaching.on_conflict_do_nothing())


async def detach(db: Database, mapping_id: UUID, group_id: UUID, *, by: Person | None = None) -> None:
    """Take a mapping's claim from the members of a group.

    Raises:
        NotFound: there is no such mapping, or no such group.
        SystemGroup: it is a temporary group.
        Forbidden: the group has permissions that `by` does not hold; None: the operator acts.
    """
    async with db.session() as session:
        await _read_mapping(session, mapping_id)
        _refuse_powerful(await groups.lock(session, group_id), by)
        await session.exec(
            deletion(AppMappingGroup).where(
                col(AppMappingGroup.mapping_id) == mapping_id, col(AppMappingGroup.group_id) == group_id
            )
        )


def _refuse_powerful(group: Group, by: Person | None) -> None:
    if by is not None:
        refuse_giving(by.permissions, set(group.permissions), "The group")


async def _refuse_attached(session: AsyncSession, mapping_id: UUID, by: Person | None) -> None:
    """Refuse to change what members of groups have by a mapping that is locked, as `attach` and `detach` do."""
    attached = (
        select(Group)
        .join(AppMappingGroup, col(AppMappingGroup.group_id) == col(Group.id))
        .where(AppMappingGroup.mapping_id == mapping_id, ~col(Group.system), col(Group.permissions) != [])
        .order_by(col(Group.name))
    )
    if by is not None:
        for group in await session.exec(attached):
            refuse_giving(by.permissions, set(group.permissions), f"The group “{group.name}”, which it is attached to,")


async def _refuse_used(
    session: AsyncSession, *, requests: ColumnElement[bool], templates: ColumnElement[bool] | None = None
) -> None:
    """Refuse what would pull something away under open requests or templates.

    Raises:
        InUse: there are some; the detail names them.
    """
    using = select(col(AccessRequest.id), col(AccessRequest.template_name)).where(requests, still_open())
    # Apart from the limit, which would have the planner read the whole table in the hope of an early hit: where only
    # closed requests use it, there is none.
    found = using.cte("open_requests").prefix_with("MATERIALIZED")
    used = (await session.exec(select(found.c.id, found.c.template_name).limit(1))).first()
    if used is not None:
        request_id, template_name = used
        raise InUse(
            f"An open request uses it: {request_id}, made from “{template_name}”. It can change once that is over."
        )
    if templates is not None:
        names = (await session.exec(select(col(Template.name)).where(templates).order_by(col(Template.name)))).all()
        if names:
            raise InUse(f"Templates name it: {_quoted(names)}. Change or delete them first.")


async def _locked_application(session: AsyncSession, app_id: UUID, expected: Expected) -> Application:
    query = select(Application).where(Application.id == app_id).with_for_update()
    application = (await session.exec(query)).one_or_none()
    if application is None:
        raise _no_application()
    expected.check(_application_view(application).version)
    return application


async def _locked_mapping(session: AsyncSession, mapping_id: UUID, expected: Expected) -> AppMapping:
    query = select(AppMapping).where(AppMapping.id == mapping_id).with_for_update()
    mapping = (await session.exec(query)).one_or_none()
    if mapping is None:
        raise _no_mapping()
    if expected != ANY_VERSION:
        # Read after the lock is held: the attached groups are in another table, and may have changed meanwhile.
        expected.check((await _read_mapping(session, mapping_id)).version)
    return mapping


async def _read_mapping(session: AsyncSession, mapping_id: UUID) -> MappingView:
    row = (await session.exec(select(AppMapping, _group_ids()).where(AppMapping.id == mapping_id))).one_or_none()
    if row is None:
        raise _no_mapping()
    return _mapping_view(*row)


def _group_ids() -> ColumnElement[list[UUID]]:
    attached = (
        select(col(AppMappingGroup.group_id))
        .join(Group, col(Group.id) == col(AppMappingGroup.group_id))
        .where(AppMappingGroup.mapping_id == AppMapping.id, ~col(Group.system))
        .order_by(col(AppMappingGroup.group_id))
        .correlate(AppMapping)
    )
    return func.array(attached.scalar_subquery())


def _application_view(application: Application) -> ApplicationView:
    return ApplicationView.model_construct(**application.model_dump(exclude={"client_secret_hash"}))


def _digest(secret: str) -> bytes:
    """What is stored of a secret: 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()


def _mapping_view(mapping: AppMapping, group_ids: list[UUID]) -> MappingView:
    return MappingView.model_construct(**mapping.model_dump(), group_ids=group_ids)


def _no_application() -> NotFound:
    return NotFound("There is no application with this id.")


def _no_mapping() -> NotFound:
    return NotFound("There is no mapping with this id.")


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"“{name}”" for name in names)
