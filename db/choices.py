"""Read what a form of the pages offers to choose from: all that is chosen, and the newest others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple
from uuid import UUID

from db.database import Database
from db.folding import within as within_name
from db.paging import LARGEST_LIMIT

MOST_OTHERS: Final = LARGEST_LIMIT
"""How many entries are offered beside the chosen ones; the others are found by name."""


class _Table(NamedTuple):
    name: str
    key: str = "id"
    """The column whose value a form sends: a UUID, or a name."""
    detail: str = "''"
    """SQL for a text that distinguishes entries of the same name."""
    condition: str = "true"


class Source(Enum):
    """Name the table that the entries come from."""

    GROUPS = _Table("groups", condition="NOT system")
    APPLICATIONS = _Table("applications")
    MAPPINGS = _Table("app_mappings", detail="claim || ': ' || value", condition="app_id = %(within)s")
    """Those of one application."""
    TASKS = _Table("scheduled_tasks")
    TEMPLATES = _Table("access_request_templates")
    SECRETS = _Table("secrets", key="name")


@dataclass(frozen=True)
class Choice:
    """Hold an entry that a form offers."""

    value: str
    """The value that the form sends."""
    name: str
    detail: str = ""
    exists: bool = True
    """False: it is chosen, but does not exist any more."""


@dataclass(frozen=True)
class Choices:
    """Hold the entries that a form offers."""

    chosen: list[Choice]
    """Every chosen value, in the chosen order."""
    others: list[Choice]
    """The newest of all others that fit the search, by name."""
    more: bool
    """Whether there are others that are not offered."""


async def choices(
    db: Database, source: Source, chosen: Sequence[str] = (), *, sought: str = "", within: UUID | None = None
) -> Choices:
    """Return what a form offers.

    Args:
        db: the record.
        source: where the entries come from.
        chosen: the values that are chosen, in their order.
        sought: part of the name of the others, in any case.
        within: for `MAPPINGS`, the application.
    """
    table = source.value
    keys = _keys(table, chosen)
    select = f"SELECT {table.key} AS key, name, {table.detail} AS detail"
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            ({select}, true AS chosen FROM {table.name} WHERE {table.condition} AND {table.key} = ANY(%(keys)s))
            UNION ALL
            ({select}, false FROM {table.name} WHERE {table.condition} AND {table.key} <> ALL(%(keys)s)
             AND folded_name(name) LIKE folded_name(%(sought)s)
             ORDER BY created_at DESC, id DESC LIMIT %(limit)s)
            """,
            {"keys": list(keys.values()), "sought": within_name(sought), "within": within, "limit": MOST_OTHERS + 1},
        )
        found = await rows.fetchall()
    known = {row["key"]: _choice(row) for row in found if row["chosen"]}
    others = [_choice(row) for row in found if not row["chosen"]]
    return Choices(
        chosen=[known.get(keys.get(value)) or Choice(value, value, exists=False) for value in dict.fromkeys(chosen)],
        others=sorted(others[:MOST_OTHERS], key=lambda each: each.name.lower()),
        more=len(others) > MOST_OTHERS,
    )


async def by_name(db: Database, source: Source, name: str) -> UUID | None:
    """Return the id of the entry that has this name, in any case; None where there is none.

    For entries whose names differ from each other, in any case.
    """
    table = source.value
    async with db.connection() as connection:
        rows = await connection.execute(
            f"SELECT id FROM {table.name} WHERE {table.condition} AND folded_name(name) = folded_name(%s)", [name]
        )
        row = await rows.fetchone()
    return None if row is None else row["id"]


async def names(db: Database, source: Source, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return the names of entries, by id; those that do not exist are left out."""
    async with db.connection() as connection:
        rows = await connection.execute(f"SELECT id, name FROM {source.value.name} WHERE id = ANY(%s)", [list(ids)])
        return {row["id"]: row["name"] for row in await rows.fetchall()}


def _keys(table: _Table, values: Sequence[str]) -> dict[str, Any]:
    """Return the key of each value that can be one; a form can send anything."""
    if table.key == "name":
        return {value: value for value in values}
    keys = {}
    for value in values:
        try:
            keys[value] = UUID(value)
        except ValueError:
            continue
    return keys


def _choice(row: dict[str, Any]) -> Choice:
    return Choice(str(row["key"]), row["name"], row["detail"])
