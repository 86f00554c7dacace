"""Whether this process can serve: what it stands on answers, and it was not told to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Literal

import structlog
from pydantic import BaseModel

from api.orchestrator import Orchestrator
from db.database import Database

_log = structlog.get_logger(__name__)

_PATIENCE_SECS: Final = 2.0
_KNOWN_FOR_SECS: Final = 1.0
"""Anybody may ask; what is asked of the stores for it is bounded."""

Missing = Literal["database", "schema", "temporal", "draining"]


class Ready(BaseModel):
    """What `/readyz` answers."""

    status: Literal["ready", "not ready"]
    missing: list[Missing]
    """What keeps it from serving."""


class Readiness:
    """Looks at what the process stands on."""

    def __init__(self, database: Database, temporal: Orchestrator) -> None:
        self._database = database
        self._temporal = temporal
        self._draining = False
        self._looking = asyncio.Lock()
        self._missing: list[Missing] = []
        self._looked_at = float("-inf")

    def drain(self) -> None:
        """Be ready no more: the process was told to stop, and finishes what it has in hand."""
        self._draining = True

    async def look(self) -> Ready:
        """What is missing at this moment, or was a second ago."""
        async with self._looking:
            if time.monotonic() - self._looked_at > _KNOWN_FOR_SECS:
                database, temporal = await asyncio.gather(self._missing_of_record(), self._temporal_answers())
                self._missing = [*(() if database is None else (database,)), *(() if temporal else ("temporal",))]
                self._looked_at = time.monotonic()
        missing: list[Missing] = [*self._missing, *(("draining",) if self._draining else ())]
        return Ready(status="not ready" if missing else "ready", missing=missing)

    async def missing(self) -> Sequence[str]:
        """What is missing, for who watches programs of every kind."""
        return (await self.look()).missing

    async def _missing_of_record(self) -> Missing | None:
        problem = await self._database.problem(_PATIENCE_SECS)
        if problem is None:
            return None
        _log.warning("not_ready", missing=problem.missing, error=problem.why)
        return problem.missing

    async def _temporal_answers(self) -> bool:
        if await self._temporal.is_reachable(_PATIENCE_SECS):
            return True
        _log.warning("not_ready", missing="temporal")
        return False
