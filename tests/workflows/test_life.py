"""The life of a request from submission to its end, by every way there is (design, section 2)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus

from domain.actors import SystemActor, temporary_group_name
from domain.errors import Forbidden
from domain.states import Action, Status
from tests.workflows.world import World

MINUTE = timedelta(minutes=1)


async def test_a_granted_request_expires_by_itself(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast, minutes=480)
    assert await world.record.claims(cast.requester, cast.application) == {}

    state = await world.decide(request_id, Action.APPROVE, cast.approver, comment="for the incident")
    assert (state.status, state.decided_by) == (Status.APPROVED, cast.approver.email)
    assert await world.record.claims(cast.requester, cast.application) == {"roles": ["db_readonly"]}
    (group,) = await world.record.temporary_groups(request_id)
    assert (group["name"], group["system"]) == (temporary_group_name(request_id), True)
    assert group["expires_at"] == state.expires_at

    await world.skip(hours=7, minutes=59)
    assert (await world.record.row(request_id))["status"] == Status.APPROVED
    await world.skip(minutes=2)
    row = await world.status_is(request_id, Status.EXPIRED)
    assert (row["decided_by"], row["ended_by"]) == (cast.approver.email, SystemActor.EXPIRY)
    assert row["ended_at"] == row["expires_at"] == row["decided_at"] + timedelta(hours=8)
    assert await world.record.temporary_groups(request_id) == []
    assert await world.record.claims(cast.requester, cast.application) == {}
    await world.ends(request_id)


async def test_events_carry_exactly_the_specified_keys(world: World) -> None:
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast)
    await world.skip(minutes=31)
    await world.decide(request_id, Action.APPROVE, cast.manager)
    await world.skip(minutes=61)
    await world.status_is(request_id, Status.EXPIRED)
    common = {
        "request_id": str(request_id),
        "template_name": cast.template.name,
        "requester_email": cast.requester.email,
    }
    notified = [cast.approver.email, cast.second_approver.email]
    assert [(entry["event"], entry["payload"]) for entry in await world.record.timeline(request_id)] == [
        ("access_request.submitted", {**common, "notified_approvers": notified}),
        ("access_request.escalated", common),
        ("access_request.approved", {**common, "decided_by": cast.manager.email}),
        ("access_request.expired", common),
    ]


@pytest.mark.parametrize("action", [Action.DENY, Action.REVOKE])
async def test_events_of_refusal_and_revocation_carry_the_specified_keys(world: World, action: Action) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, action, cast.approver if action is Action.DENY else cast.requester)
    (entry,) = (await world.record.timeline(request_id))[1:]
    assert entry["payload"] == {
        "request_id": str(request_id),
        "template_name": cast.template.name,
        "requester_email": cast.requester.email,
        **({"decided_by": cast.approver.email} if action is Action.DENY else {}),
    }


async def test_thirty_days_of_a_grant_pass_in_a_second(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast, minutes=30 * 24 * 60)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    await world.skip(days=29, hours=23)
    assert await world.is_running(request_id)
    await world.skip(hours=2)
    await world.status_is(request_id, Status.EXPIRED)


async def test_the_clock_of_a_grant_starts_at_the_decision(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.skip(days=2)
    before = await world.now()
    state = await world.decide(request_id, Action.APPROVE, cast.approver)
    assert state.expires_at is not None
    assert timedelta(0) <= state.expires_at - timedelta(hours=1) - before < MINUTE


async def test_escalation_asks_the_escalation_group_when_its_time_has_come(world: World) -> None:
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast)
    await world.skip(minutes=29)
    with pytest.raises(Forbidden):
        await world.decide(request_id, Action.APPROVE, cast.manager)
    await world.skip(minutes=2)
    state = await world.state(request_id)
    assert state is not None
    assert state.escalated_at is not None
    assert timedelta(0) <= state.escalated_at - state.created_at - 30 * MINUTE < MINUTE
    row = await world.record.row(request_id)
    assert row["status"] == Status.PENDING
    assert row["notified_ids"] == [cast.approver.id, cast.second_approver.id, cast.manager.id]
    # Those asked first may still decide, as well as the managers; once is enough.
    assert await world.record.kinds(request_id) == ["submitted", "refused", "escalated"]
    await world.skip(days=1)
    assert await world.record.kinds(request_id) == ["submitted", "refused", "escalated"]
    assert (await world.decide(request_id, Action.DENY, cast.second_approver)).status is Status.DENIED


async def test_a_denial_ends_the_request(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    state = await world.decide(request_id, Action.DENY, cast.approver, comment="ask the other team")
    assert state.status is Status.DENIED
    row = await world.record.row(request_id)
    assert (row["decided_by"], row["decision_comment"]) == (cast.approver.email, "ask the other team")
    assert (row["ended_by"], row["ended_at"]) == (cast.approver.email, row["decided_at"])
    assert await world.record.temporary_groups(request_id) == []
    await world.ends(request_id)


async def test_a_cancelled_request_has_no_decider(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.REVOKE, cast.requester)
    row = await world.record.row(request_id)
    assert (row["status"], row["decided_by"], row["decided_at"]) == (Status.REVOKED, None, None)
    assert row["ended_by"] == cast.requester.email
    await world.ends(request_id)


async def test_a_pending_request_revoked_by_an_admin_names_the_admin(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.REVOKE, cast.admin)
    row = await world.record.row(request_id)
    assert (row["status"], row["decided_by"]) == (Status.REVOKED, cast.admin.email)
    await world.ends(request_id)


@pytest.mark.parametrize("who", ["requester", "admin", "second_approver"])
async def test_a_grant_can_be_revoked_and_keeps_its_decision(world: World, who: str) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    revoker = getattr(cast, who)
    assert (await world.decide(request_id, Action.REVOKE, revoker)).status is Status.REVOKED
    row = await world.record.row(request_id)
    assert (row["decided_by"], row["ended_by"]) == (cast.approver.email, revoker.email)
    assert row["ended_at"] < row["expires_at"]
    assert await world.record.temporary_groups(request_id) == []
    assert await world.record.claims(cast.requester, cast.application) == {}
    await world.ends(request_id)


async def test_an_approver_cannot_revoke_what_is_pending(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    with pytest.raises(Forbidden):
        await world.decide(request_id, Action.REVOKE, cast.approver)
    assert (await world.record.row(request_id))["status"] == Status.PENDING


@pytest.mark.parametrize("with_approvers", [True, False])
async def test_auto_approval_is_decided_by_the_system(world: World, *, with_approvers: bool) -> None:
    cast = await world.record.cast(auto_approve=True, **({} if with_approvers else {"approver_group_ids": []}))
    request_id = await world.request(cast)
    row = await world.status_is(request_id, Status.APPROVED)
    assert row["decided_by"] == SystemActor.AUTO
    assert row["notified_ids"] == []
    assert await world.record.claims(cast.requester, cast.application) == {"roles": ["db_readonly"]}
    await world.skip(minutes=61)
    assert (await world.status_is(request_id, Status.EXPIRED))["decided_by"] == SystemActor.AUTO
    await world.ends(request_id)


async def test_of_two_overlapping_grants_each_ends_for_itself(world: World) -> None:
    cast = await world.record.cast()
    other = await world.record.template(
        app_id=cast.application.id, mapping_ids=[cast.mapping.id], approver_group_ids=[cast.team.id]
    )
    short = await world.request(cast, minutes=60)
    long = await world.request(cast, template=other, minutes=120)
    for request_id in (short, long):
        await world.decide(request_id, Action.APPROVE, cast.approver)
    await world.skip(minutes=61)
    await world.status_is(short, Status.EXPIRED)
    assert await world.record.claims(cast.requester, cast.application) == {"roles": ["db_readonly"]}
    await world.skip(minutes=60)
    await world.status_is(long, Status.EXPIRED)
    assert await world.record.claims(cast.requester, cast.application) == {}


async def test_the_result_says_how_it_ended(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.DENY, cast.approver)
    await world.ends(request_id, WorkflowExecutionStatus.COMPLETED)
    assert await world.handle(request_id).result() == {
        "request_id": str(request_id),
        "status": "denied",
        "decided_by": cast.approver.email,
        "ended_by": cast.approver.email,
    }
