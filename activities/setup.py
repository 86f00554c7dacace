"""What the service needs Temporal to have: search attributes and the Schedule of the sweep. Idempotent."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Final

import structlog
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode

from workflows import names
from workflows.expiry_sweep import AccessRequestExpirySweep

_log = structlog.get_logger(__name__)

_CALL: Final = timedelta(seconds=10)
_NOT_OURS_TO_SET: Final = {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED}
_SWEEP_LIMIT: Final = timedelta(hours=1)
_CATCH_UP: Final = timedelta(minutes=1)
"""Runs missed for longer than this are not made up for: one sweep repairs whatever several would have."""


async def ensure(client: Client, sweep_interval: timedelta) -> list[str]:
    """Create what is missing.

    Returns:
        What was created or changed, in words.

    Raises:
        RPCError: Temporal cannot be reached or refuses.
    """
    return [*await _search_attributes(client), *await _schedule(client, sweep_interval)]


async def _search_attributes(client: Client) -> list[str]:
    try:
        listed = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace), timeout=_CALL
        )
    except RPCError as error:
        if error.status not in _NOT_OURS_TO_SET:
            raise
        # Where administrators keep the attributes (Temporal Cloud), the Schedule is still ours to make.
        _log.warning("search_attributes_not_readable", error=str(error))
        return []
    missing = {
        key.name: int(key.indexed_value_type)
        for key in names.SEARCH_ATTRIBUTES
        if key.name not in listed.custom_attributes
    }
    if missing:
        try:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing),  # type: ignore[arg-type]
                timeout=_CALL,
            )
        except RPCError as error:
            # Another worker was faster.
            if error.status is not RPCStatusCode.ALREADY_EXISTS:
                raise
    return [f"search attribute {name}" for name in missing]


async def _schedule(client: Client, interval: timedelta) -> list[str]:
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            AccessRequestExpirySweep.run,
            id=names.EXPIRY_SCHEDULE,
            task_queue=names.TASK_QUEUE,
            execution_timeout=_SWEEP_LIMIT,
            static_summary="Ends what is overdue, restarts what was lost",
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=interval)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=_CATCH_UP),
    )
    handle = client.get_schedule_handle(names.EXPIRY_SCHEDULE)
    try:
        current = (await handle.describe(rpc_timeout=_CALL)).schedule.spec.intervals
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        # At once as well: where the Schedule was gone, so was everything else.
        with contextlib.suppress(ScheduleAlreadyRunningError):
            await client.create_schedule(names.EXPIRY_SCHEDULE, schedule, trigger_immediately=True, rpc_timeout=_CALL)
        return [f"schedule {names.EXPIRY_SCHEDULE}"]
    if [spec.every for spec in current] == [interval]:
        return []

    def with_interval(update: ScheduleUpdateInput) -> ScheduleUpdate:
        update.description.schedule.spec = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=interval)])
        return ScheduleUpdate(schedule=update.description.schedule)

    await handle.update(with_interval, rpc_timeout=_CALL)
    return [f"interval of schedule {names.EXPIRY_SCHEDULE}"]
