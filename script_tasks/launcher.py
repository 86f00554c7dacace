"""The supervisor of one script: a small program between the script worker and the script.

Sets the limits, becomes a user with no rights, and starts the script; when that ends, or the script worker does, it
kills everything that the script started, also what left its process group. Run by path, with the standard library only.

Limits of the kernel (`setrlimit`) hold for one process or one file. The supervisor adds up what all processes of the
run use, and kills the run where that is over a limit; it writes the name of the limit to its standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
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
_PR_CAPBSET_DROP = 24
_CAPABILITIES = 64
_PR_SET_SECCOMP, _SECCOMP_FILTER = 22, 2
_SECCOMP = {"x86_64": (0xC000003E, 9, (29, 319, 447)), "aarch64": (0xC00000B7, 222, (194, 279, 447))}
"""For each processor: its name to seccomp, the number of mmap, and those of shmget, memfd_create and memfd_secret."""
_MAP_SHARED_ANONYMOUS = 0x21
_MEMORY_EVERY_SECS = 0.05
_DISK_EVERY_SECS = 0.25
_SHARE = 20
"""Measuring takes at most 1/20 of the time."""
_BLOCK_BYTES = 512
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
    os.dup2(null, 1)
    try:
        return _supervise(script, orders)
    finally:
        _end_all()


def _become(orders: dict[str, Any]) -> None:
    """Turn this process into the script."""
    uid, most = orders["uid"], orders["limits"]
    os.dup2(1, 2)
    os.setsid()
    limits = {
        resource.RLIMIT_CPU: most["cpu_seconds"],
        # Private memory that can be written. Address space would be the wrong measure: Go reserves a lot of it.
        resource.RLIMIT_DATA: most["memory_bytes"],
        resource.RLIMIT_FSIZE: most["file_bytes"],
        resource.RLIMIT_NOFILE: most["open_files"],
        resource.RLIMIT_CORE: 0,
        # Counted for each user. Where the script has one of its own, its processes; else, all of the worker's.
        resource.RLIMIT_NPROC: most["processes"] + (0 if uid is not None else _tasks_of(os.getuid())),
    }
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (allowed, allowed))
    with contextlib.suppress(OSError):
        # Where the machine or the container runs out of memory, the kernel ends scripts before the script worker.
        Path("/proc/self/oom_score_adj").write_text("1000")
    if not orders["mounted"]:
        # Root has none after the next execve. Other users have none to lose, and bubblewrap drops them itself.
        for capability in range(_CAPABILITIES):
            _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if orders["landlock"] is not None:
        _restrict(**orders["landlock"])
    _refuse_hidden_memory()
    # After the change of user, which clears it.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.umask(0o077)
    os.chdir(orders["home"])
    os.closerange(3, 65_536)
    # What the script worker ignores or blocks, a script would inherit.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    home = orders["home"]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8", "TZ": "UTC"}
    os.execve(orders["command"][0], orders["command"], environment)


def _restrict(version: int, read: list[str], write: list[str], devices: list[str], *, network: bool) -> None:
    """Leave this process, and all that it starts, the files that are listed, and no process but its own (Landlock)."""
    # Of processes, this one alone, whose number stays the same when it becomes the script.
    read = [*read, f"/proc/{os.getpid()}"]
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


def _refuse_hidden_memory() -> None:
    """Refuse memory that can stay in use while no process shows it, so that it could not be counted (seccomp).

    That is shared memory without a file, made by mmap, shmget, memfd_create and memfd_secret.
    """
    known = _SECCOMP.get(os.uname().machine)
    if known is None:
        return
    architecture, mmap, denied = known
    load, equal, at_least, both, answer = 0x20, 0x15, 0x35, 0x54, 0x06
    # (instruction, how many to pass over if true, if false, value). The last two allow, and refuse with EPERM.
    tests = [
        (load, 0, 0, 4),
        (equal, 0, len(denied) + 7, architecture),
        (load, 0, 0, 0),
        # The numbers of x32, by which the same could be called.
        (at_least, len(denied) + 5, 0, 0x40000000),
        *((equal, len(denied) - place + 4, 0, number) for place, number in enumerate(denied)),
        (equal, 0, 3, mmap),
        (load, 0, 0, 40),
        (both, 0, 0, _MAP_SHARED_ANONYMOUS),
        (equal, 1, 0, _MAP_SHARED_ANONYMOUS),
        (answer, 0, 0, 0x7FFF0000),
        (answer, 0, 0, 0x00050000 | errno.EPERM),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *test) for test in tests))
    given = struct.pack("@HP", len(tests), ctypes.addressof(program))
    # A kernel without seccomp has it uncounted.
    _LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, given, 0, 0)


def _call(number: int, *arguments: object) -> int:
    answer: int = _LIBC.syscall(number, *arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), "Landlock refused")
    return answer


def _supervise(script: int, orders: dict[str, Any]) -> int:
    """Wait for the script, and return its exit code; return at once where the run is over a limit."""
    limits, places = orders["limits"], [os.fsencode(place) for place in orders["places"]]
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    disk_at = time.monotonic() + _MEMORY_EVERY_SECS
    while True:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = ended
                if pid == script:
                    code = os.waitstatus_to_exitcode(status)
                    return 128 - code if code < 0 else code
        began = time.monotonic()
        processes = _descendants()
        passed = _over(processes, limits)
        if passed is None and began >= disk_at:
            measure = _mounted if orders["mounted"] else _kept
            passed = measure(places, processes, limits)
            disk_at = time.monotonic() + max(_DISK_EVERY_SECS, (time.monotonic() - began) * _SHARE)
        if passed is not None:
            os.write(2, passed.encode())
            return _NOT_STARTED
        spent = time.monotonic() - began
        signal.sigtimedwait([signal.SIGCHLD], max(_MEMORY_EVERY_SECS, min(spent * _SHARE, 1.0)))


def _over(processes: list[int], limits: dict[str, int]) -> str | None:
    """Return which limit all processes of a run pass together: `memory_bytes`, `processes`, or None."""
    threads = memory = 0
    for pid in processes:
        with contextlib.suppress(OSError, ValueError):
            status = Path(f"/proc/{pid}/status").read_bytes()
            threads += _number(status, b"\nThreads:")
            memory += 1024 * (_number(status, b"\nVmRSS:") + _number(status, b"\nVmSwap:"))
    if threads > limits["processes"]:
        return "processes"
    # What processes share is counted for each of them until here.
    if memory > limits["memory_bytes"] and sum(map(_share_of, processes)) > limits["memory_bytes"]:
        return "memory_bytes"
    return None


def _share_of(pid: int) -> int:
    """Return the memory of a process in bytes, of which what n processes share is an nth."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
        return 1024 * (_number(rollup, b"\nPss:") + _number(rollup, b"\nSwapPss:"))
    except PermissionError:
        # It is not dumpable: of its memory, only the status can be read.
        with contextlib.suppress(OSError):
            return 1024 * _number(Path(f"/proc/{pid}/status").read_bytes(), b"\nVmRSS:")
        return 0
    except OSError:
        return 0


def _number(text: bytes, name: bytes) -> int:
    _, found, rest = text.partition(name)
    return int(rest.split(None, 1)[0]) if found else 0


def _mounted(places: list[bytes], processes: list[int], limits: dict[str, int]) -> str | None:
    """Return `entries` where a run has too many files in file systems of its own, whose size the kernel bounds."""
    ours = {place: os.stat(place).st_dev for place in places}
    for pid in processes:
        for place in places:
            with contextlib.suppress(OSError):
                seen = os.path.join(f"/proc/{pid}/root".encode(), place.lstrip(b"/"))
                # Before bubblewrap has mounted the run's own file system, this is still the one of the supervisor.
                if os.stat(seen).st_dev != ours[place]:
                    system = os.statvfs(seen)
                    if system.f_files - system.f_ffree > limits["entries"]:
                        return "entries"
    return None


def _kept(places: list[bytes], processes: list[int], limits: dict[str, int]) -> str | None:
    """Return which limit the files of a run pass together: `disk_bytes`, `entries`, or None."""
    seen: dict[tuple[int, int], int] = {}
    try:
        for place in places:
            _deleted(processes, os.stat(place).st_dev, seen)
            _walked(place, limits["entries"], seen)
    except OSError as error:
        # The tree is too deep: each level that has several directories needs a descriptor.
        return "entries" if error.errno == errno.EMFILE else "unmeasured"
    if len(seen) > limits["entries"]:
        return "entries"
    return "disk_bytes" if sum(seen.values()) > limits["disk_bytes"] else None


def _deleted(processes: list[int], device: int, seen: dict[tuple[int, int], int]) -> None:
    """Add the sizes of files that have no name any more, and are open."""
    for pid in processes:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    found = os.stat(f"/proc/{pid}/fd/{name}")
                    if not found.st_nlink and found.st_dev == device:
                        seen[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK_BYTES


def _walked(place: bytes, most: int, seen: dict[tuple[int, int], int]) -> None:
    """Add the sizes of files and directories below a place, until they are too many.

    Paths may be too long to be named. A directory is open as long as another in it is to be looked at; of a chain, one.
    """
    pending = [(os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY), [os.path.basename(place)])]
    try:
        while pending and len(seen) <= most:
            above, names = pending[-1]
            name = names.pop()
            try:
                here = _opened(name, above)
            except FileNotFoundError:
                here = None
            if not names:
                pending.pop()
                os.close(above)
            if here is not None:
                below: list[bytes] = []
                pending.append((here, below))
                _listed(here, most, seen, below)
                if not below:
                    pending.pop()
                    os.close(here)
    finally:
        for above, _ in pending:
            os.close(above)


def _listed(here: int, most: int, seen: dict[tuple[int, int], int], below: list[bytes]) -> None:
    with os.scandir(here) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                seen[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK_BYTES
                if stat.S_ISDIR(found.st_mode):
                    below.append(os.fsencode(entry.name))
            if len(seen) > most:
                return


def _opened(name: bytes, above: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except PermissionError:
        # The script took its own permission away, which it can give back.
        place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            Path(f"/proc/self/fd/{place}").chmod(0o700)
        finally:
            os.close(place)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except NotADirectoryError as error:
        raise FileNotFoundError from error


def _stop(*_: object) -> None:
    _end_all()
    os._exit(143)


def _end_all() -> None:
    """Kill every descendant. Orphans become children of this process, wherever they had gone."""
    while True:
        for pid in _descendants():
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


def _descendants() -> list[int]:
    """Return the numbers of all processes below this one."""
    try:
        found = _children_of(os.getpid())
    except FileNotFoundError:
        return _descendants_of_all()
    for pid in found:
        # The list grows while it is iterated. The children of a process that has ended became children of this one.
        with contextlib.suppress(OSError):
            found.extend(_children_of(pid))
    return found


def _children_of(pid: int) -> list[int]:
    children: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        children.extend(map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()))
    return children


def _descendants_of_all() -> list[int]:
    """Do the same on kernels that list no children (without CONFIG_PROC_CHILDREN)."""
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
