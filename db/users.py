"""Administering people and service accounts. People are deactivated, never deleted: history names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import delete, func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from db import attention, claims, people
from db.database import Connection, Database, driver_connection
from db.folding import within
from db.paging import Page, Position, newest_first
from db.tables import ApiToken, Group, GroupMember, User, UserIdentity, WebSession
from db.uniqueness import unique
from db.views import Versioned
from domain.actors import Permission
from domain.addresses import sought_address
from domain.deciding import Person
from domain.directory import UserReplacement, UserValues
from domain.errors import Invalid, NotFound
from domain.versions import ANY_VERSION, Expected

_TAKEN: Final = {
    "uq_users_email": "Another user has this email address.",
    "uq_users_user_name": "Another user has this address or user name.",
    "uq_users_external_id": "Another user has this external id.",
}


@dataclass(frozen=True)
class Revision:
    """What an account is to be from now on."""

    values: UserValues
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What it has beside these."""
    forgets: bool = False
    """Groups, identities, tokens and sessions are forgotten: whoever has it from now on begins with nothing."""


class UserView(UserValues, Versioned):
    """A person or a service account."""

    VERSIONED = frozenset(UserValues.model_fields)

    created_at: datetime


class HeldGroup(BaseModel):
    """A group that somebody is in at this moment."""

    id: UUID
    name: str
    system: bool = Field(description="The temporary group of an access request.")
    expires_at: datetime | None = Field(description="When a temporary group ends.")


class Me(BaseModel):
    """Who calls, and what they hold."""

    id: UUID
    email: str
    name: str
    active: bool
    owner_id: UUID | None = Field(description="Whose service account this is; null for a person.")
    permissions: list[Permission]
    groups: list[HeldGroup] = Field(description="Temporary groups included, while they last.")


async def list_users(db: Database, position: Position, *, email: str | None = None) -> Page[UserView]:
    """Everybody, newest first.

    Args:
        db: the record.
        position: which page.
        email: part of the email address, in any case.
    """
    query = select(User)
    if email is not None:
        query = query.where(func.folded_address(User.email).like(func.folded_address(within(sought_address(email)))))
    async with db.session() as session:
        rows = await session.exec(newest_first(query, position, col(User.created_at), col(User.id)))
        views = [_view(user) for user in rows]
    return Page.dated(views, position, lambda view: (view.created_at, view.id))


async def get(db: Database, user_id: UUID) -> UserView:
    """One person or service account.

    Raises:
        NotFound: there is none with this id.
    """
    async with db.session() as session:
        user = await session.get(User, user_id)
    if user is None:
        raise _not_found()
    return _view(user)


async def owns(db: Database, owner_id: UUID, user_id: UUID) -> bool:
    """Whether `user_id` is a service account of `owner_id`."""
    async with db.session() as session:
        user = await session.get(User, user_id)
    return user is not None and user.owner_id == owner_id


async def list_owned(db: Database, owner_id: UUID) -> list[UserView]:
    """The service accounts of a person that are active, by name; a hundred at most."""
    query = select(User).where(User.owner_id == owner_id, col(User.active)).order_by(User.name, col(User.id)).limit(100)
    async with db.session() as session:
        return [_view(user) for user in await session.exec(query)]


async def me(db: Database, person: Person) -> Me:
    """What the caller is told about themselves."""
    user = await get(db, person.id)
    async with db.connection() as connection:
        groups = await held_groups(connection, person.id)
    return Me(
        **user.model_dump(include={"id", "email", "name", "active", "owner_id"}),
        permissions=[permission for permission in Permission if person.holds(permission)],
        groups=groups,
    )


async def held_groups(connection: Connection, user_id: UUID) -> list[HeldGroup]:
    """The groups of a person at this moment, by name."""
    return [HeldGroup.model_validate(group) for group in await claims.get_groups(connection, user_id)]


async def create(db: Database, values: UserValues, *, by: Person | None = None) -> UserView:
    """Make an account. It has no permissions until somebody who holds them puts it into a group.

    Args:
        db: the record.
        values: the account.
        by: who makes it; None: the operator.

    Raises:
        Forbidden: its owner has permissions that `by` does not hold.
        InUse: another user has the email address.
        Invalid: the owner is unknown, deactivated, or a service account.
    """
    return _view(await make(db, Revision(values), by=by))


async def make(db: Database, revision: Revision, *, by: Person | None = None) -> User:
    """Make an account, as `create` does."""
    values = revision.values
    with unique(_TAKEN):
        async with db.session() as session:
            if values.owner_id is not None:
                owner = (
                    # Locked against a deactivation, which would not see the account that is not there yet.
                    await session.exec(select(User).where(User.id == values.owner_id).with_for_update(read=True))
                ).one_or_none()
                if owner is None:
                    raise Invalid(("owner_id", "there is no user with this id"))
                if by is not None:
                    async with driver_connection(session) as connection:
                        await people.refuse_touching(
                            connection, by, owner.id, "The owner, or a service account of theirs,"
                        )
                if owner.owner_id is not None:
                    raise Invalid(("owner_id", "is a service account; a service account belongs to a person"))
                if not owner.active:
                    raise Invalid(("owner_id", "is deactivated"))
            user = User(**values.model_dump(), **revision.columns)
            session.add(user)
            await session.flush()
            await session.refresh(user)
            return user


async def replace(
    db: Database, caller: Person, user_id: UUID, values: UserReplacement, expected: Expected = ANY_VERSION
) -> tuple[UserView, list[UUID]]:
    """Set every value of an account. Deactivating a person deactivates their service accounts too.

    Where `active` is not given it stays, so that a deactivation is undone only where somebody says so.

    Returns:
        The account, and the requests whose workflows have to look again.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        Forbidden: the account, or one that it owns, has permissions that the caller does not hold.
        InUse: another user has the email address.
        Invalid: the owner is another one, is deactivated, or the caller deactivates themselves.
    """

    def decide(found: User) -> Revision:
        expected.check(_view(found).version)
        active = found.active if values.active is None else values.active
        return Revision(UserValues.model_construct(**{**dict(values), "active": active}))

    user, marked = await revise(db, caller, user_id, decide)
    return _view(user), marked


async def revise(
    db: Database, caller: Person, user_id: UUID, decide: Callable[[User], Revision | None]
) -> tuple[User, list[UUID]]:
    """Change an account to what is decided when nobody else can change it, as `replace` does.

    Args:
        db: the record.
        caller: who changes it.
        user_id: which.
        decide: what it is to be; None: it stays as it is.

    Raises:
        As `replace` does, and what `decide` raises.
    """
    with unique(_TAKEN):
        async with db.session() as session:
            user = await session.get(User, user_id)
            if user is None:
                raise _not_found()
            # The owner before the account: who deactivates an owner locks in this order too.
            owner = None if user.owner_id is None else await _locked(session, user.owner_id, share=True)
            user = await _locked(session, user_id)
            revision = decide(user)
            if revision is None:
                return user, []
            values = revision.values
            async with driver_connection(session) as connection:
                what = "The account, or a service account that it owns,"
                await people.refuse_touching(connection, caller, user_id, what)
            if values.owner_id != user.owner_id:
                raise Invalid(("owner_id", "cannot be changed; make another account"))
            if not values.active and user_id in {caller.id, caller.principal_id}:
                raise Invalid(("active", "nobody deactivates themselves; ask another administrator"))
            if values.active and owner is not None and not owner.active:
                raise Invalid(("active", "the owner is deactivated"))
            ended, begins = user.active and not values.active, values.active and not user.active
            # Again: what reached the account while it was nobody's, or while it became so, is not theirs either.
            forgets = revision.forgets or (user.left_at is not None and values.active)
            if values.active:
                # Whoever is back has not left.
                user.left_at = None
            user.sqlmodel_update({**values.model_dump(), **revision.columns})
            # Earlier versions of the service did not store when they deactivated an account.
            if ended or (begins and user.deactivated_at is None):
                user.deactivated_at = await _now(session)
            await session.flush()
            user_ids = [user_id, *(await _deactivate_owned(session, user_id) if ended else [])]
            group_ids = await _groups_of(session, user_ids) if ended or forgets else []
            if forgets:
                await _forget(session, user_id)
            told = bool(group_ids) or ended
            marked = await attention.mark(session, group_ids=group_ids, user_ids=user_ids) if told else []
    if told:
        marked = await attention.mark_late(db, marked, group_ids=group_ids, user_ids=user_ids)
    return user, marked


async def _now(session: AsyncSession) -> datetime:
    # Not when the transaction began: a request of a moment ago is older than the deactivation that waited for it.
    moment: datetime = (await session.exec(select(func.clock_timestamp()))).one()
    return moment


async def _forget(session: AsyncSession, user_id: UUID) -> None:
    """What would make somebody of an account that nobody has: whoever has it next begins with nothing."""
    temporary = select(col(Group.id)).where(col(Group.system))
    await session.exec(
        delete(GroupMember).where(col(GroupMember.user_id) == user_id, col(GroupMember.group_id).not_in(temporary))
    )
    await session.exec(delete(UserIdentity).where(col(UserIdentity.user_id) == user_id))
    await session.exec(delete(WebSession).where(col(WebSession.user_id) == user_id))
    await session.exec(
        update(ApiToken)
        .where(col(ApiToken.user_id) == user_id, col(ApiToken.revoked_at).is_(None))
        .values(revoked_at=func.now())
    )


async def _locked(session: AsyncSession, user_id: UUID, *, share: bool = False) -> User:
    # Not against foreign keys: nobody's submission has to wait.
    query = select(User).where(User.id == user_id).with_for_update(read=share, key_share=not share)
    user = (await session.exec(query.execution_options(populate_existing=True))).one_or_none()
    if user is None:
        raise _not_found()
    return user


async def _deactivate_owned(session: AsyncSession, owner_id: UUID) -> list[UUID]:
    owned = await session.exec(
        select(User)
        .where(User.owner_id == owner_id, col(User.active))
        .order_by(col(User.id))
        .with_for_update(key_share=True)
    )
    ids = []
    now = await _now(session)
    for account in owned:
        account.active = False
        account.deactivated_at = now
        ids.append(account.id)
    await session.flush()
    return ids


async def _groups_of(session: AsyncSession, user_ids: list[UUID]) -> list[UUID]:
    rows = await session.exec(
        select(col(GroupMember.group_id)).where(col(GroupMember.user_id).in_(user_ids)).distinct()
    )
    return list(rows)


def _view(user: User) -> UserView:
    # Unchecked: what is stored was checked by the rules of its time.
    return UserView.model_construct(**user.model_dump())


def _not_found() -> NotFound:
    return NotFound("There is no user with this id.")
