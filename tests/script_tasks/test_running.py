"""Scripts in processes of their own: what they get, what they cannot do, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from domain.tasks import Ending, Language, RunResult, infer_language
from script_tasks import compiling, running, sandbox
from script_tasks.running import OUTPUT_BYTES, Approver, Job, run, unavailable
from script_tasks.sandbox import Limits
from tests.deliveries.receiver import Receiver, receiving, response
from tests.documented import blocks

ROOT = Path(__file__).parents[2]
MIB = 1024**2
SPECIFICATION = ROOT.parent / "shared" / "spec" / "temporary-access-requests.txt"
CONFIG = {
    "trigger_event": "approved",
    "request_id": "7d2f",
    "request_status": "approved",
    "template_name": "Database read-only access",
    "app_name": "Internal DB",
    "requester_name": "Alice",
    "requester_email": "alice@example.com",
    "justification": "an incident",
    "run_id": "r-1",
}
APPROVERS = [Approver(id="1", email="bob@example.com", name="Bob"), Approver(id="2", email="c@example.com", name="C")]
SECRET = 'hush-hush "and" 100% hush'
SPELT_DIFFERENTLY = "hush/hüsh <\"'a\\nd&'\"> 100%+\x07\U0001f600\u2028\u200b hush~"
"""Each encoder that is listed writes it in its own way."""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scripts")


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user can read; those that pytest makes are for its own user alone."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
async def slack() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def carried_out(
    script: str, cache: Path, *, language: Language = Language.PYTHON, seconds: float = 20, **values: Any
) -> RunResult:
    given: dict[str, Any] = {"config": CONFIG, "approvers": APPROVERS, "secrets": {"TOKEN": SECRET}, "network": True}
    job = Job(run_id="r-1", language=language, script=script, timeout_seconds=seconds, **{**given, **values})
    return await run(job, cache=cache)


def sizes(directory: Path) -> list[int]:
    return [path.stat().st_size for path in directory.rglob("*") if path.is_file()]


def changed(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def there(paths: list[str]) -> list[str]:
    return [path for path in paths if Path(path).exists()]


def open_to_all(path: Path) -> None:
    path.chmod(0o777)


async def go(script: str, cache: Path, **values: Any) -> RunResult:
    problem = running.unavailable(Language.GO)
    if problem is not None:
        assert not os.environ.get("CI"), problem
        pytest.skip(problem)
    return await carried_out(script, cache, language=Language.GO, seconds=20, **values)


def of_the_specification() -> list[str]:
    """Its Go scripts, as they stand there."""
    if not SPECIFICATION.exists():
        pytest.skip("the specification is not beside this repository")
    text = SPECIFICATION.read_text()
    return re.findall(r"(?ms)^package task\n.*?^}\n", text)


class TestPython:
    async def test_reads_config_approvers_and_secrets(self, cache: Path) -> None:
        result = await carried_out(
            """
from justiam import config, idp, secrets

def run():
    print(config.get("request_id"), config.get("nothing") == "", config.get("nothing", "else"))
    print([(a.id, a.email, a.name) for a in idp.get_access_request_approvers(config.get("request_id"))])
    print(len(secrets.get("TOKEN")))
    return "done"
""",
            cache,
        )
        assert (result.ending, result.exit_code, result.error) == (Ending.SUCCEEDED, 0, None)
        approvers = [(approver.id, approver.email, approver.name) for approver in APPROVERS]
        assert result.output == f"7d2f True else\n{approvers}\n{len(SECRET)}\ndone\n"
        assert result.isolation

    async def test_may_be_asynchronous(self, cache: Path) -> None:
        assert (await carried_out("async def run():\n    return 'later'", cache)).output == "later\n"

    @pytest.mark.parametrize(
        ("script", "error"),
        [
            ("def run():\n    raise ValueError('broken')", "ValueError: broken"),
            ("def run(:", "SyntaxError: invalid syntax"),
            ("x = 1", "NameError: the script defines no function run()"),
            ("import sys\ndef run():\n    sys.exit(3)", "It ended with exit code 3."),
            ("import os\ndef run():\n    os.kill(os.getpid(), 9)", "It was killed (SIGKILL)"),
            ("from justiam import secrets\ndef run():\n    secrets.get('OTHER')", "may not read the secret OTHER"),
            ("from justiam import idp\ndef run():\n    idp.get_access_request_approvers('other')", "not about request"),
            ("import psycopg", "No module named 'psycopg'"),
        ],
    )
    async def test_a_failure_says_what_went_wrong(self, cache: Path, script: str, error: str) -> None:
        result = await carried_out(script, cache)
        assert result.ending is Ending.FAILED
        assert error in (result.error or "")

    async def test_a_script_is_a_module_of_its_own(self, cache: Path) -> None:
        result = await carried_out(
            """
from __future__ import annotations

import enum, inspect, pickle, sys, typing
from dataclasses import KW_ONLY, dataclass, fields
from multiprocessing import get_context
from unittest import mock

from justiam import idp

@dataclass
class Event:
    name: str
    _: KW_ONLY
    kind: typing.ClassVar[str] = "event"
    count: int = 0

class Pair(typing.NamedTuple):
    left: Event
    right: Colour

class Colour(enum.Enum):
    RED = 1

def work(pipe):
    pipe.send(Event("made elsewhere"))

def fetch():
    return "fetched"

def run():
    pair = Pair(Event("one", count=2), Colour.RED)
    assert [field.name for field in fields(Event)] == ["name", "count"]
    assert pickle.loads(pickle.dumps(pair)) == pair
    approvers = idp.get_access_request_approvers("7d2f")
    assert pickle.loads(pickle.dumps(approvers))[0].email == approvers[0].email
    assert typing.get_type_hints(Pair) == {"left": Event, "right": Colour}
    assert inspect.getsource(fetch) == 'def fetch():\\n    return "fetched"\\n'
    assert inspect.getsource(Colour).startswith("class Colour(enum.Enum)")
    with mock.patch("task.fetch", return_value="patched"):
        assert fetch() == "patched"
    ours, theirs = get_context("fork").Pipe()
    process = get_context("fork").Process(target=work, args=[theirs])
    process.start()
    assert ours.recv() == Event("made elsewhere")
    process.join()
    import task
    assert task.run is run and sys.modules[__name__] is task
    return __name__

if __name__ == "__main__":
    raise SystemExit("the task calls run() itself")
""",
            cache,
        )
        assert (result.ending, result.output) == (Ending.SUCCEEDED, "task\n"), result.output

    async def test_a_traceback_names_lines_as_editors_do(self, cache: Path) -> None:
        script = "\ufeff#!/usr/bin/python3\r\ntext = '\u2028\x0c'\r\ndef run():\r\n    broken()\r\n"
        result = await carried_out(script, cache)
        assert "line 4, in run\n    broken()\n" in result.output, result.output

    async def test_a_traceback_shows_the_script_and_nothing_around_it(self, cache: Path) -> None:
        result = await carried_out("def run():\n    secret_of_mine()", cache)
        assert 'File "task.py", line 2, in run' in result.output
        assert "secret_of_mine()" in result.output
        assert result.output.count("File ") == 1


class TestOutput:
    async def test_is_bounded_and_says_so(self, cache: Path) -> None:
        result = await carried_out(f"def run():\n    print('x' * {OUTPUT_BYTES * 3})", cache)
        assert result.ending is Ending.SUCCEEDED
        assert len(result.output.encode()) <= OUTPUT_BYTES
        assert result.output_truncated
        assert result.output.endswith("(truncated)")

    async def test_that_never_ends_is_ended(self, cache: Path) -> None:
        result = await carried_out("def run():\n    while True:\n        print('x' * 10_000)", cache, seconds=60)
        assert result.ending is Ending.FAILED
        assert "printed more than" in (result.error or "")

    async def test_shows_no_secret_in_any_listed_spelling(self, cache: Path) -> None:
        result = await carried_out(
            """
import base64, json, sys, urllib.parse
from justiam import secrets

def run():
    value = secrets.get("TOKEN")
    print(value, json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value), repr(value.encode()))
    print(urllib.parse.quote(value), urllib.parse.quote(value, safe=""), urllib.parse.urlencode({"q": value}))
    print(value.strip(), base64.b64encode(f"user:{value}".encode()).decode(), value.encode().hex())
    sys.stdout.write(value[:7]); sys.stdout.flush()
    sys.stdout.write(value[7:])
    raise ValueError(value)
""",
            cache,
            secrets={"TOKEN": SPELT_DIFFERENTLY},
        )
        assert result.error == "ValueError: ********"
        assert not re.search("hush|ü|%C3|68757368|aHVza", result.output), result.output
        assert result.output.count("********") >= 12

    async def test_is_masked_before_it_is_cut(self, cache: Path) -> None:
        # The masks are shorter than the secret, so that the end of what is read is within what is kept.
        long = "0123456789" * 3_000
        script = "from justiam import secrets\ndef run():\n    print('abc' + secrets.get('TOKEN') * 5)"
        result = await carried_out(script, cache, secrets={"TOKEN": long})
        assert result.output == "abc********\n… (truncated)"
        assert result.output_truncated

    async def test_of_a_killed_script_does_not_end_in_the_beginning_of_a_secret(self, cache: Path) -> None:
        script = """
import os, time
from justiam import secrets

def run():
    os.write(1, b"token: " + secrets.get("TOKEN").encode()[:-5])
    time.sleep(60)
"""
        result = await carried_out(script, cache, seconds=1)
        assert (result.ending, result.output) == (Ending.TIMED_OUT, "token: ********")

    async def test_of_the_compiler_is_masked(self, cache: Path) -> None:
        script = f"package task\n\nfunc Run() (string, error) {{ return {json.dumps(SECRET)} + 1, nil }}\n"
        result = await go(script, cache)
        assert "mismatched types" in result.output
        assert "hush" not in result.output

    async def test_of_go_shows_no_secret_in_any_listed_spelling(self, cache: Path) -> None:
        script = """package task

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/url"
	"secrets"
)

func Run() (string, error) {
	value := secrets.Get("TOKEN")
	asJSON, _ := json.Marshal(value)
	fmt.Println(value, string(asJSON))
	fmt.Printf("%q %+q %#q %x %X\\n", value, value, value, value, value)
	fmt.Println(url.QueryEscape(value), url.PathEscape(value), (&url.URL{Path: value}).String())
	fmt.Println(url.UserPassword("user", value), url.Values{"q": {value}}.Encode(), html.EscapeString(value))
	fmt.Println(base64.StdEncoding.EncodeToString([]byte(value)), base64.RawURLEncoding.EncodeToString([]byte(value)))
	return hex.EncodeToString([]byte(value)), errors.New(value)
}
"""
        result = await go(script.replace("\\\\", "\\"), cache, secrets={"TOKEN": SPELT_DIFFERENTLY})
        assert result.ending is Ending.FAILED
        assert not re.search("(?i)hush|ü|%C3|68757368|aHVza", result.output), result.output
        assert result.output.count("********") >= 16, result.output

    async def test_need_not_be_text(self, cache: Path) -> None:
        result = await carried_out("import os\ndef run():\n    os.write(1, b'\\xff\\x00ok')", cache)
        assert result.output == "\N{REPLACEMENT CHARACTER}\x00ok"


_NEITHER = "neither bubblewrap nor Landlock"


@pytest.fixture(params=["bubblewrap:", "Landlock:", _NEITHER])
def isolated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With bubblewrap where it may be used, with what the kernel has where it may not, and as it is without both."""
    how: str = request.param
    if how == "bubblewrap:" and sandbox._bubblewrap() is None:
        pytest.skip("bubblewrap is not installed, or this machine forbids what it needs")
    if how == "Landlock:" and sandbox._landlock() is None:
        pytest.skip("this kernel has no Landlock")
    if how != "bubblewrap:":
        monkeypatch.setattr(sandbox, "_bubblewrap", lambda: None)
    if how == _NEITHER:
        monkeypatch.setattr(sandbox, "_landlock", lambda: None)
    return how


@pytest.mark.usefixtures("isolated")
class TestIsolation:
    async def test_is_told_with_the_run(self, cache: Path, isolated: str) -> None:
        result = await carried_out("def run(): ...", cache)
        assert result.ending is Ending.SUCCEEDED
        assert isolated in result.isolation

    async def test_inherits_nothing(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JUSTIAM_SECRET_KEY", "what nobody may know")
        result = await carried_out(
            """
import json, os, sys

def run():
    print(json.dumps({
        "environment": dict(os.environ), "files": os.listdir("."), "arguments": sys.argv,
        "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    }))
""",
            cache,
        )
        found = json.loads(result.output)
        assert set(found["environment"]) <= {"PATH", "HOME", "TMPDIR", "LANG", "TZ", "PWD", "LC_CTYPE"}
        assert found["files"] == []
        assert found["descriptors"] == [0, 1, 2]
        assert "what nobody may know" not in result.output

    async def test_cannot_read_what_other_processes_were_told(self, cache: Path, isolated: str) -> None:
        told = {**os.environ, "JUSTIAM_SECRET_KEY": "what nobody may know"}
        another = await asyncio.create_subprocess_exec("sleep", "60.0321", env=told)
        try:
            result = await carried_out(
                f"""
import os

def run():
    assert "VmRSS" in open("/proc/self/status").read()
    for name in ("environ", "cmdline"):
        try:
            print(open("/proc/{another.pid}/" + name).read())
        except OSError:
            pass
""",
                cache,
            )
        finally:
            another.kill()
            await another.wait()
        assert result.ending is Ending.SUCCEEDED
        # The same user reads what it likes, unless something keeps it from that.
        if os.getuid() == 0 or isolated != _NEITHER:
            assert "what nobody may know" not in result.output
        # Without both, every process reads with which arguments others were started.
        assert ("60.0321" in result.output) == (isolated == _NEITHER)

    async def test_cannot_write_outside(self, cache: Path, tmp_path: Path, isolated: str) -> None:
        mine = tmp_path / "mine"
        mine.write_text("untouched")
        paths = [str(mine), str(cache / "planted"), "/etc/planted", str(ROOT / "planted")]
        # What all may write is shared with whoever comes later, but for what only users keep apart.
        paths += [] if isolated == _NEITHER else ["/tmp/justiam-planted", "/dev/shm/justiam-planted"]  # noqa: S108
        result = await carried_out(
            f"""
def run():
    for path in {paths!r}:
        try:
            open(path, "w").write("planted")
        except OSError:
            continue
        print("wrote", path)
""",
            cache,
        )
        if os.getuid() == 0 or isolated != _NEITHER:
            assert result.ending is Ending.SUCCEEDED
            assert mine.read_text() == "untouched"
            assert not there(paths[1:])

    async def test_cannot_start_processes_without_end(self, cache: Path) -> None:
        result = await carried_out(
            """
import os, time

def run():
    started = 0
    try:
        for _ in range(500):
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            started += 1
    finally:
        print("started", started)
""",
            cache,
        )
        assert result.ending is Ending.FAILED
        assert int(re.findall(r"started (\d+)", result.output)[0]) < 200

    async def test_cannot_take_all_memory(self, cache: Path) -> None:
        result = await carried_out("def run():\n    return len(bytearray(8 * 1024 ** 3))", cache)
        assert result.ending is Ending.FAILED
        assert "MemoryError" in (result.error or "")

    async def test_cannot_fill_the_disk(self, cache: Path) -> None:
        result = await carried_out(
            "def run():\n    with open('f', 'wb') as f:\n        f.write(bytes(64 * 1024 ** 2))", cache
        )
        assert result.ending is Ending.FAILED

    @pytest.mark.parametrize(
        ("script", "limits", "error"),
        [
            pytest.param(
                """
import os, time

def run():
    for _ in range(4):
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            held = os.urandom(40 << 20)
            time.sleep(60)
    time.sleep(60)
""",
                {"memory_bytes": 100 * MIB},
                "more than 100 MiB of memory in all its processes together",
                id="memory of processes that left the group",
            ),
            pytest.param(
                """
import time

def run():
    for number in range(30):
        with open(f"f{number}", "wb") as file:
            file.write(bytes(1 << 20))
    time.sleep(60)
""",
                {"disk_bytes": 20 * MIB},
                "",
                id="files",
            ),
            pytest.param(
                """
import os, time

def run():
    held = []
    for number in range(30):
        file = open("f", "wb", buffering=0)
        os.unlink("f")
        file.write(bytes(1 << 20))
        held.append(file)
    time.sleep(60)
""",
                {"disk_bytes": 20 * MIB},
                "",
                id="deleted files",
            ),
            pytest.param(
                """
import os, time

def run():
    for number in range(300):
        os.mkdir(str(number))
    time.sleep(60)
""",
                {"entries": 200},
                "more than 200 files and directories",
                id="directories",
            ),
        ],
    )
    async def test_is_killed_over_a_limit_of_the_whole_run(
        self,
        cache: Path,
        isolated: str,
        monkeypatch: pytest.MonkeyPatch,
        script: str,
        limits: dict[str, int],
        error: str,
    ) -> None:
        monkeypatch.setattr(running, "_limits", lambda _: Limits(cpu_seconds=20, **limits))
        result = await carried_out(script, cache, seconds=50)
        assert result.ending is Ending.FAILED
        # In a file system of its own, writing fails.
        full = "No space left on device" if isolated == "bubblewrap:" else "more than 20 MiB of files"
        assert (error or full) in (result.error or ""), result.error

    async def test_cannot_have_memory_that_no_process_shows(self, cache: Path, isolated: str) -> None:
        result = await carried_out(
            """
import ctypes, mmap, os

def devices():
    with open("/dev/zero", "rb") as zero:
        mmap.mmap(zero.fileno(), 4096, access=mmap.ACCESS_READ)

def run():
    for make in (lambda: mmap.mmap(-1, 4096), lambda: os.memfd_create("x"), devices):
        try:
            make()
            print("made")
        except (OSError, ValueError) as error:
            print(type(error).__name__)
    print(ctypes.CDLL(None).shmget(0, 4096, 0o1600))
    mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    open("f", "wb").write(bytes(4096))
    with open("f", "r+b") as file:
        mmap.mmap(file.fileno(), 4096)
""",
            cache,
        )
        assert result.ending is Ending.SUCCEEDED, result.output
        zero = {"bubblewrap:": "OSError", "Landlock:": "PermissionError", _NEITHER: "made"}[isolated]
        assert result.output == f"PermissionError\nPermissionError\n{zero}\n-1\n"

    async def test_of_any_depth_is_removed_whatever_its_permissions(
        self, cache: Path, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(public))
        kept = tmp_path / "kept"
        kept.mkdir()
        (kept / "file").touch()
        script = f"""
import os, time

def run():
    os.symlink({str(kept)!r}, "link")
    os.makedirs("closed/inner")
    os.chmod("closed", 0)
    for _ in range(1500):
        os.mkdir("deeper")
        os.chdir("deeper")
    os.chmod(".", 0)
    time.sleep(0.5)
"""
        result = await carried_out(script, cache)
        assert (result.ending, result.error) == (Ending.SUCCEEDED, None)
        assert not names(public)
        assert (kept / "file").exists()

    async def test_what_takes_too_long_is_killed_whatever_it_ignores(self, cache: Path) -> None:
        result = await carried_out(
            """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)

def run():
    print("sleeping", flush=True)
    while True:
        time.sleep(60)
""",
            cache,
            seconds=1,
        )
        assert (result.ending, result.exit_code) == (Ending.TIMED_OUT, None)
        assert result.output == "sleeping\n"
        assert "longer than 1 seconds" in (result.error or "")

    async def test_what_it_leaves_behind_is_killed_also_where_it_hides(self, cache: Path) -> None:
        result = await carried_out(
            """
import subprocess

def run():
    for number in range(3):
        subprocess.Popen(["sleep", "4321"], start_new_session=True, stdout=subprocess.DEVNULL)
    return "left three"
""",
            cache,
        )
        assert result.output == "left three\n"
        assert not sleeping("4321")

    async def test_a_cancelled_run_leaves_nothing(self, cache: Path) -> None:
        script = "import subprocess\ndef run():\n    subprocess.run(['sleep', '4322'])"
        task = asyncio.create_task(carried_out(script, cache))
        async with asyncio.timeout(60):
            while not sleeping("4322"):
                await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not sleeping("4322")


async def test_what_a_dead_script_worker_left_is_removed_and_nothing_else(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(public))
    goes_on, lock = sandbox._made()
    left = public / "justiam-task-left"
    (left / "home" / "closed").mkdir(parents=True)
    (left / "home" / "closed").chmod(0)
    (public / "justiam-task-link").symlink_to(goes_on)
    others = [public / "other"]
    others[0].mkdir()
    if os.getuid() == 0:
        others.append(public / "justiam-task-of-another-user")
        others[1].mkdir()
        os.chown(others[1], 65_432, 65_432)
    await sandbox.remove_leftovers()
    assert not there([str(left)])
    assert there([*map(str, others), str(goes_on)]) == [*map(str, others), str(goes_on)]
    os.close(lock)
    await sandbox.remove_leftovers()
    assert not there([str(goes_on)])


_ONE_USER = """
import asyncio, os, subprocess, sys
from pathlib import Path
from domain.tasks import Language
from script_tasks import running, sandbox

sandbox._bubblewrap = lambda: None
sandbox.harden_this_process()
cache, told = Path(sys.argv[1]), {"PATH": os.environ["PATH"], "SECRET": "told another"}
compiled = cache / "compiled"
compiled.write_text("of another task")
another = subprocess.Popen(["sleep", "60"], env=told)
script = f'''
import os

def run():
    for pid in ({os.getpid()}, {another.pid}):
        try:
            print(pid, "environment", open(f"/proc/{{pid}}/environ").read())
        except OSError:
            pass
    for name in ("r", "w"):
        try:
            open({str(compiled)!r}, name)
            print("program", name)
        except OSError:
            pass
    try:
        os.kill({another.pid}, 9)
        print("killed")
    except OSError:
        pass
    open("own", "w").write("own")
    print(open("own").read())
'''
job = running.Job("r", Language.PYTHON, script, {}, [], {}, 20, True)
result = asyncio.run(running.run(job, cache=cache))
another.kill()
print(result.output, result.isolation, sep="---")
"""


@pytest.mark.skipif(sandbox._landlock() is None, reason="this kernel has no Landlock")
async def test_runs_of_one_user_are_kept_apart_from_it_and_from_each_other(tmp_path: Path) -> None:
    # The interpreter of these tests may be where only root goes. So may then the script, which it does not help.
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    another_user = ["setpriv", "--reuid=65432", "--regid=65432", "--clear-groups", *reading]
    open_to_all(tmp_path)
    process = await asyncio.create_subprocess_exec(
        *(another_user if os.getuid() == 0 else []),
        *(sys.executable, "-B", "-c", _ONE_USER, str(tmp_path)),
        cwd=ROOT,
        stdout=-1,
        stderr=-1,
    )
    said, complaint = await process.communicate()
    if b"setpriv:" in complaint:
        pytest.skip(complaint.decode().strip())
    output, _, isolation = said.decode().partition("---")
    assert "the user of the script worker; Landlock:" in isolation, complaint.decode()
    # Signals are told apart since version 6.
    assert output.replace("killed\n" if (sandbox._landlock() or 0) < 6 else "", "") == "own\n"


async def test_what_bubblewrap_hides_does_not_keep_names_from_being_resolved(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sandbox._bubblewrap() is None:
        pytest.skip("bubblewrap is not installed, or this machine forbids what it needs")
    with tempfile.NamedTemporaryFile("w") as resolver:
        resolver.write("nameserver 192.0.2.1")
        resolver.flush()
        open_to_all(Path(resolver.name))
        monkeypatch.setattr(sandbox, "_RESOLVER", Path(resolver.name))
        result = await carried_out(f"def run():\n    return open({resolver.name!r}).read()", cache)
    assert result.output == "nameserver 192.0.2.1\n"


async def test_without_bubblewrap_no_network_is_no_tcp_where_the_kernel_can(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (sandbox._landlock() or 0) < 4:
        pytest.skip("this kernel's Landlock knows no network")
    monkeypatch.setattr(sandbox, "_bubblewrap", lambda: None)
    async with receiving() as receiver:
        script = f"import urllib.request\ndef run():\n    urllib.request.urlopen({receiver.url!r})"
        result = await carried_out(script, cache, network=False)
    assert result.ending is Ending.FAILED
    assert "Permission denied" in result.output
    assert "no TCP" in result.isolation
    assert not receiver.received


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes a namespace of processes here")
async def test_runs_below_the_first_process_of_a_container(tmp_path: Path) -> None:
    program = f"""
import asyncio, os
from pathlib import Path
from domain.tasks import Language
from script_tasks.running import Job, run

job = Job("r", Language.PYTHON, "def run(): return 'ran'", {{}}, [], {{}}, 20, True)
result = asyncio.run(run(job, cache=Path({str(tmp_path)!r})))
print(os.getpid(), result.output)
"""
    process = await asyncio.create_subprocess_exec(
        "unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", program, cwd=ROOT, stdout=-1, stderr=-1
    )
    said, complaint = await process.communicate()
    if b"unshare:" in complaint:
        pytest.skip(complaint.decode().strip())
    assert said.decode() == "1 ran\n\n", complaint.decode()


def sleeping(argument: str) -> bool:
    return any(
        process.info["cmdline"] == ["sleep", argument] and process.info["status"] != psutil.STATUS_ZOMBIE
        for process in psutil.process_iter(["cmdline", "status"])
    )


class TestGo:
    async def test_the_logger_of_the_specification_runs_as_it_stands(self, cache: Path) -> None:
        logger, _ = of_the_specification()
        result = await go(logger, cache)
        assert result.ending is Ending.SUCCEEDED, result.output
        assert "=== access_request.approved ===" in result.output
        assert "  Requester:       Alice (alice@example.com)" in result.output

    @pytest.mark.usefixtures("isolated")
    async def test_the_notifier_of_the_specification_runs_as_it_stands(self, cache: Path, slack: Receiver) -> None:
        _, notifier = of_the_specification()
        assert '"secrets"' not in notifier
        result = await go(notifier, cache, secrets={"SLACK_WEBHOOK": slack.url})
        assert (result.ending, result.output) == (Ending.SUCCEEDED, "notified\n"), result.output
        (received,) = slack.received
        assert json.loads(received.body)["text"] == (
            "Database read-only access access requested by alice@example.com — approvers: bob@example.com, "
            "c@example.com"
        )

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            ('return "", errors.New("broken")', "broken"),
            ('panic("broken")', "panic: broken"),
            ('return secrets.Get("OTHER"), errors.New("x")', "may not read the secret OTHER"),
        ],
    )
    async def test_a_failure_says_what_went_wrong(self, cache: Path, body: str, error: str) -> None:
        script = f"""package task

import ("errors"; "secrets")

var _, _ = secrets.Get, errors.New

func Run() (string, error) {{ {body} }}
"""
        result = await go(script, cache)
        assert result.ending is Ending.FAILED
        assert error in (result.error or "")

    async def test_a_script_may_begin_as_editors_leave_it(self, cache: Path) -> None:
        script = """\ufeff#!/usr/bin/env gorun
/* This is
package documentation
*/

package /* ours */ task // begins here

func Run() (string, error) { return config.Get("request_id"), nil }
"""
        result = await go(script.replace("\n", "\r\n"), cache)
        assert (result.ending, result.output) == (Ending.SUCCEEDED, "7d2f\n"), result.output

    async def test_what_does_not_compile_is_told_by_the_lines_of_the_script(self, cache: Path) -> None:
        result = await go("package task\n\nfunc Run() (string, error) {\n\treturn missing, nil\n}\n", cache)
        assert result.ending is Ending.FAILED
        assert "task.go:4:9: undefined: missing" in result.output

    async def test_what_compiles_to_more_than_a_script_needs_is_refused_and_not_kept(self, cache: Path) -> None:
        script = "package task\nvar X = [1 << 27]byte{1}\nfunc Run() (string, error) { return string(X[:1]), nil }\n"
        result = await go(script, cache)
        assert (result.ending, result.error) == (Ending.FAILED, "The script does not compile.")
        assert "too large" in result.output
        assert max(sizes(cache)) <= compiling._COMPILED_BYTES

    async def test_no_repository_above_the_temporary_directory_is_read(
        self, cache: Path, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_by_git, program = tmp_path / "ran", tmp_path / "monitor"
        program.write_text(f"#!/bin/sh\ntouch {run_by_git}\n")
        program.chmod(0o755)
        temporary = public / "temporary"
        temporary.mkdir(mode=0o755)
        for command in (["init", "--quiet", "--initial-branch=main"], ["config", "core.fsmonitor", str(program)]):
            process = await asyncio.create_subprocess_exec("git", *command, cwd=public)
            assert await process.wait() == 0
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        monkeypatch.setenv("GOFLAGS", f"-toolexec={program}")
        monkeypatch.setenv("GIT_DIR", str(public / ".git"))
        script = 'package task\n\nfunc Run() (string, error) { return "no repository", nil }\n'
        result = await go(script, cache)
        assert (result.ending, result.output) == (Ending.SUCCEEDED, "no repository\n")
        assert not run_by_git.exists()

    async def test_those_unused_for_the_longest_time_make_room(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compiling, "_KEPT_BYTES", 10)
        for second, name in enumerate(("oldest", "older", "newest")):
            (tmp_path / name).write_bytes(bytes(4))
            os.utime(tmp_path / name, (second, second))
        compiling._prune(tmp_path / "newest")
        assert names(tmp_path) == ["newest", "older"]

    @pytest.mark.usefixtures("isolated")
    async def test_compiling_changes_nothing_that_others_are_compiled_from(self, cache: Path) -> None:
        standard = cache / "standard"
        await compiling.warm_up(cache)
        before = changed(standard)
        number = secrets.token_hex(8)
        script = f'package task\nimport _ "container/ring"\nfunc Run() (string, error) {{ return "{number}", nil }}\n'
        assert (await go(script, cache)).output == f"{number}\n"
        assert changed(standard) == before

    async def test_two_at_once_compile_once(self, cache: Path) -> None:
        script = 'package task\n\nfunc Run() (string, error) { return "once", nil }\n'
        results = await asyncio.gather(go(script, cache), go(script, cache))
        assert [result.output for result in results] == ["once\n", "once\n"]
        assert not [path for path in (cache / "programs").iterdir() if "." in path.name]

    async def test_the_cache_may_be_named_from_here(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(cache.parent)
        script = 'package task\n\nfunc Run() (string, error) { return "from here", nil }\n'
        assert (await go(script, Path(cache.name))).output == "from here\n"

    async def test_memory_is_bounded(self, cache: Path) -> None:
        script = """package task

func Run() (string, error) {
	b := make([]byte, 8<<30)
	for i := range b {
		b[i] = 1
	}
	return string(b[:1]), nil
}
"""
        assert (await go(script, cache)).ending is Ending.FAILED


def test_without_a_compiler_a_go_script_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unavailable(Language.GO) is None
    monkeypatch.setattr(compiling, "toolchain", lambda: None)
    problem = unavailable(Language.GO)
    assert problem is not None
    assert "pip install 'justiam[go]'" in problem
    assert unavailable(Language.PYTHON) is None


class TestReferenceScripts:
    @pytest.mark.parametrize("name", ["access_request_event_logger.go", "access_request_event_logger.py"])
    async def test_the_logger_shows_every_key(self, cache: Path, name: str) -> None:
        result = await self.carry_out(name, cache)
        assert result.ending is Ending.SUCCEEDED, result.output
        for key, value in CONFIG.items():
            assert re.search(rf"(?m)^  {key} +{re.escape(value)}$", result.output), key

    @pytest.mark.parametrize("name", ["slack_notifier.go", "slack_notifier.py"])
    async def test_the_notifier_tells_slack(self, cache: Path, slack: Receiver, name: str) -> None:
        values = {"secrets": {"SLACK_WEBHOOK": slack.url}, "config": {**CONFIG, "template_name": "<!channel> & co"}}
        result = await self.carry_out(name, cache, **values)
        assert result.ending is Ending.SUCCEEDED, result.output
        text = json.loads(slack.received[0].body)["text"]
        assert text.startswith("*&lt;!channel&gt; &amp; co*: approved, requested by alice@example.com")
        assert "bob@example.com, c@example.com" in text
        slack.answer = response(500)
        assert (await self.carry_out(name, cache, **values)).ending is Ending.FAILED

    async def carry_out(self, name: str, cache: Path, **values: Any) -> RunResult:
        script = (ROOT / "scripts" / name).read_text()
        return await (go if name.endswith(".go") else carried_out)(script, cache, **values)


class TestDocumentation:
    @pytest.mark.parametrize("language", [Language.PYTHON, Language.GO])
    async def test_its_examples_run(self, cache: Path, language: Language) -> None:
        (script,) = blocks(ROOT / "docs" / "tasks.md", language.value)
        assert infer_language(script) is language
        result = await (go if language is Language.GO else carried_out)(
            script, cache, secrets={"EXAMPLE_TOKEN": SECRET}
        )
        assert result.ending is Ending.SUCCEEDED, result.output
        assert "bob@example.com" in result.output
        assert result.output.endswith(f"the token has {len(SECRET)} characters\n")
