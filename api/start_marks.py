"""Clears the marks of requests whose workflows were started, many with one statement.

A submission marks its row, so that a worker starts the workflow where the API could not. Once Temporal has confirmed
the start, the mark has served. A decision that comes first clears it as well, so waiting a moment spares work.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self
from uuid import UUID

import structlog
from psycopg import Error as DatabaseError
from psycopg_pool import PoolTimeout

from db import attention
from db.database import Database

_log = structlog.get_logger(__name__)

_EVERY_SECS: Final = 3.0
"""Well within the ten seconds after which a worker acts on a mark."""


class StartMarks:
    """Collects the requests of one API process; open it with `async with`."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._started: list[UUID] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._repeat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def started(self, request_id: UUID) -> None:
        """Note that Temporal has confirmed the start of this request's workflow."""
        self._started.append(request_id)

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECS)
            request_ids, self._started = self._started, []
            if not request_ids:
                continue
            try:
                await attention.clear_started(self._db, request_ids)
            except (DatabaseError, PoolTimeout, OSError) as error:
                # A worker clears them: it has the workflows look at their rows.
                _log.warning("start_marks_not_cleared", requests=len(request_ids), error=str(error))
