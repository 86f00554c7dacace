"""The programs that a benchmark runs beside itself."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def process(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """A program that runs until the end of the block."""
    running = subprocess.Popen(command, env=environment)
    try:
        yield
    finally:
        running.terminate()
        running.wait()


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
