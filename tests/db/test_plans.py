"""No question about requests reads the whole table, however many there are.

PostgreSQL reports the plans it really runs, with the rows they look at (`auto_explain`): also where a statement is
prepared, and planned once for all values.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.errors import Diagnostic

from activities import processes
from api.app import create_app
from api.orchestrator import Orchestrator
from bench.populate import HISTORY, populate
from bench.statements import ask_each, reading_paths, some_ids
from db import (
    applications,
    attention,
    audit_log,
    claims,
    overview,
    people,
    pruning,
    requests,
    run_history,
    submission,
    tasks,
    templates,
    tokens,
    transitions,
)
from db.database import Connection, Database
from db.paging import Position
from domain.actors import Permission
from domain.audit_log import Kind
from domain.deciding import Person
from domain.errors import InUse, TemplateInUse
from domain.states import Action, Status
from domain.transitions import Refused
from tests.api.house import settings
from tests.conftest import Databases
from tests.record import Record

ROWS = 30_000
_UNANSWERED = 0.4
"""Of the requests of the last three months: more are open than where people answer, so that it shows who reads all."""
_LEFT = "UPDATE users SET email = 'left.' || email WHERE NOT active"
"""More people than a list would ask for one by one, and nothing of theirs is new."""
_ATTENTION = """
    UPDATE access_requests SET attention_at = now() - interval '1 minute'
    WHERE id IN (SELECT id FROM access_requests WHERE status = 'pending' ORDER BY id LIMIT 100)
"""
_TASK = """
    INSERT INTO scheduled_tasks (
        id, name, description, task_type, language, language_given, script, schedule_type, time_zone, max_retries,
        timeout_seconds, network, paused)
    SELECT gen_random_uuid(), 'task ' || n, '', 'script', 'python', false, 'def run(): ...', 'once', 'UTC', 3, 60, true,
           false
    FROM generate_series(1, 30) AS n
"""
_RUN_EACH = """
    INSERT INTO task_runs (
        id, task_id, task_name, cause, request_id, timeline_id, failure_mode, status, attempt, output, output_truncated,
        created_at, finished_at)
    SELECT gen_random_uuid(), t.id, t.name, 'trigger', l.request_id, l.id, 'ignore', 'succeeded', 1, 'done', false,
           l.at, l.at
    FROM access_request_timeline l
    JOIN (SELECT id, name, row_number() OVER (ORDER BY id) - 1 AS nth FROM scheduled_tasks) t ON t.nth = l.id %% 30
    WHERE l.kind = 'submitted'
"""
_CHANGES = """
    INSERT INTO audit_log (id, at, actor, action, kind, object_id, entry, hash)
    SELECT said.*, (to_jsonb(said) || '{"request_id": null, "before": {}, "after": {}}')::text, ''
    FROM (SELECT max(id) AS last FROM audit_log) l, generate_series(1, 60000) AS n, LATERAL (SELECT
        l.last + n AS id, now() - (60000 - n) * interval '1 minute' AS at,
        CASE WHEN n < 25000 THEN 'left@example.com' WHEN n %% 2 = 0 THEN 'busy@example.com'
             ELSE 'admin-' || n %% 50 || '@example.com' END AS actor,
        'update' AS action,
        CASE WHEN n %% 20000 = 0 THEN 'secrets' WHEN n < 20000 THEN 'access_request_templates'
             WHEN n %% 3 = 0 THEN 'groups' ELSE 'group_members' END AS kind,
        CASE WHEN n %% 4 = 0 THEN 'often' WHEN n < 10000 THEN 'once' ELSE 'object ' || n %% 5000 END AS object_id
    ) AS said
"""
"""Somebody who made much, long ago; somebody who makes half of it; kinds and things that are rare, or once were not."""
_POPULAR = """
    SELECT t.id, t.app_id, t.mapping_ids[1] AS mapping_id FROM access_request_templates t
    WHERE NOT t.auto_approve AND t.approver_group_ids <> '{}'
    ORDER BY (SELECT count(*) FROM access_requests r WHERE r.template_id = t.id) DESC LIMIT 1
"""
_WHO_ASKS_MOST = "SELECT requester_id::text AS id FROM access_requests GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
_WHO_IS_ASKED_MOST = """
    SELECT m.user_id::text AS id FROM access_requests r JOIN group_members m ON m.group_id = ANY(r.approver_group_ids)
    WHERE r.status = 'pending' GROUP BY 1 ORDER BY count(*) DESC LIMIT 1
"""
_WHO_ADMINISTERS = """
    SELECT m.user_id FROM group_members m JOIN groups g ON g.id = m.group_id
    WHERE 'access_requests.manage' = ANY(g.permissions) ORDER BY m.joined LIMIT 1
"""
_NOT_HERE = ("/api/v1/integrations/", "/api/v1/secrets/", "/api/v1/scheduled-tasks/{task_id}/next-runs")
_EXPLAINING = (
    "session_preload_libraries = 'auto_explain'",
    "auto_explain.log_min_duration = 0",
    "auto_explain.log_analyze = on",
    "auto_explain.log_buffers = on",
    "auto_explain.log_timing = off",
    "auto_explain.log_format = 'json'",
    "client_min_messages = 'log'",
)
_BIG = {"access_requests", "access_request_timeline", "access_request_messages", "task_runs", "audit_log"}
_MOST_ROWS = 2_500
"""What a read may look at: all that is open, if need be, but never the history."""
_MOST_ROWS_SOUGHT = 7_500
"""And a search for people: the newest 2,000, and a page of each whom it finds."""
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
class Busy:
    """Who and what has more rows than others."""

    asker: Person
    approver: Person
    template_id: UUID
    mapping_id: UUID
    app_id: UUID

    @classmethod
    async def of(cls, record: Record) -> Busy:
        (template,) = await record.query(_POPULAR)
        found = []
        for statement in (_WHO_ASKS_MOST, _WHO_IS_ASKED_MOST):
            (row,) = await record.query(statement)
            async with record.db.connection() as connection:
                found.append(await people.find(connection, row["id"]))
        asker, approver = found
        assert asker is not None
        assert approver is not None
        return cls(asker, approver, template["id"], template["mapping_id"], template["app_id"])


@dataclass(frozen=True)
class Explained:
    """A record on one connection, whose plans are kept."""

    db: Database
    busy: Busy
    plans: list[Plan]

    async def ask(self, question: Callable[[Connection], Awaitable[Any]], *, prepared: bool = True) -> Plan:
        """How a question is answered when it has been asked for a while; always by one statement."""
        async with self.db.connection() as connection:
            for _ in range(_UNTIL_GENERIC if prepared else 1):
                self.plans.clear()
                await question(connection)
                assert len(self.plans) == 1
        return self.plans[0]

    async def plans_of(self, work: Awaitable[Any]) -> list[Plan]:
        """Everything that is asked for some work."""
        self.plans.clear()
        await work
        return list(self.plans)

    async def do(self, change: Awaitable[Any]) -> list[Plan]:
        """What a change asks about requests."""
        return [plan for plan in await self.plans_of(change) if "access_request" in plan.text]


@pytest.fixture(scope="module")
async def full(new_database: Databases) -> AsyncIterator[tuple[str, Busy]]:
    """What three years leave behind, and a run of a task for each request."""
    with new_database() as url:
        await asyncio.to_thread(populate, url, requests=ROWS, unanswered=_UNANSWERED, vacuum=False)
        async with Database(url) as db:
            record = Record(db)
            for statement in (_LEFT, _ATTENTION, _TASK, _RUN_EACH, _CHANGES, "VACUUM ANALYZE"):
                await record.execute(statement)
            (database,) = await record.query("SELECT current_database() AS name")
            for setting in _EXPLAINING:
                await record.execute(f'ALTER DATABASE "{database["name"]}" SET {setting}')
            busy = await Busy.of(record)
        yield url, busy


@pytest.fixture
async def explained(full: tuple[str, Busy]) -> AsyncIterator[Explained]:
    """The full record, as a connection of its own sees it."""
    url, busy = full
    plans: list[Plan] = []

    def keep(notice: Diagnostic) -> None:
        _, _, report = (notice.message_primary or "").partition("plan:\n")
        # A function that the planner evaluates, of a constant value, is reported as well. It reads nothing.
        if report and (told := json.loads(report))["Plan"]["Node Type"] != "Result":
            plans.append(Plan.of(told))

    async with Database(url, max_connections=1) as db:
        async with db.connection() as connection:
            connection.add_notice_handler(keep)
            connection.prepare_threshold = 0
        yield Explained(db, busy, plans)


def _as_admin(person: Person) -> Person:
    return replace(person, permissions=frozenset({Permission.REQUESTS}))


FIRST = Position()
MIDDLE = Position(before=(datetime.now(UTC) - HISTORY / 2, uuid4()))

Question = Callable[[Connection, Busy], Awaitable[Any]]
QUESTIONS: dict[str, Question] = {
    "one": lambda c, busy: requests.get(c, uuid4()),  # noqa: ARG005
    "mine": lambda c, busy: requests.list_mine(c, busy.asker, FIRST),
    "mine, further on": lambda c, busy: requests.list_mine(c, busy.asker, MIDDLE),
    "awaiting an approver": lambda c, busy: requests.list_awaiting(c, busy.approver, FIRST),
    "awaiting an approver, further on": lambda c, busy: requests.list_awaiting(c, busy.approver, MIDDLE),
    "awaiting an admin": lambda c, busy: requests.list_awaiting(c, _as_admin(busy.approver), FIRST),
    "timeline": lambda c, busy: requests.list_timeline(c, uuid4(), FIRST),  # noqa: ARG005
    "runs of a request": lambda c, busy: run_history.list_of_request(c, uuid4(), FIRST, with_output=True),  # noqa: ARG005
    "runs of a request, further on": lambda c, busy: run_history.list_of_request(  # noqa: ARG005
        c, uuid4(), MIDDLE, with_output=False
    ),
    "thread": lambda c, busy: requests.list_messages(c, uuid4(), FIRST),  # noqa: ARG005
    "thread, further on": lambda c, busy: requests.list_messages(c, uuid4(), MIDDLE),  # noqa: ARG005
    "groups": lambda c, busy: claims.get_groups(c, busy.asker.id),
    "claims": lambda c, busy: claims.get_effective_mapping_values(c, busy.asker.id, busy.app_id),
    "a key": lambda c, busy: transitions.is_done(c, uuid4(), "key"),  # noqa: ARG005
}


def assert_narrow(plan: Plan, *, most_rows: int = _MOST_ROWS) -> None:
    assert not plan.read_whole, plan.text
    assert plan.rows <= most_rows, plan.text


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_read_uses_indexes_and_one_statement(explained: Explained, question: str) -> None:
    assert_narrow(await explained.ask(lambda connection: QUESTIONS[question](connection, explained.busy)))


async def test_no_endpoint_reads_a_big_table_whole(explained: Explained, full: tuple[str, Busy]) -> None:
    """Each that the OpenAPI document has, asked by somebody who sees everything."""
    app = create_app(settings(full[0]))
    app.state.database, app.state.issuers = explained.db, None
    app.state.orchestrator = Orchestrator(app.state.settings)
    with psycopg.connect(full[0]) as connection:
        ids = some_ids(connection)
        (admin,) = connection.execute(_WHO_ADMINISTERS).fetchall()
    token = await tokens.create_token(explained.db, admin[0], "plans", timedelta(days=1))
    explained.plans.clear()
    asked = {each.endpoint async for each in ask_each(app, token.token, ids)}
    # There are no integrations and secrets here.
    assert {path for path in reading_paths(app) if not path.startswith(_NOT_HERE)} <= asked
    assert len(explained.plans) > len(asked)
    for plan in explained.plans:
        assert not plan.read_whole, plan.text


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


async def test_what_is_old_is_found_by_its_age(explained: Explained) -> None:
    """A batch at a time; and where all that is old is gone, nothing is looked at."""

    async def forget(connection: Connection) -> None:
        async with connection.transaction(force_rollback=True):
            await pruning.forget_some(connection, "task_runs", timedelta(days=400))

    plan = await explained.ask(forget)
    assert_narrow(plan, most_rows=4 * pruning._BATCH)

    async def look(connection: Connection) -> None:
        await pruning.forget_some(connection, "task_runs", timedelta(days=4_000))

    assert_narrow(await explained.ask(look), most_rows=10)


@pytest.mark.parametrize("status", [None, *Status])
async def test_the_history_uses_indexes_with_any_filters(explained: Explained, status: Status | None) -> None:
    """Those that fit nobody, somebody, many who left and everybody: no filter may count on being a narrow one."""
    busy = explained.busy
    for template_id, requester, position in product(
        (None, busy.template_id, uuid4()), (None, "nobody@", busy.asker.email, "left.", "example"), (FIRST, MIDDLE)
    ):
        plan = await explained.ask(
            lambda connection, template_id=template_id, requester=requester, position=position: requests.list_all(  # type: ignore[misc]
                connection, position, status=status, template_id=template_id, requester=requester
            ),
            # A search is planned each time.
            prepared=requester is None,
        )
        assert_narrow(plan, most_rows=_MOST_ROWS if requester is None else _MOST_ROWS_SOUGHT)


async def test_the_history_uses_indexes_for_an_application_and_for_days(explained: Explained) -> None:
    (busiest,) = await Record(explained.db).query(
        "SELECT app_id FROM access_requests GROUP BY app_id ORDER BY count(*) DESC LIMIT 1"
    )
    long_ago = datetime.now(UTC) - timedelta(days=400)
    for app_id in (None, busiest["app_id"], uuid4()):
        for since, until in ((None, None), (long_ago, long_ago + timedelta(days=1)), (long_ago, None)):
            plan = await explained.ask(
                lambda connection, app_id=app_id, since=since, until=until: requests.list_all(  # type: ignore[misc]
                    connection, FIRST, app_id=app_id, since=since, until=until
                )
            )
            assert_narrow(plan)


@pytest.mark.parametrize("kinds", [list(Kind), [Kind.TEMPLATES], [Kind.SECRETS], [Kind.GROUPS]])
async def test_the_audit_log_reads_what_it_shows_with_any_filters(explained: Explained, kinds: list[Kind]) -> None:
    """Also where what is looked for is rare, or long ago, or nowhere near what else is looked for."""
    now = datetime.now(UTC)
    long_ago = now - timedelta(minutes=45_000)
    middle = Position(before_number=30_000)
    for actor, object_id, (since, until), position in product(
        (None, "left@example.com", "busy@example.com", "nobody"),
        (None, "often", "once", "nothing"),
        ((None, None), (long_ago, None), (None, long_ago), (long_ago, long_ago + timedelta(days=1)), (now, long_ago)),
        (FIRST, middle),
    ):
        (plan,) = await explained.plans_of(
            audit_log.list_entries(
                explained.db, position, kinds=kinds, actor=actor, object_id=object_id, since=since, until=until
            )
        )
        # A page of each kind, and the entry that the page before ended with, which is asked for by time and by number.
        assert_narrow(plan, most_rows=len(kinds) * (position.limit + 1) + 2)


async def test_the_overview_reads_what_is_open_and_the_last_days(explained: Explained) -> None:
    async def look() -> None:
        async with explained.db.connection() as connection:
            await overview.overview(connection)

    plans = await explained.do(look())
    assert len(plans) == 3
    for plan in plans:
        assert not plan.read_whole, plan.text


async def test_what_a_template_never_had_is_not_looked_for_in_all_it_had(explained: Explained) -> None:
    (automatic,) = await Record(explained.db).query(
        "SELECT id FROM access_request_templates WHERE auto_approve ORDER BY id LIMIT 1"
    )
    for status in (Status.DENIED, Status.PENDING):
        plan = await explained.ask(
            lambda connection, status=status: requests.list_all(  # type: ignore[misc]
                connection, FIRST, status=status, template_id=automatic["id"]
            )
        )
        assert_narrow(plan, most_rows=0)


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

    db, busy = explained.db, explained.busy
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
        templates.delete(db, busy.template_id),
        applications.delete_mapping(db, busy.mapping_id),
        applications.delete_application(db, busy.app_id),
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
    cast = await record.cast()
    request_id = await record.submit(cast.template, cast.requester)
    refused = Refused(request_id=request_id, at=None, key="plan", action="approve", code="forbidden", reason="no")
    plans = [
        *await explained.do(transitions.load(explained.db, request_id)),
        *await explained.do(transitions.record_refusal(explained.db, refused)),
        *await explained.do(record.decide(request_id, Action.APPROVE, cast.approver)),
        *await explained.do(record.decide(request_id, Action.REVOKE, cast.admin)),
    ]
    assert len(plans) > 10
    for plan in plans:
        assert_narrow(plan, most_rows=10)


async def test_a_submission_finds_what_stands_in_its_way_by_indexes(explained: Explained) -> None:
    record = Record(explained.db)
    cast = await record.cast()
    requester = await record.person(await record.user())

    async def earlier() -> None:
        await submission._earlier(explained.db, requester, "key", b"digest")

    for plan in [
        *await explained.do(earlier()),
        *await explained.do(record.submit(cast.template, cast.requester)),
    ]:
        assert_narrow(plan, most_rows=10)
