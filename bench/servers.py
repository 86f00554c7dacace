"""The programs that a benchmark runs beside itself."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final, TypeVar

import psutil

T = TypeVar("T", int, float)

PROGRAMS: Final = {
    "worker": "justiam worker",
    "API": "justiam api",
    "floor worker": "-m bench.floor",
    "floor API": "bench.floor:app",
    "control": "bench.control:app",
    "Temporal": "temporal server",
    "PostgreSQL": "postgres",
}
"""Programs by the part of their command line that tells them apart."""


@contextmanager
def process(command: list[str], environment: dict[str, str], *, output: Path | None = None) -> Iterator[None]:
    """Run a program until the end of the block; what it prints goes to `output`, where that is given."""
    with output.open("wb") if output else nullcontext() as file:
        running = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        yield
    finally:
        running.terminate()
        running.wait()


def memory() -> dict[str, int]:
    """Bytes that each program holds which this process has started: what is shared counts by parts (PSS)."""
    return _of_each(lambda child: int(child.memory_full_info().pss))


def processor_secs() -> dict[str, float]:
    """Seconds of a processor that each program has used which this process has started, as long as it runs."""
    return _of_each(lambda child: sum(child.cpu_times()[:2]))


def _of_each(measure: Callable[[psutil.Process], T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for child in psutil.Process().children(recursive=True):
        try:
            command, value = " ".join(child.cmdline()), measure(child)
        except psutil.NoSuchProcess:
            continue
        for name, part in PROGRAMS.items():
            if part in command:
                found[name] = found[name] + value if name in found else value
                break
    return found


async def wait_for(*ports: int) -> None:
    """Until somebody listens on each of these ports.

    Raises:
        TimeoutError: nobody did within a minute.
    """
    for port in ports:
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.1)
                else:
                    writer.close()
                    break
