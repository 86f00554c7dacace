"""One run of one script: started apart from everything, watched, and ended with all that it started."""

from __future__ import annotations

import asyncio
import codecs
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from domain.tasks import Ending, Language, RunResult, source_text
from script_tasks import compiling, masking, sandbox
from script_tasks.sandbox import Ended, Limits

OUTPUT_BYTES: Final = 64 * 1024
"""As much of what a script prints is kept."""
_TRUNCATED: Final = "\n… (truncated)"
_HARNESS: Final = Path(__file__).with_name("harness.py")


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
    ended = await sandbox.run(
        ["-c", _HARNESS.read_text()] if binary is None else [],
        python=binary is None,
        program=binary,
        data=_input(job),
        limits=_limits(job),
        seconds=job.timeout_seconds,
        network=job.network,
    )
    code = ended.exit_code
    # What ended by itself has printed all that it wanted to; what was killed may have been in the middle of a secret.
    incomplete = ended.output_bytes > len(ended.output)
    cut = incomplete or code is None or code > sandbox.SIGNALLED
    printed = codecs.getincrementaldecoder("utf-8")("replace").decode(ended.output, final=not cut)
    output, truncated = _bounded(await _masked(printed, job, cut=cut), incomplete=incomplete)
    return RunResult(
        ending=Ending.TIMED_OUT if ended.timed_out else Ending.SUCCEEDED if code == 0 else Ending.FAILED,
        exit_code=code,
        duration_ms=ended.duration_ms,
        output=output,
        output_truncated=truncated,
        error=_error(job, ended, output),
        isolation=ended.isolation,
    )


def _limits(job: Job) -> Limits:
    return Limits(cpu_seconds=int(job.timeout_seconds) + 2, kept_bytes=2 * OUTPUT_BYTES)


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


def _error(job: Job, ended: Ended, output: str) -> str | None:
    if ended.timed_out:
        return f"It took longer than {job.timeout_seconds:g} seconds and was killed."
    if ended.over is not None:
        return f"{_passed(ended.over, _limits(job))} and was killed."
    code = ended.exit_code
    if code == 0:
        return None
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if code is not None and code > sandbox.SIGNALLED:
        number = code - sandbox.SIGNALLED
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = str(number)
        return f"It was killed ({name}): a limit on processor time, memory or file size, or a signal of its own."
    # Go says first why it panics, and then where; all others say it last.
    panic = next((line for line in lines if line.startswith("panic: ")), None)
    return (panic or lines[-1])[:500] if lines else f"It ended with exit code {code}."


def _passed(name: str, limits: Limits) -> str:
    mib = 1024**2
    return {
        "output_bytes": f"It printed more than {limits.output_bytes // mib} MiB",
        "memory_bytes": f"It used more than {limits.memory_bytes // mib} MiB of memory in all its processes together",
        "processes": f"It had more than {limits.processes} processes and threads",
        "disk_bytes": f"It kept more than {limits.disk_bytes // mib} MiB of files",
        "entries": f"It had more than {limits.entries} files and directories",
    }.get(name, "Its files or memory could not be measured: it")
