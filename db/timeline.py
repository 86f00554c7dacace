"""Writing a request's timeline."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from db.database import Connection
from domain import events
from domain.events import Event


async def add_to_timeline(  # noqa: PLR0913 - a row has these columns
    connection: Connection,
    request_id: UUID,
    *,
    at: datetime | None,
    kind: str,
    actor: str,
    verified: bool = True,
    detail: dict[str, Any],
    key: str | None,
    event: Event | None = None,
    payload: events.Payload | None = None,
) -> None:
    """Append to a request's timeline; the same key is written once. `at` None: the database's now."""
    await connection.execute(
        """
        INSERT INTO access_request_timeline
            (request_id, at, kind, actor, verified, detail, event, payload, transition_key)
        VALUES (%s, coalesce(%s, now()), %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (transition_key) DO NOTHING
        """,
        [
            request_id,
            at,
            kind,
            actor,
            verified,
            Jsonb(detail),
            event,
            None if payload is None else Jsonb(payload),
            key,
        ],
    )
