"""`justiam dev`: starts everything in order, keeps it running, stops it in reverse order."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import BaseModel

from cli.dev.data_directory import DataDirectory
from cli.dev.postgres import PostgresServer
from cli.dev.program import DevStackError, Program, free_port, is_port_free
from cli.dev.services import Api, ScriptWorker, Worker
from cli.dev.temporal import NAMESPACE, TemporalDevServer

_DATABASE: Final = "justiam"
_DEMO_TEMPLATE: Final = "Database read-only access"
_LOOK_EVERY_SECS: Final = 0.2
_FIRST_BACKOFF_SECS: Final = 0.5
_LONGEST_BACKOFF_SECS: Final = 10.0
_STABLE_AFTER_SECS: Final = 30.0


class StackOptions(BaseModel, frozen=True):
    """What `justiam dev` was asked for; port 0 means any free one."""

    data_dir: Path
    port: int
    temporal_port: int
    temporal_ui_port: int
    demo: bool


class _StopRequested(BaseException):  # not an Exception: nothing on the way may take it for a failure
    """The user wants it to end."""


@dataclass
class _Watched:
    """A running program and the history of its restarts."""

    program: Program
    attempts: int = 0
    restart_at: float | None = None
    recovering: bool = False
    stable_at: float = 0.0
    """When its last recovery is behind it, on the monotonic clock; its next end is then the first one again."""


def run(options: StackOptions) -> None:
    """Run the development stack until SIGINT, SIGTERM or SIGHUP, then stop it.

    Raises:
        DevStackError: it cannot start; nothing is left running.
    """
    with _stop_requests() as stop, DataDirectory(options.data_dir) as directory:
        DevStack(options, directory, stop).run()


class _Stop:
    """Whether somebody asked us to stop. A flag rather than an exception: a signal may come at any instruction."""

    requested = False

    def check(self) -> None:
        """Raise _StopRequested where that is so."""
        if self.requested:
            raise _StopRequested

    def sleep(self, seconds: float) -> None:
        """Sleep, at most until somebody asks."""
        until = time.monotonic() + seconds
        while not self.requested and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))


class DevStack:
    """One run of the stack in a locked data directory."""

    def __init__(self, options: StackOptions, directory: DataDirectory, stop: _Stop) -> None:
        self._began = time.monotonic()
        self._directory = directory
        self._stop = stop
        self._demo = options.demo
        port = _port(options.port, "--port")
        temporal_port = _port(options.temporal_port, "--temporal-port")
        ui_port = _port(options.temporal_ui_port, "--temporal-ui-port")
        self._api_url = f"http://127.0.0.1:{port}"
        self._postgres = PostgresServer(directory.path / "postgres", log_file=directory.log_file("postgres"))
        self._temporal = TemporalDevServer(
            log_file=directory.log_file("temporal"),
            database=directory.path / "temporal.db",
            port=temporal_port,
            ui_port=ui_port,
        )
        self._worker = Worker(directory.log_file("worker"), self._temporal)
        self._script_worker = ScriptWorker(
            directory.log_file("scripts"), self._temporal, self._api_url, directory.path / "scripts"
        )
        self._api = Api(directory.log_file("api"), self._api_url)
        self._port = port
        self._started: list[Program] = []

    def run(self) -> None:
        """Start, supervise, stop."""
        _say(f"Starting JustIAM with its data in {self._directory.path}")
        self._directory.announce(self._api_url)
        try:
            self._say_ready(self._start())
            self._supervise([_Watched(program) for program in self._started])
        except _StopRequested:
            _say("Stopping")
        finally:
            self._stop_all()

    def _start(self) -> dict[str, Any]:
        servers = self._spawn(self._postgres, self._temporal)
        # Imported while the servers start, and not before: it takes longer than they do.
        from cli.dev import furnish

        self._wait_until_healthy(*servers)
        database_url = self._postgres.url(_DATABASE)
        self._set_environment(database_url)
        with self._step("schema"):
            self._postgres.create_database(_DATABASE)
            furnish.record(database_url)
        with self._step("Schedule"):
            furnish.process()
        services = self._spawn(self._worker, self._api, self._script_worker)
        users = self._directory.users()
        if self._demo:
            with self._step("demo data"):
                users = furnish.people(database_url, users)
            self._directory.keep_users(users)
        self._wait_until_healthy(*services)
        return users

    def _spawn(self, *programs: Program) -> tuple[Program, ...]:
        for program in programs:
            program.prepare()
            program.spawn()
            self._started.append(program)
            self._directory.record_children(self._started)
        return programs

    def _wait_until_healthy(self, *programs: Program) -> None:
        for program in programs:
            with self._step(program.name):
                program.wait_until_healthy(self._stop.check)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """One line of progress: the name at once; at the end, the time since the start."""
        _say(f"  {name:<12} ", end="")
        try:
            yield
        except BaseException:
            _say("")
            raise
        _say(f"ready    {time.monotonic() - self._began:5.1f} s")
        self._stop.check()

    def _set_environment(self, database_url: str) -> None:
        """Set what the children read, for this process too: it does some of their work with the same settings."""
        os.environ |= {
            "JUSTIAM_DATABASE_URL": database_url,
            "JUSTIAM_TEMPORAL_ADDRESS": self._temporal.address,
            "JUSTIAM_TEMPORAL_NAMESPACE": NAMESPACE,
            "JUSTIAM_SECRET_KEY": self._directory.secret_key(),
            "JUSTIAM_TRUST_SIGNAL_ACTORS": "true",
            "JUSTIAM_API_HOST": "127.0.0.1",
            "JUSTIAM_API_PORT": str(self._port),
            "JUSTIAM_PUBLIC_URL": self._api_url,
            "JUSTIAM_DEV_SIGN_IN": "true",
            "JUSTIAM_TEMPORAL_UI_URL": f"http://127.0.0.1:{self._temporal.ui_port}",
            "JUSTIAM_LOG_FORMAT": "console",
        }

    def _say_ready(self, users: dict[str, Any]) -> None:
        ui_url = f"http://127.0.0.1:{self._temporal.ui_port}"
        description = self._directory.describe_instance(
            {
                "api_url": self._api_url,
                "temporal_address": self._temporal.address,
                "temporal_ui_url": ui_url,
                "temporal_namespace": NAMESPACE,
                "database_url": self._postgres.url(_DATABASE),
                "users": users,
            }
        )
        lines = [
            "",
            f"JustIAM is ready ({time.monotonic() - self._began:.1f} s). Ctrl-C stops it.",
            "",
            f"  Pages             {self._api_url}",
            f"  API, try it out   {self._api_url}/docs",
            f"  Temporal UI       {ui_url}",
            f"  Tokens, addresses {description}",
            f"  Logs              {self._directory.path / 'logs'}",
            *self._tour(users),
        ]
        _say("\n".join(lines))

    def _tour(self, users: dict[str, Any]) -> list[str]:
        """A request by alice and its approval by bob, to be pasted into a shell."""
        template = self._demo_template(users)
        if template is None:
            return []
        body = {
            "template_id": template["id"],
            "requested_duration_mins": min(template["allowed_durations"], default=60),
            "justification": "Need access to debug the production incident.",
        }
        return [
            "",
            "Ask for access as alice:",
            "",
            f"  {self._curl('access-requests', users['alice'], body)}",
            "",
            "Approve it as bob, with the id from the answer:",
            "",
            f"  {self._curl('access-requests/<id>/approve', users['bob'], {'comment': 'For this incident.'})}",
            *self._terraform(users),
        ]

    def _terraform(self, users: dict[str, Any]) -> list[str]:
        """The example of docs/terraform, to be pasted into a shell in a checkout."""
        if "admin" not in users:
            return []
        terraform = (
            f"JUSTIAM_ENDPOINT={self._api_url} JUSTIAM_TOKEN={users['admin']['token']} terraform -chdir=examples"
        )
        return [
            "",
            "Have an environment made by Terraform (in a checkout):",
            "",
            f"  make terraform-provider && terraform -chdir=examples init && {terraform} apply",
        ]

    def _demo_template(self, users: dict[str, Any]) -> dict[str, Any] | None:
        if not {"alice", "bob"} <= users.keys():
            return None
        headers = {"Authorization": f"Bearer {users['alice']['token']}"}
        try:
            answer = httpx.get(f"{self._api_url}/api/v1/access-request-templates", headers=headers, trust_env=False)
            templates: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
        except httpx.HTTPError:
            return None
        return next((template for template in templates if template["name"] == _DEMO_TEMPLATE), None)

    def _curl(self, path: str, user: dict[str, str], body: dict[str, Any]) -> str:
        headers = ["-H", f"Authorization: Bearer {user['token']}", "-H", "Content-Type: application/json"]
        return shlex.join(["curl", "-s", f"{self._api_url}/api/v1/{path}", *headers, "-d", json.dumps(body)])

    def _supervise(self, watched: list[_Watched]) -> None:
        while True:
            self._stop.sleep(_LOOK_EVERY_SECS)
            self._stop.check()
            for each in watched:
                self._attend(each)

    def _attend(self, watched: _Watched) -> None:
        """Start a program again that has ended; say so, and say when it is well again."""
        program, now = watched.program, time.monotonic()
        if program.is_running:
            if watched.recovering and program.is_healthy():
                _say(f"{program.name} is ready again.")
                watched.recovering = False
                watched.stable_at = now + _STABLE_AFTER_SECS
            return
        if watched.restart_at is None:
            if not watched.recovering and now > watched.stable_at:
                watched.attempts = 0
            delay = min(_FIRST_BACKOFF_SECS * 2**watched.attempts, _LONGEST_BACKOFF_SECS)
            watched.attempts += 1
            watched.restart_at = now + delay
            watched.recovering = True
            _say(f"{program.name} {program.how_it_ended()}; starting it again in {delay:.1f} s ({program.log_file})")
        elif now >= watched.restart_at:
            watched.restart_at = None
            try:
                program.prepare()
                program.spawn()
            except DevStackError as error:
                _say(str(error))
            self._directory.record_children(self._started)

    def _stop_all(self) -> None:
        for program in reversed(self._started):
            if program.is_running:
                _say(f"  {program.name:<12} ", end="")
                began = time.monotonic()
                program.stop()
                _say(f"stopped  {time.monotonic() - began:5.1f} s")


@contextmanager
def _stop_requests() -> Iterator[_Stop]:
    stop = _Stop()

    def request(*_: object) -> None:
        stop.requested = True

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, request) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _say(text: str, *, end: str = "\n") -> None:
    # A terminal that was closed must not keep us from stopping what we started.
    with contextlib.suppress(OSError):
        print(text, end=end, flush=True)


def _port(wanted: int, option: str) -> int:
    if wanted == 0:
        return free_port()
    try:
        free = is_port_free(wanted)
    except PermissionError:
        raise DevStackError(f"Port {wanted} may not be used: choose one above 1023 with {option}") from None
    if not free:
        raise DevStackError(f"Port {wanted} is in use: choose another with {option}, or {option} 0 for any free one")
    return wanted
