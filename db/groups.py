"""Administering groups and who is in them. The temporary groups of requests are out of reach here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import delete as deletion
from sqlalchemy import func, or_, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from db import attention
from db.database import Database
from db.folding import within
from db.paging import Page, Position, newest_first
from db.tables import Group, GroupMember, Template, User
from db.uniqueness import unique
from db.views import Versioned
from domain.actors import Permission
from domain.deciding import Person
from domain.directory import GroupValues, refuse_giving, refuse_reserved
from domain.errors import InUse, NotFound, SystemGroup
from domain.versions import ANY_VERSION, Expected

TAKEN: Final = {
    "uq_groups_name": "Another group has this name.",
    "uq_groups_external_id": "Another group has this external id.",
}


class GroupView(GroupValues, Versioned):
    """A group of people."""

    VERSIONED = frozenset(GroupValues.model_fields)

    created_at: datetime


class MemberView(BaseModel):
    """Somebody in a group."""

    id: UUID = Field(description="Id of the user.")
    email: str
    name: str
    active: bool
    joined: int = Field(description="Rank in the joining order, which notification policies go by.")
    joined_at: datetime
    issuer: str | None = Field(
        description="The OpenID Connect issuer by whose claims they are in it, and without which they are not; null: "
        "somebody put them there."
    )


async def list_groups(db: Database, position: Position, *, name: str | None = None) -> Page[GroupView]:
    """All groups but temporary ones, newest first.

    Args:
        db: the record.
        position: which page.
        name: part of the name, in any case.
    """
    query = select(Group).where(~col(Group.system))
    if name is not None:
        query = query.where(func.folded_name(Group.name).like(func.folded_name(within(name))))
    async with db.session() as session:
        rows = await session.exec(newest_first(query, position, col(Group.created_at), col(Group.id)))
        views = [_view(group) for group in rows]
    return Page.dated(views, position, lambda view: (view.created_at, view.id))


async def get(db: Database, group_id: UUID) -> GroupView:
    """One group.

    Raises:
        NotFound: there is none with this id.
        SystemGroup: it is the temporary group of a request.
    """
    async with db.session() as session:
        return _view(_ordinary(await session.get(Group, group_id)))


async def create(db: Database, caller: Person, values: GroupValues) -> GroupView:
    """Make a group.

    Raises:
        SystemGroup: the name is for temporary groups.
        Forbidden: it would have permissions that the caller does not hold.
        InUse: another group has the name.
    """
    refuse_reserved(values.name)
    refuse_giving(caller.permissions, set(values.permissions), "The group")
    with unique(TAKEN):
        async with db.session() as session:
            group = Group(**values.model_dump(mode="json"))
            session.add(group)
            await session.flush()
            await session.refresh(group)
            return _view(group)


async def replace(
    db: Database, caller: Person, group_id: UUID, values: GroupValues, expected: Expected = ANY_VERSION
) -> GroupView:
    """Set every value of a group. Its members are not among them.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        SystemGroup: it is a temporary group, or would be called like one.
        Forbidden: it has, or would have, permissions that the caller does not hold.
        InUse: another group has the name.
    """
    refuse_reserved(values.name)
    with unique(TAKEN):
        async with db.session() as session:
            group = await lock(session, group_id, key=True)
            expected.check(_view(group).version)
            refuse_giving(caller.permissions, {*group.permissions, *values.permissions}, "The group")
            group.sqlmodel_update(values.model_dump(mode="json"))
            await session.flush()
            return _view(group)


async def delete(db: Database, caller: Person, group_id: UUID, expected: Expected = ANY_VERSION) -> list[UUID]:
    """Delete a group; templates that named it as approvers or for escalation go on without it.

    Returns:
        The requests whose workflows have to look again.

    Raises:
        NotFound: there is none with this id.
        SystemGroup: it is a temporary group.
        ChangedMeanwhile: it is not in an expected version.
        Forbidden: it has permissions that the caller does not hold.
        InUse: a template is for its members only; without it, the template would be for anyone.
    """
    async with db.session() as session:
        group = await lock(session, group_id, key=True)
        expected.check(_view(group).version)
        marked = await remove(session, caller, group)
    return await attention.mark_late(db, marked, group_ids=[group_id])


async def remove(session: AsyncSession, caller: Person, group: Group) -> list[UUID]:
    """Delete a group that is locked, as `delete` does; `attention.mark_late` has to follow.

    Returns:
        The requests that are marked already.

    Raises:
        Forbidden: it has permissions that the caller does not hold.
        InUse: a template is for its members only.
    """
    refuse_giving(caller.permissions, set(group.permissions), "The group")
    allowing = select(col(Template.name)).where(col(Template.allowed_group_ids).contains([group.id]))
    names = (await session.exec(allowing.order_by(col(Template.name)))).all()
    if names:
        raise InUse(
            f"Only its members may ask for: {', '.join(f'“{name}”' for name in names)}. "
            "Change these templates first; without the group they would be for anyone."
        )
    await session.exec(
        update(Template)
        .where(
            or_(col(Template.approver_group_ids).contains([group.id]), col(Template.escalation_group_id) == group.id)
        )
        .values(
            approver_group_ids=func.array_remove(Template.approver_group_ids, group.id),
            escalation_group_id=func.nullif(Template.escalation_group_id, group.id),
            updated_at=func.now(),
        )
    )
    await session.exec(deletion(Group).where(col(Group.id) == group.id))
    return await attention.mark(session, group_ids=[group.id])


async def list_members(db: Database, group_id: UUID, position: Position) -> Page[MemberView]:
    """Who is in a group, last joined first.

    Raises:
        NotFound: there is no such group.
        SystemGroup: it is a temporary group.
    """
    query = (
        select(GroupMember, User)
        .join(User, col(User.id) == col(GroupMember.user_id))
        .where(GroupMember.group_id == group_id, col(GroupMember.joined) < position.before_number)
        .order_by(col(GroupMember.joined).desc())
        .limit(position.limit + 1)
    )
    async with db.session() as session:
        _ordinary(await session.get(Group, group_id))
        members = [
            MemberView(
                id=user.id,
                email=user.email,
                name=user.name,
                active=user.active,
                joined=member.joined,
                joined_at=member.created_at,
                issuer=member.issuer,
            )
            for member, user in await session.exec(query)
        ]
    return Page.numbered(members, position, lambda member: member.joined)


async def add_member(db: Database, caller: Person, group_id: UUID, user_id: UUID) -> None:
    """Put somebody into a group, last in its order; who is in it already keeps their place.

    A membership that an issuer's claims made is one made by hand from then on: these claims do not end it any more.

    Raises:
        NotFound: there is no such group, or no such user.
        SystemGroup: it is a temporary group.
        Forbidden: it has permissions that the caller does not hold.
    """
    async with db.session() as session:
        group = await lock(session, group_id)
        refuse_giving(caller.permissions, set(group.permissions), "The group")
        if await session.get(User, user_id) is None:
            raise NotFound("There is no user with this id.")
        await join(session, group_id, [user_id])


async def remove_member(db: Database, caller: Person, group_id: UUID, user_id: UUID) -> list[UUID]:
    """Take somebody out of a group; their vote on what waits for the group is gone at once.

    Returns:
        The requests whose workflows have to look again.

    Raises:
        NotFound: there is no such group.
        SystemGroup: it is a temporary group.
        Forbidden: it has permissions that the caller does not hold.
    """
    async with db.session() as session:
        group = await lock(session, group_id)
        refuse_giving(caller.permissions, set(group.permissions), "The group")
        if not await leave(session, group_id, [user_id]):
            return []
        marked = await attention.mark(session, group_ids=[group_id])
    return await attention.mark_late(db, marked, group_ids=[group_id])


async def join(session: AsyncSession, group_id: UUID, user_ids: Iterable[UUID]) -> None:
    """Have people join a group that is locked, in this order, as `add_member` has one."""
    rows = [{"group_id": group_id, "user_id": user_id} for user_id in dict.fromkeys(user_ids)]
    if rows:
        await session.exec(
            insert(GroupMember)
            .values(rows)
            .on_conflict_do_update(
                index_elements=["group_id", "user_id"],
                set_={"issuer": None},
                where=col(GroupMember.issuer).is_not(None),
            )
        )


async def leave(session: AsyncSession, group_id: UUID, user_ids: Sequence[UUID]) -> bool:
    """Have people leave a group that is locked; whether there were any."""
    left = await session.exec(
        deletion(GroupMember).where(col(GroupMember.group_id) == group_id, col(GroupMember.user_id).in_(user_ids))
    )
    return bool(left.rowcount)


async def lock(session: AsyncSession, group_id: UUID, *, key: bool = False) -> Group:
    """A group that stays as it is until the end of the transaction.

    Args:
        session: the transaction.
        group_id: which.
        key: keep templates from naming it meanwhile, and others from locking it.

    Raises:
        NotFound: there is none with this id.
        SystemGroup: it is a temporary group.
    """
    query = select(Group).where(Group.id == group_id).with_for_update(read=not key)
    return _ordinary((await session.exec(query)).one_or_none())


def _ordinary(group: Group | None) -> Group:
    if group is None:
        raise NotFound("There is no group with this id.")
    if group.system:
        raise SystemGroup("This is the temporary group of an access request; it lives and ends with its grant.")
    return group


def _view(group: Group) -> GroupView:
    # Unchecked: what is stored was checked by the rules of its time.
    return GroupView.model_construct(
        id=group.id,
        name=group.name,
        description=group.description,
        permissions=[Permission(permission) for permission in group.permissions],
        created_at=group.created_at,
    )
