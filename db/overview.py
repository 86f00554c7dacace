"""Figures over the record: what is open, how it went lately, how long decisions took."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final
from uuid import UUID

from pydantic import BaseModel, Field

from db.database import Connection

DAYS: Final = 30
"""What “lately” is: today and the days before."""
_MOST_APPLICATIONS: Final = 12


class Day(BaseModel):
    """The requests that were submitted on one day (UTC), by what became of them so far."""

    day: date
    pending: int = 0
    approved: int = 0
    denied: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.pending + self.approved + self.denied + self.cancelled


class AppGrants(BaseModel):
    """How many grants of an application last."""

    app_id: UUID | None
    app_name: str
    grants: int


class Overview(BaseModel):
    """The figures at one moment."""

    pending: int
    oldest_pending: datetime | None
    grants: int
    decided: int = Field(description="Requests of the last days that people decided.")
    median_secs: float | None = Field(description="How long the median of these waited for its decision.")
    p90_secs: float | None = Field(description="And nine of ten at most.")
    days: list[Day] = Field(description="The last days, the oldest first.")
    by_application: list[AppGrants] = Field(description="Those with most first.")


async def overview(connection: Connection) -> Overview:
    """The figures. Reads what is open, and what was submitted in the last days; never the whole record."""
    rows = await connection.execute(
        """
        SELECT count(*) AS pending, min(created_at) AS oldest_pending FROM access_requests WHERE status = 'pending'
        """
    )
    waiting = await rows.fetchone() or {}
    rows = await connection.execute(
        """
        SELECT app_id, app_name, count(*) AS grants, sum(count(*)) OVER () AS all_grants FROM access_requests
        WHERE status = 'approved' AND expires_at > now()
        GROUP BY app_id, app_name ORDER BY grants DESC, folded_name(app_name), app_id LIMIT %s
        """,
        [_MOST_APPLICATIONS],
    )
    by_application = await rows.fetchall()
    rows = await connection.execute(
        # The set form of `domain.states.verdict`.
        """
        WITH lately AS MATERIALIZED (
            SELECT (created_at AT TIME ZONE 'UTC')::date AS day, decided_by, created_at, decided_at,
                   CASE WHEN status = 'pending' THEN 'pending' WHEN status = 'denied' THEN 'denied'
                        WHEN expires_at IS NOT NULL THEN 'approved' ELSE 'cancelled' END AS verdict
            FROM access_requests
            WHERE created_at >= date_trunc('day', now(), 'UTC') - make_interval(days => %(before)s)
        ), waits AS (
            SELECT count(*) AS decided,
                   percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (
                       ORDER BY extract(epoch FROM decided_at - created_at)) AS waited
            FROM lately WHERE verdict IN ('approved', 'denied') AND decided_by NOT LIKE 'system:%%'
        )
        SELECT d.day::date AS day, waits.decided, waits.waited,
               count(*) FILTER (WHERE verdict = 'pending') AS pending,
               count(*) FILTER (WHERE verdict = 'approved') AS approved,
               count(*) FILTER (WHERE verdict = 'denied') AS denied,
               count(*) FILTER (WHERE verdict = 'cancelled') AS cancelled
        FROM generate_series((now() AT TIME ZONE 'UTC')::date - %(before)s, (now() AT TIME ZONE 'UTC')::date,
                             interval '1 day') AS d(day)
        LEFT JOIN lately ON lately.day = d.day::date CROSS JOIN waits
        GROUP BY d.day, waits.decided, waits.waited ORDER BY d.day
        """,
        {"before": DAYS - 1},
    )
    days = await rows.fetchall()
    median, p90 = days[0]["waited"] or (None, None)
    return Overview(
        pending=waiting["pending"],
        oldest_pending=waiting["oldest_pending"],
        grants=by_application[0]["all_grants"] if by_application else 0,
        decided=days[0]["decided"],
        median_secs=median,
        p90_secs=p90,
        days=[Day.model_validate(row) for row in days],
        by_application=[AppGrants.model_validate(row) for row in by_application],
    )


async def figures(connection: Connection) -> dict[str, float]:
    """What is open at this moment, for whoever watches the service. One statement, by indexes of what is open.

    Returns:
        `pending`, `oldest_pending_secs` (0: none is), `grants`, `overdue` (grants whose time is up, not written down
        yet) and `waiting_deliveries`.
    """
    rows = await connection.execute(
        """
        SELECT count(*) FILTER (WHERE status = 'pending') AS pending,
               coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE status = 'pending')), 0)::float8
                   AS oldest_pending_secs,
               count(*) FILTER (WHERE status = 'approved' AND expires_at > now()) AS grants,
               count(*) FILTER (WHERE status = 'approved' AND expires_at <= now()) AS overdue,
               (SELECT count(*) FROM deliveries WHERE dispatch_at IS NOT NULL AND not_before <= now())
                   AS waiting_deliveries
        FROM access_requests WHERE status IN ('pending', 'approved')
        """
    )
    return await rows.fetchone() or {}
