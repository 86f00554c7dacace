"""A server that goes silent: nobody waits for it for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from db import database
from db.database import Database


class Line:
    """What runs to the server through here; while it is cut, nothing does, and nobody is told."""

    def __init__(self, url: str) -> None:
        server = conninfo_to_dict(url)
        self._server = (str(server["host"]), int(server["port"] or 0))
        self._whole = asyncio.Event()
        self._whole.set()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*self._server)
        with suppress(ConnectionError):
            await asyncio.gather(self._pass_on(reader, to_server), self._pass_on(from_server, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while part := await reader.read(65_536):
                await self._whole.wait()
                writer.write(part)
                await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def through_a_line(url: str) -> AsyncIterator[tuple[Line, Database]]:
    line = Line(url)
    async with await asyncio.start_server(line.carry, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Database(make_conninfo(url, host="127.0.0.1", port=port), max_connections=1) as db:
            try:
                yield line, db
            finally:
                line.mend()


async def _answers(db: Database) -> bool:
    async with db.connection() as connection:
        return await (await connection.execute("SELECT true AS yes")).fetchone() == {"yes": True}


async def test_a_server_that_went_silent_is_given_up(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_ANSWER_SECS", 1.0)
    async with through_a_line(database_url) as (line, db):
        assert await _answers(db)
        line.cut()
        with pytest.raises(psycopg.OperationalError):
            # By itself, its system gives up after minutes.
            await asyncio.wait_for(_answers(db), 60)
        line.mend()
        assert await _answers(db), "the connection was not kept"


async def test_a_transaction_ends_with_its_server(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_ANSWER_SECS", 1.0)
    async with through_a_line(database_url) as (line, db):

        async def write() -> None:
            async with db.transaction() as connection:
                await connection.execute("CREATE TABLE unfinished ()")
                line.cut()
                await connection.execute("SELECT 1")

        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(write(), 10)
        line.mend()
        async with db.session() as session:
            found = await session.connection()
            assert (await found.exec_driver_sql("SELECT to_regclass('unfinished')")).scalar() is None


async def test_a_statement_that_may_take_long_is_waited_for(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_ANSWER_SECS", 0.5)
    async with Database(database_url, max_connections=1) as db:
        async with db.connection() as connection:
            with connection.patiently():
                await connection.execute("SELECT pg_sleep(1)")
        with pytest.raises(psycopg.OperationalError):
            async with db.connection() as connection:
                await connection.execute("SELECT pg_sleep(1)")
