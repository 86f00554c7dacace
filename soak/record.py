"""The record as it is at the end of a run: read as PostgreSQL has it, past the service."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import psycopg
from psycopg.rows import dict_row

from soak.rights import Right, Values

ENDINGS: Final = frozenset({"denied", "revoked", "expired"})


@dataclass(frozen=True)
class Request:
    """A row of `access_requests`."""

    id: str
    status: str
    requester: str
    template: str
    app: str
    key: str | None
    minutes: int
    values: Values
    created_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None

    @property
    def is_closed(self) -> bool:
        """Whether nothing follows."""
        return self.status in ENDINGS


@dataclass(frozen=True)
class Entry:
    """A row of its timeline."""

    request_id: str
    at: datetime
    kind: str
    actor: str
    key: str | None = None
    event: str | None = None


@dataclass
class Record:
    """Requests, timelines and messages."""

    requests: dict[str, Request] = field(default_factory=dict)
    timelines: defaultdict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By request and text."""


def read(database_url: str) -> Record:
    """Read all of it, in one snapshot."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        requests = {
            row["id"]: Request(
                **{**row, "values": frozenset((each["claim"], each["value"]) for each in row["values"] or [])}
            )
            for row in connection.execute(
                """
                SELECT r.id::text, r.status, u.email AS requester, r.template_name AS template, r.app_name AS app,
                       split_part(r.idempotency_key, ' since ', 1) AS key, r.requested_duration_mins AS minutes,
                       r.snapshot -> 'mappings' AS values, r.created_at, r.decided_by, r.decided_at,
                       r.expires_at, r.ended_at
                FROM access_requests r JOIN users u ON u.id = r.requester_id
                """
            )
        }
        found = Record(requests)
        for row in connection.execute(
            "SELECT request_id::text, at, kind, actor, transition_key AS key, event"
            " FROM access_request_timeline ORDER BY id"
        ):
            found.timelines[row["request_id"]].append(Entry(**row))
        for row in connection.execute("SELECT request_id::text, body FROM access_request_messages"):
            found.messages[row["request_id"], row["body"]] += 1
    return found


def grants(record: Record, seen: Mapping[tuple[str, str], float]) -> list[Right]:
    """What the grants of the record gave, and when.

    Args:
        record: the record at the end.
        seen: when somebody had first read an entry of a timeline, by request and kind.
    """
    found = []
    for request in record.requests.values():
        if request.expires_at is None or request.decided_at is None:
            continue
        end = request.expires_at.timestamp()
        closes = closed_by = end
        if request.status == "revoked" and request.ended_at is not None:
            closes = min(end, request.ended_at.timestamp())
            closed_by = min(end, seen.get((request.id, "revoked"), math.inf))
        found.append(
            Right(
                user=request.requester,
                app=request.app,
                values=request.values,
                opens=request.decided_at.timestamp(),
                open_by=seen.get((request.id, "approved"), math.inf),
                closes=closes,
                closed_by=closed_by,
                limit=end,
                source=f"request {request.id}",
                asked=request.created_at.timestamp(),
            )
        )
    return found
