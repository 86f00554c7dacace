"""Who and what a run is made of: people, groups, applications, templates of every kind, tasks and integrations."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Final

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from db import administrators, tokens, users
from db.database import Database
from domain.directory import UserValues
from domain.errors import Invalid
from domain.events import Event
from soak.calling import Line
from soak.receivers import Mood, Receiver

REQUESTERS: Final = 14
COMING_AND_GOING: Final = 2
"""Of these, so many are deactivated now and then."""
_TOKEN: Final = timedelta(hours=6)
FAILING_DIGITS: Final = "012"
"""A run whose id ends with one of these fails, where its task may fail."""
_FAILS: Final = f"""
from justiam import config


def run():
    if config.get("run_id")[-1] in "{FAILING_DIGITS}":
        raise RuntimeError("this run is one of those that fail")
    return config.get("request_id")
"""
_SUCCEEDS: Final = """
from justiam import config


def run():
    return config.get("request_id") or "at its time"
"""


@dataclass
class Somebody:
    """An account with a token."""

    id: str
    email: str
    token: str = field(compare=False)
    """The newest: one of before a deactivation does not work again."""


@dataclass(frozen=True)
class Kind:
    """A template, and what clients have to know of it."""

    id: str
    name: str
    app: str
    by_itself: bool = False
    escalates: bool = False
    blocks: bool = False


@dataclass
class Scene:
    """Everybody and everything."""

    admin: Somebody
    requesters: list[Somebody]
    approvers: list[Somebody]
    manager: Somebody
    templates: list[Kind] = field(default_factory=list)
    apps: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name, as they were answered, with `client_secret`."""
    staff: str = ""
    """A group whose members hold a claim for good, as long as they are in it."""
    receivers: dict[str, tuple[Receiver, set[str]]] = field(default_factory=dict)
    """By name, with the templates of which they are told."""
    integrations: dict[str, str] = field(default_factory=dict)
    """Ids by name."""

    @property
    def steady(self) -> list[Somebody]:
        """Requesters whose account stays active."""
        return self.requesters[COMING_AND_GOING:]


STAFF_APP: Final = "Payroll"
STAFF_VALUE: Final = ("groups", "staff")


async def renew(database_url: str, person: Somebody) -> None:
    """Make a new token for an account that is active again.

    Tries until the database answers and the account is active.
    """
    while True:
        try:
            async with Database(database_url, max_connections=1) as db:
                person.token = (await tokens.create_token(db, person.id, "soak", _TOKEN)).token
                return
        except (psycopg.Error, SQLAlchemyError, OSError, Invalid):
            await asyncio.sleep(0.5)


async def furnish(database_url: str, line: Line, chance: Random, *, slow: bool) -> Scene:
    """Make all of it, over the API but for the first accounts.

    Args:
        database_url: the record.
        line: to the API.
        chance: what is left to it.
        slow: have a receiver be slow. What a killed worker waits for is noticed after two minutes: too long for a
            short run.
    """
    async with Database(database_url) as db:

        async def somebody(name: str) -> Somebody:
            email = f"{name}@example.com"
            user_id = (await users.create(db, UserValues(email=email, name=name))).id
            return Somebody(str(user_id), email, (await tokens.create_token(db, user_id, "soak", _TOKEN)).token)

        admin_id = await administrators.make_administrator(db, UserValues(email="root@example.com", name="root"))
        admin = Somebody(
            str(admin_id), "root@example.com", (await tokens.create_token(db, admin_id, "soak", _TOKEN)).token
        )
        scene = Scene(
            admin,
            [await somebody(f"requester{number}") for number in range(REQUESTERS)],
            [await somebody(f"approver{number}") for number in range(3)],
            await somebody("manager"),
        )
    made = _Maker(line, admin.token)
    team = await made.group("team", *scene.approvers)
    managers = await made.group("managers", scene.manager)
    scene.staff = await made.group("staff")
    readers = await made.application(scene, "Internal DB")
    payroll = await made.application(scene, STAFF_APP)
    read, write = [await made.mapping(readers, "roles", value) for value in ("db_read", "db_write")]
    view, export = [await made.mapping(payroll, "roles", value) for value in ("view", "export")]
    staff = await made.mapping(payroll, *STAFF_VALUE)
    await made.call("PUT", f"/app-mappings/{staff}/groups/{scene.staff}")
    checks = await made.id("/scheduled-tasks", {"name": "Checks", "script": _FAILS})
    reports = await made.id("/scheduled-tasks", {"name": "Reports", "script": _SUCCEEDS, "max_retries": 20})
    await made.id(
        "/scheduled-tasks",
        {"name": "Now and then", "script": _SUCCEEDS, "schedule_type": "interval", "interval_seconds": 20}
        | {"max_retries": 20},
    )
    asked = {"approver_group_ids": [team]}
    inner, pay = {"app_id": readers}, {"app_id": payroll}
    for values, facts in (
        ({"name": "Told to all", **inner, **asked, "mapping_ids": [read]}, {}),
        (
            {"name": "In turn", **inner, **asked, "mapping_ids": [read, write], "notification_policy": "round_robin"},
            {},
        ),
        ({"name": "By itself", **inner, "mapping_ids": [write], "auto_approve": True}, {"by_itself": True}),
        (
            {"name": "Escalates", **pay, **asked, "mapping_ids": [view], "escalation_after_mins": 1}
            | {"escalation_group_id": managers},
            {"escalates": True},
        ),
        (
            {"name": "Logged", **pay, **asked, "mapping_ids": [view, export], "trigger_task_id": checks}
            | {"trigger_task_failure_mode": "ignore"},
            {},
        ),
        (
            {"name": "Reported", **pay, **asked, "mapping_ids": [export], "trigger_task_id": reports}
            | {"trigger_task_failure_mode": "retry"},
            {},
        ),
        (
            {"name": "Checked first", **pay, **asked, "mapping_ids": [export], "trigger_task_id": checks}
            | {"trigger_task_failure_mode": "block"},
            {"blocks": True},
        ),
    ):
        template_id = await made.id("/access-request-templates", values)
        app = "Internal DB" if values["app_id"] == readers else STAFF_APP
        scene.templates.append(Kind(template_id, str(values["name"]), app, **facts))
    await _integrations(made, scene, chance, reports, Mood.SLOW if slow else Mood.WELL)
    return scene


async def _integrations(made: _Maker, scene: Scene, chance: Random, task: str, slowly: Mood) -> None:
    kinds = {kind.name: kind for kind in scene.templates}
    for name, mood, about in (
        ("works", Mood.WELL, None),
        ("is flaky", Mood.FLAKY, "Told to all"),
        ("is slow", slowly, "In turn"),
        ("is away", Mood.AWAY, "By itself"),
    ):
        receiver = Receiver(name, mood, chance)
        values = {"name": name, "target": "webhook", "events": list(Event), "url": receiver.url}
        if about is not None:
            values["template_id"] = kinds[about].id
        answer = await made.call("POST", "/integrations", values)
        receiver.secret = answer["signing_secret"]
        await receiver.become(mood)
        scene.receivers[name] = (receiver, set(kinds) if about is None else {about})
        scene.integrations[name] = answer["id"]
    scene.integrations["mail"] = await made.id(
        "/integrations",
        {"name": "mail", "target": "email", "events": list(Event), "template_id": kinds["Escalates"].id},
    )
    await made.id(
        "/integrations",
        {"name": "a task", "target": "task", "events": [Event.DENIED], "task_id": task}
        | {"template_id": kinds["Told to all"].id},
    )


@dataclass
class _Maker:
    line: Line
    token: str

    async def call(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - what JSON is
        reply = await self.line.call(self.token, method, f"/api/v1{path}", body)
        if not reply.is_success:
            raise RuntimeError(f"{method} {path}: {reply.status} {reply.body}")
        return reply.body

    async def id(self, path: str, body: object) -> str:
        return str((await self.call("POST", path, body))["id"])

    async def group(self, name: str, *members: Somebody) -> str:
        group_id = await self.id("/groups", {"name": name})
        for member in members:
            await self.call("PUT", f"/groups/{group_id}/members/{member.id}")
        return group_id

    async def application(self, scene: Scene, name: str) -> str:
        made = await self.call("POST", "/applications", {"name": name})
        secret = await self.call("POST", f"/applications/{made['id']}/client-secret")
        scene.apps[name] = {**made, "client_secret": secret["client_secret"]}
        return str(made["id"])

    async def mapping(self, app_id: str, claim: str, value: str) -> str:
        body = {"app_id": app_id, "name": f"{claim} {value}", "claim": claim, "value": value}
        return await self.id("/app-mappings", body)
