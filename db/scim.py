"""The directory as SCIM clients see and change it: people and groups, never service accounts or temporary groups.

What may be done is judged where the API's changes are: `db.users` and `db.groups`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from scim2_models import ScimFilter
from sqlalchemy import and_, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from db import attention, groups, users
from db.database import Database
from db.scim_filters import PERSON, USER_NAME, group_condition, user_condition
from db.tables import Group, GroupMember, User
from db.uniqueness import unique
from db.users import Revision
from domain import scim
from domain.deciding import Person
from domain.directory import UserValues, refuse_giving, refuse_reserved
from domain.errors import Invalid, NotFound, SystemGroup
from domain.scim import parsed_ids
from domain.versions import ANY_VERSION, Expected

T = TypeVar("T", scim.User, scim.Group)

LARGEST_PAGE: Final = 200
"""Resources on a page."""
_MOST_MEMBERS: Final = 20_000
"""Members on a page of groups: it ends before the group with which there would be more, unless that is the first."""
_FURTHEST: Final = 2**31
"""Index of a page; far behind the end of every list."""


@dataclass(frozen=True)
class Slice(Generic[T]):
    """A part of a list, the oldest first."""

    total: int
    """How many there are in the list."""
    resources: list[T]


async def list_users(db: Database, matching: ScimFilter[scim.User] | None, start: int, count: int) -> Slice[scim.User]:
    """The people that a filter finds.

    Args:
        db: the record.
        matching: the filter.
        start: the index of the first one, from 1.
        count: how many at most.

    Raises:
        InvalidFilterException: the filter asks for something that cannot be looked for.
    """
    condition = and_(PERSON, user_condition(matching))
    query = select(User).where(condition).order_by(col(User.created_at), col(User.id))
    async with db.session() as session:
        total = (await session.exec(select(func.count()).select_from(User).where(condition))).one()
        rows = await session.exec(query.offset(_before(start)).limit(count)) if count else ()
        return Slice(total, [_user(row) for row in rows])


async def get_user(db: Database, user_id: str) -> scim.User:
    """One person.

    Raises:
        NotFound: there is nobody with this id.
    """
    async with db.session() as session:
        return _user(_seen(await session.get(User, _id(user_id, _no_user))))


async def create_user(db: Database, caller: Person, resource: scim.User) -> scim.User:
    """Make an account; or have one back whose person a SCIM client deleted, with nothing of what it had.

    Raises:
        InUse: somebody has its user name, address or external id.
        Forbidden: the account is one that was deleted, and owns one with permissions that the caller does not hold.
        Invalid: something in it is none of what it should be.
    """
    account = scim.account(resource)
    known_as = account.user_name or account.email
    async with db.session() as session:
        gone = select(col(User.id)).where(
            func.folded_address(USER_NAME) == func.folded_address(known_as),
            col(User.left_at).is_not(None),
            col(User.owner_id).is_(None),
        )
        user_id = (await session.exec(gone)).one_or_none()
    came_back = False

    def have_back(found: User) -> Revision | None:
        nonlocal came_back
        came_back = found.left_at is not None
        # Also where they come back inactive.
        return replace(_revision(account, left_at=None), forgets=True) if came_back else None

    if user_id is not None:
        user, _ = await users.revise(db, caller, user_id, have_back)
        if came_back:
            return _user(user)
    return _user(await users.make(db, _revision(account), by=caller))


async def change_user(
    db: Database,
    caller: Person,
    user_id: str,
    change: Callable[[scim.User], scim.User],
    expected: Expected = ANY_VERSION,
) -> tuple[scim.User, list[UUID]]:
    """Change a person, as `users.replace` does; what leaves everything as it is needs no permission and writes nothing.

    Args:
        db: the record.
        caller: who changes them.
        user_id: whom.
        change: what they are to be, of what they are.
        expected: the versions that may be changed.

    Returns:
        The person, and the requests whose workflows have to look again.

    Raises:
        NotFound: there is nobody with this id.
        ChangedMeanwhile: it is not in an expected version.
        Forbidden: the account, or one that it owns, has permissions that the caller does not hold.
        InUse: somebody else has its user name, address or external id.
        Invalid: something in it is none of what it should be, or the caller deactivates themselves.
    """

    def decide(found: User) -> Revision | None:
        _check(_user(_seen(found)), expected)
        account = scim.account(change(_user(found)), _user(found))
        return None if account == scim.account(_user(found), _user(found)) else _revision(account)

    user, marked = await users.revise(db, caller, _id(user_id, _no_user), decide)
    return _user(user), marked


async def delete_user(db: Database, caller: Person, user_id: str, expected: Expected = ANY_VERSION) -> list[UUID]:
    """Deactivate somebody, and have SCIM clients see them no more. History keeps the account.

    Returns:
        The requests whose workflows have to look again.

    Raises:
        NotFound: there is nobody with this id.
        ChangedMeanwhile: it is not in an expected version.
        Forbidden: the account, or one that it owns, has permissions that the caller does not hold.
        Invalid: the caller deactivates themselves.
    """

    def leave(found: User) -> Revision:
        _check(_user(_seen(found)), expected)
        values = UserValues.model_construct(email=found.email, name=_seen(found).name, active=False, owner_id=None)
        return Revision(values, {"left_at": func.now(), "external_id": None}, forgets=True)

    _, marked = await users.revise(db, caller, _id(user_id, _no_user), leave)
    return marked


async def list_groups(
    db: Database, matching: ScimFilter[scim.Group] | None, start: int, count: int, *, with_members: bool
) -> Slice[scim.Group]:
    """The groups that a filter finds.

    Args:
        db: the record.
        matching: the filter.
        start: the index of the first one, from 1.
        count: how many at most; fewer where they are large (RFC 7644, section 3.4.2.4).
        with_members: whether anybody wants to know who is in them.

    Raises:
        InvalidFilterException: the filter asks for something that cannot be looked for.
    """
    condition = and_(~col(Group.system), group_condition(matching))
    query = select(Group).where(condition).order_by(col(Group.created_at), col(Group.id))
    async with db.session() as session:
        total = (await session.exec(select(func.count()).select_from(Group).where(condition))).one()
        rows = list(await session.exec(query.offset(_before(start)).limit(count))) if count else []
        if with_members and rows:
            rows = await _fitting(session, rows)
        members = await _members(session, [row.id for row in rows]) if with_members and rows else None
        return Slice(total, [_group(row, members) for row in rows])


async def get_group(db: Database, group_id: str, *, with_members: bool) -> scim.Group:
    """One group.

    Raises:
        NotFound: there is none with this id.
    """
    async with db.session() as session:
        group = await session.get(Group, _id(group_id, _no_group))
        if group is None or group.system:
            raise _no_group()
        return _group(group, await _members(session, [group.id]) if with_members else None)


async def create_group(db: Database, resource: scim.Group) -> scim.Group:
    """Make a group without permissions.

    Raises:
        InUse: another group has its name or external id.
        Invalid: something in it is none of what it should be, or a member is nobody.
    """
    with unique(groups.TAKEN):
        async with db.session() as session:
            group = Group(name=_group_name(resource), external_id=scim.external_id(resource))
            session.add(group)
            await session.flush()
            await groups.join(session, group.id, await _people(session, resource.members or []))
            await session.refresh(group)
            return _group(group, await _members(session, [group.id]))


async def change_group(
    db: Database,
    caller: Person,
    group_id: str,
    change: Callable[[scim.Group], scim.Group],
    named: set[str] | None,
    expected: Expected = ANY_VERSION,
) -> tuple[scim.Group, list[UUID]]:
    """Change a group and who is in it. Members that stay keep their place; new ones join at the end.

    Args:
        db: the record.
        caller: who changes it.
        group_id: which.
        change: what it is to be, of what it is.
        named: the only members that the change is about, and that it is shown; None: all.
        expected: the versions that may be changed.

    Returns:
        The group, with these members, and the requests whose workflows have to look again.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        Forbidden: it has permissions that the caller does not hold.
        InUse: another group has its name or external id.
        Invalid: something in it is none of what it should be, or a new member is nobody.
    """
    with unique(groups.TAKEN):
        async with db.session() as session:
            group = await _locked(session, group_id, expected)
            before = await _members(session, [group.id], named)
            resource = change(_group(group, before))
            was = [member.value for member in before[group.id]]
            # A name that stays is not checked: it may be older than a rule, which must not keep members from leaving.
            name = group.name if resource.display_name == group.name else _group_name(resource)
            values = {"name": name, "external_id": scim.external_id(resource, group.external_id)}
            to_be = await _people(session, resource.members or [])
            # Who is added by name stays by that name, whichever issuer had them in it before.
            joining = [user_id for user_id in to_be if named is not None or str(user_id) not in was]
            leaving = [UUID(value) for value in was if value is not None and UUID(value) not in set(to_be)]
            revised = {"name": group.name, "external_id": group.external_id} != values
            marked: list[UUID] = []
            if revised or joining or leaving:
                refuse_giving(caller.permissions, set(group.permissions), "The group")
                group.sqlmodel_update(values)
                await session.flush()
                await groups.join(session, group.id, joining)
                if leaving and await groups.leave(session, group.id, leaving):
                    marked = await attention.mark(session, group_ids=[group.id])
            after = _group(group, await _members(session, [group.id], named))
    if leaving:
        marked = await attention.mark_late(db, marked, group_ids=[group.id])
    return after, marked


async def delete_group(db: Database, caller: Person, group_id: str, expected: Expected = ANY_VERSION) -> list[UUID]:
    """Delete a group, as `groups.delete` does.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        Forbidden: it has permissions that the caller does not hold.
        InUse: a template is for its members only.
    """
    async with db.session() as session:
        group = await _locked(session, group_id, expected)
        marked = await groups.remove(session, caller, group)
    return await attention.mark_late(db, marked, group_ids=[group.id])


async def _locked(session: AsyncSession, group_id: str, expected: Expected) -> Group:
    try:
        group = await groups.lock(session, _id(group_id, _no_group), key=True)
    except SystemGroup:
        raise _no_group() from None
    if expected != ANY_VERSION:
        # All members, also for a change that is about some of them: they are a part of the version.
        _check(_group(group, await _members(session, [group.id])), expected)
    return group


def _check(resource: scim.User | scim.Group, expected: Expected) -> None:
    expected.check((resource.meta and resource.meta.version) or "")


async def _fitting(session: AsyncSession, rows: list[Group]) -> list[Group]:
    query = (
        select(col(GroupMember.group_id), func.count())
        .where(col(GroupMember.group_id).in_([row.id for row in rows]))
        .group_by(col(GroupMember.group_id))
    )
    sizes = dict(iter(await session.exec(query)))
    totals = accumulate(sizes.get(row.id, 0) for row in rows)
    return [
        row for index, (row, total) in enumerate(zip(rows, totals, strict=True)) if not index or total <= _MOST_MEMBERS
    ]


async def _members(
    session: AsyncSession, group_ids: Sequence[UUID], named: set[str] | None = None
) -> dict[UUID, list[scim.Member]]:
    """The people in groups, in the order in which they joined."""
    found: dict[UUID, list[scim.Member]] = {group_id: [] for group_id in group_ids}
    query = (
        select(col(GroupMember.group_id), col(User.id))
        .join(User, col(User.id) == col(GroupMember.user_id))
        .where(col(GroupMember.group_id).in_(group_ids), PERSON)
        .order_by(col(GroupMember.joined))
    )
    if named is not None:
        query = query.where(col(GroupMember.user_id).in_(parsed_ids(named)))
    for group_id, user_id in await session.exec(query):
        found[group_id].append(
            # Unchecked, and so for ten thousand at once.
            scim.Member.model_construct(value=str(user_id), type="User")
        )
    return found


async def _people(session: AsyncSession, members: Iterable[scim.Member]) -> list[UUID]:
    """Those whom members name, in this order, each once.

    Raises:
        Invalid: one is nobody that a SCIM client sees.
    """
    wanted = dict.fromkeys(member.value or "" for member in members)
    ids = parsed_ids(wanted)
    query = select(col(User.id)).where(col(User.id).in_(ids), PERSON)
    known = {str(user_id) for user_id in await session.exec(query)} if ids else set()
    for value in wanted:
        if value.lower() not in known:
            raise Invalid(("members.value", f"{value[:64]!r} is not the id of a User"))
    return list(dict.fromkeys(UUID(value) for value in wanted))


def _id(value: str, none: Callable[[], NotFound]) -> UUID:
    try:
        return UUID(value)
    except ValueError:
        raise none() from None


def _no_user() -> NotFound:
    return NotFound("There is no User with this id.")


def _no_group() -> NotFound:
    return NotFound("There is no Group with this id.")


def _seen(user: User | None) -> User:
    if user is None or user.owner_id is not None or user.left_at is not None:
        raise _no_user()
    return user


def _before(start: int) -> int:
    return min(max(start, 1), _FURTHEST) - 1


def _revision(account: scim.Account, **columns: Any) -> Revision:  # noqa: ANN401 - as the columns are
    # Unchecked: `scim.account` has checked what is new.
    values = UserValues.model_construct(email=account.email, name=account.name, active=account.active, owner_id=None)
    told = {"user_name": account.user_name, "external_id": account.external_id, "profile": account.profile}
    return Revision(values, {**told, **columns})


def _user(user: User) -> scim.User:
    return scim.user(
        user.id,
        email=user.email,
        name=user.name,
        active=user.active,
        user_name=user.user_name,
        external_id=user.external_id,
        profile=user.profile,
        created_at=user.created_at,
    )


def _group(group: Group, members: Mapping[UUID, list[scim.Member]] | None) -> scim.Group:
    return scim.group(
        group.id,
        name=group.name,
        external_id=group.external_id,
        members=None if members is None else members[group.id],
        created_at=group.created_at,
    )


def _group_name(resource: scim.Group) -> str:
    name = scim.group_name(resource)
    try:
        refuse_reserved(name)
    except SystemGroup as error:
        raise Invalid(("displayName", error.detail)) from None
    return name
