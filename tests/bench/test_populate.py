"""What the benchmarks measure on is a record that the product could have written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from bench.populate import NotEmpty, populate
from db import auditing, migrate
from db.database import Database
from domain.states import Status
from domain.templates import Snapshot
from tests.conftest import Databases

REQUESTS = 1_500
MADE = ("users", "groups", "app_mappings", "access_request_templates", "access_requests", "access_request_messages")


@pytest.fixture(scope="module")
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def populated(new_database: Databases, now: datetime) -> Iterator[str]:
    with new_database() as url:
        populate(url, requests=REQUESTS, now=now, vacuum=False)
        yield url


async def test_an_audit_finds_nothing(populated: str) -> None:
    async with Database(populated) as db:
        found = await auditing.record_invariants(db)
        assert await auditing.count_requests(db) == REQUESTS
    assert [(invariant.name, invariant.violations) for invariant in found if invariant.violations] == []


def test_requests_of_every_status_are_there_with_their_templates_as_they_were(populated: str) -> None:
    with psycopg.connect(populated) as connection:
        rows = connection.execute("SELECT status, count(*) FROM access_requests GROUP BY status").fetchall()
        snapshots = connection.execute("SELECT DISTINCT snapshot FROM access_requests").fetchall()
    counted: dict[str, int] = dict(rows)
    assert set(counted) == set(Status)
    assert 0 < counted[Status.PENDING] + counted[Status.APPROVED] < REQUESTS / 20
    for (snapshot,) in snapshots:
        Snapshot.model_validate(snapshot)


def test_nobody_waits_whom_the_rules_would_have_refused(populated: str) -> None:
    """Nobody deactivated, nobody in two places of one queue, nobody who is asked about themselves."""
    with psycopg.connect(populated) as connection:
        wrong = connection.execute(
            """
            SELECT r.id FROM access_requests r JOIN users u ON u.id = r.requester_id
            WHERE (r.status IN ('pending', 'approved') AND (NOT u.active OR r.template_id IS NULL))
               OR r.requester_id = ANY(r.notified_ids) OR r.decided_by = u.email
            """
        ).fetchall()
    assert wrong == []


def test_the_schema_is_as_it_was_and_the_timeline_append_only(populated: str) -> None:
    migrate.check(populated)
    with psycopg.connect(populated, autocommit=True) as connection:
        enabled = connection.execute(
            "SELECT tgenabled FROM pg_trigger"
            " WHERE tgname = 'append_only' AND tgrelid = 'access_request_timeline'::regclass"
        ).fetchall()
        assert enabled == [("O",)]
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            connection.execute("DELETE FROM access_request_timeline")


def test_the_same_seed_makes_the_same_rows(populated: str, new_database: Databases, now: datetime) -> None:
    def fingerprint(url: str) -> dict[str, object]:
        with psycopg.connect(url) as connection:
            return {
                table: connection.execute(
                    f"SELECT count(*), md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} t"  # noqa: S608
                ).fetchone()
                for table in MADE
            }

    with new_database() as url:
        populate(url, requests=REQUESTS, now=now, vacuum=False)
        assert fingerprint(url) == fingerprint(populated)


def test_a_database_that_holds_something_is_left_alone_unless_one_says_so(populated: str) -> None:
    def people() -> int:
        with psycopg.connect(populated) as connection:
            ((count,),) = connection.execute("SELECT count(*) FROM users").fetchall()
        return int(count)

    before = people()
    with pytest.raises(NotEmpty):
        populate(populated, requests=50, seed=2)
    assert people() == before
    populate(populated, requests=50, seed=2, beside=True, vacuum=False)
    assert people() > before
