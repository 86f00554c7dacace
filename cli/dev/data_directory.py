"""What `justiam dev` keeps between two starts, and the guarantee that only one instance uses it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import secrets
import shlex
import signal
import stat
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from cli.dev.program import DevStackError, Program

_END_TIMEOUT_SECS: Final = 10.0
_SAME_START_SECS: Final = 2.0
"""How far two readings of one start may lie apart: the system counts it from a boot time that drifts a little."""
_POLL_SECS: Final = 0.05
_LOG_MAX_BYTES: Final = 10_000_000
_FOR_OTHERS: Final = 0o077
"""Permissions of users other than the owner."""
_POSTGRES: Final = "postgres"


class DataDirectory:
    """One directory, locked for this process from entry to exit of the context.

    `dev.json` describes the running instance and is removed when it stops; `users.json` keeps the demo people's tokens.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def __enter__(self) -> Self:
        """Lock the directory, and end what a killed instance left running in it.

        Everything in it is for its owner alone, also where it was made with other permissions. So is what this process
        and its children make from now on.

        Raises:
            DevStackError: another instance uses it, it cannot be written, or other users could read or replace what is
                in it.
        """
        os.umask(_FOR_OTHERS)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _protect(self.path)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise DevStackError(
                f"Cannot write the data directory {self.path}: {error.strerror}. Choose another with --data-dir"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._read("lock")
            os.close(self._lock)
            raise DevStackError(
                f"The data directory {self.path} is in use by {_instance(holder)}. "
                "Stop that one, or choose another with --data-dir"
            ) from None
        self.announce(None)
        self.forget_instance()
        self._end_leftovers()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the directory to the next instance."""
        self.forget_instance()
        os.close(self._lock)

    def announce(self, api_url: str | None) -> None:
        """Tell others that find the directory locked who holds it, and where it answers."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps({"pid": os.getpid(), "api_url": api_url}).encode(), 0)

    def secret_key(self) -> str:
        """The key that signs proofs here, made once."""
        path = self.path / "secret.key"
        if not path.exists():
            self._write("secret.key", secrets.token_hex(32))
        return path.read_text()

    def log_file(self, name: str) -> Path:
        """Where a program's output goes. A file that has grown large makes room for a new one."""
        path = self.path / "logs" / f"{name}.log"
        if path.exists() and path.stat().st_size > _LOG_MAX_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path

    def users(self) -> dict[str, Any]:
        """The demo people of an earlier start with their tokens; empty on the first start."""
        return self._read("users.json")

    def keep_users(self, users: dict[str, Any]) -> None:
        """Keep the demo people for the next start."""
        self._write("users.json", json.dumps(users, indent=2) + "\n")

    def describe_instance(self, instance: dict[str, Any]) -> Path:
        """Write dev.json: whole, or not at all."""
        return self._write("dev.json", json.dumps(instance, indent=2) + "\n")

    def forget_instance(self) -> None:
        """Remove dev.json, so that it never describes an instance that is not there."""
        (self.path / "dev.json").unlink(missing_ok=True)

    def record_children(self, programs: list[Program]) -> None:
        """Note which processes are ours, for the instance that comes after a killed one."""
        children = []
        for program in programs:
            if program.process is None:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                children.append(
                    {
                        "name": program.name,
                        "pid": program.process.pid,
                        "started": psutil.Process(program.process.pid).create_time(),
                        "signal": program.stop_signal.value,
                    }
                )
        self._write("children.json", json.dumps({"children": children}) + "\n")

    def _end_leftovers(self) -> None:
        """End what a killed instance started.

        We hold the lock, so that instance is gone; a process with the noted id and the noted start is its child.
        """
        leftovers = []
        for child in self._read("children.json").get("children", []):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(child["pid"])
                if abs(process.create_time() - child["started"]) < _SAME_START_SECS:
                    process.send_signal(signal.Signals(child["signal"]))
                    leftovers.append(process)
        if not _gone(leftovers, _END_TIMEOUT_SECS):
            for process in leftovers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            _gone(leftovers, _END_TIMEOUT_SECS)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return content

    def _write(self, name: str, content: str) -> Path:
        path = self.path / name
        unfinished = path.with_name(f"{name}.unfinished")
        try:
            unfinished.unlink(missing_ok=True)
            # Only for the owner from the first byte on: it may hold tokens and passwords.
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError as error:
            raise DevStackError(f"Cannot write {path}: {error.strerror}") from None
        return path


def _protect(directory: Path) -> None:
    """Take all permissions on the directory and its files from other users.

    PostgreSQL looks after its own directory, which belongs to another account where this is root.

    Raises:
        DevStackError: the directory, a file or a link in it belongs to another user, others may replace the directory,
            or the file system does not keep permissions.
        OSError: a file cannot be read or changed.
    """
    for parent in directory.absolute().resolve().parents:
        found = parent.stat()
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise DevStackError(
                f"Every user may write to {parent}, and so replace the data directory {directory}. "
                f"Choose another with --data-dir, or run: chmod o-w {shlex.quote(str(parent))}"
            )
    # Those who could write to it may have left links and files; they are found before anything is read or followed.
    for place in (directory, directory.resolve()):
        _check_owner(place, directory)
    _tighten(directory)
    for path in (*directory.iterdir(), *_entries(directory / "logs"), *_entries(directory / "scripts")):
        if path.name != _POSTGRES:
            _check_owner(path, directory)
            if not path.is_symlink():
                _tighten(path)


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() and not directory.is_symlink() else []


def _check_owner(path: Path, directory: Path) -> None:
    owner = path.lstat().st_uid
    if owner != os.geteuid():
        raise DevStackError(
            f"{path} belongs to another user ({_user_name(owner)}), who could read and change what `justiam dev` keeps "
            f"in {directory}. Choose another directory with --data-dir, or remove this one"
        )


def _tighten(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & _FOR_OTHERS:
        return
    path.chmod(mode & ~_FOR_OTHERS)
    if path.stat().st_mode & _FOR_OTHERS:
        raise DevStackError(
            f"Other users may read {path}, and its file system does not let that be changed. "
            "Choose another directory with --data-dir"
        )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def _instance(holder: dict[str, Any]) -> str:
    pid = f"process {holder['pid']}" if "pid" in holder else "another process"
    return f"{pid}, which answers at {holder['api_url']}" if holder.get("api_url") else f"{pid}, which is starting"


def _gone(processes: list[psutil.Process], timeout_secs: float) -> bool:
    """Wait until they have all ended. One that nobody collects, as in a container without an init, has ended too."""
    deadline = time.monotonic() + timeout_secs
    while any(_is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECS)
    return True


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
