"""The programs that a benchmark runs beside itself."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def process(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """A program that runs until the end of the block."""
    running = subprocess.Popen(command, env=environment)
    try:
        yield
    finally:
        running.terminate()
        running.wait()


def memory() -> dict[str, int]:
    """Bytes that each program holds which this process has started: what is shared counts by parts (PSS)."""
    held: dict[str, int] = {}
    for child in psutil.Process().children(recursive=True):
        try:
            command, pss = " ".join(child.cmdline()), child.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        for name in ("justiam worker", "justiam api", "temporal", "postgres"):
            if name in command:
                held[name] = held.get(name, 0) + pss
                break
    return held


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
