"""The programs of the service, started as an operator starts them: a command, an environment, a signal at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from cli.dev.program import free_port
from tests.dev.running import wait_until
from tests.record import SECRET

_BIN: Final = Path(sys.executable).parent
_PATIENCE_SECS: Final = 180.0


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds, within a bound that a busy machine keeps as well."""
    wait_until(holds, _PATIENCE_SECS, what)


@dataclass
class Program:
    """One that runs, or ran."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    url: str
    """Of the API; of another program, nothing listens there."""
    watched_at: str
    """Where its metrics and probes are."""

    def logged(self) -> list[dict[str, Any]]:
        """What it has logged so far, line by line."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stop(self) -> int:
        """Tell it to stop, as an operator does; answers with its exit code."""
        self.process.terminate()
        return self.process.wait(_PATIENCE_SECS)


@dataclass
class Programs:
    """Several of them beside each other, with one environment. What still runs at the end of the block is ended."""

    directory: Path
    database_url: str
    temporal_address: str
    environment: Mapping[str, str] = field(default_factory=dict)
    running: list[Program] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in reversed(self.running):
            program.process.terminate()
        for program in self.running:
            try:
                program.process.wait(60)
            except subprocess.TimeoutExpired:
                program.process.kill()
                program.process.wait()

    def start(self, *command: str, exactly: Mapping[str, str] | None = None, **environment: str) -> Program:
        """`justiam <command>`, with more variables; or with `exactly` these, where somebody else says which."""
        port, watched = free_port(), free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JUSTIAM_", "OTEL_"))}
        given = {
            "JUSTIAM_DATABASE_URL": self.database_url,
            "JUSTIAM_SECRET_KEY": SECRET,
            "JUSTIAM_TEMPORAL_ADDRESS": self.temporal_address,
            "JUSTIAM_API_PORT": str(port),
            "JUSTIAM_METRICS_PORT": str(watched),
            **self.environment,
            **environment,
        }
        if command[0] == "script-worker":
            # It is to do without them.
            given = {
                name: value
                for name, value in given.items()
                if name not in {"JUSTIAM_DATABASE_URL", "JUSTIAM_SECRET_KEY", "JUSTIAM_API_PORT"}
            }
        if exactly is not None:
            given = {**exactly, "JUSTIAM_API_PORT": str(port), "JUSTIAM_METRICS_PORT": str(watched)}
        log = self.directory / f"{len(self.running)}-{command[0]}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(_BIN / "justiam"), *command], env=inherited | given, stdout=out, stderr=subprocess.STDOUT
            )
        program = Program(command[0], process, log, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{watched}")
        self.running.append(program)
        return program

    def start_ready(self, *command: str, exactly: Mapping[str, str] | None = None, **environment: str) -> Program:
        """The same, once it says that it can do its work."""
        program = self.start(*command, exactly=exactly, **environment)
        _wait_until_ready(program)
        return program

    def start_all_ready(self, *names: str) -> list[Program]:
        """Start several programs at once, which takes less time than one after the other; wait until all are ready."""
        programs = [self.start(name) for name in names]
        for program in programs:
            _wait_until_ready(program)
        return programs


def _wait_until_ready(program: Program) -> None:
    def ready() -> bool:
        assert program.process.poll() is None, program.log.read_text()
        try:
            return httpx.get(f"{program.watched_at}/readyz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    until(ready, f"{program.name} is ready")
