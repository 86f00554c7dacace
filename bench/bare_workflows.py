"""Bare workflows: what Temporal does for a grant with nothing of ours on top."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from temporalio import workflow

TASK_QUEUE: Final = "bench-floor"
_LIFETIME: Final = timedelta(hours=8)


@workflow.defn
class FloorGrant:
    """The least that a grant needs: one update, then a timer that runs for hours."""

    def __init__(self) -> None:
        self._decided = False

    @workflow.run
    async def run(self) -> None:
        """Wait for the update, then for the timer."""
        await workflow.wait_condition(lambda: self._decided)
        await workflow.sleep(_LIFETIME)

    @workflow.update
    async def decide(self) -> bool:
        """Accept the one update."""
        self._decided = True
        return True


@workflow.defn
class FloorTimer:
    """One timer until a given instant."""

    @workflow.run
    async def run(self, until: datetime) -> None:
        """Sleep until then."""
        await workflow.sleep(until - workflow.now())
