"""The floor: what the servers do with nothing of ours on top.

A bare workflow that takes one update and then waits for a timer, and a bare FastAPI route with one indexed SELECT.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from fastapi import FastAPI
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bench.bare_workflows import TASK_QUEUE, FloorGrant, FloorTimer


async def work(address: str) -> None:
    """Serve the bare workflows until cancelled."""
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    async with Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[FloorGrant, FloorTimer],
        # As the product's worker.
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        await asyncio.Event().wait()


def app() -> FastAPI:
    """The bare route; uvicorn's factory."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.open()
        yield
        await pool.close()

    pool = AsyncConnectionPool(
        os.environ["JUSTIAM_DATABASE_URL"],
        kwargs={"autocommit": True, "row_factory": dict_row},
        max_size=10,
        open=False,
    )
    bare = FastAPI(lifespan=lifespan)

    @bare.get("/users/{user_id}")
    async def user(user_id: UUID) -> dict[str, str]:
        async with pool.connection() as connection:
            rows = await connection.execute("SELECT name, email FROM users WHERE id = %s", [user_id])
            return dict(await rows.fetchone() or {})

    return bare


if __name__ == "__main__":
    asyncio.run(work(os.environ["JUSTIAM_TEMPORAL_ADDRESS"]))
