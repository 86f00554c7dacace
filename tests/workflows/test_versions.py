"""While a version is replaced, workers of both run side by side on the same requests.

What the old one began, the new one goes on with. What the new one began stays in its cache; a task of it that comes to
the old one fails there, and is given to the next who asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.worker import Replayer, Worker

import worker
from activities.transitions import TransitionActivities
from domain.states import Action, Status
from tests.record import PROOFS
from tests.workflows.patched_workflow import PATCH, PatchedAccessRequestWorkflow
from tests.workflows.world import World
from workflows import names
from workflows.access_request import AccessRequestWorkflow


@asynccontextmanager
async def serving(world: World, workflow: type) -> AsyncIterator[None]:
    """A worker of one version."""
    transitions = TransitionActivities(world.db, PROOFS, trust_signal_actors=False, remind_before=timedelta(minutes=15))
    # Two workers of one task queue need a client each.
    client = await Client.connect(
        world.client.service_client.config.target_host, data_converter=world.client.data_converter
    )
    async with Worker(
        client,
        task_queue=names.TASK_QUEUE,
        workflows=[workflow],
        activities=transitions.all,
        graceful_shutdown_timeout=worker._GRACE,
    ):
        yield


async def _is_patched(world: World, request_id: UUID) -> bool:
    history = await world.handle(request_id).fetch_history()
    return any(
        event.event_type == EventType.EVENT_TYPE_MARKER_RECORDED and PATCH in str(event) for event in history.events
    )


async def _live(world: World, way: int) -> tuple[UUID, Status]:
    cast = await world.record.cast()
    request_id = await world.submit(cast)
    await world.start(request_id)
    match way % 3:
        case 0:
            await world.decide(request_id, Action.APPROVE, cast.approver)
            await world.decide(request_id, Action.REVOKE, cast.requester)
            return request_id, Status.REVOKED
        case 1:
            await world.decide(request_id, Action.DENY, cast.approver)
            return request_id, Status.DENIED
    await world.signal(request_id, Action.APPROVE, cast.approver)
    await world.status_is(request_id, Status.APPROVED)
    await world.signal(request_id, Action.REVOKE, cast.requester)
    return request_id, Status.REVOKED


@pytest.mark.timeout(240)
async def test_requests_end_as_decided_while_two_versions_work(real_world: World) -> None:
    world = real_world
    await world.stop_worker()
    async with serving(world, AccessRequestWorkflow):
        begun = []
        for _ in range(4):
            cast = await world.record.cast()
            begun.append((await world.request(cast), cast))
    assert not any([await _is_patched(world, request_id) for request_id, _ in begun])
    async with serving(world, AccessRequestWorkflow), serving(world, PatchedAccessRequestWorkflow):
        ended = await asyncio.gather(*(_live(world, way) for way in range(9)))
        for request_id, cast in begun:
            state = await world.decide(request_id, Action.APPROVE, cast.approver)
            assert state.status is Status.APPROVED
    async with serving(world, PatchedAccessRequestWorkflow):
        for request_id, cast in begun:
            await world.decide(request_id, Action.REVOKE, cast.approver)
            ended.append((request_id, Status.REVOKED))
        for request_id, status in ended:
            await world.status_is(request_id, status)
            await world.ends(request_id)
    # What the new version began has its patch; what the old one began goes on without.
    assert not any([await _is_patched(world, request_id) for request_id, _ in begun])
    replayer = Replayer(workflows=[PatchedAccessRequestWorkflow], data_converter=world.client.data_converter)
    for request_id, _ in ended:
        await replayer.replay_workflow(await world.handle(request_id).fetch_history())
        timeline = await world.record.query(
            "SELECT kind FROM access_request_timeline WHERE request_id = %s ORDER BY id", request_id
        )
        kinds = [row["kind"] for row in timeline]
        assert len(kinds) == len(set(kinds)), kinds
