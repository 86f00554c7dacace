"""Build the pickers of forms: a picker shows all that is chosen, and finds others by name without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from db import choices
from db.choices import Choices, Source
from db.database import Database


@dataclass(frozen=True)
class Picker:
    """Hold a field that chooses from entries of the record."""

    name: str
    """The name of the field."""
    choices: Choices
    sought: str = ""
    """Part of the name of the others that are shown."""


async def picker(
    db: Database,
    source: Source,
    name: str,
    chosen: Sequence[str],
    sought: str = "",
    *,
    within: UUID | None = None,
) -> Picker:
    """Return a picker with all that is chosen.

    Args:
        db: the record.
        source: where the entries come from.
        name: the field.
        chosen: the values that are chosen, in their order.
        sought: part of the name of the others.
        within: for mappings, the application.
    """
    return Picker(name, await choices.choices(db, source, chosen, sought=sought, within=within), sought)
