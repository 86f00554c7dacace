"""What an operator is told when something is missing: by probes, by the log, by commands and their exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest

from cli.dev import TemporalDevServer
from cli.dev.postgres import PostgresServer
from tests.programs import Program, Programs, until
from tests.record import SECRET

JUSTIAM: Final = str(Path(sys.executable).parent / "justiam")
WATCHED_SECS: Final = 30
"""Long enough for all that repeats itself every few seconds to do so."""
MOST_LINES: Final = 30
"""Of one program in that time; before they were held back, a worker had 60 in 20 seconds, and that each minute."""


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[PostgresServer, TemporalDevServer]]:
    with (
        PostgresServer(tmp_path / "postgres", durable=False) as postgres,
        TemporalDevServer(log_file=tmp_path / "temporal.log", ui_port=None) as temporal,
    ):
        postgres.create_database("justiam")
        yield postgres, temporal


def command(programs: Programs, *words: str) -> subprocess.CompletedProcess[str]:
    given = {
        "JUSTIAM_DATABASE_URL": programs.database_url,
        "JUSTIAM_SECRET_KEY": SECRET,
        "JUSTIAM_TEMPORAL_ADDRESS": programs.temporal_address,
    }
    return subprocess.run([JUSTIAM, *words], env=os.environ | given, capture_output=True, text=True, check=False)


def missing(program: Program) -> list[str] | None:
    """What a program says that it misses; None: it says nothing yet."""
    try:
        answer = httpx.get(f"{program.watched_at}/readyz", trust_env=False, timeout=30)
    except httpx.TransportError:
        return None
    found: list[str] = answer.json()["missing"]
    assert answer.status_code == (503 if found else 200)
    assert httpx.get(f"{program.watched_at}/healthz", trust_env=False, timeout=30).is_success
    return found


def said(program: Program, since: int = 0) -> list[dict[str, Any]]:
    """Its log from a line on, each line of which has to be one JSON object."""
    lines = program.log.read_text().splitlines()[since:]
    assert [line for line in lines if not line.startswith("{")] == []
    return program.logged()[since:]


def test_a_database_that_was_not_migrated_is_waited_for(
    stores: tuple[PostgresServer, TemporalDevServer], tmp_path: Path
) -> None:
    postgres, temporal = stores
    url = postgres.url("justiam")

    def at(revision: str) -> None:
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE alembic_version SET version_num = %s", [revision])

    with Programs(tmp_path, url, temporal.address) as programs:
        for words in (("sweep",), ("token", "create", "you@example.com")):
            done = command(programs, *words)
            assert done.returncode == 1
            assert done.stderr.splitlines()[-1] == "It has not this version's schema: run justiam migrate."
            assert len(done.stderr.splitlines()) == 2
        api, worker = programs.start("api"), programs.start("worker")
        for program in (api, worker):
            until(lambda program=program: missing(program) == ["schema"], f"{program.name} misses the schema")  # type: ignore[misc]
        (told, *_) = [line for line in said(worker) if line["event"] == "not_ready"]
        assert told["error"].endswith("justiam migrate")
        assert "worker_started" not in {line["event"] for line in said(worker)}
        assert command(programs, "migrate").returncode == 0
        for program in (api, worker):
            until(lambda program=program: missing(program) == [], f"{program.name} is ready")  # type: ignore[misc]
        until(lambda: "worker_started" in {line["event"] for line in said(worker)}, "the worker works")
        # That of a version before is not enough; that of a version after is made for this one, too.
        at("0001")
        until(lambda: missing(api) == ["schema"], "an older schema is missed")
        at("9999")
        until(lambda: missing(api) == [], "a newer schema does")
        assert [program.stop() for program in (worker, api)] == [0, 0]


@pytest.mark.timeout(300)
def test_stores_that_are_away_are_said_in_few_words(
    stores: tuple[PostgresServer, TemporalDevServer], tmp_path: Path
) -> None:
    postgres, temporal = stores
    with Programs(tmp_path, postgres.url("justiam"), temporal.address) as programs:
        assert command(programs, "migrate").returncode == 0
        running = programs.start_all_ready("api", "worker", "script-worker")
        api, worker, _ = running
        since = {program.name: len(said(program)) for program in running}
        temporal.stop()
        postgres.stop()
        until(lambda: missing(worker) == ["database", "temporal"], "the worker misses both")
        until(lambda: missing(api) == ["database", "temporal"], "the API misses both")
        time.sleep(WATCHED_SECS)
        for program in running:
            lines = said(program, since[program.name])
            assert len(lines) <= MOST_LINES, program.log.read_text()
            assert "exception" not in set().union(*lines), program.log.read_text()
            assert any("onnection refused" in str(line) or "ConnectionRefused" in str(line) for line in lines)
        for words in (("migrate",), ("token", "create", "you@example.com")):
            done = command(programs, *words)
            assert done.returncode == 1
            assert "PostgreSQL, as JUSTIAM_DATABASE_URL names it: " in done.stderr
            assert "Connection refused" in done.stderr
            assert len(done.stderr.splitlines()) == 1
        done = command(programs, "setup-temporal")
        assert done.returncode == 1
        assert f"Temporal at {temporal.address}, as JUSTIAM_TEMPORAL_ADDRESS names it: " in done.stderr
        assert "Traceback" not in done.stderr
        assert [program.stop() for program in running] == [0, 0, 0]
