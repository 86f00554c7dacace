"""Connections that keep the service waiting are let go, and others are served: on real sockets, with short limits."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from db import acting
from tests.api.house import settings
from tests.documented import ROOT
from web.connections import BoundedConnection
from web.serving import configured

PATIENCE: Final = 60.0
GET: Final = b"GET /%s HTTP/1.1\r\nHost: here\r\n\r\n"
POST: Final = b"POST /%s HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n"
MIB: Final = 1 << 20


class Quick(BoundedConnection):
    """Limits that a test can wait for."""

    head_secs = 0.3
    body_secs = 0.4
    answer_secs = 0.5
    last_secs = 0.2
    head_bytes = 8_192


class Service:
    """Answers as its path says, and remembers what became of its calls."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.port = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].strip("/")
        heard = await receive() if path == "body" else None
        while heard is not None and heard.get("more_body"):
            heard = await receive()
        if path == "slow":
            await asyncio.sleep(2.5)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if path == "large":
            for _ in range(64):
                await send({"type": "http.response.body", "body": b"x" * MIB, "more_body": True})
        if path == "events":
            for _ in range(3):
                await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
                await asyncio.sleep(0.8)
        await send({"type": "http.response.body", "body": b"done"})
        self.ended.append(f"{path}: {heard['type']}" if heard else path)


@asynccontextmanager
async def running(config: uvicorn.Config) -> AsyncIterator[int]:
    """A server; its port."""
    server = uvicorn.Server(config)
    # The signals are those of the tests.
    task = asyncio.create_task(server._serve())
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def serving(connection: type[BoundedConnection] = Quick, keep_alive_secs: int = 1) -> AsyncIterator[Service]:
    service = Service()
    config = uvicorn.Config(
        service,
        port=0,
        http=connection,
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=keep_alive_secs,
        timeout_graceful_shutdown=1,
    )
    async with running(config) as service.port:
        yield service


class Caller:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def says(self, said: bytes) -> None:
        self.writer.write(said)
        await self.writer.drain()

    async def hears_to_the_end(self, *, dripping: bytes = b"") -> bytes:
        """All that comes until the other side closes, which it has to; meanwhile, a byte at a time is said."""

        async def drip() -> None:
            while dripping:
                await self.says(dripping)
                await asyncio.sleep(0.05)

        says = asyncio.create_task(drip())
        heard = b""
        try:
            async with asyncio.timeout(PATIENCE):
                while part := await self.reader.read(65_536):
                    heard += part
                return heard
        except ConnectionError:
            # A byte that reached a closed connection resets it. What was heard before counts.
            return heard
        finally:
            says.cancel()
            await asyncio.gather(says, return_exceptions=True)

    async def hears(self, end: bytes = b"0\r\n\r\n") -> bytes:
        """One answer."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(end)


@asynccontextmanager
async def calling(service: Service, takes: int = 65_536) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=takes)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def said(service: Service, first: bytes, *, dripping: bytes = b"") -> bytes:
    async with calling(service) as caller:
        if first:
            await caller.says(first)
        return await caller.hears_to_the_end(dripping=dripping)


async def test_a_head_that_comes_byte_by_byte_is_not_waited_for() -> None:
    async with serving() as service:
        heard = await said(service, b"GET / HTTP/1.1\r\nX-Slow: ", dripping=b"a")
        assert heard.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"connection: close" in heard
        assert service.ended == []


async def test_a_body_that_comes_byte_by_byte_is_not_waited_for_and_its_handler_is_told() -> None:
    async with serving() as service:
        heard = await said(service, POST % b"body", dripping=b"a")
        assert heard.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert service.ended == ["body: http.disconnect"]


async def test_a_body_that_goes_on_after_its_answer_is_not_waited_for() -> None:
    async with serving() as service:
        heard = await said(service, POST % b"early", dripping=b"a")
        assert heard.count(b"HTTP/1.1") == 1
        assert b"done" in heard
        assert service.ended == ["early"]


@pytest.mark.parametrize("before", [b"", GET % b"first"])
@pytest.mark.parametrize("dripping", [b"", b"\r\n"])
async def test_silence_and_empty_lines_end_without_a_word(before: bytes, dripping: bytes) -> None:
    async with serving() as service:
        heard = await said(service, before, dripping=dripping)
        assert heard.count(b"HTTP/1.1") == (1 if before else 0)
        assert b"408" not in heard


async def test_a_head_without_an_end_is_refused() -> None:
    async with serving() as service:
        heard = await said(service, b"GET / HTTP/1.1\r\nX-Long: ", dripping=b"a" * 4_096)
        assert heard.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert service.ended == []


@pytest.mark.parametrize(
    ("before", "endless"),
    [(b"0\r\n", b"a: b\r\n"), (b"0\r\nX-Long: ", b"a" * 4_096), (b"1;", b"a" * 4_096)],
    ids=["trailers", "a long trailer", "an extension of a chunk"],
)
async def test_what_has_no_end_around_a_body_is_refused_like_a_head(before: bytes, endless: bytes) -> None:
    class Patient(Quick):
        body_secs = PATIENCE

    async with serving(Patient) as service:
        begun = b"POST /body HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
        heard = await said(service, begun + before, dripping=endless * (1 + 2_000 // len(endless)))
        assert heard.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert service.ended == ["body: http.disconnect"]


async def test_a_body_in_many_small_chunks_is_read() -> None:
    async with serving() as service, calling(service) as caller:
        head = b"POST /body HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
        await caller.says(head + b"1\r\na\r\n" * 10_000 + b"0\r\nX-After: all\r\n\r\n")
        assert b"done" in await caller.hears()


async def test_a_call_knows_nothing_of_who_made_the_one_before() -> None:
    """Sent before the answer to that one: a proxy may have such calls come from different people."""
    known: list[str] = []

    async def noting(_: Scope, __: Receive, send: Send) -> None:
        known.append(acting.known()[0])
        acting.note("alice@example.com")
        # The next one is here by then.
        await asyncio.sleep(0.2)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    config = configured(noting, settings("postgresql://nowhere/justiam").model_copy(update={"api_port": 0}))
    config.lifespan = "off"
    async with running(config) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((GET % b"first") * 2 + b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.read()).count(b"HTTP/1.1 200 ") == 3
        writer.close()
    assert known == ["", "", ""]


async def test_an_answer_that_is_not_taken_is_not_kept() -> None:
    async with serving() as service, calling(service) as caller:
        await caller.says(GET % b"large")
        async with asyncio.timeout(PATIENCE):
            while not service.ended:
                await asyncio.sleep(0.05)
        assert len(await caller.hears_to_the_end()) < 64 * MIB


async def test_what_is_as_it_should_be_is_served_however_long_it_takes() -> None:
    async with serving() as service, calling(service, takes=128 * MIB) as caller:
        # Both are longer than any limit, and nobody but the service keeps anybody waiting.
        await caller.says(GET % b"slow")
        assert b"done" in await caller.hears()
        await caller.says(GET % b"events")
        assert (await caller.hears()).count(b"data: x") == 3
        for _ in range(3):
            await caller.says(POST % b"body" + b"a" * 1_000)
            assert b"done" in await caller.hears()
        # Sent without waiting for answers.
        await caller.says((GET % b"first") * 5)
        for _ in range(5):
            assert b"done" in await caller.hears()
        await caller.says(GET % b"large")
        assert (await caller.hears(b"done\r\n0\r\n\r\n")).count(b"x") >= 64 * MIB
        assert service.ended == ["slow", "events", *["body: http.request"] * 3, *["first"] * 5, "large"]


async def test_in_a_crowd_the_silent_go_first_and_who_is_being_served_stays() -> None:
    class Crowded(Quick):
        most = 6

    async with serving(Crowded, keep_alive_secs=300) as service, calling(service) as served:
        await served.says(GET % b"slow")
        async with contextlib.AsyncExitStack() as crowd:
            silent = [await crowd.enter_async_context(calling(service)) for _ in range(20)]
            for _ in range(5):
                async with calling(service) as another:
                    await another.says(GET % b"first")
                    assert b"done" in await another.hears()
            # Those who were there first had to make room, long before their time.
            for caller in silent[:14]:
                assert await caller.hears_to_the_end() == b""
            assert b"done" in await served.hears()


@pytest.mark.parametrize(
    ("soft", "hard", "files", "most"),
    [(256, 20_000, 5_600, 5_000), (256, 1_024, 1_024, 512), (8_000, 9_000, 8_000, 5_000)],
)
def test_there_are_files_for_as_many_connections_as_are_taken(soft: int, hard: int, files: int, most: int) -> None:
    script = (
        "import resource as r, web.connections as c\n"
        f"r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "c.make_room_for_connections()\n"
        "print(r.getrlimit(r.RLIMIT_NOFILE)[0], c.BoundedConnection.most)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(files), str(most)]
