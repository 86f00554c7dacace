"""The audit log: who changed what, when, from what to what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.authentication import Caller
from api.problems import refusals
from api.reading import Instant, Paging
from api.resources import Db
from db import audit_log
from db.paging import Page
from domain.audit_log import AuditEntry, Kind, readable
from domain.text import FilterText

router = APIRouter(prefix="/audit-log", tags=["Audit log"])


@router.get("", summary="List changes", responses=refusals("forbidden"))
async def list_audit_log(  # noqa: PLR0917 - each is a filter
    database: Db,
    caller: Caller,
    position: Paging,
    actor: Annotated[FilterText | None, Query(description="Made by this one, as the log names them.")] = None,
    kind: Annotated[Kind | None, Query(description="Of these things alone.")] = None,
    object_id: Annotated[FilterText | None, Query(description="Of this one thing.")] = None,
    since: Annotated[Instant | None, Query(description="Made then or later.")] = None,
    until: Annotated[Instant | None, Query(description="Made before.")] = None,
) -> Page[AuditEntry]:
    """Every administrative change, newest first: as far as the caller may manage what was changed."""
    return await audit_log.list_entries(
        database,
        position,
        kinds=readable(caller, kind),
        actor=actor,
        object_id=object_id,
        since=since,
        until=until,
    )
