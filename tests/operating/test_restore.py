"""A restored service: what is lost is what came after the backup, and nothing else.

PostgreSQL is dumped while people go on asking and deciding; then the dump is all there is, beside a Temporal that knows
nothing, or one that knows more than the record does. And Temporal is restored beside a record that went on.
"""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from temporalio.client import Client, WorkflowExecutionStatus

import worker
from activities import auditing
from cli.dev import TemporalDevServer
from cli.dev.postgres import PostgresServer, _binary
from db import migrate, tokens
from db.database import Database
from domain.actors import workflow_id
from settings import Settings
from tests.programs import Programs, until
from tests.record import SECRET, Record

REQUESTERS: Final = 8
ENOUGH: Final = 3 * REQUESTERS
"""Requests in which every way that a request can go is met, whoever asks."""
pytestmark = pytest.mark.timeout(600)
Statuses = dict[str, str]


@dataclass
class People:
    """Who asks, and who decides."""

    templates: list[str]
    requesters: list[str]
    approver: str


@dataclass
class Load:
    """Asks and decides until told to stop; knows what it was told was done."""

    url: str
    people: People
    accepted: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._go, args=(number,)) for number in range(REQUESTERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(60)

    @staticmethod
    def _act(http: httpx.Client, path: str, who: dict[str, str]) -> None:
        """Send a decision until it is answered, as clients are told to: on a busy machine Temporal can be too slow."""
        headers = {**who, "Idempotency-Key": uuid4().hex}
        answer = http.post(path, headers=headers)
        for _ in range(10):
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            answer = http.post(path, headers=headers)
        answer.raise_for_status()

    def _go(self, number: int) -> None:
        mine = {"Authorization": f"Bearer {self.people.requesters[number]}"}
        theirs = {"Authorization": f"Bearer {self.people.approver}"}
        with httpx.Client(base_url=f"{self.url}/api/v1", trust_env=False, timeout=30) as http:
            while not self._stop.is_set():
                for way in (("approve",), ("deny",), ("approve", "revoke"), ()):
                    sent = {
                        "template_id": self.people.templates[number % len(self.people.templates)],
                        "requested_duration_mins": 60,
                        "justification": "an incident",
                    }
                    headers = {**mine, "Idempotency-Key": uuid4().hex}
                    asked = http.post("/access-requests", json=sent, headers=headers)
                    if asked.status_code == httpx.codes.CONFLICT:
                        continue
                    request_id = asked.raise_for_status().json()["id"]
                    self.accepted.append(request_id)
                    for action in way:
                        self._act(http, f"/access-requests/{request_id}/{action}", theirs)
                    if not way:
                        http.post(f"/access-requests/{request_id}/revoke", headers=mine).raise_for_status()


@pytest.fixture(autouse=True)
def short_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an audit that finds a difference look again soon. These tests repeat the audit until it holds."""
    monkeypatch.setattr(auditing, "_SECOND_LOOK_SECS", 0.5)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """A database of this test's own, with this version's schema."""
    name = f"justiam_{uuid4().hex}"
    postgres.create_database(name)
    migrate.upgrade(postgres.url(name))
    return postgres.url(name)


def _temporal(directory: Path) -> TemporalDevServer:
    return TemporalDevServer(log_file=directory / f"temporal-{uuid4().hex}.log", ui_port=None)


async def _furnish(url: str) -> People:
    async with Database(url) as db:
        record = Record(db)
        cast = await record.cast()
        templates = [
            str(
                (
                    await record.template(
                        app_id=cast.application.id,
                        mapping_ids=[cast.mapping.id],
                        approver_group_ids=[cast.team.id],
                    )
                ).id
            )
            for _ in range(2)
        ]
        requesters = [(await record.user(f"asker{number}")).id for number in range(REQUESTERS)]
        made = [(await tokens.create_token(db, user, "test", None)).token for user in (*requesters, cast.approver.id)]
    return People(templates, made[:-1], made[-1])


def _statuses(url: str) -> Statuses:
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT id::text, status FROM access_requests").fetchall())


def _program(name: str, *arguments: str) -> None:
    # From the wheel that has the server.
    subprocess.run([str(_binary(name)), *arguments], check=True, capture_output=True)


def _settings(url: str, temporal: TemporalDevServer) -> Settings:
    return Settings.model_validate({"database_url": url, "secret_key": SECRET, "temporal_address": temporal.address})


def _sweep(url: str, temporal: TemporalDevServer) -> None:
    """Do what `justiam sweep` does, here: a process takes seconds to start."""
    asyncio.run(worker.sweep(_settings(url, temporal)))


def _holds(url: str, temporal: TemporalDevServer) -> bool:
    """Return whether the audit of both stores finds nothing. Here, because a process for each look takes seconds."""
    return asyncio.run(worker.audit(_settings(url, temporal))).holds


def _back_up_under_load(url: str, temporal: TemporalDevServer, directory: Path) -> tuple[Path, Load]:
    """A dump that was made while the load went on, and the load, which went on after it."""
    dump = directory / "backup"
    people = asyncio.run(_furnish(url))
    with Programs(directory, url, temporal.address) as programs:
        _, api = programs.start_all_ready("worker", "api")
        load = Load(api.url, people)
        with load.going_on():
            until(lambda: len(load.accepted) > ENOUGH, "there is load before the backup")
            _program("pg_dump", "--format=custom", f"--file={dump}", url)
            after = len(load.accepted)
            until(lambda: len(load.accepted) > after + ENOUGH, "there is load after the backup")
    return dump, load


def _back_up(database: Path, copy: Path) -> None:
    """Copy Temporal's database while Temporal runs."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def _age(url: str) -> None:
    """Make the requests older than half a minute: the sweep does not miss the workflows of younger ones yet."""
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE access_requests SET created_at = created_at - interval '1 minute'")


def _restore(postgres: PostgresServer, dump: Path) -> str:
    name = f"restored_{uuid4().hex}"
    postgres.create_database(name)
    url = postgres.url(name)
    _program("pg_restore", "--exit-on-error", f"--dbname={url}", str(dump))
    _age(url)
    return url


def test_what_is_lost_is_what_came_after_the_backup(postgres: PostgresServer, url: str, tmp_path: Path) -> None:
    """Both stores are gone: the record comes from its backup, and Temporal starts empty."""
    with _temporal(tmp_path) as before:
        dump, load = _back_up_under_load(url, before, tmp_path)
        now = _statuses(url)
    assert set(load.accepted) <= now.keys()
    url = _restore(postgres, dump)
    saved = _statuses(url)
    assert 0 < len(saved) < len(now)
    assert saved.keys() < now.keys()
    with _temporal(tmp_path) as empty, Programs(tmp_path, url, empty.address) as programs:
        _, api = programs.start_all_ready("worker", "api")
        _sweep(url, empty)
        until(lambda: _holds(url, empty), "the audit holds")
        # Nobody has decided anything meanwhile: every request is as it was backed up.
        assert _statuses(url) == saved
        open_ones = [request_id for request_id, status in saved.items() if status in {"pending", "approved"}]
        assert open_ones
        headers = {"Authorization": f"Bearer {load.people.approver}"}
        for request_id in open_ones:
            # What is pending can be decided; what was granted can be ended.
            ended = httpx.post(
                f"{api.url}/api/v1/access-requests/{request_id}/"
                + ("deny" if saved[request_id] == "pending" else "revoke"),
                headers=headers,
                trust_env=False,
                timeout=30,
            )
            assert ended.is_success, ended.text
        until(lambda: _holds(url, empty), "the audit holds when all has ended")


def test_workflows_that_know_more_than_the_restored_record_give_way_to_it(
    postgres: PostgresServer, url: str, tmp_path: Path
) -> None:
    """PostgreSQL alone was lost: Temporal still runs workflows of requests that the record does not know any more."""
    with _temporal(tmp_path) as temporal:
        dump, _ = _back_up_under_load(url, temporal, tmp_path)
        now = _statuses(url)
        url = _restore(postgres, dump)
        saved = _statuses(url)
        unknown = [request_id for request_id, status in now.items() if status == "approved" and request_id not in saved]
        assert unknown
        with Programs(tmp_path, url, temporal.address) as programs:
            programs.start_ready("worker")
            _sweep(url, temporal)

            until(lambda: _holds(url, temporal), "the audit holds")
            assert _statuses(url) == saved
            ended = asyncio.run(_states(temporal, unknown))
            assert set(ended.values()) == {WorkflowExecutionStatus.COMPLETED}, ended


def test_workflows_that_know_less_than_the_record_catch_up_with_it(url: str, tmp_path: Path) -> None:
    """Temporal alone was lost and comes from a backup: there, what is over still runs, and what is new does not."""
    kept, copy = tmp_path / "temporal.db", tmp_path / "temporal-backup.db"
    people = asyncio.run(_furnish(url))

    with (
        TemporalDevServer(log_file=tmp_path / "temporal.log", database=kept, ui_port=None) as temporal,
        Programs(tmp_path, url, temporal.address) as programs,
    ):
        _, api = programs.start_all_ready("worker", "api")
        load = Load(api.url, people)
        with load.going_on():
            until(lambda: len(load.accepted) > ENOUGH, "there is load before the backup")
        before = _statuses(url)
        _back_up(kept, copy)
        outrun = [request_id for request_id, status in before.items() if status == "approved"][:10]
        load = Load(api.url, people)
        with load.going_on():
            for request_id in outrun:
                path = f"{api.url}/api/v1/access-requests/{request_id}/revoke"
                headers = {"Authorization": f"Bearer {people.approver}"}
                httpx.post(path, headers=headers, trust_env=False, timeout=30).raise_for_status()
            until(lambda: len(load.accepted) > ENOUGH, "there is load after the backup")
    now = _statuses(url)
    assert before.keys() < now.keys()
    assert {now[request_id] for request_id in outrun} == {"revoked"}
    _age(url)
    with (
        TemporalDevServer(log_file=tmp_path / "restored.log", database=copy, ui_port=None) as restored,
        Programs(tmp_path, url, restored.address) as programs,
    ):
        assert set(asyncio.run(_states(restored, outrun)).values()) == {WorkflowExecutionStatus.RUNNING}
        programs.start_ready("worker")
        _sweep(url, restored)

        until(lambda: _holds(url, restored), "the audit holds")
        assert _statuses(url) == now
        ended = asyncio.run(_states(restored, outrun))
        assert set(ended.values()) == {WorkflowExecutionStatus.COMPLETED}, ended


async def _states(temporal: TemporalDevServer, request_ids: list[str]) -> dict[str, Any]:
    client = await Client.connect(temporal.address)
    return {
        request_id: (await client.get_workflow_handle(workflow_id(UUID(request_id))).describe()).status
        for request_id in request_ids
    }
