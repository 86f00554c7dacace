"""What is over for long is forgotten on demand, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import pytest

from db import pruning, tasks
from db.database import Database
from db.pruning import Pruned
from domain.states import Action
from domain.tasks import TaskValues
from tests.db.test_deliveries import Deliveries
from tests.record import SECRET, Record

MONTH: Final = timedelta(days=30)
TABLES: Final = ("deliveries", "task_runs")


async def told(db: Database, record: Record, *, closed: bool = True) -> UUID:
    """A request whose submission and denial made a delivery and a run each."""
    integrating = Deliveries(db, record)
    if not await record.query("SELECT FROM integrations"):
        await integrating.integrate()
    task = await tasks.create(db, TaskValues(name=f"say hello {uuid4()}", script='def run():\n    print("hello")\n'))
    cast = await record.cast(trigger_task_id=task.id)
    request_id = await record.submit(cast.template, cast.requester)
    if closed:
        await record.decide(request_id, Action.DENY, cast.approver)
    return request_id


async def over(record: Record, request_id: UUID, days: int) -> None:
    for table, status in zip(TABLES, ("delivered", "succeeded"), strict=True):
        await record.execute(
            f"UPDATE {table} SET status = %s, finished_at = now() - %s, dispatch_at = NULL WHERE request_id = %s",  # noqa: S608
            status,
            timedelta(days=days),
            request_id,
        )


async def left(record: Record) -> dict[str, set[UUID]]:
    return {
        table: {row["request_id"] for row in await record.query(f"SELECT request_id FROM {table}")}  # noqa: S608
        for table in TABLES
    }


def prune(database_url: str, days: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "justiam", "prune", "--older-than", str(days)],
        env={"PATH": os.environ["PATH"], "JUSTIAM_DATABASE_URL": database_url, "JUSTIAM_SECRET_KEY": SECRET},
        capture_output=True,
        text=True,
        check=False,
    )


async def history(record: Record) -> list[dict[str, Any]]:
    return [
        *await record.query("SELECT * FROM access_request_timeline ORDER BY id"),
        *await record.query("SELECT * FROM access_requests ORDER BY id"),
        *await record.query("SELECT * FROM audit_log ORDER BY id"),
    ]


async def test_what_was_over_for_long_is_forgotten_and_no_timeline(db: Database, record: Record) -> None:
    old, recent, open_, unfinished = [await told(db, record, closed=closed) for closed in (True, True, False, True)]
    await over(record, old, 31)
    await over(record, recent, 29)
    await over(record, open_, 400)
    before = await history(record)
    assert await pruning.prune(db, MONTH) == Pruned(deliveries=2, runs=2)
    assert await left(record) == {table: {recent, open_, unfinished} for table in TABLES}
    assert await history(record) == before
    assert await pruning.prune(db, MONTH) == Pruned(deliveries=0, runs=0)


async def test_it_goes_on_until_all_is_forgotten(db: Database, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_BATCH", 3)
    for _ in range(4):
        await over(record, await told(db, record), 100)
    assert await pruning.prune(db, MONTH) == Pruned(deliveries=8, runs=8)
    assert await left(record) == {table: set() for table in TABLES}


@pytest.mark.parametrize(("days", "said"), [(30, "Forgot 2 deliveries and 2 runs."), (200, "Forgot 0 deliveries")])
async def test_an_operator_says_after_how_many_days(
    days: int, said: str, db: Database, record: Record, database_url: str
) -> None:
    await over(record, await told(db, record), 100)
    done = await asyncio.to_thread(prune, database_url, days)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(said)


def test_what_is_younger_than_a_week_is_never_forgotten(database_url: str) -> None:
    """A delivery is tried for a day, and somebody has to have time to look at one that was parked."""
    done = prune(database_url, 6)
    assert done.returncode == 2
    assert "greater than or equal to 7" in done.stderr


async def test_what_somebody_sends_again_at_this_moment_stays(db: Database, record: Record, database_url: str) -> None:
    request_id = await told(db, record)
    await over(record, request_id, 100)
    async with await psycopg.AsyncConnection.connect(database_url) as another:
        await another.execute("UPDATE deliveries SET status = 'pending', finished_at = NULL, dispatch_at = now()")
        assert (await pruning.prune(db, MONTH)).deliveries == 0
    assert (await left(record))["deliveries"] == {request_id}
