"""How many statements a read takes does not depend on how many rows it shows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Final

import psycopg
from fastapi import FastAPI

from bench.statements import ask_each, reading_paths, some_ids
from db import tokens
from domain.actors import Permission
from tests.api.house import House, open_house

FEW, MANY = 2, 30
_OF_TEMPORAL: Final = "/api/v1/scheduled-tasks/{task_id}/next-runs"
"""Answered by Temporal, which is not there."""
_OF_SCIM: Final = ("/scim/v2/ServiceProviderConfig", "/scim/v2/ResourceTypes", "/scim/v2/Schemas")
"""Answered by what the service is."""

_RUNS: Final = """
    INSERT INTO task_runs (
        id, task_id, task_name, cause, request_id, timeline_id, failure_mode, status, attempt, output, output_truncated)
    SELECT gen_random_uuid(), t.id, t.name, 'trigger', l.request_id, l.id, 'ignore', 'succeeded', 1, 'done', false
    FROM access_request_timeline l, (SELECT id, name FROM scheduled_tasks LIMIT 1) t
    WHERE l.request_id = %(request)s
"""
_EACH: Final = (
    """
    INSERT INTO access_request_timeline (request_id, kind, actor, verified)
    SELECT %(request)s, 'refused', 'somebody', true FROM generate_series(1, %(rows)s)
    """,
    """
    INSERT INTO access_request_messages (id, request_id, author_id, body)
    SELECT gen_random_uuid(), %(request)s, %(asker)s, 'hello' FROM generate_series(1, %(rows)s)
    """,
    """
    INSERT INTO scheduled_tasks (
        id, name, description, task_type, language, language_given, script, schedule_type, time_zone, max_retries,
        timeout_seconds, network, paused)
    SELECT gen_random_uuid(), 'task ' || n, '', 'script', 'python', false, 'def run(): ...', 'once', 'UTC', 3, 60, true,
           false
    FROM generate_series(1, %(rows)s) n
    """,
    _RUNS,
    """
    INSERT INTO secrets (id, name, description, sealed)
    SELECT gen_random_uuid(), 'SECRET_' || n, '', '' FROM generate_series(1, %(rows)s) n
    """,
    """
    INSERT INTO integrations (id, name, target, enabled, events)
    SELECT gen_random_uuid(), 'mail ' || n, 'email', true, '{access_request.submitted}'
    FROM generate_series(1, %(rows)s) n
    """,
    """
    INSERT INTO deliveries (id, integration_id, target, event, payload, request_id, status, attempts)
    SELECT gen_random_uuid(), i.id, 'email', 'access_request.submitted', '{}', %(request)s, 'delivered', 1
    FROM generate_series(1, %(rows)s), integrations i
    """,
)


async def furnish(house: House, rows: int) -> tuple[str, dict[str, str]]:
    """So many of everything, also of what one request has and of what one person is in.

    Returns:
        The token of somebody who sees all of it, and ids for what a path may name.
    """
    boss = await house.person("boss", *Permission)
    asker = await house.person("asker")
    team = await house.group("team", boss, *[await house.person(f"approver{number}") for number in range(rows)])
    app = await house.application()
    mappings = [await house.mapping(app.id, f"mapping {number}") for number in range(rows)]
    request_id = None
    for number in range(rows):
        group = await house.group(f"group {number}", asker, boss)
        async with house.db.connection() as connection:
            await connection.execute(
                "INSERT INTO app_mapping_groups (mapping_id, group_id) VALUES (%s, %s)", [mappings[number].id, group.id]
            )
        template = await house.template(
            app_id=app.id, mapping_ids=[each.id for each in mappings], approver_group_ids=[team.id]
        )
        request_id = await house.request(template, asker)
        await house.request(await house.template(approver_group_ids=[group.id]), boss)
        await house.application(f"application {number}")
        await tokens.create_token(house.db, boss.id, f"laptop {number}", timedelta(days=1))
    with psycopg.connect(house.url) as connection:
        for statement in _EACH:
            connection.execute(statement.encode(), {"rows": rows, "request": request_id, "asker": asker.id})
        return boss.token, some_ids(connection)


async def test_a_page_of_thirty_takes_the_statements_of_a_page_of_two(
    new_database: Callable[[], AbstractContextManager[str]], application: FastAPI
) -> None:
    taken: dict[int, dict[str, list[str]]] = {}
    for rows in (FEW, MANY):
        with new_database() as url:
            async with open_house(url, application) as house:
                token, ids = await furnish(house, rows)
                taken[rows] = {}
                async for asked in ask_each(application, token, ids):
                    assert asked.answer.status_code == 200 or asked.endpoint == _OF_TEMPORAL, asked.answer.text
                    if not asked.endpoint.startswith(_OF_SCIM):
                        assert asked.items is None or asked.items >= rows, asked.endpoint
                        # Who calls is a question too.
                        assert len(asked.statements) > 1, asked.endpoint
                    taken[rows][asked.endpoint] = asked.statements
    assert taken[MANY].keys() == reading_paths(application).keys()
    assert {path: len(sent) for path, sent in taken[MANY].items()} == {
        path: len(sent) for path, sent in taken[FEW].items()
    }
