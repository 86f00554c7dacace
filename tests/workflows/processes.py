"""A worker and a Temporal server in processes of their own, for tests that kill them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from cli.dev import TemporalDevServer
from cli.dev.program import Program
from db.database import Database
from settings import Settings
from tests.dev.running import JUSTIAM
from tests.record import SECRET
from tests.workflows.world import World

SWEEP_SECS: Final = 10
"""The shortest interval that there is."""


class WorkerProcess(Program):
    """`justiam worker`."""

    name = "worker"

    def __init__(self, log_file: Path, *, database_url: str, temporal_address: str) -> None:
        super().__init__(log_file)
        self.environment = {
            "JUSTIAM_DATABASE_URL": database_url,
            "JUSTIAM_SECRET_KEY": SECRET,
            "JUSTIAM_TEMPORAL_ADDRESS": temporal_address,
            "JUSTIAM_SWEEP_INTERVAL_SECS": str(SWEEP_SECS),
        }

    def command(self) -> list[str]:
        return [str(JUSTIAM), "worker"]

    def is_healthy(self) -> bool:
        return "worker_started" in self.log_file.read_text()


class Site:
    """Everything but PostgreSQL can be killed here, and started again."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self._directory = directory
        self._database_url = database_url
        self.temporal_file = directory / "temporal.db"
        self.temporal = TemporalDevServer(
            log_file=directory / "temporal.log", database=self.temporal_file, ui_port=None
        )
        self.worker = self._new_worker()

    def _new_worker(self) -> WorkerProcess:
        return WorkerProcess(
            self._directory / "worker.log", database_url=self._database_url, temporal_address=self.temporal.address
        )

    async def start_temporal(self) -> None:
        """On the same port each time."""
        await asyncio.to_thread(self.temporal.start)

    async def start_worker(self) -> None:
        self.worker.log_file.unlink(missing_ok=True)
        await asyncio.to_thread(self.worker.start)

    def kill(self, *programs: Program) -> None:
        """SIGKILL, to all of them before the first is collected."""
        for program in programs:
            assert program.process is not None
            program.process.kill()
        for program in programs:
            assert program.process is not None
            program.process.wait()

    def wipe_temporal(self) -> None:
        """Delete all that Temporal has stored."""
        for file in self._directory.glob(f"{self.temporal_file.name}*"):
            file.unlink()

    async def world(self, db: Database) -> World:
        """The stores as the tests see them; the worker is the process."""
        client = await Client.connect(self.temporal.address, data_converter=pydantic_data_converter)
        settings = Settings.model_validate(
            {"database_url": self._database_url, "secret_key": SECRET, "temporal_address": self.temporal.address}
        )
        return World(db, client, settings, None)


@asynccontextmanager
async def open_site(directory: Path, database_url: str) -> AsyncIterator[Site]:
    """A running server and a running worker."""
    site = Site(directory, database_url)
    try:
        await site.start_temporal()
        await site.start_worker()
        yield site
    finally:
        await asyncio.to_thread(site.worker.stop)
        await asyncio.to_thread(site.temporal.stop)
