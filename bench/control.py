"""The control: submit and approve as plain FastAPI and PostgreSQL with a polling sweeper.

Most products of this kind are built so. It keeps the same record (request, timeline, grant), asks who calls by a hashed
token, takes one transaction for each call, uses a pool, prepared statements and indexes, and judges the approver's
current membership. It has no durable process: a sweeper ends what is over, every five seconds. What it lacks is the
rest of the product: proofs, notifications, integrations, escalation, events, audit.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID, uuid4

import psycopg
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, Field

SCHEMA: Final = """
CREATE TABLE people (id uuid PRIMARY KEY, email text NOT NULL UNIQUE, token_hash bytea NOT NULL UNIQUE);
CREATE TABLE approvers (group_id uuid, person_id uuid REFERENCES people, PRIMARY KEY (group_id, person_id));
CREATE TABLE templates (id uuid PRIMARY KEY, name text NOT NULL, group_id uuid NOT NULL, longest_mins int NOT NULL);
CREATE TABLE requests (
    id uuid PRIMARY KEY, template_id uuid NOT NULL REFERENCES templates, requester_id uuid NOT NULL REFERENCES people,
    status text NOT NULL DEFAULT 'pending', duration_mins int NOT NULL, justification text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(), decided_by text, decided_at timestamptz, expires_at timestamptz);
CREATE UNIQUE INDEX one_pending ON requests (template_id, requester_id) WHERE status = 'pending';
CREATE INDEX by_requester ON requests (requester_id, created_at DESC, id DESC);
CREATE INDEX due ON requests (expires_at) WHERE status = 'approved';
CREATE TABLE timeline (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, request_id uuid NOT NULL REFERENCES requests,
    kind text NOT NULL, actor text NOT NULL, at timestamptz NOT NULL DEFAULT now(), detail jsonb NOT NULL);
CREATE INDEX of_request ON timeline (request_id, id);
CREATE TABLE grants (request_id uuid PRIMARY KEY REFERENCES requests, person_id uuid NOT NULL, expires_at timestamptz);
CREATE INDEX of_person ON grants (person_id);
"""
_VIEW: Final = """
    SELECT r.id, r.status, r.template_id, t.name AS template_name, p.email AS requester, r.duration_mins,
           r.justification, r.created_at, r.decided_by, r.decided_at, r.expires_at
    FROM requests r JOIN templates t ON t.id = r.template_id JOIN people p ON p.id = r.requester_id
"""
_SWEEP_SECS: Final = 5


class Submission(BaseModel):
    """A request for access."""

    template_id: UUID
    duration_mins: int = Field(ge=1)
    justification: str = Field(max_length=10_000)


class RequestView(BaseModel):
    """A request as clients see it."""

    id: UUID
    status: str
    template_id: UUID
    template_name: str
    requester: str
    duration_mins: int
    justification: str
    created_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    expires_at: datetime | None


async def _transaction(request: Request) -> AsyncIterator[AsyncConnection[DictRow]]:
    async with request.app.state.pool.connection() as connection:
        yield connection


Transaction = Annotated[AsyncConnection[DictRow], Depends(_transaction, scope="function")]


async def _caller(connection: Transaction, authorization: Annotated[str, Header()]) -> dict[str, Any]:
    token = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).digest()
    row = await (await connection.execute("SELECT id, email FROM people WHERE token_hash = %s", [token])).fetchone()
    if row is None:
        raise HTTPException(401, "The token is not known.")
    return row


Caller = Annotated[dict[str, Any], Depends(_caller)]


async def _record(
    connection: AsyncConnection[DictRow], request_id: UUID, kind: str, actor: str, detail: dict[str, str]
) -> None:
    await connection.execute(
        "INSERT INTO timeline (request_id, kind, actor, detail) VALUES (%s, %s, %s, %s)",
        [request_id, kind, actor, Jsonb(detail)],
    )


async def _view(connection: AsyncConnection[DictRow], request_id: UUID) -> RequestView:
    row = await (await connection.execute(f"{_VIEW} WHERE r.id = %s", [request_id])).fetchone()
    return RequestView.model_validate(row)


async def submit(sent: Submission, caller: Caller, connection: Transaction) -> RequestView:
    """Store a pending request."""
    template = await (
        await connection.execute("SELECT longest_mins FROM templates WHERE id = %s FOR SHARE", [sent.template_id])
    ).fetchone()
    if template is None or sent.duration_mins > template["longest_mins"]:
        raise HTTPException(422, "The template does not exist or does not allow this duration.")
    request_id = uuid4()
    try:
        await connection.execute(
            "INSERT INTO requests (id, template_id, requester_id, duration_mins, justification)"
            " VALUES (%s, %s, %s, %s, %s)",
            [request_id, sent.template_id, caller["id"], sent.duration_mins, sent.justification],
        )
    except UniqueViolation as error:
        raise HTTPException(409, "A request for this template is pending.") from error
    await _record(connection, request_id, "submitted", caller["email"], {})
    return await _view(connection, request_id)


async def approve(request_id: UUID, caller: Caller, connection: Transaction) -> RequestView:
    """Grant a pending request, if the caller is an approver and not the requester."""
    row = await (
        await connection.execute(
            """
            SELECT r.requester_id, r.status, EXISTS (
                SELECT FROM approvers a WHERE a.group_id = t.group_id AND a.person_id = %(caller)s) AS may
            FROM requests r JOIN templates t ON t.id = r.template_id WHERE r.id = %(id)s FOR UPDATE OF r
            """,
            {"id": request_id, "caller": caller["id"]},
        )
    ).fetchone()
    if row is None:
        raise HTTPException(404, "There is no such request.")
    if not row["may"] or row["requester_id"] == caller["id"]:
        raise HTTPException(403, "Only approvers decide, and not on their own request.")
    if row["status"] != "pending":
        raise HTTPException(409, "The request is no longer pending.")
    await connection.execute(
        """
        UPDATE requests SET status = 'approved', decided_by = %s, decided_at = now(),
               expires_at = now() + make_interval(mins => duration_mins) WHERE id = %s
        """,
        [caller["email"], request_id],
    )
    await connection.execute(
        "INSERT INTO grants (request_id, person_id, expires_at) SELECT id, requester_id, expires_at FROM requests"
        " WHERE id = %s",
        [request_id],
    )
    await _record(connection, request_id, "approved", caller["email"], {})
    return await _view(connection, request_id)


async def list_mine(caller: Caller, connection: Transaction, limit: int = 50) -> list[RequestView]:
    """The caller's requests, newest first."""
    rows = await connection.execute(
        f"{_VIEW} WHERE r.requester_id = %s ORDER BY r.created_at DESC, r.id DESC LIMIT %s", [caller["id"], limit]
    )
    return [RequestView.model_validate(row) for row in await rows.fetchall()]


async def sweep(pool: AsyncConnectionPool[AsyncConnection[DictRow]]) -> None:
    """End what is over, every few seconds, until cancelled."""
    while True:
        async with pool.connection() as connection:
            ended = await connection.execute(
                """
                UPDATE requests SET status = 'expired' WHERE id IN (
                    SELECT id FROM requests WHERE status = 'approved' AND expires_at <= now()
                    LIMIT 500 FOR UPDATE SKIP LOCKED) RETURNING id
                """
            )
            for row in await ended.fetchall():
                await connection.execute("DELETE FROM grants WHERE request_id = %s", [row["id"]])
                await _record(connection, row["id"], "expired", "sweeper", {})
        await asyncio.sleep(_SWEEP_SECS)


def app() -> FastAPI:
    """Return the application; uvicorn's factory. `BENCH_CONTROL_URL` says where its database is."""

    @asynccontextmanager
    async def lifespan(control: FastAPI) -> AsyncIterator[None]:
        pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            os.environ["BENCH_CONTROL_URL"], kwargs={"row_factory": dict_row}, max_size=10, open=False
        )
        async with pool:
            control.state.pool = pool
            sweeping = asyncio.create_task(sweep(pool))
            yield
            sweeping.cancel()

    control = FastAPI(lifespan=lifespan)
    control.post("/requests", status_code=201)(submit)
    control.post("/requests/{request_id}/approve")(approve)
    control.get("/requests")(list_mine)
    return control


def prepare(url: str, people: list[tuple[UUID, str, str]], approver: UUID) -> UUID:
    """Create the schema, these people (id, address, token) and a template that `approver` decides; return its id."""
    template, group = uuid4(), uuid4()
    with psycopg.connect(url) as connection:
        connection.execute(SCHEMA)
        for person_id, email, token in people:
            connection.execute(
                "INSERT INTO people VALUES (%s, %s, %s)", [person_id, email, hashlib.sha256(token.encode()).digest()]
            )
        connection.execute("INSERT INTO approvers VALUES (%s, %s)", [group, approver])
        connection.execute("INSERT INTO templates VALUES (%s, 'Benchmark', %s, 480)", [template, group])
    return template
