"""The metrics, each with its meaning. Prometheus reads them from `telemetry.serving`.

Labels have few values, each known beforehand: no person, no request, no path as it was sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

REGISTRY: Final = CollectorRegistry()
"""Ours alone; what libraries register by themselves is not shown."""

_HOURS: Final = (60, 300, 900, 3_600, 4 * 3_600, 8 * 3_600, 24 * 3_600, 72 * 3_600, 168 * 3_600)

HTTP_SECONDS: Final = Histogram(
    "justiam_http_request_duration_seconds",
    "How long calls took, by the route that served them.",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
TRANSITIONS: Final = Counter(
    "justiam_transitions_total",
    "Steps that were carried out on requests: approve, deny, revoke, escalate, expire; by a person or by the service.",
    ["action", "by"],
    registry=REGISTRY,
)
REFUSALS: Final = Counter(
    "justiam_refusals_total", "Steps that were refused, by the code of the refusal.", ["code"], registry=REGISTRY
)
SUBMISSIONS: Final = Counter("justiam_submissions_total", "Requests that were accepted.", registry=REGISTRY)
DECISION_SECONDS: Final = Histogram(
    "justiam_time_to_decision_seconds",
    "How long requests waited until a person approved or denied them.",
    ["action"],
    buckets=_HOURS,
    registry=REGISTRY,
)
EXPIRY_LAG_SECONDS: Final = Histogram(
    "justiam_expiry_lag_seconds",
    "How long after its end a grant was written down as expired. The access itself ends on time, in every read.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3_600),
    registry=REGISTRY,
)
DELIVERIES: Final = Counter(
    "justiam_delivery_attempts_total",
    "Attempts to tell a webhook, Slack or a mailbox of an event.",
    ["target", "outcome"],
    registry=REGISTRY,
)
RUNS: Final = Counter(
    "justiam_script_runs_total", "Attempts at scripts, by how they ended.", ["ending"], registry=REGISTRY
)
SWEPT: Final = Counter(
    "justiam_sweep_findings_total",
    "What the sweep had to mend: more than a few after an outage is worth a look.",
    ["what"],
    registry=REGISTRY,
)
CHORE_FAILURES: Final = Counter(
    "justiam_chore_failures_total",
    "Rounds of a worker's chores that failed, because a store was away, say.",
    ["chore"],
    registry=REGISTRY,
)

PENDING: Final = Gauge("justiam_pending_requests", "Requests that await a decision.", registry=None)
OLDEST_PENDING: Final = Gauge(
    "justiam_oldest_pending_seconds", "For how long the oldest of these waits; 0: there is none.", registry=None
)
GRANTS: Final = Gauge("justiam_open_grants", "Grants that last at this moment.", registry=None)
OVERDUE: Final = Gauge(
    "justiam_overdue_grants",
    "Grants whose time is up and that nobody has written down as expired yet. They give nobody access.",
    registry=None,
)
WAITING_DELIVERIES: Final = Gauge(
    "justiam_waiting_deliveries", "Deliveries that are neither made nor given up.", registry=None
)
RECORD: Final = {
    "pending": PENDING,
    "oldest_pending_secs": OLDEST_PENDING,
    "grants": GRANTS,
    "overdue": OVERDUE,
    "waiting_deliveries": WAITING_DELIVERIES,
}
"""The gauges that the record fills, by what it calls them (`db.overview.figures`). Only programs that look show them: a
0 from one that does not would hide that nobody does."""
_shown: Final[set[str]] = set()


class Pool(Protocol):
    """A pool of connections that tells of itself."""

    def statistics(self) -> Mapping[str, int]:
        """By psycopg's names."""
        ...


class _PoolCollector:
    """The pool of this process, asked when somebody scrapes."""

    _SHOWN: Final = {
        "pool_size": ("justiam_database_pool_connections", "Connections that the pool holds."),
        "pool_available": ("justiam_database_pool_idle", "Those of them that nobody uses."),
        "requests_waiting": ("justiam_database_pool_waiting", "Callers that wait for a connection."),
    }

    def __init__(self) -> None:
        self.pool: Pool | None = None

    def collect(self) -> Iterator[Metric]:
        statistics = self.pool.statistics() if self.pool is not None else {}
        for key, (name, meaning) in self._SHOWN.items():
            yield GaugeMetricFamily(name, meaning, value=statistics.get(key, 0))


_pool: Final = _PoolCollector()
REGISTRY.register(_pool)


def watch_pool(pool: Pool) -> None:
    """Show this pool from now on."""
    _pool.pool = pool


def show_record(figures: Mapping[str, float]) -> None:
    """Show what the record holds: a figure for each name of `RECORD`."""
    for name, figure in figures.items():
        if name not in _shown:
            _shown.add(name)
            REGISTRY.register(RECORD[name])
        RECORD[name].set(figure)
