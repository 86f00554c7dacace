"""What is looked at while a run goes on: memory, connections, the record, and when something was first seen there."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

import psutil
import psycopg
from psycopg import AsyncConnection

from soak.stack import Stack

_RECORD_EVERY_SECS: Final = 0.4
_FIGURES_EVERY_SECS: Final = 2.0
_CONNECT_SECS: Final = 3
_STATEMENT: Final = "-c statement_timeout=10s"
_LATE: Final = 2_000
"""Entries of timelines are numbered before they are committed: so many are looked at again."""

Series = list[tuple[float, float]]


@dataclass
class Watch:
    """The series of one run. Figures of a program begin anew with each of its processes."""

    stack: Stack
    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    """When an entry of a timeline had been read for the first time, by request and kind."""
    memory: defaultdict[tuple[str, int], Series] = field(default_factory=lambda: defaultdict(list))
    """Resident bytes, by program and process."""
    files: defaultdict[tuple[str, int], Series] = field(default_factory=lambda: defaultdict(list))
    """Open file descriptors."""
    connections: Series = field(default_factory=list)
    """Connections of the service that PostgreSQL has, of all programs together."""
    states: Counter[str] = field(default_factory=Counter)
    """Requests by status, when they were looked at last."""

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_record())
            group.create_task(self._watch_figures())

    async def _watch_record(self) -> None:
        newest = 0
        while True:
            try:
                async with await self._connect() as connection:
                    while True:
                        newest = await self._look_at_record(connection, newest)
                        await asyncio.sleep(_RECORD_EVERY_SECS)
            except (psycopg.Error, OSError):
                # PostgreSQL is away.
                await asyncio.sleep(_RECORD_EVERY_SECS)

    async def _look_at_record(self, connection: AsyncConnection[Any], newest: int) -> int:
        rows = await connection.execute(
            "SELECT id, request_id::text, kind FROM access_request_timeline WHERE id > %s ORDER BY id", [newest - _LATE]
        )
        found = await rows.fetchall()
        now = time.time()
        for entry_id, request_id, kind in found:
            self.seen.setdefault((request_id, kind), now)
            newest = max(newest, entry_id)
        return newest

    async def _watch_figures(self) -> None:
        while True:
            self._look_at_processes()
            try:
                async with await self._connect() as connection:
                    while True:
                        self._look_at_processes()
                        await self._look_at_database(connection)
                        await asyncio.sleep(_FIGURES_EVERY_SECS)
            except (psycopg.Error, OSError):
                await asyncio.sleep(_FIGURES_EVERY_SECS)

    def _look_at_processes(self) -> None:
        now = time.time()
        for name, process in self.stack.processes().items():
            try:
                resident, files = process.memory_info().rss, process.num_fds()
            except psutil.Error:
                continue
            self.memory[name, process.pid].append((now, float(resident)))
            self.files[name, process.pid].append((now, float(files)))

    async def _look_at_database(self, connection: AsyncConnection[Any]) -> None:
        rows = await connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'justiam'"
        )
        row = await rows.fetchone()
        if row is not None:
            self.connections.append((time.time(), float(row[0])))
        rows = await connection.execute(
            "SELECT CASE WHEN status = 'approved' AND expires_at <= now() THEN 'expired' ELSE status END, count(*)"
            " FROM access_requests GROUP BY 1"
        )
        self.states = Counter(dict(await rows.fetchall()))

    async def _connect(self) -> AsyncConnection[Any]:
        return await AsyncConnection.connect(
            self.stack.database_url,
            autocommit=True,
            connect_timeout=_CONNECT_SECS,
            application_name="soak",
            options=_STATEMENT,
        )
