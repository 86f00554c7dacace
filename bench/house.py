"""The people, tokens and templates that a benchmark uses, in the service and in the control."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from activities import setup
from bench import control
from bench.servers import process, wait_for
from bench.stacks import Stack
from bench.table import Table
from cli.dev.program import free_port
from db import tokens
from db.database import Database

MANY: Final = 64
"""Clients at once, where there are many."""
_CONTROL_DATABASE: Final = "bench_control"


@dataclass
class Bench:
    """Servers that run, the people who use them, and where results go."""

    db: Database
    client: Client
    table: Table
    api_port: int
    floor_port: int
    control_port: int
    requesters: list[tuple[UUID, str]] = field(default_factory=list)
    """Ids and tokens."""
    approver: str = ""
    template_id: UUID = field(default_factory=uuid4)
    control_template_id: UUID = field(default_factory=uuid4)

    @property
    def submission(self) -> dict[str, object]:
        """The body of a submission."""
        return {
            "template_id": str(self.template_id),
            "requested_duration_mins": 480,
            "justification": "Need access to debug the production incident.",
        }

    @property
    def control_submission(self) -> dict[str, object]:
        """The body of a submission to the control."""
        return {
            "template_id": str(self.control_template_id),
            "duration_mins": 480,
            "justification": "Need access to debug the production incident.",
        }


@asynccontextmanager
async def furnished(stack: Stack, directory: Path, table: Table) -> AsyncIterator[Bench]:
    """Start the floor and the control beside the servers, and fill both records."""
    control_url = _beside(stack.database_url, _CONTROL_DATABASE)
    floor_port, control_port = free_port(), free_port()
    environment = os.environ | {
        "JUSTIAM_DATABASE_URL": stack.database_url,
        "JUSTIAM_TEMPORAL_ADDRESS": stack.temporal_address,
        "BENCH_CONTROL_URL": control_url,
    }
    async with AsyncExitStack() as running:
        db = await running.enter_async_context(Database(stack.database_url))
        client = await Client.connect(stack.temporal_address, data_converter=pydantic_data_converter)
        await setup.ensure(client, timedelta(minutes=5))
        bench = Bench(db, client, table, stack.api_port, floor_port, control_port)
        await _fill(bench)
        approver = (uuid4(), "approver@example.com", bench.approver)
        people = [
            (user_id, f"user-{number}@example.com", token) for number, (user_id, token) in enumerate(bench.requesters)
        ]
        bench.control_template_id = control.prepare(control_url, [*people, approver], approver[0])
        for name, command in (
            ("floor-worker", [sys.executable, "-m", "bench.floor"]),
            ("floor", _uvicorn("bench.floor:app", floor_port)),
            ("control", _uvicorn("bench.control:app", control_port)),
        ):
            running.enter_context(process(command, environment, output=directory / f"{name}.output"))
        await wait_for(floor_port, control_port)
        yield bench


def _uvicorn(application: str, port: int) -> list[str]:
    """Return the command that serves an application as the product serves its own."""
    options = ["--factory", f"--port={port}", "--loop=uvloop", "--http=httptools", "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", application, "--log-level=warning", *options]


def _beside(url: str, database: str) -> str:
    """Create another database on the same server; return its URL."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    return urlsplit(url)._replace(path=f"/{database}").geturl()


async def _fill(bench: Bench) -> None:
    """Make sixty-four requesters, an approver, and a template with nothing bound to it."""
    group, app, mapping, approver = uuid4(), uuid4(), uuid4(), uuid4()
    people = [(uuid4(), f"user-{number}@example.com") for number in range(MANY)]
    async with bench.db.transaction() as connection:
        for user_id, email in [*people, (approver, "approver@example.com")]:
            await connection.execute("INSERT INTO users (id, email, name) VALUES (%s, %s, %s)", [user_id, email, email])
        await connection.execute("INSERT INTO groups (id, name, description) VALUES (%s, 'approvers', '')", [group])
        await connection.execute("INSERT INTO group_members (group_id, user_id) VALUES (%s, %s)", [group, approver])
        await connection.execute(
            "INSERT INTO applications (id, name, description) VALUES (%s, 'Internal DB', '')", [app]
        )
        await connection.execute(
            "INSERT INTO app_mappings (id, app_id, name, claim, value) VALUES (%s, %s, 'role', 'roles', 'reader')",
            [mapping, app],
        )
        await connection.execute(
            """
            INSERT INTO access_request_templates (
                id, name, description, app_id, mapping_ids, approver_group_ids, prefer_requester_groups,
                require_justification, auto_approve, notification_policy, notification_count,
                trigger_task_failure_mode)
            VALUES (%s, 'Benchmark', '', %s, %s, %s, false, true, false, 'all', 1, 'ignore')
            """,
            [bench.template_id, app, [mapping], [group]],
        )
    bench.requesters = [
        (user_id, (await tokens.create_token(bench.db, user_id, "bench", None)).token) for user_id, _ in people
    ]
    bench.approver = (await tokens.create_token(bench.db, approver, "bench", None)).token
