"""What reading routes have in common: a connection, and the page that is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Query, Request

from db.database import Connection, Database
from db.paging import DEFAULT_LIMIT, LARGEST_LIMIT, Position


async def _connection(request: Request) -> AsyncIterator[Connection]:
    # After the caller is known, which is the first dependency of all routes, and the connection for that is back in
    # the pool: a call that held one while it waits for a second could, with others like it, wait for ever.
    database: Database = request.app.state.database
    async with database.connection() as connection:
        yield connection


# For the function alone: a client that reads its answer slowly must not keep a connection.
Reading = Annotated[Connection, Depends(_connection, scope="function")]
"""A connection on which every statement is its own transaction."""


async def _position(
    limit: Annotated[int, Query(ge=1, le=LARGEST_LIMIT, description="Items on a page.")] = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(max_length=200, description="`next_cursor` of the page before; leave out to start.")
    ] = None,
) -> Position:
    return Position.of(limit, cursor)


Paging = Annotated[Position, Depends(_position)]
"""The page of a list that the caller asks for, by `limit` and `cursor`."""
