"""People as the rules see them: account, current groups, permissions."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from db.database import Connection
from domain.addresses import sought_address
from domain.deciding import Person
from domain.directory import refuse_giving

PERSON_COLUMNS: Final = """
    u.id, u.email, u.name, u.active, u.deactivated_at, coalesce(u.owner_id, u.id) AS principal_id,
    ARRAY(
        SELECT m.group_id FROM group_members m JOIN groups g ON g.id = m.group_id
        WHERE m.user_id = u.id AND NOT g.system
    ) AS group_ids,
    ARRAY(
        SELECT DISTINCT unnest(g.permissions) FROM group_members m JOIN groups g ON g.id = m.group_id
        WHERE m.user_id = u.id AND NOT g.system
    ) AS permissions
"""
"""What `person` reads, for a row `u` of `users`."""

ELIGIBLE: Final = """
    SELECT m.group_id, m.user_id, m.joined, u.email
    FROM group_members m
    JOIN groups g ON g.id = m.group_id AND NOT g.system
    JOIN users u ON u.id = m.user_id AND u.active
    WHERE coalesce(u.owner_id, u.id) <> %(principal_id)s
"""
"""Memberships that could decide a request of `principal_id`: active people other than the requester. To be narrowed
to groups with `AND …`."""


def not_deactivated_since(moment: str) -> str:
    """SQL: whether a row `u` of `users` was not deactivated at or after `moment`, a column or an expression.

    Who was has to ask again, also where they are active again: what they asked for before is over for good.
    """
    return f"(u.deactivated_at IS NULL OR u.deactivated_at < {moment})"


def still_counts(moment: str) -> str:
    """Return SQL that is true where what was issued to a row `u` of `users` at `moment` still counts.

    The account has to be active, and must not have been deactivated at `moment` or later. The same instant refuses. So
    does a null `moment`, once the account was deactivated: what does not say when it was issued may be from before.

    Code that issues something locks the row of `users` FOR SHARE first. Otherwise the deactivation could set
    `deactivated_at`, the other transaction issue something with a later time, and the deactivation commit after it.
    """
    return f"(u.active AND {not_deactivated_since(moment)})"


def person(row: dict[str, Any]) -> Person:
    """A person from a row with `PERSON_COLUMNS`."""
    return Person(
        id=row["id"],
        email=row["email"],
        name=row["name"],
        active=row["active"],
        principal_id=row["principal_id"],
        group_ids=frozenset(row["group_ids"]),
        permissions=frozenset(row["permissions"]),
        deactivated_at=row["deactivated_at"],
    )


async def find(connection: Connection, actor: str) -> Person | None:
    """The person with this id or, where `actor` is not a UUID, this email address in any case."""
    try:
        condition, value = "u.id = %s", UUID(actor)
    except ValueError:
        condition, value = "folded_address(u.email) = folded_address(%s)", sought_address(actor)  # type: ignore[assignment]
    rows = await connection.execute(f"SELECT {PERSON_COLUMNS} FROM users u WHERE {condition}", [value])
    row = await rows.fetchone()
    return None if row is None else person(row)


async def refuse_touching(connection: Connection, caller: Person, user_id: UUID, what: str) -> None:
    """Refuse to have a caller change something of an account that has more than the caller.

    Everything that changes an account, or something that belongs to it, asks this first. What belongs to a group is
    held to the permissions of the group (`domain.directory.refuse_giving`).

    Args:
        connection: of the transaction of the change.
        caller: who acts.
        user_id: the account.
        what: the subject of the message, as in "The account".

    Raises:
        Forbidden: the account, or a service account that it owns, has permissions that the caller does not hold.
    """
    refuse_giving(caller.permissions, await permissions_at_hand(connection, user_id), what)


async def permissions_at_hand(connection: Connection, user_id: UUID) -> frozenset[str]:
    """What somebody holds, or comes by with a token for one of their service accounts; active or not."""
    rows = await connection.execute(
        """
        SELECT DISTINCT unnest(g.permissions) AS permission
        FROM users u JOIN group_members m ON m.user_id = u.id JOIN groups g ON g.id = m.group_id AND NOT g.system
        WHERE u.id = %(user_id)s OR u.owner_id = %(user_id)s
        """,
        {"user_id": user_id},
    )
    return frozenset([row["permission"] for row in await rows.fetchall()])
