"""Who somebody is to OpenID Connect issuers: issuer and subject name a person (OpenID Connect Core, section 5.7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import psycopg
from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession

from db import acting, attention, people
from db.database import Connection, Database, driver_connection
from db.people import PERSON_COLUMNS, person, still_counts
from db.requests import PersonView
from domain.actors import Permission
from domain.deciding import Person
from domain.errors import InUse, NotFound
from domain.newcomers import counted_address, newcomer


@dataclass(frozen=True)
class GroupsSaid:
    """Which groups an issuer says that somebody is in, and what it may do about that."""

    names: frozenset[str] | None
    """Groups here, by name; None: it does not say, and everything stays as it is."""
    at: datetime
    """When it said so."""
    may_have: frozenset[Permission] = frozenset()
    """What a group may bring and still be filled by this issuer."""
    problem: str | None = None
    """Why it does not say."""


@dataclass(frozen=True)
class Identity:
    """What a valid token of an issuer says about who somebody is."""

    issuer: str
    subject: str
    email: str | None = None
    """An address that the issuer has verified; None: there is none."""
    email_domains: tuple[str, ...] = ()
    """Of which domains an address counts; empty: of all."""
    links: bool = False
    """Whether such an address may link an account."""
    creates: bool = False
    """Whether somebody with such an address may be given an account."""
    name: object = None
    """As the token has it, whatever that is: for an account that is made."""
    groups: GroupsSaid | None = None
    """None: the issuer has no say in groups."""
    issued_at: datetime | None = None
    """The earliest time at which the token can have been issued, or the sign-in begun. None: the token does not say;
    then it does not count for an account that was ever deactivated."""
    expires_at: datetime | None = None
    """When the token ends."""


@dataclass(frozen=True)
class GroupsFollowed:
    """What the word of an issuer, heard for the first time, did to somebody's groups."""

    joined: list[UUID] = field(default_factory=list)
    left: list[UUID] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Groups that it named and must not fill: they have permissions that it may not give."""
    unknown: list[str] = field(default_factory=list)
    """Groups that it named and that there are not."""
    problem: str | None = None
    """Why it said nothing, and nothing was done."""


@dataclass(frozen=True)
class Admission:
    """Somebody who was let in, and what came of that."""

    person: Person
    created: bool
    groups: GroupsFollowed | None
    """None: the issuer said nothing new."""


class IdentityView(BaseModel):
    """An account and one of its names at an issuer."""

    issuer: str
    subject: str
    user: PersonView
    created_at: datetime


async def admit(db: Database, identity: Identity) -> Admission | None:
    """Let in the active person with this identity.

    A subject that is not known yet is linked for good to the account with its verified address, where the issuer is
    trusted with that: a person's, active, and without another subject of the same issuer. So an address that passes to
    somebody else at the issuer does not take the account along, and a later change of the address changes nothing.

    Where there is no account with that address, and the issuer is trusted with that, one is made. It has no permission.
    No address links it to another issuer: whoever runs the first one may have made it for somebody who comes later.

    Returns:
        None where the identity is nobody's here, or that of an account that is deactivated, or was deactivated after
        the token was issued.
    """
    created = False
    async with db.connection() as connection:
        found = await _known(connection, identity)
        if found is None and identity.email is not None:
            email = counted_address(identity.email, identity.email_domains)
            if email is not None and identity.links:
                async with acting.told(connection):
                    await _link_by_email(connection, identity, email)
                # Also where another call for the same subject was faster.
                found = await _known(connection, identity)
            if email is not None and identity.creates and found is None:
                created = await _create(connection, identity, email)
                found = await _known(connection, identity)
    if found is None or not found.counts:
        return None
    said = identity.groups
    if said is None or (found.groups_said_at is not None and found.groups_said_at >= said.at):
        return Admission(found.person, created, None)
    changed = await _follow(db, identity, said)
    async with db.connection() as connection:
        again = await _known(connection, identity)
    return None if again is None or not again.counts else Admission(again.person, created, changed)


async def link(db: Database, user: str, issuer: str, subject: str) -> None:
    """Name an account by a subject of an issuer.

    Args:
        db: the record.
        user: id or email address of the account.
        issuer: as it stands in `iss`.
        subject: as it stands in `sub`.

    Raises:
        NotFound: there is no such account.
        InUse: the subject names another account, or the account has another subject of this issuer.
    """
    async with db.connection() as connection:
        account = await people.find(connection, user)
        if account is None:
            raise NotFound(f"There is no user {user}.")
        try:
            async with acting.told(connection):
                await connection.execute(
                    "INSERT INTO user_identities (issuer, subject, user_id) VALUES (%s, %s, %s)",
                    [issuer, subject, account.id],
                )
        except psycopg.errors.UniqueViolation as error:
            raise InUse(
                "The subject names an account already, or the account has a subject of this issuer. Unlink it first."
            ) from error


async def unlink(db: Database, issuer: str, subject: str) -> None:
    """Forget an identity, and the memberships that came with it.

    Raises:
        NotFound: it names no account.
    """
    async with db.session() as session:
        async with driver_connection(session) as connection:
            await acting.tell(connection)
            rows = await connection.execute(
                "DELETE FROM user_identities WHERE issuer = %s AND subject = %s RETURNING user_id", [issuer, subject]
            )
            row = await rows.fetchone()
            if row is None:
                raise NotFound("This subject of this issuer names no account.")
        groups = await _claimed_groups(session, row["user_id"], issuer, frozenset())
        left = await _leave(session, row["user_id"], issuer, groups, staying=[])
        if left:
            await attention.mark(session, group_ids=left)
    if left:
        await attention.mark_late(db, [], group_ids=left)


async def list_identities(db: Database, user: str) -> list[IdentityView]:
    """The identities of an account.

    Raises:
        NotFound: there is no such account.
    """
    async with db.connection() as connection:
        account = await people.find(connection, user)
        if account is None:
            raise NotFound(f"There is no user {user}.")
        rows = await connection.execute(
            "SELECT issuer, subject, created_at FROM user_identities WHERE user_id = %s ORDER BY issuer", [account.id]
        )
        view = PersonView(id=account.id, email=account.email, name=account.name)
        return [IdentityView(**row, user=view) for row in await rows.fetchall()]


@dataclass(frozen=True)
class _Known:
    person: Person
    counts: bool
    """Whether the account is active, and was not deactivated after the token was issued."""
    groups_said_at: datetime | None


@dataclass(frozen=True)
class _Group:
    id: UUID
    name: str
    permissions: frozenset[str]
    named: frozenset[str]
    """The names in the token that name this group; empty where none does."""


async def _known(connection: Connection, identity: Identity) -> _Known | None:
    rows = await connection.execute(
        f"""
        SELECT {PERSON_COLUMNS}, i.groups_said_at, {still_counts("%(issued_at)s::timestamptz")} AS counts
        FROM user_identities i JOIN users u ON u.id = i.user_id
        WHERE i.issuer = %(issuer)s AND i.subject = %(subject)s
        """,
        {"issuer": identity.issuer, "subject": identity.subject, "issued_at": identity.issued_at},
    )
    row = await rows.fetchone()
    return None if row is None else _Known(person(row), row["counts"] is True, row["groups_said_at"])


async def _link_by_email(connection: Connection, identity: Identity, email: str) -> None:
    await connection.execute(
        f"""
        INSERT INTO user_identities (issuer, subject, user_id)
        SELECT %(issuer)s, %(subject)s, u.id FROM users u
        WHERE folded_address(u.email) = folded_address(%(email)s) AND u.owner_id IS NULL
          -- The address of a token from before may by now be the address of another person who has the account.
          AND {still_counts("%(issued_at)s::timestamptz")}
          -- In any case, but of ASCII alone: the Kelvin sign is a k in lower case, and its mailbox somebody else's.
          AND lower(u.email COLLATE "C") = lower(%(email)s COLLATE "C")
          AND NOT EXISTS (SELECT FROM user_identities c WHERE c.user_id = u.id AND c.created_user)
        FOR SHARE OF u
        ON CONFLICT DO NOTHING
        """,
        {
            "issuer": identity.issuer,
            "subject": identity.subject,
            "email": email,
            "issued_at": identity.issued_at,
        },
    )


async def _create(connection: Connection, identity: Identity, email: str) -> bool:
    """Make an account, unless one has the address: whoever that is, active or not, the issuer has no say in it."""
    values = newcomer(email, identity.name)
    try:
        async with acting.told(connection):
            rows = await connection.execute(
                """
                WITH made AS (
                    INSERT INTO users (id, email, name) VALUES (gen_random_uuid(), %(email)s, %(name)s)
                    ON CONFLICT DO NOTHING RETURNING id
                )
                INSERT INTO user_identities (issuer, subject, user_id, created_user)
                SELECT %(issuer)s, %(subject)s, id, true FROM made
                """,
                {"email": values.email, "name": values.name, "issuer": identity.issuer, "subject": identity.subject},
            )
    except psycopg.errors.UniqueViolation:
        # The subject has become somebody meanwhile; with it, the account is not made.
        return False
    return bool(rows.rowcount)


async def _follow(db: Database, identity: Identity, said: GroupsSaid) -> GroupsFollowed | None:
    """Have somebody in those of the groups that the issuer fills in which it says they are; others are left alone.

    A group with permissions that the issuer may not give is not filled by it, whoever gave them to the group and when.

    Returns:
        None where it has said so before, or something newer.
    """
    async with db.session() as session:
        async with driver_connection(session) as connection:
            await acting.tell(connection)
            rows = await connection.execute(
                """
                UPDATE user_identities SET groups_said_at = %(at)s
                WHERE issuer = %(issuer)s AND subject = %(subject)s
                  AND (groups_said_at IS NULL OR groups_said_at < %(at)s)
                RETURNING user_id
                """,
                {"issuer": identity.issuer, "subject": identity.subject, "at": said.at},
            )
            row = await rows.fetchone()
        if row is None:
            return None
        user_id: UUID = row["user_id"]
        if said.names is None:
            return GroupsFollowed(problem=said.problem)
        groups = await _claimed_groups(session, user_id, identity.issuer, said.names)
        named = [group for group in groups if group.named]
        filled = [group.id for group in named if group.permissions <= said.may_have]
        left = await _leave(session, user_id, identity.issuer, groups, staying=filled)
        joined = await _join(session, user_id, identity.issuer, filled)
        if left:
            await attention.mark(session, group_ids=left)
    if left:
        # The workflows are told by the next worker that looks.
        await attention.mark_late(db, [], group_ids=left)
    there = {name for group in named for name in group.named}
    return GroupsFollowed(
        joined=joined,
        left=left,
        refused=sorted(group.name for group in named if group.id not in filled),
        unknown=sorted(name for name in said.names if name not in there),
    )


async def _claimed_groups(session: AsyncSession, user_id: UUID, issuer: str, names: frozenset[str]) -> list[_Group]:
    """The groups of these names, and those that somebody is in by the issuer's word; none of them changes meanwhile."""
    async with driver_connection(session) as connection:
        rows = await connection.execute(
            """
            SELECT g.id, g.name, g.permissions,
                   ARRAY(SELECT n FROM unnest(%(names)s::text[]) n WHERE folded_name(n) = folded_name(g.name)) AS named
            FROM groups g
            WHERE NOT g.system AND (
                folded_name(g.name) = ANY(ARRAY(SELECT folded_name(n) FROM unnest(%(names)s::text[]) n))
                OR g.id = ANY(ARRAY(
                    SELECT group_id FROM group_members WHERE user_id = %(user_id)s AND issuer = %(issuer)s
                ))
            )
            ORDER BY g.id FOR SHARE
            """,
            {"names": list(names), "user_id": user_id, "issuer": issuer},
        )
        return [
            _Group(row["id"], row["name"], frozenset(row["permissions"]), frozenset(row["named"]))
            for row in await rows.fetchall()
        ]


async def _leave(
    session: AsyncSession, user_id: UUID, issuer: str, groups: list[_Group], *, staying: list[UUID]
) -> list[UUID]:
    async with driver_connection(session) as connection:
        rows = await connection.execute(
            """
            DELETE FROM group_members WHERE user_id = %s AND issuer = %s AND group_id = ANY(%s) RETURNING group_id
            """,
            [user_id, issuer, [group.id for group in groups if group.id not in staying]],
        )
        return [row["group_id"] for row in await rows.fetchall()]


async def _join(session: AsyncSession, user_id: UUID, issuer: str, groups: list[UUID]) -> list[UUID]:
    async with driver_connection(session) as connection:
        rows = await connection.execute(
            # Who is in one by hand stays so, and in their place.
            """
            INSERT INTO group_members (group_id, user_id, issuer) SELECT id, %s, %s FROM unnest(%s::uuid[]) AS id
            ON CONFLICT DO NOTHING RETURNING group_id
            """,
            [user_id, issuer, groups],
        )
        return [row["group_id"] for row in await rows.fetchall()]
