"""The supervisor of one script: a small program between the script worker and the script.

Sets the limits, becomes a user with no rights, and starts the script; when that ends, or the script worker does, it
kills everything that the script started, also what left its process group. Run by path, with the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER = 36
_MEMORY_BYTES = 1024**3
_FILE_BYTES = 16 * 1024**2
_OPEN_FILES = 256
_PROCESSES = 64
_MOMENT_SECS = 0.005
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run one script, and answer with its exit code (128 + n where signal n ended it)."""
    orders = json.loads(sys.argv[1])
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, _stop)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != orders["parent"]:
        # The script worker died before it could be noticed. It may have any number, also 1.
        return 1
    script = os.fork()
    if script == 0:
        try:
            _become(orders)
        finally:
            os._exit(126)
    # The script alone holds the pipes now: what it may know, it reads, and the worker sees when it closes them.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    status = _wait_for(script)
    _end_all()
    return status


def _become(orders: dict[str, Any]) -> None:
    """Turn this process into the script."""
    uid = orders["uid"]
    os.setsid()
    limits = {
        resource.RLIMIT_CPU: orders["cpu_seconds"],
        # Private memory that can be written. Address space would be the wrong measure: Go reserves a lot of it.
        resource.RLIMIT_DATA: _MEMORY_BYTES,
        resource.RLIMIT_FSIZE: _FILE_BYTES,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        # Counted for each user. Where the script has one of its own, its processes; else, all of the worker's.
        resource.RLIMIT_NPROC: _PROCESSES if uid is not None else _PROCESSES + _tasks_of(os.getuid()),
    }
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (most, most))
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # After the change of user, which clears it.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.umask(0o077)
    os.chdir(orders["home"])
    os.closerange(3, 65_536)
    for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    home = orders["home"]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8", "TZ": "UTC"}
    os.execve(orders["command"][0], orders["command"], environment)


def _wait_for(script: int) -> int:
    while True:
        pid, status = os.wait()
        if pid == script:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def _stop(*_: object) -> None:
    _end_all()
    os._exit(143)


def _end_all() -> None:
    """Kill every descendant. Orphans become children of this process, wherever they had gone."""
    while True:
        children = _children()
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while True:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    time.sleep(_MOMENT_SECS)
                    break
        except ChildProcessError:
            return


def _children() -> list[int]:
    """Everything below this process."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    below, found = {os.getpid()}, []
    while more := [pid for pid, parent in parents.items() if parent in below and pid not in below]:
        below.update(more)
        found.extend(more)
    return found


def _tasks_of(uid: int) -> int:
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    count += len(list((entry / "task").iterdir()))
    return count


if __name__ == "__main__":
    sys.exit(main())
