"""What reading routes have in common: a connection, and the page that is asked for."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import Depends, Query, Request
from pydantic import AwareDatetime, BeforeValidator

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

_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _written_out(value: object) -> object:
    # What pydantic takes besides, seconds since 1970, is nothing that the documentation speaks of.
    if isinstance(value, str) and not _RFC_3339.fullmatch(value):
        raise ValueError("must be a time as RFC 3339 writes it, as in 2026-11-23T21:00:00Z")
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_written_out)]
"""A point in time in a query."""
