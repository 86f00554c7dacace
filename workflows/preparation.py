"""Compiling Go's library on a script worker, before the first script in Go runs."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from workflows import names

_AWAITED: Final = timedelta(minutes=10)
"""As long as an order for a script waits for a worker."""
_COMPILING: Final = timedelta(minutes=5)
_ALIVE: Final = timedelta(seconds=15)


@workflow.defn(name=names.PREPARE_GO_WORKFLOW)
class PrepareGoWorkflow:
    """Has one script worker compile Go's library; where that fails, the first run does it."""

    @workflow.run
    async def run(self) -> None:
        """Run the activity once."""
        await workflow.execute_activity(
            names.PREPARE_GO,
            task_queue=names.SCRIPT_TASK_QUEUE,
            schedule_to_start_timeout=_AWAITED,
            start_to_close_timeout=_COMPILING,
            heartbeat_timeout=_ALIVE,
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
