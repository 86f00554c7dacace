"""No question about requests reads the whole table, however many there are."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from activities import processes
from db import claims, requests
from db.database import Connection, Database
from db.paging import Position
from domain.actors import Permission
from domain.deciding import Person
from domain.states import Status
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
           CASE WHEN s.status IN ('pending', 'approved') THEN NULL ELSE now() END, now() - n * interval '1 minute', NULL
    FROM generate_series(1, %(rows)s) AS n
    JOIN (SELECT *, row_number() OVER (ORDER BY id) - 1 AS nth, count(*) OVER () AS many FROM users) u
      ON u.nth = n %% u.many
    JOIN (SELECT *, row_number() OVER (ORDER BY id) - 1 AS nth, count(*) OVER () AS many
          FROM access_request_templates) t
      ON t.nth = (n / 7) %% t.many
    CROSS JOIN LATERAL (SELECT CASE WHEN n %% 100 = 1 THEN 'approved'
                                    ELSE (ARRAY['denied', 'revoked', 'expired'])[1 + n %% 3] END AS status) s
"""


@pytest.fixture(scope="module")
async def full(new_database: Databases) -> AsyncIterator[tuple[Database, Cast]]:
    """Twenty thousand requests of two hundred people for thirty templates; some of them are open."""
    with new_database() as url:
        async with Database(url) as db:
            record = Record(db)
            cast = await record.cast()
            for _ in range(29):
                await record.template(approver_group_ids=[(await record.group(cast.approver)).id])
            await record.execute(
                "INSERT INTO users (id, email, name) SELECT gen_random_uuid(), 'p' || n || '@example.com', 'P'"
                " FROM generate_series(1, 200) AS n"
            )
            snapshot = Jsonb({"auto_approve": False, "custom_fields": [], "mappings": []})
            await record.execute(_FILL, rows=ROWS, snapshot=snapshot)
            await record.execute(
                "INSERT INTO access_request_timeline (request_id, kind, actor, verified)"
                " SELECT id, 'refused', 'somebody', true FROM access_requests"
            )
            for number in range(60):
                user = await record.user(f"asks{number}")
                await record.submit(cast.template, user)
            await record.execute("VACUUM ANALYZE")
            yield db, cast


class Asked:
    """A connection that explains what it is asked, beside answering it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plans: list[str] = []

    async def execute(self, statement: Any, parameters: Any = None) -> AsyncCursor[DictRow]:
        rows = await self._connection.execute(f"EXPLAIN {statement}", parameters)
        self.plans.append("\n".join(row["QUERY PLAN"] for row in await rows.fetchall()))
        return await self._connection.execute(statement, parameters)


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


Question = Callable[[Any, Cast], Awaitable[Any]]
QUESTIONS: dict[str, Question] = {
    "one": lambda c, cast: requests.get(c, uuid4()),  # noqa: ARG005
    "mine": lambda c, cast: requests.list_mine(c, _person(cast), Position()),
    "awaiting an approver": lambda c, cast: requests.list_awaiting(c, _person(cast), Position()),
    "awaiting an admin": lambda c, cast: requests.list_awaiting(c, _person(cast, Permission.REQUESTS), Position()),
    "all": lambda c, cast: requests.list_all(c, Position()),  # noqa: ARG005
    "by template": lambda c, cast: requests.list_all(c, Position(), template_id=cast.template.id),
    "by requester": lambda c, cast: requests.list_all(c, Position(), requester="p17"),  # noqa: ARG005
    "by all three": lambda c, cast: requests.list_all(
        c, Position(), status=Status.DENIED, template_id=cast.template.id, requester="p17"
    ),
    **{
        f"by status {status}": lambda c, cast, status=status: requests.list_all(c, Position(), status=status)  # type: ignore[misc] # noqa: ARG005
        for status in Status
    },
    "timeline": lambda c, cast: requests.list_timeline(c, uuid4(), Position()),  # noqa: ARG005
    "thread": lambda c, cast: requests.list_messages(c, uuid4(), Position()),  # noqa: ARG005
    "groups": lambda c, cast: claims.get_groups(c, cast.requester.id),
    "claims": lambda c, cast: claims.get_effective_mapping_values(c, cast.requester.id, cast.application.id),
}


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_read_uses_indexes_and_one_statement(full: tuple[Database, Cast], question: str) -> None:
    db, cast = full
    async with db.connection() as connection:
        asked = Asked(connection)
        await QUESTIONS[question](asked, cast)
    assert len(asked.plans) == 1
    assert not re.search(r"Seq Scan on (access_requests|access_request_timeline)\b", asked.plans[0]), asked.plans[0]


async def test_the_chores_of_the_workers_use_indexes(
    full: tuple[Database, Cast], monkeypatch: pytest.MonkeyPatch
) -> None:
    db, _ = full
    plans: list[str] = []
    original = AsyncConnection.execute

    async def explained(self: Any, statement: Any, parameters: Any = None, **more: Any) -> Any:
        rows = await original(self, f"EXPLAIN {statement}", parameters)
        plans.append("\n".join(row["QUERY PLAN"] for row in await rows.fetchall()))
        return await original(self, statement, parameters, **more)

    monkeypatch.setattr(AsyncConnection, "execute", explained)
    await processes._claim_attention(db)
    await processes._open_rows(db, uuid4())
    monkeypatch.undo()
    assert len(plans) == 2
    for plan in plans:
        assert "Seq Scan on access_requests" not in plan, plan
