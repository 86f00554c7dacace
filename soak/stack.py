"""The programs as production has them, each a process of its own, to be ended and started again in any order."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

import httpx
import psutil

from cli.dev import DevStackError, PostgresServer, TemporalDevServer
from cli.dev.program import Program, free_port
from db import migrate
from settings import SECRETS_VARIABLE

_DATABASE: Final = "justiam"
_BIN: Final = Path(sys.executable).parent
_PATIENCE_SECS: Final = 180.0
_LOOK_EVERY_SECS: Final = 0.25
_HTTP_SECS: Final = 3.0
COPIES: Final = 2
"""Of the API and of the worker."""
POOL: Final = 10
"""Connections that each of them opens at most."""


class Service(Program):
    """One of our own programs."""

    name: ClassVar[str] = "service"
    # It lets activities finish for ten seconds.
    stop_timeout_secs: ClassVar[float] = 20.0

    def __init__(self, command: str, log_file: Path, environment: dict[str, str]) -> None:
        super().__init__(log_file)
        self.watched_at = f"http://127.0.0.1:{environment['JUSTIAM_METRICS_PORT']}"
        """Where its metrics and probes are."""
        self.environment = environment
        self._command = command

    def command(self) -> list[str]:
        """The installed command, of the same environment as this one."""
        return [str(_BIN / "justiam"), self._command]

    def is_healthy(self) -> bool:
        """Whether it says itself that it can do its work."""
        try:
            return httpx.get(f"{self.watched_at}/readyz", trust_env=False, timeout=_HTTP_SECS).is_success
        except httpx.TransportError:
            return False


class Stack:
    """PostgreSQL and Temporal on disk, two APIs, two workers, a script worker."""

    def __init__(self, directory: Path, scripts: Path, *, mail_port: int) -> None:
        self.directory = directory
        self._scripts = scripts
        self.postgres = PostgresServer(directory / "postgres", log_file=directory / "logs" / "postgres.log")
        self.temporal = TemporalDevServer(
            log_file=directory / "logs" / "temporal.log", database=directory / "temporal.db", ui_port=None
        )
        self.secret_key = secrets.token_hex(32)
        self._mail_port = mail_port
        self.services: dict[str, Service] = {}
        self.api_urls: list[str] = []
        self.ended: list[str] = []
        """Programs that ended by themselves, and how."""
        self._broken: set[str] = set()
        """Those that somebody ended, and starts again."""
        self._open = ExitStack()

    @property
    def database_url(self) -> str:
        """The record."""
        return self.postgres.url(_DATABASE)

    @property
    def programs(self) -> dict[str, Program]:
        """All of them, by what the report calls them."""
        return {"PostgreSQL": self.postgres, "Temporal": self.temporal, **self.services}

    def start(self) -> None:
        """Start everything, and return when all of it is healthy.

        Raises:
            DevStackError: something did not start.
        """
        for server in (self.postgres, self.temporal):
            server.prepare()
            server.spawn()
            self._open.callback(server.stop)
        self.postgres.wait_until_healthy()
        self.postgres.create_database(_DATABASE)
        migrate.upgrade(self.database_url)
        self.temporal.wait_until_healthy()
        ports = [free_port() for _ in range(COPIES)]
        self.api_urls = [f"http://127.0.0.1:{port}" for port in ports]
        for number in range(1, COPIES + 1):
            self._add(f"worker {number}", "worker", self.environment())
            self._add(f"API {number}", "api", self.environment() | {"JUSTIAM_API_PORT": str(ports[number - 1])})
        self._add("script worker", "script-worker", self._script_environment())
        for service in self.services.values():
            service.wait_until_healthy()

    def environment(self) -> dict[str, str]:
        """What the service's programs and commands are told."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JUSTIAM_", "OTEL_"))}
        return inherited | {
            "JUSTIAM_DATABASE_URL": self.database_url,
            "JUSTIAM_SECRET_KEY": self.secret_key,
            "JUSTIAM_TEMPORAL_ADDRESS": self.temporal.address,
            "JUSTIAM_PUBLIC_URL": "http://127.0.0.1",
            "JUSTIAM_DATABASE_POOL_MAX": str(POOL),
            "JUSTIAM_CALLS_PER_MINUTE": "1000000",
            "JUSTIAM_ALLOWED_INTERNAL_HOSTS": "127.0.0.1",
            "JUSTIAM_SMTP_HOST": "127.0.0.1",
            "JUSTIAM_SMTP_PORT": str(self._mail_port),
            "JUSTIAM_SMTP_TLS": "none",
            "JUSTIAM_SMTP_FROM": "JustIAM <access@example.com>",
            SECRETS_VARIABLE: str(self.directory / "no-secrets"),
        }

    async def end(self, name: str, how: signal.Signals) -> None:
        """Send a program a signal that ends it, and wait until it has ended."""
        self._broken.add(name)
        program = self.programs[name]
        if program.process is None or not program.is_running:
            return
        program.process.send_signal(how)
        waiting = asyncio.to_thread(program.process.wait, program.stop_timeout_secs)
        try:
            await waiting
        except Exception:  # noqa: BLE001 - whatever keeps it, it has to end
            program.process.kill()
            await asyncio.to_thread(program.process.wait)

    async def revive(self, name: str) -> None:
        """Start a program again, and return when it is healthy.

        Raises:
            DevStackError: it is not within a bound, however often it was started.
        """
        program = self.programs[name]
        deadline = time.monotonic() + _PATIENCE_SECS
        while time.monotonic() < deadline:
            if not program.is_running:
                # Here, not in a thread: the kernel ends it with the thread that has started it.
                program.prepare()
                program.spawn()
            await asyncio.sleep(_LOOK_EVERY_SECS)
            if program.is_running and await asyncio.to_thread(program.is_healthy):
                self._broken.discard(name)
                return
        raise DevStackError(f"{name} {program.how_it_ended()}, and is not ready again\n{program.log_tail()}")

    async def supervise(self) -> None:
        """Start again what ends by itself, as whatever runs the programs does, and remember it. Runs until cancelled.

        Raises:
            DevStackError: it cannot be started again.
        """
        while True:
            for name, program in self.programs.items():
                if name not in self._broken and not program.is_running:
                    self.ended.append(f"{name} {program.how_it_ended()}\n{program.log_tail()}")
                    await self.revive(name)
            await asyncio.sleep(_LOOK_EVERY_SECS)

    def freeze(self, name: str) -> None:
        """Have a program stand still, as when its machine does."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self._signal(name, signal.SIGCONT)

    def processes(self) -> dict[str, psutil.Process]:
        """The processes of our own programs that run now."""
        found = {}
        for name, service in self.services.items():
            if service.process is not None and service.is_running:
                try:
                    found[name] = psutil.Process(service.process.pid)
                except psutil.NoSuchProcess:
                    continue
        return found

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        # All at once first: one that finishes what is in hand for ten seconds holds up no other.
        for service in self.services.values():
            if service.process is not None and service.is_running:
                service.process.send_signal(signal.SIGCONT)
                service.process.send_signal(service.stop_signal)
        self._open.close()

    def _add(self, name: str, command: str, environment: dict[str, str]) -> None:
        log_file = self.directory / "logs" / f"{name.replace(' ', '-')}.log"
        service = Service(command, log_file, environment | {"JUSTIAM_METRICS_PORT": str(free_port())})
        service.spawn()
        self._open.callback(service.stop)
        self.services[name] = service

    def _script_environment(self) -> dict[str, str]:
        # As in production: neither the database nor the keys.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JUSTIAM_", "OTEL_"))}
        return inherited | {
            "JUSTIAM_TEMPORAL_ADDRESS": self.temporal.address,
            # The copy that lives longest; a balancer would choose one that lives.
            "JUSTIAM_SCRIPT_API_URL": self.api_urls[-1],
            "JUSTIAM_SCRIPT_CACHE_DIR": str(self.directory / "scripts"),
            # What a script worker that was killed leaves behind is found there.
            "TMPDIR": str(self._scripts),
            SECRETS_VARIABLE: str(self.directory / "no-secrets"),
        }

    def _signal(self, name: str, number: signal.Signals) -> None:
        program = self.programs[name]
        if program.process is not None and program.is_running:
            program.process.send_signal(number)
