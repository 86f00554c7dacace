"""The port of the operators, by itself."""

from __future__ import annotations

import asyncio

from cli.dev.program import free_port
from telemetry import serving

PATIENCE_SECS = 60.0


async def nothing_missing() -> list[str]:
    return []


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)


async def test_a_head_that_does_not_end_is_refused() -> None:
    port = free_port()
    async with serving.serving("127.0.0.1", port, missing=nothing_missing), asyncio.timeout(PATIENCE_SECS):
        reader, writer = await connected(port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: here\r\n" + b"a: b\r\n" * 50_000)
        assert (await reader.read(4_096)).startswith(b"HTTP/1.1 400 ")
        writer.transport.abort()
        reader, writer = await connected(port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        assert b'{"status":"ok"}' in await reader.read()
        writer.close()
