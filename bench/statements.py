"""Counts the SQL statements that each reading endpoint sends."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

import httpx
import psycopg
from fastapi import FastAPI

IDS: Final = {
    "request_id": "SELECT request_id FROM access_request_timeline GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1",
    "template_id": "SELECT id FROM access_request_templates ORDER BY created_at, id LIMIT 1",
    "user_id": "SELECT user_id FROM group_members GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1",
    "group_id": "SELECT m.group_id FROM group_members m JOIN groups g ON g.id = m.group_id AND NOT g.system"
    " GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1",
    "app_id": "SELECT app_id FROM app_mappings GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1",
    "mapping_id": "SELECT id FROM app_mappings ORDER BY id LIMIT 1",
    "task_id": "SELECT task_id FROM task_runs ORDER BY id LIMIT 1",
    "run_id": "SELECT id FROM task_runs ORDER BY id LIMIT 1",
    "integration_id": "SELECT id FROM integrations ORDER BY id LIMIT 1",
    "secret_id": "SELECT id FROM secrets ORDER BY id LIMIT 1",
    "name": "SELECT 'User'",
    "uri": "SELECT 'urn:ietf:params:scim:schemas:core:2.0:User'",
}
"""What a path may name, as a record has most of it."""


_NOTING: Final = "UPDATE api_tokens SET last_used_at"
"""That a token was used is noted once a minute, by whichever call happens to come first."""


@dataclass(frozen=True)
class Asked:
    """One call of an endpoint."""

    endpoint: str
    answer: httpx.Response
    statements: list[str]

    @property
    def items(self) -> int | None:
        """How many rows were on the page; None where it is not one."""
        document = self.answer.json()
        # A list of SCIM's has one of these instead.
        found = [document[name] for name in ("items", "Resources") if isinstance(document, dict) and name in document]
        return len(found[0]) if found else None


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that this process sends meanwhile, through sessions or not.

    But for those that begin and end transactions, which the driver sends by itself.
    """
    sent: list[str] = []
    execute = psycopg.AsyncCursor.execute

    async def note(
        cursor: psycopg.AsyncCursor[Any],
        query: Any,  # noqa: ANN401 - as the driver has it
        *arguments: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> psycopg.AsyncCursor[Any]:
        sent.append(str(query))
        return await execute(cursor, query, *arguments, **options)

    with patch.object(psycopg.AsyncCursor, "execute", note):
        yield sent


def some_ids(connection: psycopg.Connection) -> dict[str, str]:
    """Something for each id that a path may name, where the record has it."""
    found = {name: connection.execute(statement.encode()).fetchone() for name, statement in IDS.items()}
    return {name: str(row[0]) for name, row in found.items() if row is not None}


def reading_paths(app: FastAPI) -> dict[str, list[str]]:
    """The paths of the OpenAPI document that can be read, each with the names of what it must be given."""
    return {
        path: [parameter["name"] for parameter in operations["get"].get("parameters", ()) if parameter["required"]]
        for path, operations in app.openapi()["paths"].items()
        if "get" in operations
    }


def _has_pages(app: FastAPI, path: str) -> bool:
    parameters: list[dict[str, Any]] = app.openapi()["paths"][path]["get"].get("parameters", [])
    return any(parameter["name"] == "limit" for parameter in parameters)


async def ask_each(app: FastAPI, token: str, ids: Mapping[str, str]) -> AsyncIterator[Asked]:
    """Call every endpoint that can be read and for which there are ids, with the largest page that there is."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test", headers=headers) as client:
        for path, required in reading_paths(app).items():
            if not ids.keys() >= set(required):
                continue
            given = {name: ids[name] for name in required if f"{{{name}}}" not in path}
            if _has_pages(app, path):
                given["limit"] = "200"
            with counted() as sent:
                answer = await client.get(path.format_map(ids), params=given)
            yield Asked(path, answer, [statement for statement in sent if _NOTING not in statement])


def print_table(counts: Mapping[str, int]) -> None:
    """For people."""
    for endpoint, count in counts.items():
        sys.stdout.write(f"GET {endpoint:<60}{count:>3}\n")
