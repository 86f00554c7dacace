"""A program that runs as a child of this process: started, asked for its health, stopped."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final, Self

_POLL_SECS: Final = 0.05
_LOG_TAIL_LINES: Final = 12


class DevStackError(Exception):
    """The development stack cannot run; the message says why and what to do."""


class Program(ABC):
    """One child process, its log file and its health. Not thread-safe.

    As a context manager it is started on entry and stopped on exit.
    """

    name: ClassVar[str]
    """What people and the log files call it."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    """What makes it end in an orderly way."""
    start_timeout_secs: ClassVar[float] = 60.0
    stop_timeout_secs: ClassVar[float] = 15.0
    """How long it may take to end before it is killed."""

    def __init__(self, log_file: Path) -> None:
        self.log_file = log_file
        self.environment: dict[str, str] | None = None
        """What the process sees; None: what this process sees."""
        self.process: subprocess.Popen[bytes] | None = None
        self.spawned_at = datetime.max.replace(tzinfo=UTC)

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def is_healthy(self) -> bool:
        """Whether it does its work now; asks the program itself and answers within a few seconds."""

    def prepare(self) -> None:  # noqa: B027 - most programs need nothing
        """Make what the program needs before it can start.

        Raises:
            DevStackError: it cannot be made.
        """

    def launcher(self) -> list[str]:
        """What goes before the command: where Linux's setpriv is there, it has the kernel end an orphan.

        Raises:
            DevStackError: there is no way to run the program here.
        """
        if sys.platform == "linux" and (setpriv := shutil.which("setpriv")):
            return [setpriv, "--pdeathsig", self.stop_signal.name.removeprefix("SIG")]
        return []

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def spawn(self) -> None:
        """Start the process without waiting for its health.

        Raises:
            DevStackError: the log file cannot be written.
        """
        try:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            log = self.log_file.open("ab")
        except OSError as error:
            raise DevStackError(f"Cannot write {self.log_file}: {error.strerror}") from None
        with log:
            self.spawned_at = datetime.now(UTC)
            self.process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                [*self.launcher(), *self.command()],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C reaches the supervisor alone, which stops its children in order.
                process_group=0,
            )

    def start(self) -> None:
        """Start the process and return when it is healthy.

        Raises:
            DevStackError: it ended or was not healthy in time.
        """
        self.prepare()
        self.spawn()
        self.wait_until_healthy()

    def wait_until_healthy(self, while_waiting: Callable[[], None] = lambda: None) -> None:
        """Return when the process is healthy; stop it where that fails.

        Args:
            while_waiting: called again and again; what it raises ends the waiting.

        Raises:
            DevStackError: the process ended or was not healthy in time.
        """
        deadline = time.monotonic() + self.start_timeout_secs
        try:
            while not self.is_healthy():
                while_waiting()
                self._check_progress(deadline)
                time.sleep(_POLL_SECS)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process: in an orderly way, or by force where that takes too long. Returns when it has ended."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(self.stop_timeout_secs)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def how_it_ended(self) -> str:
        """The end of a process as a person would say it."""
        status = self.process.poll() if self.process else None
        if status is None:
            return "is running"
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with exit code {status}"

    def log_tail(self) -> str:
        """The last lines of the log, for an error message."""
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        except OSError:
            lines = []
        return "\n".join([f"The end of {self.log_file}:", *(f"  {line}" for line in lines)])

    def _check_progress(self, deadline: float) -> None:
        if not self.is_running:
            raise DevStackError(f"{self.name} {self.how_it_ended()}\n{self.log_tail()}")
        if time.monotonic() > deadline:
            raise DevStackError(f"{self.name} was not ready in {self.start_timeout_secs:.0f} s\n{self.log_tail()}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_port_free(port: int) -> bool:
    """Whether a server could listen on this TCP port of 127.0.0.1.

    Raises:
        PermissionError: the system keeps the port for itself (below 1024, for people other than root).
    """
    with socket.socket() as probe:
        # As servers do it: connections of an earlier run that linger in TIME_WAIT do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise
        except OSError:
            return False
    return True
