"""The servers that a benchmark measures: the development stack as people run it, and the same programs in memory."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.servers import process, wait_for
from cli.dev import PostgresServer, TemporalDevServer
from cli.dev.program import free_port
from db import migrate

BIN: Final = Path(sys.executable).parent
_START_SECS: Final = 120.0
# The load comes from a few people; the limit for each person is not what is measured.
_UNLIMITED: Final = {"JUSTIAM_CALLS_PER_MINUTE": "1000000"}
_SECRET: Final = "a secret that lives as long as the benchmark"


@dataclass(frozen=True)
class Stack:
    """Servers that run."""

    database_url: str
    temporal_address: str
    api_port: int


@asynccontextmanager
async def on_disk(directory: Path) -> AsyncIterator[Stack]:
    """Run `justiam dev` with its defaults: PostgreSQL and Temporal on disk, one worker, one API process.

    Raises:
        TimeoutError: it is not ready within two minutes.
    """
    data = directory / "data"
    command = [str(BIN / "justiam"), "dev", f"--data-dir={data}", "--no-demo"]
    ports = ["--port=0", "--temporal-port=0", "--temporal-ui-port=0"]
    with process([*command, *ports], os.environ | _UNLIMITED, output=directory / "dev.output"):
        described = data / "dev.json"
        async with asyncio.timeout(_START_SECS):
            while not described.exists():
                await asyncio.sleep(0.1)
        found = json.loads(described.read_text())
        port = urlsplit(found["api_url"]).port
        await wait_for(port or 0)
        yield Stack(found["database_url"], found["temporal_address"], port or 0)


@asynccontextmanager
async def in_memory(directory: Path) -> AsyncIterator[Stack]:
    """Run the same programs with Temporal in memory, and PostgreSQL on disk with its statements counted."""
    async with AsyncExitStack() as stack:
        postgres = PostgresServer(directory / "postgres")
        postgres.prepare()
        with (directory / "postgres/data/postgresql.auto.conf").open("a") as settings:
            settings.write("shared_preload_libraries = 'pg_stat_statements'\n")
        stack.enter_context(postgres)
        postgres.create_database("bench")
        temporal = stack.enter_context(TemporalDevServer(log_file=directory / "temporal.log", ui_port=None))
        migrate.upgrade(postgres.url("bench"))
        port = free_port()
        environment = (
            os.environ
            | _UNLIMITED
            | {
                "JUSTIAM_DATABASE_URL": postgres.url("bench"),
                "JUSTIAM_TEMPORAL_ADDRESS": temporal.address,
                "JUSTIAM_SECRET_KEY": _SECRET,
                "JUSTIAM_API_PORT": str(port),
            }
        )
        for program in ("worker", "api"):
            command = [str(BIN / "justiam"), program]
            stack.enter_context(process(command, environment, output=directory / f"{program}.output"))
        await wait_for(port)
        yield Stack(postgres.url("bench"), temporal.address, port)
