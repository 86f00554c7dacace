"""A run of a task, from its row to its end (specification, Trigger Tasks).

Small, and apart from the request's workflow: a script that is repeated for hours outlives its request, and a request
with nothing bound to it costs nothing extra.
"""

import asyncio
from datetime import timedelta
from typing import Final
from uuid import UUID

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from domain.tasks import Attempt, Begun, Report, RunNext, RunResult, RunStatus, TaskInput, TaskRunInput
    from workflows import names
    from workflows.script_orders import start_script, unanswered

_ATTEMPT: Final = timedelta(seconds=10)
_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=100), backoff_coefficient=2, maximum_interval=timedelta(seconds=10)
)
"""For ever: what became of a run has to be written down, and writing is idempotent."""
_RETRY_IN_PLACE: Final = timedelta(seconds=5)


@workflow.defn(name=names.TASK_RUN_WORKFLOW)
class TaskRunWorkflow:
    """One run: attempts until one succeeds or none is left."""

    @workflow.run
    async def run(self, start: TaskRunInput) -> RunStatus | None:
        """How the run ended; null where it was over before."""
        return await _carry_out(start.run_id)


@workflow.defn(name=names.SCHEDULED_TASK_WORKFLOW)
class ScheduledTaskWorkflow:
    """What a task's Schedule starts: makes a run and carries it out."""

    @workflow.run
    async def run(self, start: TaskInput) -> RunStatus | None:
        """How the run ended; null where the task does not exist any more."""
        begun: Begun = await workflow.execute_local_activity(
            names.MAKE_SCHEDULED_RUN,
            # The same id makes one run, however often this is carried out.
            Attempt(run_id=start.task_id, holder=str(workflow.uuid4()), at=workflow.now()),
            result_type=Begun,
            start_to_close_timeout=_ATTEMPT,
            retry_policy=_RETRY,
            local_retry_threshold=_RETRY_IN_PLACE,
        )
        return None if begun.run_id is None else await _carry_out(begun.run_id)


async def _carry_out(run_id: UUID) -> RunStatus | None:
    status: RunStatus | None = None
    while True:
        holder = str(workflow.uuid4())
        begun: Begun = await workflow.execute_local_activity(
            names.BEGIN_RUN,
            Attempt(run_id=run_id, holder=holder, at=workflow.now()),
            result_type=Begun,
            start_to_close_timeout=_ATTEMPT,
            retry_policy=_RETRY,
            local_retry_threshold=_RETRY_IN_PLACE,
        )
        if begun.order is None:
            return status
        result: RunResult | None = None
        error, lost, cancelled = None, False, False
        try:
            result = await start_script(begun.order, blocking=False)
        except (asyncio.CancelledError, ActivityError) as failure:
            if not isinstance(failure, ActivityError) or is_cancelled_exception(failure):
                error, cancelled = "An operator cancelled the workflow.", True
            else:
                error, lost = unanswered(failure)
        report = Report(
            run_id=run_id,
            holder=holder,
            at=workflow.now(),
            result=result,
            error=error,
            lost=lost,
            cancelled=cancelled,
        )
        following: RunNext = await workflow.execute_local_activity(
            names.FINISH_RUN,
            report,
            result_type=RunNext,
            start_to_close_timeout=_ATTEMPT,
            retry_policy=_RETRY,
            local_retry_threshold=_RETRY_IN_PLACE,
        )
        status = following.status
        if following.pause_seconds is None:
            return status
        await workflow.sleep(following.pause_seconds, summary="until the next attempt")
