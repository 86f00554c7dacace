"""`justiam dev` in a process of its own, for tests that kill parts of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import psutil
import psycopg

JUSTIAM: Final = Path(sys.executable).parent / "justiam"
ANY_PORTS: Final = ("--port", "0", "--temporal-port", "0", "--temporal-ui-port", "0")
START_TIMEOUT_SECS: Final = 180.0
STOP_TIMEOUT_SECS: Final = 90.0


class Dev:
    """One `justiam dev` in a process of its own."""

    def __init__(self, data_dir: Path, *options: str, **environment: str) -> None:
        self.data_dir = data_dir
        self._output = data_dir.with_suffix(".output")
        self._options = [*ANY_PORTS, *options]
        self._environment = os.environ | environment

    def __enter__(self) -> Self:
        self.start()
        self.wait_for("JustIAM is ready")
        return self

    def start(self) -> None:
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [JUSTIAM, "dev", "--data-dir", self.data_dir, *self._options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_TIMEOUT_SECS)

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def description(self) -> dict[str, Any]:
        described: dict[str, Any] = json.loads((self.data_dir / "dev.json").read_text())
        return described

    def pids(self) -> dict[str, int]:
        recorded = json.loads((self.data_dir / "children.json").read_text())["children"]
        return {child["name"]: child["pid"] for child in recorded}

    def children(self) -> dict[str, psutil.Process]:
        return {name: psutil.Process(pid) for name, pid in self.pids().items()}

    def wait_for(self, text: str, *, times: int = 1) -> None:
        def said() -> bool:
            assert self.process.poll() is None, self.output
            return self.output.count(text) >= times

        wait_until(said, START_TIMEOUT_SECS)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.description["database_url"], autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], bool], timeout_secs: float, what: str = "") -> None:
    deadline = time.monotonic() + timeout_secs
    while not condition():
        assert time.monotonic() < deadline, f"not yet: {what}"
        time.sleep(0.1)


def start_in_vain(data_dir: Path, *options: str) -> str:
    """What it says when it cannot start."""
    done = subprocess.run(
        [JUSTIAM, "dev", "--data-dir", data_dir, *ANY_PORTS, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=START_TIMEOUT_SECS,
    )
    assert done.returncode == 1
    return done.stderr
