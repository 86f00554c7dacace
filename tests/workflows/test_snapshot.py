"""What applies to a request is the template as it was when it was submitted (design, section 2)."""

from __future__ import annotations

from typing import Any

import pytest

from db import templates
from domain.errors import Forbidden
from domain.states import Action, Status
from domain.templates import TemplateValues
from tests.record import LONGEST_MINS, Cast
from tests.workflows.world import World


async def edit(world: World, cast: Cast, **values: Any) -> None:
    current = cast.template.model_dump(include=set(TemplateValues.model_fields))
    changed = TemplateValues.model_validate({**current, **values})
    await templates.replace(world.db, cast.template.id, changed, longest_mins=LONGEST_MINS)


async def test_more_mappings_widen_nothing(world: World) -> None:
    cast = await world.record.cast()
    write = await world.record.mapping(cast.application, value="db_admin")
    request_id = await world.request(cast)
    await edit(world, cast, mapping_ids=[cast.mapping.id, write.id])
    await world.decide(request_id, Action.APPROVE, cast.approver)
    assert await world.record.claims(cast.requester, cast.application) == {"roles": ["db_readonly"]}


async def test_a_mapping_taken_away_is_still_granted(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await edit(world, cast, mapping_ids=[])
    await world.decide(request_id, Action.APPROVE, cast.approver)
    assert await world.record.claims(cast.requester, cast.application) == {"roles": ["db_readonly"]}


async def test_an_edit_after_the_approval_changes_nothing_that_was_granted(world: World) -> None:
    cast = await world.record.cast()
    write = await world.record.mapping(cast.application, value="db_admin")
    request_id = await world.request(cast)
    granted = await world.decide(request_id, Action.APPROVE, cast.approver)
    await edit(world, cast, mapping_ids=[write.id], allowed_durations=[5])
    await world.reconcile(request_id)
    assert await world.record.claims(cast.requester, cast.application) == {"roles": ["db_readonly"]}
    await world.skip(minutes=58)
    row = await world.record.row(request_id)
    assert (row["status"], row["expires_at"]) == (Status.APPROVED, granted.expires_at)


async def test_durations_that_are_no_longer_allowed_still_count(world: World) -> None:
    cast = await world.record.cast(allowed_durations=[60, 480])
    request_id = await world.request(cast, minutes=480)
    await edit(world, cast, allowed_durations=[15])
    state = await world.decide(request_id, Action.APPROVE, cast.approver)
    assert state.expires_at is not None
    assert state.decided_at is not None
    assert (state.expires_at - state.decided_at).total_seconds() == 480 * 60


async def test_other_approvers_are_asked_only_from_then_on(world: World) -> None:
    cast = await world.record.cast()
    other = await world.record.user("other")
    others = await world.record.group(other)
    request_id = await world.request(cast)
    await edit(world, cast, approver_group_ids=[others.id])
    with pytest.raises(Forbidden):
        await world.decide(request_id, Action.APPROVE, other)
    assert (await world.decide(request_id, Action.APPROVE, cast.approver)).status is Status.APPROVED


async def test_an_escalation_that_was_promised_happens(world: World) -> None:
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast)
    await edit(world, cast, escalation_after_mins=None, escalation_group_id=None)
    await world.reconcile(request_id)
    await world.skip(minutes=31)
    assert (await world.decide(request_id, Action.APPROVE, cast.manager)).status is Status.APPROVED


async def test_an_escalation_that_was_not_promised_does_not_happen(world: World) -> None:
    cast = await world.record.cast(escalation_group_id=None)
    request_id = await world.request(cast)
    await edit(world, cast, escalation_after_mins=1, escalation_group_id=cast.managers.id)
    await world.reconcile(request_id)
    await world.skip(minutes=31)
    with pytest.raises(Forbidden):
        await world.decide(request_id, Action.APPROVE, cast.manager)
    assert await world.record.kinds(request_id) == ["submitted", "refused"]


async def test_automatic_approval_that_comes_later_does_not_apply(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await edit(world, cast, auto_approve=True)
    await world.reconcile(request_id)
    await world.skip(minutes=1)
    assert (await world.record.row(request_id))["status"] == Status.PENDING


async def test_the_name_stays_as_it_was(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await edit(world, cast, name="Something else")
    await world.decide(request_id, Action.DENY, cast.approver)
    row = await world.record.row(request_id)
    assert row["template_name"] == cast.template.name
    assert (await world.record.timeline(request_id))[-1]["payload"]["template_name"] == cast.template.name
