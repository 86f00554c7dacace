"""The connection to PostgreSQL: one pool, two ways to use it.

The record's hot paths (requests, timeline, claims, authentication) speak SQL through psycopg: a pooled statement costs
a quarter of one through a session (`bench/`). Administration (templates, directory, tokens) uses SQLModel sessions.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row, tuple_row
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool
from pydantic_core import from_json
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel.ext.asyncio.session import AsyncSession

from db import acting

_ACQUIRE_TIMEOUT_SECS = 10.0
"""How long a caller waits for a free connection before it is told that the record is unavailable."""
_STATEMENT_TIMEOUT = "15s"
"""No statement of the service is meant to take longer; one that does must not hold a connection for ever."""
_ANSWER_SECS = 20.0
"""How long an answer is waited for: longer than a statement may take. So only a server is given up that went silent,
because its machine froze, or the network between was cut."""
_CONNECT_TIMEOUT_SECS = 5
_MAX_IDLE_SECS = 300.0
_TOLD = "told who acts"
_PLAIN_ROWS: Any = tuple_row
"""What SQLAlchemy reads; a connection is typed by the rows it has outside of sessions."""


# Three times as fast as the standard library's, and lists read several JSON columns a row.
set_json_loads(from_json)


SCHEMA: Final = max(path.name[:4] for path in (Path(__file__).parent / "migrations/versions").glob("[0-9]*.py"))
"""The revision that this version of the programs is written for."""


class Problem(NamedTuple):
    """Why the record cannot be worked with."""

    missing: Literal["database", "schema"]
    why: str


class Connection(AsyncConnection[DictRow]):
    """A connection that ends when its server says nothing for long: whoever waits is told, and it is not kept."""

    is_in_session: bool = False
    """Borrowed by SQLAlchemy, which has transactions and rows of its own."""
    _is_patient: bool = False

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Wait for ever within the block, for statements that may take as long as they do."""
        self._is_patient = True
        try:
            yield
        finally:
            self._is_patient = False

    async def close(self) -> None:
        """Go back to the pool, as it was when it was taken from there."""
        if self.is_in_session:
            self.is_in_session = False
            try:
                await self.rollback()
                await self.set_autocommit(True)
            except psycopg.Error:
                # Of no more use; the pool makes another.
                self.pgconn.finish()
            self.row_factory = dict_row
        await super().close()

    async def wait(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as psycopg has it
        """Wait for the server, as psycopg does for everything."""
        if self._is_patient:
            return await super().wait(*args, **options)
        giving_up = asyncio.get_running_loop().call_later(_ANSWER_SECS, self._give_up)
        try:
            return await super().wait(*args, **options)
        finally:
            giving_up.cancel()

    def _give_up(self) -> None:
        # Who waits finds that the connection has ended. To cancel them would be to ask the silent server once more.
        with socket.socket(fileno=os.dup(self.pgconn.socket)) as line:
            line.shutdown(socket.SHUT_RDWR)


class Database:
    """A pool of connections in autocommit mode; open it with `async with`."""

    def __init__(self, url: str, *, max_connections: int = 10) -> None:
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=Connection,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "connect_timeout": _CONNECT_TIMEOUT_SECS,
                "application_name": "justiam",
                "options": f"-c statement_timeout={_STATEMENT_TIMEOUT} -c timezone=UTC",
            },
            min_size=1,
            max_size=max_connections,
            timeout=_ACQUIRE_TIMEOUT_SECS,
            max_idle=_MAX_IDLE_SECS,
            # No `reset`: it would have every connection go through a task of the pool before the next one gets it.
            close_returns=True,
            open=False,
        )
        self._engine = create_async_engine(
            "postgresql+psycopg://", poolclass=NullPool, async_creator=self._borrow, use_native_hstore=False
        )
        event.listen(self._engine.sync_engine, "before_cursor_execute", _tell_who_acts)

    async def __aenter__(self) -> Self:
        # Without waiting: a process that starts before its database is ready answers "unavailable" until it is.
        await self._pool.open(wait=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()
        await self._pool.close()

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection on which every statement is its own transaction: for reads."""
        return self._pool.connection()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside one transaction: committed at the end of the block, rolled back by an exception.

        In pipeline mode: a statement whose result is not fetched does not wait for its answer, and an error in it is
        raised by the next fetch or by the end of the block.
        """
        async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
            yield connection

    @asynccontextmanager
    async def administration(self) -> AsyncIterator[Connection]:
        """A transaction for changes that the audit log has, without a session: it is told who acts."""
        async with self.transaction() as connection:
            await acting.tell(connection)
            yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A SQLModel session inside one transaction: committed at the end of the block."""
        async with AsyncSession(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    async def problem(self, patience_secs: float) -> Problem | None:
        """Why the record cannot be worked with, as far as it says so within this time; None: it can."""
        try:
            async with asyncio.timeout(patience_secs), self.connection() as connection:
                cursor = await connection.execute("SELECT max(version_num) AS revision FROM alembic_version")
                found = (await cursor.fetchone() or {}).get("revision")
        except psycopg.errors.UndefinedTable:
            found = None
        except (psycopg.Error, OSError) as error:
            return Problem("database", str(error) or repr(error))
        # A later one fits this version as well: a migration is made for the programs before it, too.
        if found is None or found < SCHEMA:
            return Problem("schema", f"it is {found or 'not there'}, and this version needs {SCHEMA}: justiam migrate")
        return None

    def statistics(self) -> Mapping[str, int]:
        """The pool at this moment, by psycopg's names (`pool_size`, `pool_available`, `requests_waiting`, …)."""
        return self._pool.get_stats()

    async def _borrow(self) -> Connection:
        connection = await self._pool.getconn()
        connection.is_in_session = True
        await connection.set_autocommit(False)
        connection.row_factory = _PLAIN_ROWS
        return connection


def _tell_who_acts(connection: Any, _: Any, statement: str, *__: Any) -> None:  # noqa: ANN401 - as SQLAlchemy calls it
    """Before the first statement of a session that changes something: readers do not wait for one more statement."""
    if statement.startswith(("INSERT", "UPDATE", "DELETE")) and not connection.info.get(_TOLD):
        connection.info[_TOLD] = True
        connection.exec_driver_sql(acting.SET, tuple(acting.known()))


@asynccontextmanager
async def driver_connection(session: AsyncSession) -> AsyncIterator[Connection]:
    """The psycopg connection under a session, to run a hot-path statement in the session's transaction."""
    raw: Any = await (await session.connection()).get_raw_connection()
    connection: Connection = raw.driver_connection
    connection.row_factory = dict_row
    try:
        yield connection
    finally:
        connection.row_factory = _PLAIN_ROWS
