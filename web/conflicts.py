"""Show what was changed while somebody edited a form: the values that differ, side by side, and the last change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from starlette.datastructures import FormData

from db import audit_log
from db.database import Database
from db.paging import Position
from db.views import Versioned
from domain.audit_log import Kind
from web import reading


@dataclass(frozen=True)
class Difference:
    """Hold a field with the value that was typed and the value that is stored."""

    label: str
    typed: str
    stored: str


@dataclass(frozen=True)
class Conflict:
    """Hold why a form was not saved: what it edits was changed after it was opened."""

    differences: list[Difference]
    by: str | None
    """Who changed it last, as the audit log names them."""
    at: datetime | None


async def conflict(
    db: Database,
    kind: Kind,
    object_id: UUID,
    typed: Mapping[str, Any],
    stored: Mapping[str, Any],
    labels: Mapping[str, str],
) -> Conflict:
    """Compare what a form says with what is stored.

    Args:
        db: the record.
        kind: what the form edits, for readers of the audit log of this kind.
        object_id: its id.
        typed: what the form says, as JSON.
        stored: what is stored, as JSON.
        labels: the fields to compare, with what the form calls them.
    """
    differing = [name for name in labels if typed[name] != stored[name]]
    ids = {found for name in differing for value in (typed[name], stored[name]) for found in _ids(name, value)}
    names = {str(found): name for found, name in (await audit_log.names(db, ids)).items()}
    last = (await audit_log.list_entries(db, Position(1), kinds=[kind], object_id=str(object_id))).items
    return Conflict(
        [Difference(labels[name], _text(typed[name], names), _text(stored[name], names)) for name in differing],
        last[0].actor if last else None,
        last[0].at if last else None,
    )


def version_shown(view: Versioned | None, sent: FormData | None, changed: Conflict | None) -> str:
    """Return the version for a form to carry: that of what it was filled with.

    Args:
        view: what is stored; None for a form that makes something.
        sent: the form, where it is shown again.
        changed: what was changed since it was opened; it is shown, and so the next save may replace it.
    """
    opened = reading.text(sent, "version") if sent is not None else ""
    return opened if opened and not changed else view.version if view else ""


def _ids(name: str, value: Any) -> list[UUID]:  # noqa: ANN401 - any JSON
    if not name.endswith(("_id", "_ids")) or not value:
        return []
    return [UUID(each) for each in (value if isinstance(value, list) else [value])]


def _text(value: Any, names: Mapping[str, str]) -> str:  # noqa: ANN401 - any JSON
    match value:
        case None | "" | []:
            return "nothing"
        case True:
            return "yes"
        case False:
            return "no"
        case list():
            return "\n".join(names.get(str(each), str(each)) for each in value)
    return names.get(str(value), str(value))
