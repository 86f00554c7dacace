"""Who may decide is judged in the transition, at the moment of the decision (design, sections 2 and 9)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from db import groups, users
from db.administrators import OPERATOR
from domain.actors import SystemActor
from domain.directory import UserValues
from domain.errors import Forbidden
from domain.states import Action, Status
from tests.record import Account, Cast
from tests.workflows.world import World, eventually

Unfit = Callable[[World, Cast], Awaitable[Account]]


async def join(world: World, group_id: UUID, account: Account) -> None:
    await groups.add_member(world.db, OPERATOR, group_id, account.id)


async def leave(world: World, group_id: UUID, account: Account) -> None:
    """Somebody leaves a group; the requests that this concerns are told, as the API does."""
    for request_id in await groups.remove_member(world.db, OPERATOR, group_id, account.id):
        await world.reconcile(request_id)


async def deactivate(world: World, account: Account) -> None:
    """An administrator deactivates somebody; the requests that this concerns are told, as the API does."""
    values = UserValues(email=account.email, name="Gone", active=False)
    _, marked = await users.replace(world.db, OPERATOR, account.id, values)
    for request_id in marked:
        await world.reconcile(request_id)


async def the_requester(world: World, cast: Cast) -> Account:
    await join(world, cast.team.id, cast.requester)
    return cast.requester


async def a_service_account_of_the_requester(world: World, cast: Cast) -> Account:
    robot = await world.record.user("robot", owner=cast.requester)
    await join(world, cast.team.id, robot)
    return robot


async def a_former_member(world: World, cast: Cast) -> Account:
    await groups.remove_member(world.db, OPERATOR, cast.team.id, cast.second_approver.id)
    return cast.second_approver


async def a_deactivated_approver(world: World, cast: Cast) -> Account:
    await world.record.execute("UPDATE users SET active = false WHERE id = %s", cast.second_approver.id)
    return cast.second_approver


async def an_admin_who_is_no_approver(_: World, cast: Cast) -> Account:
    return cast.admin


async def a_manager_before_the_escalation(_: World, cast: Cast) -> Account:
    return cast.manager


async def a_stranger(world: World, _: Cast) -> Account:
    return await world.record.user("stranger")


UNFIT: list[Unfit] = [
    the_requester,
    a_service_account_of_the_requester,
    a_former_member,
    a_deactivated_approver,
    an_admin_who_is_no_approver,
    a_manager_before_the_escalation,
    a_stranger,
]


async def assert_refused(world: World, request_id: UUID, by: Account) -> None:
    for action in (Action.APPROVE, Action.DENY):
        with pytest.raises(Forbidden):
            await world.decide(request_id, action, by)
    assert (await world.record.row(request_id))["status"] == Status.PENDING
    assert await world.record.temporary_groups(request_id) == []
    refused = [entry for entry in await world.record.timeline(request_id) if entry["kind"] == "refused"]
    assert {entry["actor"] for entry in refused} == {by.email}
    assert [entry["detail"]["action"] for entry in refused] == ["approve", "deny"]


@pytest.mark.parametrize("unfit", UNFIT)
async def test_refused(world: World, unfit: Unfit) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await assert_refused(world, request_id, await unfit(world, cast))
    assert (await world.decide(request_id, Action.APPROVE, cast.approver)).status is Status.APPROVED


async def test_the_owner_of_the_account_that_asks_is_refused(world: World) -> None:
    cast = await world.record.cast()
    robot = await world.record.user("robot", owner=cast.approver)
    request_id = await world.request(cast, by=robot)
    await assert_refused(world, request_id, cast.approver)
    assert (await world.decide(request_id, Action.APPROVE, cast.second_approver)).status is Status.APPROVED


async def test_another_account_of_the_same_owner_is_refused(world: World) -> None:
    cast = await world.record.cast()
    one, other = [await world.record.user("robot", owner=cast.manager) for _ in range(2)]
    await join(world, cast.team.id, other)
    await assert_refused(world, await world.request(cast, by=one), other)


async def test_the_requester_in_the_escalation_group_is_refused(world: World) -> None:
    cast = await world.record.cast(escalation_after_mins=30)
    await join(world, cast.managers.id, cast.requester)
    request_id = await world.request(cast)
    await world.skip(minutes=31)
    await assert_refused(world, request_id, cast.requester)


async def test_the_requester_who_is_an_admin_is_refused(world: World) -> None:
    """A template without approver groups is decided by administrators; not by the one who asks."""
    cast = await world.record.cast(approver_group_ids=[])
    request_id = await world.request(cast, by=cast.admin)
    await assert_refused(world, request_id, cast.admin)
    other = await world.record.admin()
    assert (await world.decide(request_id, Action.APPROVE, other)).status is Status.APPROVED


async def test_membership_through_a_grant_gives_no_vote(world: World) -> None:
    cast = await world.record.cast()
    granted = await world.request(cast, by=cast.manager)
    await world.decide(granted, Action.APPROVE, cast.approver)
    (temporary,) = await world.record.temporary_groups(granted)
    request_id = await world.request(cast)
    # No template can name a temporary group; were one named nevertheless, it would count for nothing.
    await world.record.execute(
        "UPDATE access_requests SET approver_group_ids = approver_group_ids || %s::uuid WHERE id = %s",
        temporary["id"],
        request_id,
    )
    await assert_refused(world, request_id, cast.manager)


async def test_a_new_member_may_decide_what_was_asked_before(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    newcomer = await world.record.user("newcomer")
    await join(world, cast.team.id, newcomer)
    assert (await world.decide(request_id, Action.APPROVE, newcomer)).decided_by == newcomer.email


async def test_a_requester_who_was_deactivated_gets_nothing(world: World) -> None:
    """Also in the moment before the workflow has heard of it."""
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.record.execute("UPDATE users SET active = false WHERE id = %s", cast.requester.id)
    with pytest.raises(Forbidden):
        await world.decide(request_id, Action.APPROVE, cast.approver)
    row = await world.status_is(request_id, Status.REVOKED)
    assert row["decided_by"] == row["ended_by"] == SystemActor.DEACTIVATED


async def test_a_deactivated_requester_loses_what_is_pending(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await deactivate(world, cast.requester)
    row = await world.status_is(request_id, Status.REVOKED)
    assert row["decided_by"] == row["ended_by"] == SystemActor.DEACTIVATED
    await world.ends(request_id)


async def test_a_deactivated_requester_loses_the_grant(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    await deactivate(world, cast.requester)
    # The claims go with the commit, the rest follows.
    assert await world.record.claims(cast.requester, cast.application) == {}
    row = await world.status_is(request_id, Status.REVOKED)
    assert (row["decided_by"], row["ended_by"]) == (cast.approver.email, SystemActor.DEACTIVATED)
    assert await world.record.temporary_groups(request_id) == []
    await world.ends(request_id)


async def test_a_service_account_loses_its_requests_with_its_owner(world: World) -> None:
    cast = await world.record.cast()
    robot = await world.record.user("robot", owner=cast.manager)
    request_id = await world.request(cast, by=robot)
    await deactivate(world, cast.manager)
    await world.status_is(request_id, Status.REVOKED)


async def asked(world: World, request_id: UUID, *, admins: bool) -> None:
    """Wait until the escalation group, or the administrators, were asked."""

    async def were() -> bool:
        row = await world.record.row(request_id)
        return row["escalated_at"] is not None and row["admins_decide"] == admins

    await eventually(were)


async def test_without_anybody_in_the_approver_group_the_escalation_group_is_asked_at_once(world: World) -> None:
    cast = await world.record.cast()
    empty = await world.record.group()
    template = await world.record.template(approver_group_ids=[empty.id], escalation_group_id=cast.managers.id)
    request_id = await world.request(cast, template=template)
    await asked(world, request_id, admins=False)
    assert await world.record.kinds(request_id) == ["submitted", "escalated"]
    assert (await world.record.row(request_id))["notified_ids"] == [cast.manager.id]
    with pytest.raises(Forbidden):
        await world.decide(request_id, Action.APPROVE, cast.admin)
    assert (await world.decide(request_id, Action.APPROVE, cast.manager)).status is Status.APPROVED


async def test_where_the_requester_is_the_only_approver_others_are_asked(world: World) -> None:
    cast = await world.record.cast()
    alone = await world.record.group(cast.requester)
    template = await world.record.template(approver_group_ids=[alone.id], escalation_group_id=cast.managers.id)
    request_id = await world.request(cast, template=template)
    await asked(world, request_id, admins=False)
    assert (await world.decide(request_id, Action.APPROVE, cast.manager)).status is Status.APPROVED


@pytest.mark.parametrize("with_group", [True, False])
async def test_without_anybody_to_escalate_to_administrators_are_asked(world: World, *, with_group: bool) -> None:
    cast = await world.record.cast()
    empty, alone = await world.record.group(), await world.record.group(cast.requester)
    template = await world.record.template(
        approver_group_ids=[empty.id], escalation_group_id=alone.id if with_group else None
    )
    request_id = await world.request(cast, template=template)
    await asked(world, request_id, admins=True)
    with pytest.raises(Forbidden):
        await world.decide(request_id, Action.APPROVE, cast.requester)
    assert (await world.decide(request_id, Action.APPROVE, cast.admin)).status is Status.APPROVED


async def group_deleted(world: World, cast: Cast) -> None:
    for request_id in await groups.delete(world.db, OPERATOR, cast.team.id):
        await world.reconcile(request_id)


async def members_removed(world: World, cast: Cast) -> None:
    await leave(world, cast.team.id, cast.approver)
    await leave(world, cast.team.id, cast.second_approver)


async def members_deactivated(world: World, cast: Cast) -> None:
    await deactivate(world, cast.approver)
    await deactivate(world, cast.second_approver)


@pytest.mark.parametrize("lose_approvers", [group_deleted, members_removed, members_deactivated])
async def test_a_request_that_loses_its_approvers_is_escalated_and_then_the_admins(
    world: World, lose_approvers: Callable[[World, Cast], Awaitable[None]]
) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await lose_approvers(world, cast)
    await asked(world, request_id, admins=False)
    with pytest.raises(Forbidden):
        await world.decide(request_id, Action.APPROVE, cast.admin)
    await leave(world, cast.managers.id, cast.manager)
    await asked(world, request_id, admins=True)
    kinds = [kind for kind in await world.record.kinds(request_id) if kind != "refused"]
    assert kinds == ["submitted", "escalated", "escalated"]
    with pytest.raises(Forbidden):
        await world.decide(request_id, Action.APPROVE, cast.manager)
    assert (await world.decide(request_id, Action.APPROVE, cast.admin)).status is Status.APPROVED


async def test_losing_one_of_two_approvers_changes_nothing(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await leave(world, cast.team.id, cast.approver)
    with pytest.raises(Forbidden):
        await world.decide(request_id, Action.APPROVE, cast.approver)
    assert (await world.record.row(request_id))["escalated_at"] is None
    assert (await world.decide(request_id, Action.APPROVE, cast.second_approver)).status is Status.APPROVED


async def test_a_regained_membership_counts_again(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await members_removed(world, cast)
    await asked(world, request_id, admins=False)
    await join(world, cast.team.id, cast.approver)
    assert (await world.decide(request_id, Action.APPROVE, cast.approver)).status is Status.APPROVED


async def test_an_escalation_group_that_vanishes_before_its_time_leaves_the_approvers(world: World) -> None:
    cast = await world.record.cast(escalation_after_mins=30)
    request_id = await world.request(cast)
    for marked in await groups.delete(world.db, OPERATOR, cast.managers.id):
        await world.reconcile(marked)
    await world.skip(minutes=31)
    await asked(world, request_id, admins=True)
    assert (await world.decide(request_id, Action.DENY, cast.approver)).status is Status.DENIED
