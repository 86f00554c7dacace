"""What people may call things is never too long for Temporal, which limits what it stores beside a workflow."""

from __future__ import annotations

import pytest

from db import applications
from domain.directory import ApplicationValues
from domain.states import Action, Status
from tests.workflows.world import World, eventually

WIDE = "\N{GRINNING FACE}"
"""Four bytes in UTF-8."""


async def test_the_longest_names_are_not_too_long_to_start(real_world: World) -> None:
    cast = await real_world.record.cast()
    application = await applications.create_application(real_world.db, ApplicationValues(name=WIDE * 200))
    template = await real_world.record.template(
        name=WIDE * 200, app_id=application.id, approver_group_ids=[cast.team.id]
    )
    request_id = await real_world.request(cast, template=template)
    assert (await real_world.decide(request_id, Action.APPROVE, cast.approver)).status is Status.APPROVED


async def test_many_groups_with_long_names_are_not_too_many(real_world: World) -> None:
    cast = await real_world.record.cast()
    groups = [await real_world.record.group(name=WIDE * 190 + str(number)) for number in range(40)]
    template = await real_world.record.template(approver_group_ids=[cast.team.id, *(group.id for group in groups)])
    request_id = await real_world.request(cast, template=template)
    assert (await real_world.decide(request_id, Action.APPROVE, cast.approver)).status is Status.APPROVED


@pytest.mark.parametrize("actor", ["x" * 1000, WIDE * 1000])
async def test_the_longest_actor_and_comment_are_refused_like_others(real_world: World, actor: str) -> None:
    cast = await real_world.record.cast()
    request_id = await real_world.request(cast)
    await real_world.handle(request_id).signal("approve", {"actor": actor, "comment": WIDE * 10_000})

    async def refused() -> bool:
        return "refused" in await real_world.record.kinds(request_id)

    await eventually(refused)
    assert (await real_world.decide(request_id, Action.DENY, cast.approver)).status is Status.DENIED


async def test_the_longest_comment_is_carried_out(real_world: World) -> None:
    cast = await real_world.record.cast()
    request_id = await real_world.request(cast)
    state = await real_world.decide(request_id, Action.APPROVE, cast.approver, comment=WIDE * 10_000)
    assert state.status is Status.APPROVED
