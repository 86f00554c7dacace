"""Having a script worker carry out an order: what a run's workflow and a request's have in common.

Imported past the sandbox, which would run this module anew for each workflow: it holds no state.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, TimeoutType  # noqa: A004 - Temporal's own

from domain.tasks import BLOCK_SECS, RunResult, ScriptOrder
from workflows import names

_ONCE: Final = RetryPolicy(maximum_attempts=1)
"""A script may not be repeatable; the row decides whether it is repeated, not Temporal."""
_FETCHED: Final = timedelta(minutes=10)
"""Until a script worker has to have taken an order."""
_PREPARING: Final = timedelta(minutes=2)
"""What fetching and, once for each version of a script, compiling take beside the script's own time."""
_ALIVE: Final = timedelta(seconds=15)
"""A script worker that does not say within this time that the script still runs is dead."""


def start_script(order: ScriptOrder, *, blocking: bool) -> workflow.ActivityHandle[RunResult]:
    """Hand an order to the script workers; the handle raises ActivityError, which `unanswered` explains."""
    limits: dict[str, Any] = (
        {"schedule_to_close_timeout": timedelta(seconds=BLOCK_SECS)}
        if blocking
        else {
            "schedule_to_start_timeout": _FETCHED,
            "start_to_close_timeout": timedelta(seconds=order.timeout_seconds) + _PREPARING,
        }
    )
    handle: workflow.ActivityHandle[RunResult] = workflow.start_activity(
        names.RUN_SCRIPT,
        order,
        task_queue=names.SCRIPT_TASK_QUEUE,
        result_type=RunResult,
        heartbeat_timeout=_ALIVE,
        retry_policy=_ONCE,
        cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        summary=f"run {order.run_id}",
        **limits,
    )
    return handle


def unanswered(error: ActivityError) -> tuple[str, bool]:
    """Why an order has no result, as one line; and whether the script was begun, as far as anybody knows."""
    cause = error.cause
    if isinstance(cause, TimeoutError):
        match cause.type:
            case TimeoutType.SCHEDULE_TO_START:
                return "No script worker took it in time. Is `justiam script-worker` running?", False
            case TimeoutType.HEARTBEAT:
                return "The script worker died while the script ran.", True
            case _:
                return "It was not finished in time, or no script worker took it.", True
    if isinstance(cause, ApplicationError) and cause.type is None and cause.cause is not None:
        # The SDK's own words, of an order that could not be read, say less than what is behind them: a missing key.
        cause = cause.cause
    return str(cause or error), True
