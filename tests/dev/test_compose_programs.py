"""docker-compose.yml as it runs: each service's own command and environment, as processes beside local servers.

What is changed is what only Docker has: the names of other services, and ports that containers need not share.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest

from cli.dev import TemporalDevServer
from cli.dev.postgres import PostgresServer
from db import tasks, tokens
from db.database import Database
from domain.tasks import TaskValues
from tests.programs import Programs, until
from tests.record import Record
from tests.test_compose import INTERPOLATED, SERVICES

SECRET: Final = "0123456789abcdef" * 4


def _environment(service: str, filled: dict[str, str], elsewhere: dict[str, str]) -> dict[str, str]:
    """What Compose would give a service's container."""

    def value(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        given = filled.get(name, "")
        assert given or kind != ":?", f"{name} has to be set"
        return given or default

    environment = {}
    for name, text in SERVICES[service]["environment"].items():
        said = INTERPOLATED.sub(value, str(text))
        for theirs, ours in elsewhere.items():
            said = said.replace(theirs, ours)
        environment[name] = said
    return environment


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[PostgresServer, TemporalDevServer]]:
    with (
        PostgresServer(tmp_path / "postgres", durable=False) as postgres,
        TemporalDevServer(log_file=tmp_path / "temporal.log", ui_port=None) as temporal,
    ):
        yield postgres, temporal


def test_the_services_work_together(stores: tuple[PostgresServer, TemporalDevServer], tmp_path: Path) -> None:
    postgres, temporal = stores
    postgres.create_database("justiam")
    url = postgres.url("justiam")
    filled = {"POSTGRES_PASSWORD": "hushhush", "JUSTIAM_SECRET_KEY": SECRET, "JUSTIAM_TEMPORAL_ENCRYPTION_KEYS": SECRET}
    elsewhere = {
        "postgresql://justiam:hushhush@postgres:5432/justiam": url,
        "temporal:7233": temporal.address,
        # A test on a shared machine does not listen to the network.
        "0.0.0.0": "127.0.0.1",  # noqa: S104 - what stands there
        "/tmp/justiam-scripts": str(tmp_path / "scripts"),  # noqa: S108 - what stands there
    }
    with Programs(tmp_path, url, temporal.address) as programs:

        def exactly(service: str, **more: str) -> dict[str, Any]:
            return {"exactly": _environment(service, filled, elsewhere | more)}

        for once in ("migrate", "setup-temporal"):
            assert programs.start(*SERVICES[once]["command"], **exactly(once)).process.wait(60) == 0
        api = programs.start_ready("api", **exactly("api"))
        worker = programs.start_ready("worker", **exactly("worker"))
        scripts = programs.start_ready("script-worker", **exactly("script-worker", **{"http://api:8000": api.url}))
        for name in ("JUSTIAM_DATABASE_URL", "JUSTIAM_SECRET_KEY", "JUSTIAM_ENCRYPTION_KEYS"):
            assert name not in SERVICES["script-worker"]["environment"]

        template_id, requester, approver = asyncio.run(_furnish(url))
        as_requester, as_approver = [
            httpx.Client(
                base_url=f"{api.url}/api/v1", headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=30
            )
            for token in (requester, approver)
        ]
        sent = {"template_id": template_id, "requested_duration_mins": 60, "justification": "an incident"}
        request = as_requester.post("/access-requests", json=sent).raise_for_status().json()
        path = f"/access-requests/{request['id']}"
        assert as_approver.post(f"{path}/approve").raise_for_status().json()["status"] == "approved"

        def the_script_ran() -> bool:
            runs = as_requester.get(f"{path}/runs").raise_for_status().json()["items"]
            return [run["status"] for run in runs] == ["succeeded", "succeeded"]

        until(the_script_ran, "the script ran for the submission and for the approval")
        assert as_requester.post(f"{path}/revoke").raise_for_status().json()["status"] == "revoked"
        for client in (as_requester, as_approver):
            client.close()
        assert [program.stop() for program in (scripts, worker, api)] == [0, 0, 0]
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM groups WHERE system").fetchone() == (0,)


async def _furnish(url: str) -> tuple[str, str, str]:
    async with Database(url) as db:
        record = Record(db)
        values = TaskValues(name="say hello", script='def run():\n    print("hello")\n')
        task = await tasks.create(db, values)
        cast = await record.cast(trigger_task_id=task.id)
        made = [
            (await tokens.create_token(db, person.id, "test", None)).token for person in (cast.requester, cast.approver)
        ]
    return str(cast.template.id), made[0], made[1]
