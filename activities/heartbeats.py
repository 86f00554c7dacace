"""Telling Temporal that an activity still runs, so that it finds out soon where its worker died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from temporalio import activity

EVERY_SECS: Final = 3.0


@asynccontextmanager
async def beating() -> AsyncIterator[None]:
    """Heartbeats of the current activity, for as long as the block lasts."""
    heart = asyncio.create_task(_beat())
    try:
        yield
    finally:
        heart.cancel()


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(EVERY_SECS)
