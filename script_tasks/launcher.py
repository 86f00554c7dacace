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
import stat
import struct
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
_NOT_STARTED = 126
_LIBC = ctypes.CDLL(None, use_errno=True)

# Landlock, whose calls have the same numbers on every processor.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_FIRST_RIGHTS, _WITH_REFER, _WITH_TRUNCATE = (1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1
_KNOWS_TCP, _KNOWS_SIGNALS = 4, 6
_BIND_AND_CONNECT = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3


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
        except OSError as error:
            os.write(1, f"The script could not be started: {error}\n".encode())
        finally:
            os._exit(_NOT_STARTED)
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
    if orders["landlock"] is not None:
        _restrict(**orders["landlock"])
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


def _restrict(version: int, read: list[str], write: list[str], devices: list[str], *, network: bool) -> None:
    """Leave this process, and all that it starts, the files that are listed, and no process but its own (Landlock)."""
    # The kernel refuses what it does not know; what is listed by no rule is denied as far as it does.
    handled = {1: _FIRST_RIGHTS, 2: _WITH_REFER}.get(version, _WITH_TRUNCATE)
    tcp = 0 if network or version < _KNOWS_TCP else _BIND_AND_CONNECT
    scoped = 0 if version < _KNOWS_SIGNALS else _ABSTRACT_SOCKETS_AND_SIGNALS
    attributes = struct.pack("=QQQ", handled, tcp, scoped)
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    reading = _EXECUTE | _READ_FILE | _READ_DIR
    for paths, access in ((read, reading), (write, handled), (devices, _READ_FILE | _WRITE_FILE)):
        for path in paths:
            try:
                place = os.open(path, os.O_PATH)
            except (FileNotFoundError, PermissionError):
                # Not here; and what no rule opens stays closed.
                continue
            allowed = access if stat.S_ISDIR(os.fstat(place).st_mode) else access & _OF_A_FILE
            _call(_ADD_RULE, ruleset, 1, struct.pack("=Qi", allowed & handled, place), 0)
            os.close(place)
    _call(_RESTRICT_SELF, ruleset, 0)


def _call(number: int, *arguments: object) -> int:
    answer: int = _LIBC.syscall(number, *arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), "Landlock refused")
    return answer


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
