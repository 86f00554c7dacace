"""Histories of real runs, one for each way that a request can go, for the replay test.

`make histories` writes them into `tests/histories/<version>/`. Those of a version that was deployed are never written
again: one that no longer replays is a request that would be stuck after the next deployment. What its workflow does
must then be kept for it (`workflow.patched`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID, uuid4

from temporalio.client import WorkflowExecutionStatus, WorkflowHistory

from db.tables import ScheduledTask
from domain.actors import workflow_id
from domain.states import Action, Status
from tests.record import Cast
from tests.servers import CONTINUE_AS_NEW_AFTER
from tests.workflows.world import World, eventually
from workflows import script_orders

DIRECTORY: Final = Path(__file__).parent.parent / "histories"
Story = Callable[[World], Awaitable[tuple[UUID, str | None]]]
"""Lets a request go its way; answers with its id and, where it is not the last one, the run."""


async def soon_over(world: World, request_id: UUID, column: str = "expires_at") -> None:
    """Have the workflow set its timer anew, for a moment from now."""
    await world.record.execute(
        f"UPDATE access_requests SET {column} = now() + interval '1 s' WHERE id = %s",  # noqa: S608 - named below
        request_id,
    )
    await world.reconcile(request_id)


async def approved_and_expired(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.APPROVE, cast.approver, comment="for the incident")
    await soon_over(world, request_id)
    await world.ends(request_id)
    return request_id, None


async def begun_with_its_submission(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast(escalation_after_mins=30)
    submitted = await world.submitted(cast)
    request_id = await world.start_with(submitted, submitted.state)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    await soon_over(world, request_id)
    await world.ends(request_id)
    return request_id, None


async def denied(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.DENY, cast.approver)
    await world.ends(request_id)
    return request_id, None


async def cancelled_by_its_requester(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast)
    await world.decide(request_id, Action.REVOKE, cast.requester)
    await world.ends(request_id)
    return request_id, None


async def revoked_after_refusals(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    refusals = [world.decide(request_id, Action.APPROVE, by) for by in (cast.requester, cast.manager)]
    await asyncio.gather(*refusals, return_exceptions=True)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    await world.decide(request_id, Action.REVOKE, cast.admin)
    await world.ends(request_id)
    return request_id, None


async def approved_automatically(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast(auto_approve=True)
    request_id = await world.request(cast)
    await world.status_is(request_id, Status.APPROVED)
    await soon_over(world, request_id)
    await world.ends(request_id)
    return request_id, None


async def escalated(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast)
    await soon_over(world, request_id, "escalates_at")

    async def was() -> bool:
        return (await world.record.row(request_id))["escalated_at"] is not None

    await eventually(was)
    await world.decide(request_id, Action.APPROVE, cast.manager)
    await world.decide(request_id, Action.REVOKE, cast.requester)
    await world.ends(request_id)
    return request_id, None


async def decided_by_signals(world: World) -> tuple[UUID, str | None]:
    """Unreadable, unproven, not allowed, and at last a good one."""
    cast = await world.record.cast()
    request_id = await world.request(cast)
    handle = world.handle(request_id)
    await handle.signal("grant", {"actor": cast.approver.email})
    await handle.signal("approve", args=[{}, {}])
    await handle.signal("approve", {"actor": cast.approver.email})
    await world.signal(request_id, Action.APPROVE, cast.requester)
    await world.signal(request_id, Action.APPROVE, cast.approver)
    await world.status_is(request_id, Status.APPROVED)
    await world.signal(request_id, Action.REVOKE, cast.requester)
    await world.ends(request_id)
    return request_id, None


async def raced(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    decisions = [
        world.decide(request_id, action, by)
        for action, by in [(Action.APPROVE, cast.approver), (Action.DENY, cast.second_approver)] * 3
    ]
    await asyncio.gather(*decisions, world.reconcile(request_id), return_exceptions=True)
    if (await world.record.row(request_id))["status"] == Status.APPROVED:
        await world.decide(request_id, Action.REVOKE, cast.requester)
    await world.ends(request_id)
    return request_id, None


async def cancelled_by_an_operator(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    await world.handle(request_id).cancel()
    await world.ends(request_id, WorkflowExecutionStatus.CANCELED)
    return request_id, None


async def requester_deactivated(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.record.execute("UPDATE users SET active = false WHERE id = %s", cast.requester.id)
    await world.reconcile(request_id)
    await world.ends(request_id)
    return request_id, None


async def approvers_lost(world: World) -> tuple[UUID, str | None]:
    """First the escalation group, then the administrators."""
    cast = await world.record.cast()
    request_id = await world.request(cast)
    for group in (cast.team, cast.managers):
        await world.record.execute("DELETE FROM group_members WHERE group_id = %s", group.id)
        await world.reconcile(request_id)
        kinds = 2 if group is cast.team else 3

        async def asked(kinds: int = kinds) -> bool:
            return len(await world.record.kinds(request_id)) == kinds

        await eventually(asked)
    await world.decide(request_id, Action.DENY, cast.admin)
    await world.ends(request_id)
    return request_id, None


async def overtaken_by_the_record(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.record.decide(request_id, Action.APPROVE, cast.approver)
    await asyncio.gather(world.decide(request_id, Action.DENY, cast.second_approver), return_exceptions=True)
    await world.record.decide(request_id, Action.REVOKE, cast.requester)
    await world.reconcile(request_id)
    await world.ends(request_id)
    return request_id, None


async def started_on_a_closed_request(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast()
    request_id = await world.submit(cast)
    await world.record.decide(request_id, Action.DENY, cast.approver)
    await world.start(request_id)
    await world.ends(request_id)
    return request_id, None


async def _blocked(world: World) -> tuple[Cast, UUID]:
    task = ScheduledTask(name=f"task {uuid4()}", language="python", script="def run(): ...")
    async with world.db.session() as session:
        session.add(task)
    cast = await world.record.cast(trigger_task_id=task.id, trigger_task_failure_mode="block")
    return cast, await world.request(cast)


async def denied_after_its_task_failed(world: World) -> tuple[UUID, str | None]:
    cast, request_id = await _blocked(world)
    with patch.object(script_orders, "BLOCK_SECS", 1):
        await asyncio.gather(world.decide(request_id, Action.APPROVE, cast.approver), return_exceptions=True)
    await world.decide(request_id, Action.DENY, cast.approver)
    await world.ends(request_id)
    return request_id, None


async def cancelled_while_its_task_runs(world: World) -> tuple[UUID, str | None]:
    cast, request_id = await _blocked(world)
    approving = asyncio.create_task(world.decide(request_id, Action.APPROVE, cast.approver))

    async def begun() -> bool:
        return bool(
            await world.record.query(
                "SELECT FROM task_runs WHERE failure_mode = 'block' AND request_id = %s", request_id
            )
        )

    await eventually(begun)
    await world.decide(request_id, Action.REVOKE, cast.requester)
    await asyncio.gather(approving, return_exceptions=True)
    await world.ends(request_id)
    return request_id, None


async def continued_as_new(world: World) -> tuple[UUID, str | None]:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    first = (await world.handle(request_id).describe()).run_id

    async def is_another() -> bool:
        await world.handle(request_id).signal("approve", "nonsense")
        return (await world.handle(request_id).describe()).run_id != first

    for _ in range(CONTINUE_AS_NEW_AFTER // 2):
        await world.handle(request_id).signal("approve", {"actor": "mallory@example.com"})
    await eventually(is_another)
    await world.decide(request_id, Action.DENY, cast.approver)
    return request_id, first


async def still_running(world: World) -> tuple[UUID, str | None]:
    """In the middle of a grant, as most are when a new version is deployed."""
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    return request_id, None


STORIES: Final[list[Story]] = [
    approved_and_expired,
    begun_with_its_submission,
    denied,
    cancelled_by_its_requester,
    revoked_after_refusals,
    approved_automatically,
    escalated,
    decided_by_signals,
    raced,
    cancelled_by_an_operator,
    requester_deactivated,
    approvers_lost,
    overtaken_by_the_record,
    started_on_a_closed_request,
    denied_after_its_task_failed,
    cancelled_while_its_task_runs,
    continued_as_new,
    still_running,
]


async def tell(world: World, story: Story) -> WorkflowHistory:
    """What really happens, as Temporal writes it down."""
    request_id, run_id = await story(world)
    return await world.client.get_workflow_handle(workflow_id(request_id), run_id=run_id).fetch_history()


def save(story: Story, history: WorkflowHistory) -> None:
    """Store a history where the replay test finds it."""
    directory = DIRECTORY / version("justiam")
    directory.mkdir(parents=True, exist_ok=True)
    # Traces name files of the machine it ran on, and no replay looks at them.
    events = json.loads(history.to_json(), object_hook=_without_trace)
    content = {"workflow_id": history.workflow_id, "history": events}
    (directory / f"{story.__name__}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")


def _without_trace(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "stackTrace"}


def stored() -> dict[str, WorkflowHistory]:
    """The stored histories, by version and story."""
    histories = {}
    for path in sorted(DIRECTORY.glob("*/*.json")):
        content = json.loads(path.read_text())
        name = str(path.relative_to(DIRECTORY).with_suffix(""))
        histories[name] = WorkflowHistory.from_json(content["workflow_id"], content["history"])
    return histories
