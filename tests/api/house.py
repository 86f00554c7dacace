"""The service over HTTP on a database of its own, and short ways to fill it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.issuers import Issuers
from api.orchestrator import Orchestrator
from api.signing import KeyRing
from db import administrators, applications, groups, tasks, templates, tokens, transitions, users
from db.administrators import OPERATOR
from db.applications import ApplicationView, MappingView
from db.database import Database
from db.groups import GroupView
from db.signing_keys import Vault
from db.tasks import TaskView
from db.templates import TemplateView
from domain.actors import Permission
from domain.directory import ApplicationValues, GroupValues, MappingValues, UserValues
from domain.proofs import ProofKey
from domain.states import Action
from domain.tasks import TaskValues
from domain.templates import TemplateValues
from domain.transitions import Channel, Transition
from settings import Settings

SECRET = "a secret that is long enough for a test"
MAX_BODY_BYTES = 65_536
LONGEST_MINS = 43_200


def settings(database_url: str) -> Settings:
    # Nobody listens on that port: what the API does must not depend on whether Temporal can be reached.
    return Settings.model_validate(
        {
            "database_url": database_url,
            "secret_key": SECRET,
            "temporal_address": "127.0.0.1:1",
            "max_body_bytes": MAX_BODY_BYTES,
            "max_duration_mins": LONGEST_MINS,
            # Tests are in a hurry.
            "calls_per_minute": 1_000_000,
        }
    )


@dataclass(frozen=True)
class Somebody:
    """An account with a token."""

    id: UUID
    email: str
    token: str


@dataclass(frozen=True)
class House:
    """The running application, with one administrator in it."""

    app: FastAPI
    client: httpx.AsyncClient
    admin: Somebody
    url: str

    @property
    def db(self) -> Database:
        database: Database = self.app.state.database
        return database

    async def call(self, method: str, path: str, by: Somebody | None = None, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {by.token}"} if by else {}
        below = "" if path.startswith("/scim/") else "/api/v1"
        return await self.client.request(
            method, f"{below}{path}", headers={**headers, **request.pop("headers", {})}, **request
        )

    async def person(self, name: str, *permissions: Permission, owner: Somebody | None = None) -> Somebody:
        """Somebody with these permissions, through a group of their own."""
        email = f"{name}@example.com"
        values = UserValues(email=email, name=name.title(), owner_id=owner.id if owner else None)
        user = await users.create(self.db, values)
        if permissions:
            await self.group(f"permissions of {name}", user.id, permissions=list(permissions))
        return await _with_token(self.db, user.id, email)

    async def group(
        self, name: str, *members: Somebody | UUID, permissions: list[Permission] | None = None
    ) -> GroupView:
        group = await groups.create(self.db, OPERATOR, GroupValues(name=name, permissions=permissions or []))
        for member in members:
            user_id = member.id if isinstance(member, Somebody) else member
            await groups.add_member(self.db, OPERATOR, group.id, user_id)
        return group

    async def application(self, name: str = "Internal DB") -> ApplicationView:
        return await applications.create_application(self.db, ApplicationValues(name=name))

    async def mapping(self, app_id: UUID, name: str = "DB read-only role") -> MappingView:
        values = MappingValues(app_id=app_id, name=name, claim="roles", value="db_readonly")
        return await applications.create_mapping(self.db, values)

    async def template(self, **values: Any) -> TemplateView:
        """A template, for an application of its own unless one is named."""
        if "app_id" not in values:
            values["app_id"] = (await self.application(f"application {uuid4()}")).id
        checked = TemplateValues.model_validate({"name": "Database read-only access", **values})
        return await templates.create(self.db, checked, longest_mins=LONGEST_MINS)

    async def task(self, **values: Any) -> TaskView:
        """A scheduled task, with a name of its own unless one is given."""
        checked = TaskValues.model_validate({"name": f"task {uuid4()}", "script": "def run(): ...", **values})
        return await tasks.create(self.db, checked)

    async def request(self, template: TemplateView, by: Somebody) -> UUID:
        """A pending request."""
        sent = {"template_id": str(template.id), "requested_duration_mins": 60, "justification": "an incident"}
        answer = await self.call("POST", "/access-requests", by, json=sent)
        assert answer.status_code == 201, answer.text
        return UUID(answer.json()["id"])

    async def decide(
        self, request_id: UUID, action: Action, by: Somebody, *, at: datetime | None = None, key: str | None = None
    ) -> None:
        """What the workflow does with a decision."""
        at = at or datetime.now(UTC)
        proofs, key = ProofKey(SECRET), key or str(uuid4())
        transition = Transition(
            request_id=request_id,
            action=action,
            channel=Channel.UPDATE,
            at=at,
            key=key,
            proof=proofs.mint(request_id, action, by.id, jti=key, now=at),
        )
        outcome = await transitions.apply(self.db, proofs, transition, trust_claimed_actors=False)
        assert outcome.refusal is None, outcome.detail

    async def approve_long_ago(self, request_id: UUID, by: Somebody) -> None:
        """A grant whose time is up and whose workflow has not noticed."""
        await self.decide(request_id, Action.APPROVE, by, at=datetime.now(UTC) - timedelta(days=1))

    async def attended(self, *request_ids: UUID) -> None:
        """What the workflows do when they have looked at their requests."""
        async with self.db.connection() as connection:
            await connection.execute(
                "UPDATE access_requests SET attention_at = NULL WHERE id = ANY(%s)", [list(request_ids)]
            )

    async def marked(self) -> set[UUID]:
        """The requests whose workflows have to look again."""
        async with self.db.connection() as connection:
            rows = await connection.execute("SELECT id FROM access_requests WHERE attention_at IS NOT NULL")
            return {row["id"] for row in await rows.fetchall()}


@asynccontextmanager
async def open_house(database_url: str, app: FastAPI | None = None) -> AsyncIterator[House]:
    """The application on an empty database.

    Args:
        database_url: the database, with this version's schema.
        app: an application that nobody else uses meanwhile; made, and run as a server runs it, where none is given.
    """
    async with AsyncExitStack() as stack:
        if app is None:
            app = create_app(settings(database_url))
            await stack.enter_async_context(app.router.lifespan_context(app))
        else:
            app.state.database = await stack.enter_async_context(Database(database_url))
            app.state.orchestrator = await stack.enter_async_context(Orchestrator(settings(database_url)))
            app.state.issuers = await stack.enter_async_context(Issuers((), leeway_secs=0))
            app.state.signing_keys = KeyRing(app.state.database, Vault(SECRET))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://service.test")
        await stack.enter_async_context(client)
        values = UserValues(email="root@example.com", name="Root")
        user_id = await administrators.make_administrator(app.state.database, values)
        yield House(app, client, await _with_token(app.state.database, user_id, values.email), database_url)


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Where the application listens, as its own server serves it."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", port=0, log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


async def _with_token(db: Database, user_id: UUID, email: str) -> Somebody:
    return Somebody(user_id, email, (await tokens.create_token(db, user_id, "test", timedelta(days=1))).token)


@asynccontextmanager
async def open_without_database() -> AsyncIterator[httpx.AsyncClient]:
    """The application, whose database nobody can reach."""
    app = create_app(settings("postgresql://nobody@127.0.0.1:1/justiam"))
    # Not the ten seconds that a caller would wait for a connection.
    async with app.router.lifespan_context(app):
        app.state.database._pool.timeout = 0.5
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
            yield client
