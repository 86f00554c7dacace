"""Bare workflows, in a module of their own: the sandbox imports it anew for each."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from temporalio import workflow

TASK_QUEUE: Final = "bench-floor"
_SHORT: Final = timedelta(milliseconds=1)


@workflow.defn
class FloorLifecycle:
    """One update, then one timer."""

    def __init__(self) -> None:
        self._decided = False

    @workflow.run
    async def run(self) -> None:
        """Wait for the update, then for the timer."""
        await workflow.wait_condition(lambda: self._decided)
        await workflow.sleep(_SHORT)

    @workflow.update
    async def decide(self) -> bool:
        """The one update."""
        self._decided = True
        return True


@workflow.defn
class FloorTimer:
    """One timer until a given instant."""

    @workflow.run
    async def run(self, until: datetime) -> None:
        """Sleep until then."""
        await workflow.sleep(until - workflow.now())
