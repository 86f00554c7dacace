"""With `JUSTIAM_TRUST_SIGNAL_ACTORS`, in development, a bare actor counts, and the timeline says so."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from temporalio.testing import WorkflowEnvironment

from domain.errors import Forbidden
from domain.states import Action, Status
from domain.transitions import Decision
from tests.conftest import Databases
from tests.workflows.world import World, eventually, open_world


@pytest.fixture(scope="module")
async def trusting_world(new_database: Databases, time_skipping: WorkflowEnvironment) -> AsyncIterator[World]:
    with new_database() as url:
        async with open_world(url, time_skipping.client, time_skipping, trust_signal_actors=True) as world:
            yield world


@pytest.mark.parametrize("by_id", [False, True])
async def test_a_bare_actor_decides_unverified(trusting_world: World, *, by_id: bool) -> None:
    world = trusting_world
    cast = await world.record.cast()
    request_id = await world.request(cast)
    actor = str(cast.approver.id) if by_id else cast.approver.email.upper()
    await world.handle(request_id).signal("approve", {"actor": actor, "comment": "ok"})
    row = await world.status_is(request_id, Status.APPROVED)
    assert row["decided_by"] == cast.approver.email
    entry = (await world.record.timeline(request_id))[-1]
    assert (entry["actor"], entry["verified"]) == (cast.approver.email, False)


async def test_a_proof_is_still_verified(trusting_world: World) -> None:
    world = trusting_world
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.signal(request_id, Action.DENY, cast.approver)
    await world.status_is(request_id, Status.DENIED)
    assert (await world.record.timeline(request_id))[-1]["verified"] is True


async def test_a_wrong_proof_is_not_saved_by_the_actor_beside_it(trusting_world: World) -> None:
    world = trusting_world
    cast = await world.record.cast()
    request_id = await world.request(cast)
    with pytest.raises(Forbidden):
        await world.update(request_id, Action.APPROVE, Decision(actor=cast.approver.email, proof="not.a.proof"))


@pytest.mark.parametrize("who", ["requester", "manager", "admin"])
async def test_a_bare_actor_is_held_to_the_same_rules(trusting_world: World, who: str) -> None:
    world = trusting_world
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.handle(request_id).signal("approve", {"actor": getattr(cast, who).email})

    async def refused() -> bool:
        return await world.record.kinds(request_id) == ["submitted", "refused"]

    await eventually(refused)
    assert (await world.record.row(request_id))["status"] == Status.PENDING


@pytest.mark.parametrize(
    "actor", ["nobody@example.com", "system:auto", "system:operator", "00000000-0000-0000-0000-000000000000", ""]
)
async def test_nobody_acts_in_the_name_of_somebody_unknown(trusting_world: World, actor: str) -> None:
    world = trusting_world
    cast = await world.record.cast(auto_approve=False)
    request_id = await world.request(cast)
    with pytest.raises(Forbidden):
        await world.update(request_id, Action.APPROVE, Decision(actor=actor))
    assert (await world.record.row(request_id))["status"] == Status.PENDING
