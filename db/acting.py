"""Who acts, for the audit log: known where a call comes in, written where something is changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Final

import structlog
from psycopg import AsyncConnection

_actor: Final[ContextVar[str | None]] = ContextVar("actor", default=None)

SET: Final = "SELECT set_config('justiam.actor', %s, true), set_config('justiam.request_id', %s, true)"
"""Tells the transaction; the triggers of the audit log read it when it commits (migration 0010)."""


def note(actor: str) -> None:
    """Remember who acts, for the rest of this call, by a name that docs/audit-log.md describes."""
    _actor.set(actor)


@contextmanager
def acting(actor: str) -> Iterator[None]:
    """Remember who acts, within the block."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


@asynccontextmanager
async def told(connection: AsyncConnection[Any]) -> AsyncIterator[None]:
    """A transaction, on a connection without one, that knows who acts."""
    async with connection.transaction():
        await tell(connection)
        yield


async def tell(connection: AsyncConnection[Any]) -> None:
    """Tell the transaction that a connection is in."""
    await connection.execute(SET, known())


def known() -> list[str]:
    """The parameters of `SET`; empty text where nobody is known, and the log names the account of the database."""
    return [_actor.get() or "", str(structlog.contextvars.get_contextvars().get("request_id", ""))]
