"""Programs that are not trusted: started apart from everything, watched, and ended with all that they started.

Scripts run in it, and so does the compiler that reads them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import cache as cached
from pathlib import Path
from typing import Any, Final

import structlog

_log = structlog.get_logger(__name__)

_MIB: Final = 1024**2
_END_SECS: Final = 5.0
"""How long the supervisor has to end what the program started, before it is killed itself."""
_FIRST_UID: Final = 60_000
_UIDS: Final = 5_000
"""Where the worker is root, each run has a user of its own from this range, which owns nothing else."""
_INTERPRETERS: Final = ("/usr/local/bin/python3", "/usr/bin/python3")
_LAUNCHER: Final = Path(__file__).with_name("launcher.py")
SIGNALLED: Final = 128
"""Exit codes above say by which signal a process ended, as shells have it."""
_FOR_ALL: Final = 0o005
"""Permission bits: every user may read and execute."""
_HIDDEN: Final = ("/root", "/home", "/tmp", "/var/tmp", "/run")  # noqa: S108 - what a script is not to see of them
_WRITABLE: Final = ("/tmp", "/dev/shm")  # noqa: S108 - beside its own directory, empty and small, with bubblewrap alone
_WRITABLE_BYTES: Final = 16 * _MIB
_SYSTEM: Final = (
    *("/bin", "/etc", "/lib", "/lib32", "/lib64", "/nix", "/opt", "/sbin", "/sys", "/usr"),
    "/var/lib/ca-certificates",
    # Of /proc, what concerns the machine: all else there tells of other processes.
    *(f"/proc/{name}" for name in ("cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "sys", "uptime", "version")),
)
"""What a script needs to read, and where nothing of the script worker's own is."""
_DEVICES: Final = ("/dev/null", "/dev/full", "/dev/random", "/dev/urandom")
"""Not /dev/zero: mapped, it is shared memory that cannot be counted."""
_RESOLVER: Final = Path("/etc/resolv.conf")
"""Often a link into a directory that scripts do not see."""
_PR_SET_DUMPABLE: Final = 4
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_KNOWS_TCP: Final = 4
_PREFIX: Final = "justiam-task-"
"""Not that of earlier versions, `justiam-run-`, which did not lock the directories of runs that go on."""
_REMOVE_SECS: Final = 30.0
"""What is not removed by then is left to the next start of a script worker."""
_REMOVE: Final = 'chmod -R u+rwx -- "$@" 2>/dev/null; exec rm -rf -- "$@"'
"""`chmod -R` and `rm -rf` follow no links, and remove directories whose paths are too long to be named."""
_TAKEN: Final[set[int]] = set()
"""The user ids of the runs in progress."""


@dataclass(frozen=True)
class Limits:
    """What a program may use. Memory, processes and disk are those of all its processes together."""

    cpu_seconds: int
    memory_bytes: int = 1024 * _MIB
    processes: int = 64
    """Threads count as well."""
    disk_bytes: int = 256 * _MIB
    entries: int = 10_000
    """Files and directories."""
    file_bytes: int = 16 * _MIB
    """For each file."""
    open_files: int = 256
    """For each process."""
    output_bytes: int = 16 * _MIB
    kept_bytes: int = 128 * 1024
    """As much of the output is returned."""


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    exit_code: int | None
    """None where it was killed by the script worker; 128 + n where signal n ended it."""
    output: bytes
    output_bytes: int
    """How much it printed, of which `output` is the beginning."""
    timed_out: bool
    over: str | None
    """Which limit it passed: the name of a field of `Limits`, or `unmeasured` where its files could not be measured."""
    duration_ms: int
    isolation: str


def harden_this_process() -> None:
    """Keep scripts that run as the same user out of this process's memory and environment."""
    if sys.platform == "linux" and os.getuid() != 0:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def run(
    command: Sequence[str],
    *,
    data: bytes,
    limits: Limits,
    seconds: float,
    network: bool,
    python: bool = False,
    program: Path | None = None,
    shown: Sequence[Path] = (),
) -> Ended:
    """Run a program to its end, in an empty directory. Cancelled, it kills everything that the program started.

    Args:
        command: the program and its arguments; only arguments where `python` or `program` says what to start.
        data: its standard input.
        limits: what it may use. Over one of them, it is killed.
        seconds: how long it may take. Preparing and removing its directory does not count.
        network: whether it may use the network, as far as that can be taken away.
        python: start a Python that the program's user can start.
        program: a file to copy into the program's directory, and to start there.
        shown: files and directories that the program may read beside the system's.
    """
    async with _directory(shown) as (directory, uid):
        home = directory / "home"
        needed = [str(path) for path in shown]
        if python:
            interpreter = _interpreter(unprivileged=uid is not None)
            command = [interpreter, "-I", "-S", *command]
            needed += _needed(interpreter)
        elif program is not None:
            copy = directory / "task"
            await asyncio.to_thread(shutil.copyfile, program, copy)
            copy.chmod(0o555)
            command = [str(copy), *command]
        if (resolver := _RESOLVER.resolve()).exists():
            needed.append(str(resolver))
        return await _supervised(
            command, data, directory, home, uid, needed, limits=limits, seconds=seconds, network=network
        )


@asynccontextmanager
async def _directory(shown: Sequence[Path]) -> AsyncIterator[tuple[Path, int | None]]:
    """Make the directory of a run, with `home` in it that the run may write, and choose the run's user."""
    directory, lock = _made()
    uid = None
    # With a user of its own, a run cannot read what only root may. Such a run stays root, without capabilities.
    if os.getuid() == 0 and all(map(_open_to_all, shown)):
        free = [number for number in range(_FIRST_UID, _FIRST_UID + _UIDS) if number not in _TAKEN]
        uid = secrets.choice(free)
        _TAKEN.add(uid)
    try:
        home = directory / "home"
        home.mkdir(mode=0o700)
        if uid is not None:
            os.chown(home, uid, uid)
            os.chown(directory, -1, uid)
            directory.chmod(0o750)
        yield directory, uid
    finally:
        try:
            await asyncio.shield(_remove([directory]))
        finally:
            os.close(lock)
            _TAKEN.discard(uid or 0)


def _made() -> tuple[Path, int]:
    """Make an empty directory, and lock it: what is not locked is left by a script worker that died."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX)).absolute()
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if directory.stat().st_ino == os.fstat(lock).st_ino:
                return directory, lock
        # Another script worker took it for a leftover and removes it. Make another one.
        os.close(lock)


async def _remove(directories: list[Path]) -> None:
    """Remove directories with all that a script may have left there, in a process that may take its time."""
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", _REMOVE, "sh", *map(str, directories)),
        cwd="/",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_REMOVE_SECS):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    left = [str(directory) for directory in directories if directory.exists()]
    if left:
        _log.warning("script_directories_left", directories=left)


async def remove_leftovers() -> None:
    """Remove the directories of runs whose script worker died: our own, which no script worker has locked."""
    locked = await asyncio.to_thread(_lock_leftovers)
    try:
        if locked:
            await _remove(list(locked))
    finally:
        for lock in locked.values():
            os.close(lock)


def _lock_leftovers() -> dict[Path, int]:
    locked = {}
    for directory in Path(tempfile.gettempdir()).absolute().glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    locked[directory] = lock
            finally:
                if directory not in locked:
                    os.close(lock)
    return locked


async def _supervised(
    command: Sequence[str],
    data: bytes,
    directory: Path,
    home: Path,
    uid: int | None,
    needed: list[str],
    *,
    limits: Limits,
    seconds: float,
    network: bool,
) -> Ended:
    bubblewrap = _bubblewrap()
    # bubblewrap mounts file systems, which Landlock forbids: a run has one of the two.
    landlock = _landlock() if bubblewrap is None else None
    if bubblewrap is not None:
        command = [*_wrapped(bubblewrap, directory, home, needed, limits, network=network), *command]
    orders = {
        "command": command,
        "home": str(home),
        "parent": os.getpid(),
        "uid": uid,
        "limits": asdict(limits),
        "mounted": bubblewrap is not None,
        "places": [str(home), *(_WRITABLE if bubblewrap is not None else ())],
        "landlock": None
        if landlock is None
        else {
            "version": landlock,
            "read": [*_SYSTEM, *needed, str(directory)],
            "write": [str(home)],
            "devices": _DEVICES,
            "network": network,
        },
    }
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(_LAUNCHER), json.dumps(orders)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        start_new_session=True,
    )
    talk = _Conversation(process, limits)
    talking = asyncio.create_task(talk.hold(data))
    timed_out = False
    try:
        async with asyncio.timeout(seconds):
            await talk.over.wait()
    except TimeoutError:
        timed_out = True
    finally:
        await asyncio.shield(_end(process, talking))
    if talk.complaint and talk.complaint not in (*asdict(limits), "unmeasured"):
        _log.error("script_supervisor_failed", complaint=talk.complaint)
    over = "output_bytes" if talk.read > limits.output_bytes else talk.complaint or None
    killed = timed_out or over is not None or (process.returncode or 0) < 0
    return Ended(
        exit_code=None if killed else process.returncode,
        output=bytes(talk.kept),
        output_bytes=talk.read,
        timed_out=timed_out,
        over=None if timed_out else over,
        duration_ms=round((time.monotonic() - began) * 1000),
        isolation=_isolation(uid, bubblewrap, landlock, network=network),
    )


class _Conversation:
    """Hold what a program is sent and what it prints."""

    def __init__(self, process: asyncio.subprocess.Process, limits: Limits) -> None:
        self._process = process
        self._limits = limits
        self.kept = bytearray()
        self.read = 0
        self.complaint = ""
        """What the supervisor says: which limit was passed."""
        self.over = asyncio.Event()
        """Set once all output is read, or more than is allowed."""

    async def hold(self, data: bytes) -> None:
        """Hand over what the program may know, and read what it prints until it ends."""
        if self._process.stdin is None or self._process.stdout is None or self._process.stderr is None:
            raise ValueError("a program is started with pipes")
        # The program may end without reading its input.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        self._process.stdin.close()
        # Read to the end even where nothing more is kept: asyncio knows that a process is over when its pipes are.
        while chunk := await self._process.stdout.read(65_536):
            self.read += len(chunk)
            self.kept += chunk[: max(0, self._limits.kept_bytes - len(self.kept))]
            if self.read > self._limits.output_bytes:
                self.over.set()
        self.complaint = (await self._process.stderr.read()).decode(errors="replace").strip()
        await self._process.wait()
        self.over.set()


async def _end(process: asyncio.subprocess.Process, talking: asyncio.Task[None]) -> None:
    """End the supervisor, which ends everything below it."""
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(_END_SECS):
                await asyncio.shield(talking)
        except TimeoutError:
            process.kill()
    await asyncio.gather(talking, return_exceptions=True)


@cached
def _interpreter(*, unprivileged: bool) -> str:
    """A Python that the script's user can start; the worker's own may be where only the worker's user may go."""
    own = os.path.realpath(sys.executable)
    if not unprivileged or _open_to_all(Path(own)):
        return own
    return next((path for path in _INTERPRETERS if os.access(path, os.X_OK)), own)


def _open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & _FOR_ALL == _FOR_ALL for parent in [path, *path.parents])


_TRIED: Final = (
    *("--ro-bind", "/", "/", "--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-net"),
    *("--proc", "/proc", "--dev", "/dev", "--size", "4096", "--tmpfs", "/dev/shm"),  # noqa: S108 - a file system of its own
)


@cached
def _bubblewrap() -> str | None:
    """Return bubblewrap, where it is installed (0.8 or newer) and may be used: some containers forbid what it needs."""
    found = shutil.which("bwrap")
    if found is None:
        return None
    import subprocess  # noqa: PLC0415 - for this one look

    # As whom the scripts run: a system may let root alone do what bubblewrap needs.
    as_whom: dict[str, Any] = {"user": _FIRST_UID, "group": _FIRST_UID, "extra_groups": []} if os.getuid() == 0 else {}
    tried = subprocess.run(  # noqa: S603 - a program of the system, with arguments of our own
        [found, *_TRIED, "true"],
        capture_output=True,
        check=False,
        timeout=10,
        cwd="/",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        **as_whom,
    )
    return found if tried.returncode == 0 else None


@cached
def _landlock() -> int | None:
    """The version of Landlock that this kernel has, which needs neither root nor anything installed."""
    if sys.platform != "linux":
        return None
    version: int = ctypes.CDLL(None).syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    return version if version > 0 else None


def _needed(interpreter: str) -> list[str]:
    """Return what a script needs of places that are not the system's: a Python that was installed elsewhere."""
    own = [sys.base_prefix] if interpreter == os.path.realpath(sys.executable) else []
    # A virtual environment may have copies instead of links.
    own += [sys.prefix] if Path(interpreter).is_relative_to(sys.prefix) else []
    return [path for path in own if Path(path).exists()]


def _wrapped(
    bubblewrap: str, directory: Path, home: Path, needed: list[str], limits: Limits, *, network: bool
) -> list[str]:
    hidden = [path for path in _HIDDEN if Path(path).is_dir()]
    shown = [part for path in needed for part in ("--ro-bind", path, path) if path.startswith(_HIDDEN)]
    return [
        bubblewrap,
        *("--ro-bind", "/", "/"),
        *("--dev", "/dev"),
        *("--dev-bind", "/dev/null", "/dev/zero"),
        *("--proc", "/proc"),
        *(part for path in {*hidden, *_WRITABLE} for part in ("--size", str(_WRITABLE_BYTES), "--tmpfs", path)),
        *shown,
        # What it writes is gone with its last process.
        *("--size", str(limits.disk_bytes), "--tmpfs", str(home)),
        *(("--ro-bind", str(directory / "task"), str(directory / "task")) if (directory / "task").exists() else ()),
        *(part for path in (*hidden, "/dev") if path not in _WRITABLE for part in ("--remount-ro", path)),
        *("--cap-drop", "ALL"),
        "--unshare-user",
        # Otherwise it mounts file systems of any size.
        "--disable-userns",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        *(() if network else ("--unshare-net",)),
        "--die-with-parent",
        "--new-session",
        *("--chdir", str(home)),
        "--",
    ]


def _isolation(uid: int | None, bubblewrap: str | None, landlock: int | None, *, network: bool) -> str:
    parts = ["limits on processor time, memory, processes, disk and output"]
    parts.append(f"user {uid} of its own" if uid is not None else "the user of the script worker")
    if bubblewrap is not None:
        parts.append("bubblewrap: read-only system, processes of its own")
    elif landlock is not None:
        parts.append("Landlock: reads the system, writes in its own directory alone, nothing of other processes")
    else:
        parts.append("neither bubblewrap nor Landlock")
    if network:
        parts.append("network")
    elif bubblewrap is not None:
        parts.append("no network")
    elif (landlock or 0) >= _LANDLOCK_KNOWS_TCP:
        parts.append("no TCP; other network, which could not be taken away without bubblewrap")
    else:
        parts.append("network, which could not be taken away without bubblewrap")
    return "; ".join(parts)
