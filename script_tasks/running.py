"""One run of one script: started apart from everything, watched, and ended with all that it started."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache as cached
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from domain.tasks import Ending, Language, RunResult, source_text
from script_tasks import compiling, masking

OUTPUT_BYTES: Final = 64 * 1024
"""As much of what a script prints is kept."""
_TRUNCATED: Final = "\n… (truncated)"
_MOST_OUTPUT_BYTES: Final = 16 * 1024 * 1024
"""A script that prints more is ended: nobody reads it, and reading it costs the worker."""
_END_SECS: Final = 5.0
"""How long the supervisor has to end what the script started, before it is killed itself."""
_FIRST_UID: Final = 60_000
_UIDS: Final = 5_000
"""Where the worker is root, each run has a user of its own from this range, which owns nothing else."""
_INTERPRETERS: Final = ("/usr/local/bin/python3", "/usr/bin/python3")
_LAUNCHER: Final = Path(__file__).with_name("launcher.py")
_HARNESS: Final = Path(__file__).with_name("harness.py")
_SIGNALLED: Final = 128
"""Exit codes above say by which signal a process ended, as shells have it."""
_FOR_ALL: Final = 0o005
"""Permission bits: whoever it is may read and execute."""
_HIDDEN: Final = ("/root", "/home", "/tmp", "/var/tmp", "/run")  # noqa: S108 - what a script is not to see of them
_SYSTEM: Final = (
    *("/bin", "/etc", "/lib", "/lib32", "/lib64", "/nix", "/opt", "/proc", "/sbin", "/sys", "/usr"),
    "/var/lib/ca-certificates",
)
"""What a script needs to read, and where nothing of the script worker's own is."""
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_RESOLVER: Final = Path("/etc/resolv.conf")
"""Often a link to where nothing is seen."""
_PR_SET_DUMPABLE: Final = 4
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_KNOWS_TCP: Final = 4


class Approver(BaseModel):
    """Somebody who was asked to decide the request."""

    id: str
    email: str
    name: str


@dataclass(frozen=True)
class Job:
    """What to run, and what the script may know. Not shown in logs: it holds secrets."""

    run_id: str
    language: Language
    script: str
    config: dict[str, str]
    approvers: list[Approver]
    secrets: dict[str, str]
    timeout_seconds: float
    network: bool

    def __repr__(self) -> str:
        return f"Job({self.run_id})"


def unavailable(language: Language) -> str | None:
    """Why scripts in this language cannot be run here, with what to do about it; None where they can."""
    if language is Language.GO and compiling.toolchain() is None:
        return "Go is not installed on this script worker: pip install 'justiam[go]', and start it again."
    return None


def harden_this_process() -> None:
    """Keep scripts that run as the same user out of this process's memory and environment."""
    if sys.platform == "linux" and os.getuid() != 0:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def run(job: Job, *, cache: Path) -> RunResult:
    """Run a script to its end. Cancelled, it kills everything that the script started.

    Args:
        job: what to run.
        cache: where compiled scripts are kept; nobody else may write there.
    """
    binary: Path | None = None
    if job.language is Language.GO:
        compiled = await compiling.compiled(job.script, cache)
        if isinstance(compiled, str):
            output, truncated = _bounded(await _masked(compiled, job))
            return RunResult(
                ending=Ending.FAILED, output=output, output_truncated=truncated, error="The script does not compile."
            )
        binary = compiled
    directory = Path(tempfile.mkdtemp(prefix="justiam-run-"))
    try:
        return await _supervised(job, directory, binary)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _supervised(job: Job, directory: Path, binary: Path | None) -> RunResult:
    began = time.monotonic()
    home = directory / "home"
    home.mkdir(mode=0o700)
    uid = _FIRST_UID + secrets.randbelow(_UIDS) if os.getuid() == 0 else None
    if uid is not None:
        os.chown(directory, uid, uid)
        os.chown(home, uid, uid)
    interpreter = _interpreter(unprivileged=uid is not None)
    if binary is None:
        command = [interpreter, "-I", "-S", "-c", _HARNESS.read_text()]
    else:
        copy = directory / "task"
        shutil.copyfile(binary, copy)
        copy.chmod(0o555)
        command = [str(copy)]
    needed = _needed(interpreter)
    bubblewrap = _bubblewrap()
    # Whom Landlock restricts may mount nothing, so that it has to be one or the other.
    landlock = _landlock() if bubblewrap is None else None
    if bubblewrap is not None:
        command = [*_wrapped(bubblewrap, directory, home, needed, network=job.network), *command]
    orders = {
        "command": command,
        "home": str(home),
        "parent": os.getpid(),
        "uid": uid,
        "cpu_seconds": int(job.timeout_seconds) + 2,
        "landlock": None
        if landlock is None
        else {
            "version": landlock,
            "read": [*_SYSTEM, *needed, str(directory)],
            "write": [str(home)],
            "devices": _DEVICES,
            "network": job.network,
        },
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        str(_LAUNCHER),
        json.dumps(orders),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        start_new_session=True,
    )
    talk = _Conversation(process)
    talking = asyncio.create_task(talk.hold(_input(job)))
    timed_out = False
    try:
        async with asyncio.timeout(job.timeout_seconds):
            await talk.over.wait()
    except TimeoutError:
        timed_out = True
    finally:
        await asyncio.shield(_end(process, talking))
    too_much = talk.read > _MOST_OUTPUT_BYTES
    code = process.returncode or 0
    # What ended by itself has printed all that it wanted to; what was killed may have been in the middle of a secret.
    incomplete = talk.read > len(talk.kept)
    cut = timed_out or too_much or incomplete or code < 0 or code > _SIGNALLED
    printed = codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(talk.kept), final=not cut)
    output, truncated = _bounded(await _masked(printed, job, cut=cut), incomplete=incomplete)
    return RunResult(
        ending=Ending.TIMED_OUT
        if timed_out
        else Ending.SUCCEEDED
        if process.returncode == 0 and not too_much
        else Ending.FAILED,
        exit_code=None if timed_out or too_much or (process.returncode or 0) < 0 else process.returncode,
        duration_ms=round((time.monotonic() - began) * 1000),
        output=output,
        output_truncated=truncated,
        error=_error(job, process.returncode, output, timed_out=timed_out, too_much=too_much),
        isolation=_isolation(uid, bubblewrap, landlock, network=job.network),
    )


class _Conversation:
    """What is told to a script, and what it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.kept = bytearray()
        self.read = 0
        self.over = asyncio.Event()
        """It has said everything, or too much."""

    async def hold(self, data: bytes) -> None:
        """Hand over what the script may know, and read what it prints until it ends."""
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("a script is started with pipes")
        # It may end without listening.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        self._process.stdin.close()
        # Read to the end even where nothing more is kept: asyncio knows that a process is over when its pipes are.
        while chunk := await self._process.stdout.read(65_536):
            self.read += len(chunk)
            self.kept += chunk[: max(0, 2 * OUTPUT_BYTES - len(self.kept))]
            if self.read > _MOST_OUTPUT_BYTES:
                self.over.set()
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


def _input(job: Job) -> bytes:
    return json.dumps(
        {
            "script": source_text(job.script, Language.PYTHON) if job.language is Language.PYTHON else "",
            "config": job.config,
            "approvers": [approver.model_dump() for approver in job.approvers],
            "secrets": job.secrets,
        }
    ).encode()


async def _masked(said: str, job: Job, *, cut: bool = False) -> str:
    # In a thread: 50 secrets of 32 KiB take seconds, in which this worker has to go on telling Temporal that it lives.
    return await asyncio.to_thread(masking.masked, said, job.secrets.values(), cut=cut)


def _bounded(masked: str, *, incomplete: bool = False) -> tuple[str, bool]:
    """Return what is kept of an output whose secrets are masked, and whether that is less than was printed."""
    encoded = masked.encode(errors="replace")
    if len(encoded) <= OUTPUT_BYTES and not incomplete:
        return masked, False
    room = OUTPUT_BYTES - len(_TRUNCATED.encode())
    return encoded[:room].decode(errors="ignore") + _TRUNCATED, True


def _error(job: Job, code: int | None, output: str, *, timed_out: bool, too_much: bool) -> str | None:
    if timed_out:
        return f"It took longer than {job.timeout_seconds:g} seconds and was killed."
    if too_much:
        return f"It printed more than {_MOST_OUTPUT_BYTES // 1024 // 1024} MiB and was killed."
    if code == 0:
        return None
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if code is not None and (code < 0 or code > _SIGNALLED):
        number = -code if code < 0 else code - _SIGNALLED
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = str(number)
        return f"It was killed ({name}): a limit on processor time, memory or file size, or a signal of its own."
    # Go says first why it panics, and then where; all others say it last.
    panic = next((line for line in lines if line.startswith("panic: ")), None)
    return (panic or lines[-1])[:500] if lines else f"It ended with exit code {code}."


@cached
def _interpreter(*, unprivileged: bool) -> str:
    """A Python that the script's user can start; the worker's own may be where only the worker's user may go."""
    own = os.path.realpath(sys.executable)
    if not unprivileged or _open_to_all(Path(own)):
        return own
    return next((path for path in _INTERPRETERS if os.access(path, os.X_OK)), own)


def _open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & _FOR_ALL == _FOR_ALL for parent in [path, *path.parents])


@cached
def _bubblewrap() -> str | None:
    """bubblewrap, where it is installed and may be used: some containers forbid what it needs."""
    found = shutil.which("bwrap")
    if found is None:
        return None
    import subprocess  # noqa: PLC0415 - for this one look

    # As whom the scripts run: a system may let root alone do what bubblewrap needs.
    as_whom: dict[str, Any] = {"user": _FIRST_UID, "group": _FIRST_UID, "extra_groups": []} if os.getuid() == 0 else {}
    tried = subprocess.run(  # noqa: S603 - a program of the system, with arguments of our own
        [found, "--ro-bind", "/", "/", "--unshare-user", "--unshare-pid", "--unshare-net", "--proc", "/proc", "true"],
        capture_output=True,
        check=False,
        timeout=10,
        cwd="/",
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
    """What a script needs of places that are not the system's: a Python of somebody's own, and who resolves names."""
    own = [sys.base_prefix] if interpreter == os.path.realpath(sys.executable) else []
    # A virtual environment may have copies instead of links.
    own += [sys.prefix] if Path(interpreter).is_relative_to(sys.prefix) else []
    return [path for path in (*own, str(_RESOLVER.resolve())) if Path(path).exists()]


def _wrapped(bubblewrap: str, directory: Path, home: Path, needed: list[str], *, network: bool) -> list[str]:
    hidden = [part for path in _HIDDEN if Path(path).is_dir() for part in ("--tmpfs", path)]
    shown = [part for path in needed if path.startswith(_HIDDEN) for part in ("--ro-bind", path, path)]
    return [
        bubblewrap,
        *("--ro-bind", "/", "/"),
        *hidden,
        *shown,
        *("--bind", str(home), str(home)),
        *(("--ro-bind", str(directory / "task"), str(directory / "task")) if (directory / "task").exists() else ()),
        *("--dev", "/dev"),
        *("--proc", "/proc"),
        "--unshare-user",
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
    parts = ["limits on processor time, memory, processes, files and output"]
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
