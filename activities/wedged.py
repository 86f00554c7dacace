"""Finding and ending workflows that do not go on.

A workflow whose start input cannot be read (another encryption key, an old format, garbage) or whose history does not
replay fails each of its workflow tasks. Temporal lists it as running for ever, and it holds the id of the workflow
that is needed. What it was started for is in the record, so it is terminated and started anew from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from workflows import names

_log = structlog.get_logger(__name__)

_CALL: Final = timedelta(seconds=10)
_FAILURES: Final = 4
"""Failures of a workflow task, one after the other, after which it is not expected to succeed. A worker that is stopped
or killed in the middle of a task causes one; a store that is away causes none."""


@dataclass(frozen=True)
class Wedged:
    """A run that does not go on."""

    workflow_id: str
    run_id: str
    why: str


async def look(client: Client, workflow_id: str, workflow_type: str) -> Wedged | None:
    """Return why the workflow with this id does not go on; None where it does, or where none runs.

    Costs one read of Temporal, so it is for workflows that already look suspicious.

    Raises:
        RPCError: Temporal cannot be reached.
    """
    try:
        found = await client.get_workflow_handle(workflow_id).describe(rpc_timeout=_CALL)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    if found.status is not WorkflowExecutionStatus.RUNNING:
        return None
    failures = found.raw_description.pending_workflow_task.attempt - 1
    if found.workflow_type != workflow_type or found.task_queue != names.TASK_QUEUE:
        why = f"it is a {found.workflow_type} on the task queue {found.task_queue}, which does not do its work"
    elif failures >= _FAILURES:
        why = f"its workflow task has failed {failures} times in a row"
    else:
        return None
    return Wedged(workflow_id, found.run_id, why)


async def end(client: Client, wedged: Wedged) -> None:
    """Terminate this run, and no later one, so that its work can be started anew.

    Raises:
        RPCError: Temporal cannot be reached.
    """
    _log.error("workflow_wedged", workflow_id=wedged.workflow_id, run_id=wedged.run_id, why=wedged.why)
    handle = client.get_workflow_handle(wedged.workflow_id, run_id=wedged.run_id)
    try:
        await handle.terminate(reason=f"Terminated by the service: {wedged.why}.", rpc_timeout=_CALL)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
