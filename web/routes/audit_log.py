"""For administrators: who changed what they manage, from what to what (docs/audit-log.md)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.reading import Paging
from api.resources import Db
from db import audit_log
from domain.audit_log import AuditEntry, Change, Kind, readable
from domain.text import FilterText
from web.reading import EMPTY_IS_NONE, from_day, to_day
from web.resources import Visit

router = APIRouter(prefix="/admin")

_ONE: Final = {
    Kind.USERS: "Account",
    Kind.IDENTITIES: "Identity",
    Kind.TOKENS: "API token",
    Kind.GROUPS: "Group",
    Kind.MEMBERS: "Membership",
    Kind.APPLICATIONS: "Application",
    Kind.MAPPINGS: "Mapping",
    Kind.MAPPING_GROUPS: "Mapping of a group",
    Kind.SIGNING_KEYS: "Signing key",
    Kind.TEMPLATES: "Template",
    Kind.TASKS: "Task",
    Kind.INTEGRATIONS: "Integration",
    Kind.SECRETS: "Secret",
}
_PAGES: Final = {
    Kind.USERS: "/admin/people/",
    Kind.GROUPS: "/admin/groups/",
    Kind.APPLICATIONS: "/admin/applications/",
    Kind.TEMPLATES: "/admin/templates/",
    Kind.TASKS: "/admin/tasks/",
    Kind.INTEGRATIONS: "/admin/integrations/",
}
_NAMED_BY: Final = ("email", "name", "kid", "subject")
_DONE: Final = {Change.INSERT: "Made", Change.UPDATE: "Changed", Change.DELETE: "Deleted"}
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")
_NOTHING: Final = "\N{EN DASH}"
_LONGEST_SHOWN: Final = 2_000
_LONGEST_COMPARED: Final = 20_000

Names = dict[UUID, str]


@dataclass(frozen=True)
class Line:
    """A line of a text that was changed."""

    mark: str
    """`-` where it was, `+` where it is now, blank where it is both."""
    text: str


@dataclass(frozen=True)
class Changed:
    """A value before and after; one of the two where there was nothing, or is nothing any more."""

    name: str
    before: str | datetime | None
    after: str | datetime | None
    lines: list[Line] | None = None
    """Of a text of several lines: those that differ, and what is around them."""


@dataclass(frozen=True)
class Shown:
    """An entry as people read it."""

    entry: AuditEntry
    what: str
    done: str
    name: str
    page: str | None
    values: list[Changed]


@router.get("/audit-log")
async def changes(  # noqa: PLR0917 - each is a filter
    visit: Visit,
    db: Db,
    position: Paging,
    actor: Annotated[FilterText | None, EMPTY_IS_NONE, Query()] = None,
    kind: Annotated[Kind | None, EMPTY_IS_NONE, Query()] = None,
    object_id: Annotated[FilterText | None, EMPTY_IS_NONE, Query()] = None,
    since: Annotated[date | None, EMPTY_IS_NONE, Query()] = None,
    until: Annotated[date | None, EMPTY_IS_NONE, Query()] = None,
) -> Response:
    """What was changed, newest first."""
    kinds = readable(visit.person, kind)
    actor, object_id = [value.strip() or None if value else None for value in (actor, object_id)]
    listed = await audit_log.list_entries(
        db,
        position,
        kinds=kinds,
        actor=actor,
        object_id=object_id,
        since=from_day(since),
        until=to_day(until),
    )
    ids = {named for entry in listed.items for named in _ids(entry.before, entry.after)}
    names = _names_said(listed.items) | await audit_log.names(db, ids)
    filters = {"actor": actor, "kind": kind, "object_id": object_id, "since": since, "until": until}
    return await visit.show(
        "admin_audit_log.html",
        page=listed,
        entries=[_shown(entry, names) for entry in listed.items],
        filters=filters,
        filtered=any(value is not None for value in filters.values()),
        kinds=[(each, _ONE.get(each, each)) for each in readable(visit.person)],
    )


def _names_said(entries: list[AuditEntry]) -> Names:
    """What things were called, by the entries themselves: of what is gone, nothing else is left."""
    rows = [(entry.object_id, entry.before or entry.after or {}) for entry in entries]
    return {UUID(each): row["name"] for each, row in rows if _ID.fullmatch(each) and isinstance(row.get("name"), str)}


def _ids(*values: object) -> Iterator[UUID]:
    """The ids in what an entry says."""
    for value in values:
        if isinstance(value, str) and _ID.fullmatch(value):
            yield UUID(value)
        elif isinstance(value, dict):
            yield from _ids(*value.values())
        elif isinstance(value, list):
            yield from _ids(*value)


def _shown(entry: AuditEntry, names: Names) -> Shown:
    row = entry.after or entry.before or {}
    named = next((str(row[column]) for column in _NAMED_BY if row.get(column)), None)
    if named is None:
        named = f" {_NOTHING} ".join(_text(part, names) for part in entry.object_id.split("/"))
    page = _PAGES.get(entry.kind) if entry.action is not Change.DELETE else None
    return Shown(
        entry=entry,
        what=_ONE.get(entry.kind, entry.kind),
        done=_DONE[entry.action],
        name=named,
        page=None if page is None else page + entry.object_id,
        values=list(_values(entry, names)),
    )


def _values(entry: AuditEntry, names: Names) -> Iterator[Changed]:
    before, after = entry.before or {}, entry.after or {}
    for column in [*after, *(name for name in before if name not in after)]:
        was, now = before.get(column), after.get(column)
        if column == "id" or (was == now and entry.action is Change.UPDATE) or (_is_nothing(was) and _is_nothing(now)):
            continue
        lines = None
        if isinstance(was, str) and isinstance(now, str) and "\n" in was + now:
            lines = _differing(was, now)
        yield Changed(
            column.replace("_", " "),
            _readable(was, names) if entry.action is not Change.INSERT else None,
            _readable(now, names) if entry.action is not Change.DELETE else None,
            lines,
        )


def _is_nothing(value: object) -> bool:
    return value is None or value in ("", [], {})


def _differing(was: str, now: str) -> list[Line] | None:
    """The lines that differ; None: the texts are too long to find them at once."""
    if len(was) + len(now) > _LONGEST_COMPARED:
        return None
    found = difflib.unified_diff(was.splitlines(), now.splitlines(), n=2, lineterm="")
    return [Line(line[0], line[1:]) for line in found if not line.startswith(("---", "+++", "@@"))]


def _readable(value: Any, names: Names) -> str | datetime:  # noqa: ANN401 - any JSON
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        return datetime.fromisoformat(value)
    return _short(_text(value, names))


def _text(value: Any, names: Names) -> str:  # noqa: ANN401 - any JSON
    if _is_nothing(value):
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return names.get(UUID(value), value) if _ID.fullmatch(value) else value
    if isinstance(value, list) and not any(isinstance(each, dict | list) for each in value):
        return ", ".join(_text(each, names) for each in value)
    return json.dumps(value, indent=1, ensure_ascii=False)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "… (cut here; the API has all of it)"
