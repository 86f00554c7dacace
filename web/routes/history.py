"""For administrators: every request, and what they come to (specification, Admin History View)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response, StreamingResponse

from api.authentication import RequestsManager
from api.reading import Paging, Reading
from api.resources import Db
from db import overview, requests, web_sessions
from db.choices import Source
from db.database import Connection, Database
from db.paging import LARGEST_LIMIT, Page, Position
from db.requests import RequestView
from domain.actors import Permission
from domain.states import Status
from domain.text import BEGINS_A_TABLE, FilterText, in_a_cell
from web.choosing import picker
from web.reading import EMPTY_IS_NONE, from_day, to_day
from web.resources import Visit

router = APIRouter()

_MOST_EXPORTED: Final = 1_000_000


@dataclass(frozen=True)
class Filters:
    """Which requests are listed; in the address, so that it can be shared."""

    status: Status | None = None
    template_id: UUID | None = None
    requester: str | None = None
    app_id: UUID | None = None
    since: date | None = None
    """The first day, in UTC."""
    until: date | None = None
    """The last day, in UTC."""

    @property
    def in_address(self) -> dict[str, str]:
        """The parameters that make these filters."""
        return {name: str(value) for name, value in asdict(self).items() if value is not None}

    async def page(self, connection: Connection, position: Position) -> Page[RequestView]:
        """The requests that they leave."""
        return await requests.list_all(
            connection,
            position,
            status=self.status,
            template_id=self.template_id,
            requester=self.requester,
            app_id=self.app_id,
            since=from_day(self.since),
            until=to_day(self.until),
        )


async def _filters(
    status: Annotated[Status | None, EMPTY_IS_NONE, Query()] = None,
    template_id: Annotated[UUID | None, EMPTY_IS_NONE, Query()] = None,
    requester: Annotated[FilterText | None, EMPTY_IS_NONE, Query()] = None,
    app_id: Annotated[UUID | None, EMPTY_IS_NONE, Query()] = None,
    since: Annotated[date | None, EMPTY_IS_NONE, Query()] = None,
    until: Annotated[date | None, EMPTY_IS_NONE, Query()] = None,
) -> Filters:
    return Filters(status, template_id, requester.strip() or None if requester else None, app_id, since, until)


Wanted = Annotated[Filters, Depends(_filters)]


@router.get("/history")
async def history(  # noqa: PLR0917 - each is a filter or finds one
    visit: Visit,
    _: RequestsManager,
    db: Db,
    connection: Reading,
    wanted: Wanted,
    position: Paging,
    find_template: Annotated[FilterText, Query(alias="find.template_id")] = "",
    find_application: Annotated[FilterText, Query(alias="find.app_id")] = "",
) -> Response:
    """Every request, filtered."""
    listed = await wanted.page(connection, position)
    return await visit.show(
        "history.html",
        requests=listed,
        filters=wanted,
        statuses=list(Status),
        templates=await picker(db, Source.TEMPLATES, "template_id", _set(wanted.template_id), find_template.strip()),
        applications=await picker(db, Source.APPLICATIONS, "app_id", _set(wanted.app_id), find_application.strip()),
    )


@router.get("/history/export.csv")
async def export_csv(visit: Visit, _: RequestsManager, db: Db, wanted: Wanted) -> Response:
    """The same requests as a table for spreadsheets."""
    return _attachment(_csv(_all(db, wanted, visit.request.state.session)), "text/csv; charset=utf-8", "csv")


@router.get("/history/export.json")
async def export_json(visit: Visit, _: RequestsManager, db: Db, wanted: Wanted) -> Response:
    """The same requests as the API shows them."""
    return _attachment(_json(_all(db, wanted, visit.request.state.session)), "application/json", "json")


@router.get("/overview")
async def figures(visit: Visit, _: RequestsManager, connection: Reading) -> Response:
    """What is open, and how it went lately."""
    return await visit.show("overview.html", seen=await overview.overview(connection), days=overview.DAYS)


def _set(value: UUID | None) -> list[str]:
    return [] if value is None else [str(value)]


def _attachment(content: AsyncIterator[str], kind: str, ending: str) -> Response:
    name = f"access-requests-{datetime.now(UTC):%Y-%m-%d}.{ending}"
    return StreamingResponse(
        content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


class ExportEndedError(Exception):
    """The session of an export does not count any more, or its person may not see all requests any more."""


async def _all(db: Database, wanted: Filters, session: str) -> AsyncIterator[RequestView]:
    """Read all requests page by page, and without a connection meanwhile: whoever downloads slowly must not keep one.

    Raises:
        ExportEndedError: the session ended, by a deactivation for one. The download fails; it is not cut silently.
    """
    position, sent = Position(LARGEST_LIMIT), 0
    while sent < _MOST_EXPORTED:
        async with db.connection() as connection:
            # Also for the first page: the answer begins after the caller was checked.
            person = (await web_sessions.holders(connection, [session])).get(session)
            if person is None or not person.holds(Permission.REQUESTS):
                raise ExportEndedError
            page = await wanted.page(connection, position)
        for view in page.items:
            yield view
        sent += len(page.items)
        if page.next_cursor is None:
            return
        position = Position.of(LARGEST_LIMIT, page.next_cursor)


async def _json(views: AsyncIterator[RequestView]) -> AsyncIterator[str]:
    before = "[\n"
    async for view in views:
        yield before + view.model_dump_json()
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


async def _csv(views: AsyncIterator[RequestView]) -> AsyncIterator[str]:
    yield BEGINS_A_TABLE + _line(_COLUMNS)
    async for view in views:
        yield _line(_cells(view))


_COLUMNS: Final = [
    "id",
    "status",
    "decision",
    "template",
    "application",
    "requester",
    "requester_name",
    "minutes",
    "justification",
    "answers",
    "submitted_at",
    "decided_by",
    "decided_at",
    "comment",
    "expires_at",
    "ended_at",
    "ended_by",
]


def _cells(view: RequestView) -> list[Any]:
    labels = {field.key: field.label for field in view.custom_fields}
    answers = {labels.get(key, key): value for key, value in view.custom_answers.items()}
    return [
        view.id,
        view.status.value,
        view.verdict or "",
        view.template_name + ("" if view.template_id else " (deleted template)"),
        view.app_name,
        view.requester.email,
        view.requester.name,
        view.requested_duration_mins,
        view.justification,
        json.dumps(answers, ensure_ascii=False) if answers else "",
        view.created_at,
        view.decided_by,
        view.decided_at,
        view.decision_comment,
        view.expires_at,
        view.ended_at,
        view.ended_by,
    ]


def _line(cells: list[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(_cell(value) for value in cells)
    return line.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return in_a_cell(value.isoformat() if isinstance(value, datetime) else str(value))
