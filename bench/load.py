"""A client light enough to leave the machine to the servers: keep-alive HTTP/1.1 over asyncio streams."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


@dataclass
class Answer:
    """What came back."""

    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body of an answer that has to be a success.

        Raises:
            RuntimeError: it is none.
        """
        if self.status >= 300:  # noqa: PLR2004 - HTTP
            raise RuntimeError(f"{self.status}: {self.body.decode(errors='replace')}")
        document: dict[str, Any] = json.loads(self.body)
        return document


class Connection:
    """One connection to a server on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def call(self, method: str, path: str, token: str = "", body: object = None, form: str = "") -> Answer:
        """One call and its answer; `form` in place of `body` where the body is a form."""
        content = form.encode() if form else b"" if body is None else json.dumps(body).encode()
        kind = "x-www-form-urlencoded" if form else "json"
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        if content:
            head += f"Content-Type: application/{kind}\r\nContent-Length: {len(content)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + content)
        received = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(received.partition("content-length:")[2].partition("\r\n")[0] or 0)
        return Answer(int(received.split(" ", 2)[1]), await self._reader.readexactly(length))


@dataclass
class Timings:
    """How long each call of one kind took, in milliseconds."""

    taken: list[float] = field(default_factory=list)

    async def of(self, call: Awaitable[T]) -> T:
        """The result of `call`, whose time is noted."""
        started = time.perf_counter()
        result = await call
        self.taken.append((time.perf_counter() - started) * 1000)
        return result

    def quantile(self, share: float) -> float:
        """The time that `share` of the calls did not exceed."""
        ordered = sorted(self.taken)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def in_parallel(clients: int, count: int, work: Callable[[int, int], Awaitable[None]]) -> float:
    """Do `work(client, number)` `count` times, split between `clients`.

    Returns:
        How often a second.
    """

    async def one(client: int) -> None:
        for number in range(client, count, clients):
            await work(client, number)

    started = time.perf_counter()
    await asyncio.gather(*(one(client) for client in range(clients)))
    return count / (time.perf_counter() - started)
