"""No question about requests reads the whole table, however many there are.

PostgreSQL reports the plans it really runs, with the rows they look at (`auto_explain`): also where a statement is
prepared, and planned once for all values.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
from psycopg.errors import Diagnostic
from psycopg.types.json import Jsonb

from activities import processes
from db import applications, attention, claims, requests, run_history, submission, tasks, templates, transitions
from db.database import Connection, Database
from db.paging import Position
from domain.actors import Permission
from domain.deciding import Person
from domain.errors import InUse, TemplateInUse
from domain.states import Action, Status
from domain.transitions import Refused
from tests.conftest import Databases
from tests.record import Cast, Record

ROWS = 20_000
_FILL = """
    INSERT INTO access_requests (
        id, status, template_id, template_name, app_id, app_name, requester_id, requested_duration_mins, justification,
        snapshot, mapping_ids, approver_group_ids, escalation_group_id, admins_decide, escalated_at, decided_by,
        decided_at, expires_at, ended_by, ended_at, created_at, attention_at)
    SELECT gen_random_uuid(), s.status, t.id, t.name, t.app_id, 'app', u.id, 60, '', %(snapshot)s,
           t.mapping_ids, t.approver_group_ids, t.escalation_group_id, n %% 50 = 0,
           CASE WHEN n %% 10 = 0 THEN now() END, 'bob', now() - n * interval '1 minute',
           CASE WHEN s.status = 'approved' THEN now() + interval '1 hour' ELSE now() - interval '1 hour' END, 'bob',
           CASE WHEN s.status IN ('pending', 'approved') THEN NULL ELSE now() END, now() - n * interval '1 minute',
           CASE WHEN n %% 200 = 2 THEN now() - interval '1 minute' END
    FROM generate_series(1, %(rows)s) AS n
    JOIN (SELECT *, row_number() OVER (ORDER BY id) - 1 AS nth, count(*) OVER () AS many FROM users) u
      ON u.nth = n %% u.many
    JOIN (SELECT *, row_number() OVER (ORDER BY id) - 1 AS nth, count(*) OVER () AS many
          FROM access_request_templates) t
      ON t.nth = (n / 7) %% t.many
    CROSS JOIN LATERAL (SELECT CASE WHEN n %% 100 = 1 THEN 'approved' WHEN n %% 20 = 2 THEN 'pending'
                                    ELSE (ARRAY['denied', 'revoked', 'expired'])[1 + n %% 3] END AS status) s
    ON CONFLICT DO NOTHING
"""
_TASK = """
    INSERT INTO scheduled_tasks (
        id, name, description, task_type, language, language_given, script, schedule_type, time_zone, max_retries,
        timeout_seconds, network, paused)
    SELECT gen_random_uuid(), 'task ' || n, '', 'script', 'python', false, 'def run(): ...', 'once', 'UTC', 3, 60, true,
           false
    FROM generate_series(1, 30) AS n
"""
_ONE_EACH = (
    """
    INSERT INTO access_request_timeline (request_id, kind, actor, verified)
    SELECT id, 'refused', 'somebody', true FROM access_requests
    """,
    """
    INSERT INTO access_request_messages (id, request_id, author_id, body)
    SELECT gen_random_uuid(), id, requester_id, 'hello' FROM access_requests
    """,
    """
    INSERT INTO task_runs (
        id, task_id, task_name, cause, request_id, timeline_id, failure_mode, status, attempt, output, output_truncated,
        created_at)
    SELECT gen_random_uuid(), t.id, t.name, 'trigger', l.request_id, l.id, 'ignore', 'succeeded', 1, 'done', false,
           now() - l.id * interval '1 minute'
    FROM access_request_timeline l
    JOIN (SELECT id, name, row_number() OVER (ORDER BY id) - 1 AS nth FROM scheduled_tasks) t ON t.nth = l.id %% 30
    """,
)
_EXPLAINING = (
    "session_preload_libraries = 'auto_explain'",
    "auto_explain.log_min_duration = 0",
    "auto_explain.log_analyze = on",
    "auto_explain.log_buffers = on",
    "auto_explain.log_timing = off",
    "auto_explain.log_format = 'json'",
    "client_min_messages = 'log'",
)
_BIG = {"access_requests", "access_request_timeline", "access_request_messages", "task_runs"}
_MOST_ROWS = 1_500
"""What a read may look at: all that is open, if need be, but never the history."""
_LOOKED_AT = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
_UNTIL_GENERIC = 7
"""Executions after which PostgreSQL uses one plan for all values, where it believes that to be no worse."""


@dataclass(frozen=True)
class Plan:
    """What PostgreSQL did for one statement."""

    text: str
    rows: int
    """Rows of the big tables that were looked at, wanted or not."""
    read_whole: frozenset[str]
    """Tables that were read from one end to the other."""

    @classmethod
    def of(cls, report: dict[str, Any]) -> Plan:
        scans = [node for node in _nodes(report["Plan"]) if node.get("Relation Name") in _BIG]
        return cls(
            text=f"{report['Query Text']}\n{json.dumps(report['Plan'], indent=1)}",
            rows=round(sum(node["Actual Loops"] * sum(node.get(name, 0) for name in _LOOKED_AT) for node in scans)),
            read_whole=frozenset(node["Relation Name"] for node in scans if node["Node Type"] == "Seq Scan"),
        )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


@dataclass(frozen=True)
class Explained:
    """A record on one connection, whose plans are kept."""

    db: Database
    cast: Cast
    plans: list[Plan]

    async def ask(self, question: Callable[[Connection], Awaitable[Any]]) -> Plan:
        """How a question is answered when it has been asked for a while; always by one statement."""
        async with self.db.connection() as connection:
            for _ in range(_UNTIL_GENERIC):
                self.plans.clear()
                await question(connection)
                assert len(self.plans) == 1
        return self.plans[0]

    async def do(self, change: Awaitable[Any]) -> list[Plan]:
        """What a change asks about requests."""
        self.plans.clear()
        await change
        return [plan for plan in self.plans if "access_request" in plan.text]


@pytest.fixture(scope="module")
async def full(new_database: Databases) -> AsyncIterator[tuple[str, Cast]]:
    """Twenty thousand requests of two hundred people for thirty templates; a thousand of them are open."""
    with new_database() as url:
        async with Database(url) as db:
            record = Record(db)
            cast = await record.cast()
            for _ in range(29):
                team = await record.group(cast.approver)
                await record.template(approver_group_ids=[team.id], escalation_group_id=cast.managers.id)
            await record.execute(
                "INSERT INTO users (id, email, name) SELECT gen_random_uuid(), 'p' || n || '@example.com', 'P'"
                " FROM generate_series(1, 200) AS n"
            )
            snapshot = Jsonb({"auto_approve": False, "custom_fields": [], "mappings": []})
            await record.execute(_FILL, rows=ROWS, snapshot=snapshot)
            await record.execute(_TASK)
            for statement in _ONE_EACH:
                await record.execute(statement)
            for number in range(60):
                await record.submit(cast.template, await record.user(f"asks{number}"))
            await record.execute("VACUUM ANALYZE")
            (database,) = await record.query("SELECT current_database() AS name")
            for setting in _EXPLAINING:
                await record.execute(f'ALTER DATABASE "{database["name"]}" SET {setting}')
        yield url, cast


@pytest.fixture
async def explained(full: tuple[str, Cast]) -> AsyncIterator[Explained]:
    """The full record, as a connection of its own sees it."""
    url, cast = full
    plans: list[Plan] = []

    def keep(notice: Diagnostic) -> None:
        _, _, report = (notice.message_primary or "").partition("plan:\n")
        if report:
            plans.append(Plan.of(json.loads(report)))

    async with Database(url, max_connections=1) as db:
        async with db.connection() as connection:
            connection.add_notice_handler(keep)
            connection.prepare_threshold = 0
        yield Explained(db, cast, plans)


def _person(cast: Cast, *permissions: Permission) -> Person:
    return Person(
        id=cast.approver.id,
        email=cast.approver.email,
        name="Bob",
        active=True,
        principal_id=cast.approver.id,
        group_ids=frozenset({cast.team.id, uuid4()}),
        permissions=frozenset(permissions),
    )


FIRST = Position()
MIDDLE = Position(before=(datetime.now(UTC) - timedelta(minutes=ROWS / 2), uuid4()))

Question = Callable[[Connection, Cast], Awaitable[Any]]
QUESTIONS: dict[str, Question] = {
    "one": lambda c, cast: requests.get(c, uuid4()),  # noqa: ARG005
    "mine": lambda c, cast: requests.list_mine(c, _person(cast), FIRST),
    "mine, further on": lambda c, cast: requests.list_mine(c, _person(cast), MIDDLE),
    "awaiting an approver": lambda c, cast: requests.list_awaiting(c, _person(cast), FIRST),
    "awaiting an approver, further on": lambda c, cast: requests.list_awaiting(c, _person(cast), MIDDLE),
    "awaiting an admin": lambda c, cast: requests.list_awaiting(c, _person(cast, Permission.REQUESTS), FIRST),
    "timeline": lambda c, cast: requests.list_timeline(c, uuid4(), FIRST),  # noqa: ARG005
    "runs of a request": lambda c, cast: run_history.list_of_request(c, uuid4(), FIRST, with_output=True),  # noqa: ARG005
    "runs of a request, further on": lambda c, cast: run_history.list_of_request(  # noqa: ARG005
        c, uuid4(), MIDDLE, with_output=False
    ),
    "thread": lambda c, cast: requests.list_messages(c, uuid4(), FIRST),  # noqa: ARG005
    "thread, further on": lambda c, cast: requests.list_messages(c, uuid4(), MIDDLE),  # noqa: ARG005
    "groups": lambda c, cast: claims.get_groups(c, cast.requester.id),
    "claims": lambda c, cast: claims.get_effective_mapping_values(c, cast.requester.id, cast.application.id),
    "a key": lambda c, cast: transitions.is_done(c, uuid4(), "key"),  # noqa: ARG005
}


def assert_narrow(plan: Plan, *, most_rows: int = _MOST_ROWS) -> None:
    assert not plan.read_whole, plan.text
    assert plan.rows <= most_rows, plan.text


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_read_uses_indexes_and_one_statement(explained: Explained, question: str) -> None:
    assert_narrow(await explained.ask(lambda connection: QUESTIONS[question](connection, explained.cast)))


async def test_the_runs_of_a_task_and_the_timeline_with_its_runs_use_indexes(explained: Explained) -> None:
    (task,) = await Record(explained.db).query("SELECT task_id AS id FROM task_runs LIMIT 1")
    (request,) = await Record(explained.db).query("SELECT request_id AS id FROM task_runs LIMIT 1")
    for position in (FIRST, MIDDLE):
        plan = await explained.ask(
            lambda connection, position=position: run_history.list_of_task(connection, task["id"], position)  # type: ignore[misc]
        )
        assert_narrow(plan, most_rows=FIRST.limit + 1)
    plan = await explained.ask(lambda connection: requests.list_timeline(connection, request["id"], FIRST))
    assert_narrow(plan, most_rows=10)


@pytest.mark.parametrize("status", [None, *Status])
async def test_the_history_uses_indexes_with_any_filters(explained: Explained, status: Status | None) -> None:
    """Those that fit nobody, somebody and everybody: no filter may count on being a narrow one."""
    for template_id, requester, position in product(
        (None, explained.cast.template.id, uuid4()), (None, "nobody@", "p17@", "example"), (FIRST, MIDDLE)
    ):
        plan = await explained.ask(
            lambda connection, template_id=template_id, requester=requester, position=position: requests.list_all(  # type: ignore[misc]
                connection, position, status=status, template_id=template_id, requester=requester
            )
        )
        assert_narrow(plan)


async def test_the_chores_of_the_workers_use_indexes(explained: Explained) -> None:
    for plan in [
        *await explained.do(processes._claim_attention(explained.db)),
        *await explained.do(processes._open_rows(explained.db, uuid4())),
    ]:
        assert_narrow(plan)


async def test_a_change_in_the_directory_finds_the_requests_it_concerns(explained: Explained) -> None:
    async def mark() -> None:
        async with explained.db.session() as session:
            await attention.mark(session, group_ids=[uuid4()], user_ids=[uuid4()])

    (plan,) = await explained.do(mark())
    assert_narrow(plan, most_rows=0)


async def test_what_is_in_use_is_found_by_indexes(explained: Explained) -> None:
    async def refused(change: Awaitable[None]) -> None:
        with contextlib.suppress(TemplateInUse, InUse):
            await change

    db, cast = explained.db, explained.cast
    # Something that many open requests use, and something of which there are only closed ones.
    record = Record(db)
    closed = await record.cast()
    await record.execute(
        """
        UPDATE access_requests SET app_id = %(app)s, template_id = %(template)s, mapping_ids = ARRAY[%(mapping)s]
        WHERE id IN (SELECT id FROM access_requests WHERE status = 'denied' LIMIT %(rows)s)
        """,
        app=closed.application.id,
        template=closed.template.id,
        mapping=closed.mapping.id,
        rows=ROWS // 5,
    )
    await record.execute("ANALYZE access_requests")
    for change in (
        templates.delete(db, cast.template.id),
        applications.delete_mapping(db, cast.mapping.id),
        applications.delete_application(db, cast.application.id),
        applications.delete_mapping(db, closed.mapping.id),
        applications.delete_application(db, closed.application.id),
        tasks.delete(db, (await record.query("SELECT id FROM scheduled_tasks LIMIT 1"))[0]["id"]),
    ):
        plans = [plan for plan in await explained.do(refused(change)) if "FROM access_requests" in plan.text]
        assert plans
        for plan in plans:
            assert_narrow(plan)


async def test_a_step_finds_its_request_and_what_was_recorded_by_indexes(explained: Explained) -> None:
    record = Record(explained.db)
    (one,) = await record.query("SELECT id FROM access_requests WHERE status = 'pending' LIMIT 1")
    refused = Refused(request_id=one["id"], at=None, key="plan", action="approve", code="forbidden", reason="no")
    plans = [
        *await explained.do(transitions.load(explained.db, one["id"])),
        *await explained.do(transitions.record_refusal(explained.db, refused)),
        *await explained.do(record.decide(one["id"], Action.APPROVE, explained.cast.approver)),
        *await explained.do(record.decide(one["id"], Action.REVOKE, explained.cast.admin)),
    ]
    assert len(plans) > 10
    for plan in plans:
        assert_narrow(plan, most_rows=10)


async def test_a_submission_finds_what_stands_in_its_way_by_indexes(explained: Explained) -> None:
    record = Record(explained.db)
    requester = await record.person(await record.user())

    async def earlier() -> None:
        await submission._earlier(explained.db, requester, "key", b"digest")

    for plan in [
        *await explained.do(earlier()),
        *await explained.do(record.submit(explained.cast.template, await record.user())),
    ]:
        assert_narrow(plan, most_rows=10)
