"""How the first administrator comes about, whom nobody who is signed in could make."""

from __future__ import annotations

from itertools import count
from typing import Final
from uuid import UUID

from db import groups, people, users
from db.database import Database
from domain.actors import Permission, SystemActor
from domain.deciding import Person
from domain.directory import GroupValues, UserValues

ADMINISTRATORS: Final = GroupValues(
    name="administrators", description="Hold every permission.", permissions=list(Permission)
)

OPERATOR: Final = Person(
    id=UUID(int=0),
    email=SystemActor.OPERATOR,
    name="",
    active=True,
    principal_id=UUID(int=0),
    group_ids=frozenset(),
    permissions=frozenset(Permission),
)
"""Whoever runs the service's programs: may give every permission."""


async def make_administrator(db: Database, values: UserValues) -> UUID:
    """Put somebody into the group `administrators`; make the account and the group where they are missing.

    Returns:
        The id of the user. An account that exists keeps its name.
    """
    async with db.connection() as connection:
        person = await people.find(connection, values.email)
    user_id = person.id if person else (await users.create(db, values)).id
    await groups.add_member(db, OPERATOR, await _administrators(db), user_id)
    return user_id


async def _administrators(db: Database) -> UUID:
    """The group that brings every permission: another one of the name may be anybody's who manages the directory."""
    for number in count(1):
        name = ADMINISTRATORS.name if number == 1 else f"{ADMINISTRATORS.name} {number}"
        async with db.connection() as connection:
            rows = await connection.execute(
                "SELECT id, permissions FROM groups WHERE folded_name(name) = folded_name(%s)", [name]
            )
            group = await rows.fetchone()
        if group is None:
            return (await groups.create(db, OPERATOR, ADMINISTRATORS.model_copy(update={"name": name}))).id
        if set(Permission) <= set(group["permissions"]):
            found: UUID = group["id"]
            return found
    raise AssertionError("unreachable")
