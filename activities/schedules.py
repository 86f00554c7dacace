"""The Schedules of tasks in Temporal: the record says which there are; this makes it so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleListDescription,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
)
from temporalio.service import RPCError, RPCStatusCode

from db.database import Connection, Database
from domain.tasks import ScheduleType, TaskInput
from payloads import EncryptedPayloads, PayloadUnreadable
from workflows import names
from workflows.task_run import ScheduledTaskWorkflow

_CALL: Final = timedelta(seconds=10)
_CATCH_UP: Final = timedelta(minutes=10)
"""What was due while Temporal was away longer than this is not made up for: the next time is soon enough."""
_VERSION: Final = "justiam_version"

_PLANS: Final = """
    SELECT id, name, schedule_type, interval_seconds, cron, time_zone, paused, updated_at FROM scheduled_tasks
"""


@dataclass(frozen=True)
class Plan:
    """When a task runs by itself."""

    task_id: UUID
    name: str
    schedule_type: ScheduleType
    interval_seconds: int | None
    cron: str | None
    time_zone: str
    paused: bool
    version: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> Plan:
        """From a row of `_PLANS`."""
        return cls(
            task_id=row["id"],
            name=row["name"],
            schedule_type=ScheduleType(row["schedule_type"]),
            interval_seconds=row["interval_seconds"],
            cron=row["cron"],
            time_zone=row["time_zone"],
            paused=row["paused"],
            version=f"{row['updated_at'].isoformat()} {row['paused']}",
        )

    def schedule(self) -> Schedule:
        """As Temporal has it."""
        return Schedule(
            action=ScheduleActionStartWorkflow(
                ScheduledTaskWorkflow.run,
                TaskInput(task_id=self.task_id),
                id=names.schedule_id(self.task_id),
                task_queue=names.TASK_QUEUE,
                static_summary=self.name,
            ),
            spec=self._spec(),
            # One run at a time: what is due while the one before it still runs is left out.
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=_CATCH_UP),
            state=ScheduleState(paused=self.paused, note=f"Task {self.name}, managed by JustIAM"),
        )

    def _spec(self) -> ScheduleSpec:
        if self.schedule_type is ScheduleType.INTERVAL:
            every = timedelta(seconds=self.interval_seconds or 0)
            return ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)])
        return ScheduleSpec(cron_expressions=[self.cron or ""], time_zone_name=self.time_zone)


async def bring_up_to_date(connection: Connection, client: Client, task_id: UUID) -> None:
    """Give a task the Schedule that the record says it has, or take it away.

    Raises:
        RPCError: Temporal cannot be reached or refuses; a worker makes up for it within a minute.
    """
    rows = await connection.execute(f"{_PLANS} WHERE id = %s", [task_id])
    row = await rows.fetchone()
    if row is None or row["schedule_type"] == ScheduleType.ONCE:
        await _delete(client, names.schedule_id(task_id))
    else:
        await _put(client, Plan.of(row))


async def ensure_all(db: Database, client: Client) -> list[str]:
    """Compare Temporal's Schedules of tasks with the record, and mend what differs.

    Returns:
        The Schedules that were made, changed or deleted.

    Raises:
        RPCError: Temporal cannot be reached.
    """
    async with db.connection() as connection:
        rows = await connection.execute(f"{_PLANS} WHERE schedule_type <> 'once'")
        wanted = {names.schedule_id(row["id"]): Plan.of(row) for row in await rows.fetchall()}
    there: dict[str, str] = {}
    async for schedule in await client.list_schedules(rpc_timeout=_CALL):
        if schedule.id.startswith(names.SCHEDULE_PREFIX):
            there[schedule.id] = await _made_from(schedule)
    mended = []
    for name, plan in wanted.items():
        if there.get(name) != _version(client, plan):
            await _put(client, plan)
            mended.append(name)
    for name in there.keys() - wanted.keys():
        await _delete(client, name)
        mended.append(name)
    return mended


async def next_runs(client: Client, task_id: UUID) -> list[datetime]:
    """When a task runs next by itself, the soonest first; empty where it has no Schedule or that is paused.

    Raises:
        RPCError: Temporal cannot be reached.
    """
    try:
        described = await client.get_schedule_handle(names.schedule_id(task_id)).describe(rpc_timeout=_CALL)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return []
        raise
    return [] if described.schedule.state.paused else list(described.info.next_action_times)


def _version(client: Client, plan: Plan) -> str:
    """What a Schedule is made from: the task, and the key that encrypts what the Schedule hands its workflows.

    A Schedule outlives every history. Were it not made anew under a new key, the old one could never be taken away.
    """
    codec = client.data_converter.payload_codec
    return f"{plan.version} {codec.key_id}".rstrip() if isinstance(codec, EncryptedPayloads) else plan.version


async def _made_from(schedule: ScheduleListDescription) -> str:
    try:
        return str((await schedule.memo()).get(_VERSION, ""))
    except PayloadUnreadable:
        # Its workflows could not read what it hands them either: it is made anew.
        return ""


async def _put(client: Client, plan: Plan) -> None:
    # Made anew rather than changed: its memo, which says what it was made from, cannot be changed.
    await _delete(client, names.schedule_id(plan.task_id))
    try:
        await client.create_schedule(
            names.schedule_id(plan.task_id),
            plan.schedule(),
            memo={_VERSION: _version(client, plan)},
            rpc_timeout=_CALL,
        )
    except ScheduleAlreadyRunningError:
        # Another worker was quicker, with what the record said then; the next look compares.
        return


async def _delete(client: Client, name: str) -> None:
    try:
        await client.get_schedule_handle(name).delete(rpc_timeout=_CALL)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
