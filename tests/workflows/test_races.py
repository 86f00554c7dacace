"""Two who act at the same moment: exactly one wins, and the other is told the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest

from api.orchestrator import Orchestrator
from domain.actors import SystemActor
from domain.errors import AccessError, Forbidden, RequestNotActive, RequestNotPending
from domain.states import Action, Status
from domain.transitions import Decision, Outcome, RequestState
from tests.record import Account, Cast
from tests.workflows.world import World, eventually

ROUNDS = 4

_PATHS: dict[Status, list[list[str]]] = {
    Status.PENDING: [[]],
    Status.APPROVED: [["approved"]],
    Status.DENIED: [["denied"]],
    Status.EXPIRED: [["approved", "expired"]],
    Status.REVOKED: [["revoked"], ["approved", "revoked"]],
}


async def assert_consistent(world: World, request_id: UUID) -> Status:
    """Row, timeline and temporary group tell the same story, in which everything happens once."""
    row = await world.record.row(request_id)
    status = Status(row["status"])
    kinds = await world.record.kinds(request_id)
    assert kinds[0] == "submitted"
    assert kinds.count("escalated") == (row["escalated_at"] is not None)
    assert [kind for kind in kinds[1:] if kind not in {"refused", "escalated"}] in _PATHS[status]
    assert len(await world.record.temporary_groups(request_id)) == (status is Status.APPROVED)
    return status


async def at_once(world: World, request_id: UUID, *decisions: tuple[Action, Account]) -> list[Any]:
    return await asyncio.gather(
        *(world.decide(request_id, action, by) for action, by in decisions), return_exceptions=True
    )


def won(answers: list[Any]) -> list[RequestState]:
    assert all(isinstance(answer, RequestState | AccessError) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, RequestState)]


async def until(moment: datetime) -> None:
    await asyncio.sleep((moment - datetime.now(UTC)).total_seconds())


@pytest.mark.parametrize("_", range(ROUNDS))
async def test_two_approvers(world: World, _: int) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    answers = await at_once(world, request_id, (Action.APPROVE, cast.approver), (Action.APPROVE, cast.second_approver))
    (winner,) = won(answers)
    (loser,) = [answer for answer in answers if answer is not winner]
    assert isinstance(loser, RequestNotPending)
    assert winner.decided_by in {cast.approver.email, cast.second_approver.email}
    # Who lost is named in the timeline as refused, who won as the decider, and never the other way round.
    (approved,) = [entry for entry in await world.record.timeline(request_id) if entry["kind"] == "approved"]
    assert approved["actor"] == winner.decided_by
    assert await assert_consistent(world, request_id) is Status.APPROVED


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("_", range(ROUNDS // 2))
async def test_approve_and_deny(world: World, _: int, *, reverse: bool) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    decisions = [(Action.APPROVE, cast.approver), (Action.DENY, cast.second_approver)]
    answers = await at_once(world, request_id, *(reversed(decisions) if reverse else decisions))
    (winner,) = won(answers)
    (loser,) = [answer for answer in answers if answer is not winner]
    assert isinstance(loser, RequestNotPending)
    assert await assert_consistent(world, request_id) is winner.status


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("_", range(ROUNDS // 2))
async def test_approve_and_cancel(world: World, _: int, *, reverse: bool) -> None:
    """A cancel that comes second ends the grant; an approval that comes second is refused."""
    cast = await world.record.cast()
    request_id = await world.request(cast)
    decisions = [(Action.APPROVE, cast.approver), (Action.REVOKE, cast.requester)]
    answers = await at_once(world, request_id, *(reversed(decisions) if reverse else decisions))
    approval, cancel = reversed(answers) if reverse else answers
    assert isinstance(cancel, RequestState)
    assert await assert_consistent(world, request_id) is Status.REVOKED
    row = await world.record.row(request_id)
    if isinstance(approval, RequestState):
        assert row["decided_by"] == cast.approver.email
    else:
        assert isinstance(approval, RequestNotPending)
        assert row["decided_by"] is None
    await world.ends(request_id)


# Decisions that meet a timer run on the real server, in real time: the test server's clock stops for good when an
# update arrives while it is being moved.


@asynccontextmanager
async def orchestrator(world: World) -> AsyncIterator[Orchestrator]:
    address = world.client.service_client.config.target_host
    async with Orchestrator(world.settings.model_copy(update={"temporal_address": address})) as orchestrator:
        yield orchestrator


async def over_http(
    world: World, api: Orchestrator, request_id: UUID, *decisions: tuple[Action, Account]
) -> list[RequestState | BaseException]:
    """As the API decides; what it would have to call unavailable is a loser who is not told why."""
    head = await world.head(request_id)
    people = [await world.record.person(by) for _, by in decisions]
    return await asyncio.gather(
        *(
            api.decide(head, person, action, "", str(uuid4()))
            for (action, _), person in zip(decisions, people, strict=True)
        ),
        return_exceptions=True,
    )


@pytest.mark.parametrize("early_ms", [-40, 0, 20, 80])
async def test_revoke_and_expire(real_world: World, early_ms: int) -> None:
    world, cast = real_world, await real_world.record.cast()
    end = datetime.now(UTC) + timedelta(seconds=1)
    request_id = await world.submit(cast)
    await world.record.decide(request_id, Action.APPROVE, cast.approver, at=end - timedelta(hours=1))
    await world.start(request_id)
    await world.has_looked(request_id)
    async with orchestrator(world) as api:
        await until(end - timedelta(milliseconds=early_ms))
        revocation, approval = await over_http(
            world, api, request_id, (Action.REVOKE, cast.requester), (Action.APPROVE, cast.second_approver)
        )
    assert isinstance(approval, RequestNotPending), approval
    await world.ends(request_id)
    status = await assert_consistent(world, request_id)
    if isinstance(revocation, RequestState):
        assert status is Status.REVOKED
    else:
        assert isinstance(revocation, RequestNotActive)
        assert status is Status.EXPIRED


@pytest.mark.parametrize("early_ms", [-40, 0, 20, 80])
async def test_approve_and_escalation(real_world: World, early_ms: int) -> None:
    world, cast = real_world, await real_world.record.cast(escalation_after_mins=30)
    escalation = datetime.now(UTC) + timedelta(seconds=1)
    request_id = await world.submit(cast, at=escalation - timedelta(minutes=30))
    await world.start(request_id)
    await world.has_looked(request_id)
    async with orchestrator(world) as api:
        await until(escalation - timedelta(milliseconds=early_ms))
        approval, denial = await over_http(
            world, api, request_id, (Action.APPROVE, cast.approver), (Action.DENY, cast.manager)
        )
    (winner,) = won([approval, denial])
    if winner is approval:
        # The manager came before the escalation, or after the decision.
        assert isinstance(denial, Forbidden | RequestNotPending)
    else:
        assert isinstance(approval, RequestNotPending)
    assert await assert_consistent(world, request_id) is winner.status


async def test_everybody_at_once(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    answers = await at_once(
        world,
        request_id,
        *[(Action.APPROVE, cast.approver), (Action.DENY, cast.second_approver)] * 3,
        (Action.APPROVE, cast.requester),
        (Action.APPROVE, cast.admin),
    )
    (winner,) = won(answers)
    assert {type(answer) for answer in answers if answer is not winner} <= {RequestNotPending, Forbidden}
    assert await assert_consistent(world, request_id) is winner.status


@pytest.mark.parametrize("_", range(ROUNDS))
async def test_on_the_record_itself(world: World, _: int) -> None:
    """Workers that both believe to run the workflow: the row's lock and guard decide, not the workflow."""
    cast = await world.record.cast()
    request_id = await world.submit(cast)
    outcomes = await asyncio.gather(
        *(
            world.record.decide(request_id, action, by)
            for action, by in [(Action.APPROVE, cast.approver), (Action.DENY, cast.second_approver)] * 4
        )
    )
    (winner,) = [outcome for outcome in outcomes if outcome.refusal is None]
    assert {outcome.refusal for outcome in outcomes if outcome is not winner} == {RequestNotPending.code}
    assert winner.state is not None
    assert await assert_consistent(world, request_id) is winner.state.status


async def test_expire_and_revoke_on_the_record_itself(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.submit(cast)
    granted = await world.record.decide(request_id, Action.APPROVE, cast.approver)
    assert granted.state is not None
    assert granted.state.expires_at is not None
    over, before = granted.state.expires_at, granted.state.expires_at - timedelta(seconds=1)
    outcomes = await asyncio.gather(
        world.record.take(request_id, Action.EXPIRE, SystemActor.EXPIRY, key="expire", at=over),
        world.record.take(request_id, Action.EXPIRE, SystemActor.EXPIRY, key="expire", at=over),
        world.record.decide(request_id, Action.REVOKE, cast.admin, at=before),
    )
    assert len({outcome.state.status for outcome in outcomes if outcome.state}) == 1
    assert await assert_consistent(world, request_id) in {Status.EXPIRED, Status.REVOKED}


async def test_the_same_update_twice_is_carried_out_once(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    first = await world.decide(request_id, Action.APPROVE, cast.approver, id="a-click")
    again = await world.decide(request_id, Action.APPROVE, cast.approver, id="a-click")
    assert first == again
    assert await world.record.kinds(request_id) == ["submitted", "approved"]


async def test_the_same_update_twice_at_once_is_carried_out_once(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    proof = world.record.proof(request_id, Action.APPROVE, cast.approver, now=await world.now())
    answers = await asyncio.gather(
        *(world.update(request_id, Action.APPROVE, Decision(proof=proof), id="a-click") for _ in range(5))
    )
    assert len({answer.model_dump_json() for answer in answers}) == 1
    assert await world.record.kinds(request_id) == ["submitted", "approved"]


async def test_the_same_update_is_answered_the_same_by_a_new_run(world: World) -> None:
    """Temporal's own memory of updates ends with the run; the record's does not."""
    cast = await world.record.cast()
    request_id = await world.request(cast)
    first = await world.decide(request_id, Action.APPROVE, cast.approver, id="a-click")
    await world.handle(request_id).terminate()
    await world.start(request_id)
    await world.has_looked(request_id)
    # A workflow that has seen the grant turns an approval away early; one that has not asks the record.
    with pytest.raises(RequestNotPending):
        await world.decide(request_id, Action.APPROVE, cast.second_approver, id="another-click")
    again = await world.record.decide(request_id, Action.APPROVE, cast.approver, key="a-click", at=first.decided_at)
    assert (again.refusal, again.state) == (None, first.model_copy(update={"refusals": 0}))
    assert (await world.record.kinds(request_id)).count("approved") == 1


def told(outcome: Outcome) -> tuple[Any, ...]:
    return outcome.refusal, outcome.detail, outcome.state.status if outcome.state else None


async def prepared(world: World) -> tuple[Cast, UUID]:
    cast = await world.record.cast()
    return cast, await world.submit(cast)


async def test_a_step_carried_out_twice_changes_the_record_once(world: World) -> None:
    cast, request_id = await prepared(world)
    now, key = await world.now(), str(uuid4())
    outcomes = [await world.record.decide(request_id, Action.APPROVE, cast.approver, key=key, at=now) for _ in range(3)]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert await world.record.kinds(request_id) == ["submitted", "approved"]


async def test_a_refusal_given_twice_is_the_same_and_recorded_once(world: World) -> None:
    cast, request_id = await prepared(world)
    key = str(uuid4())
    first = await world.record.decide(request_id, Action.APPROVE, cast.requester, key=key)
    # Meanwhile somebody else decides; the answer to the first attempt stays what it was.
    await world.record.decide(request_id, Action.DENY, cast.approver)
    again = await world.record.decide(request_id, Action.APPROVE, cast.requester, key=key)
    assert (first.refusal, first.detail) == (again.refusal, again.detail)
    assert first.refusal == Forbidden.code
    assert await world.record.kinds(request_id) == ["submitted", "refused", "denied"]


async def test_a_loser_never_gets_the_winners_answer(world: World) -> None:
    cast, request_id = await prepared(world)
    winner = await world.record.decide(request_id, Action.APPROVE, cast.approver, key="first")
    loser = await world.record.decide(request_id, Action.APPROVE, cast.second_approver, key="second")
    assert told(winner) == (None, "", Status.APPROVED)
    assert loser.refusal == RequestNotPending.code
    again = await world.record.decide(request_id, Action.APPROVE, cast.second_approver, key="second")
    assert told(again) == told(loser)


async def test_a_key_that_was_used_for_one_step_does_not_answer_another(world: World) -> None:
    cast, request_id = await prepared(world)
    await world.record.decide(request_id, Action.APPROVE, cast.approver, key="once")
    other = await world.record.decide(request_id, Action.REVOKE, cast.approver, key="once")
    assert other.refusal == Forbidden.code
    assert await assert_consistent(world, request_id) is Status.APPROVED


async def test_a_key_is_the_requests_own(world: World) -> None:
    (cast, request_id), (other_cast, other_id) = await prepared(world), await prepared(world)
    for who, which in ((cast, request_id), (other_cast, other_id)):
        outcome = await world.record.decide(which, Action.APPROVE, who.approver, key="the-same")
        assert told(outcome) == (None, "", Status.APPROVED)


async def test_a_decision_whose_workflow_is_closed_under_it_is_answered_by_the_record(real_world: World) -> None:
    world, cast = real_world, await real_world.record.cast()
    request_id = await world.request(cast)
    async with orchestrator(world) as api:
        async with world.without_worker():
            deciding = asyncio.create_task(over_http(world, api, request_id, (Action.APPROVE, cast.approver)))

            async def is_waiting() -> bool:
                return (await world.handle(request_id).describe()).raw_description.HasField("pending_workflow_task")

            await eventually(is_waiting)
            await world.record.decide(request_id, Action.DENY, cast.second_approver)
            await world.handle(request_id).terminate()
        (answer,) = await deciding
    assert isinstance(answer, RequestNotPending), answer


async def test_a_foreseen_update_id_does_not_stand_in_the_way_of_a_decision(real_world: World) -> None:
    """An Idempotency-Key can be guessed, and Temporal answers an id that it knows without asking the workflow."""
    world, cast = real_world, await real_world.record.cast()
    request_id = await world.request(cast)
    decision_id = str(uuid5(request_id, f"approve:{cast.approver.id}:a-click"))
    with pytest.raises(Forbidden):
        await world.update(request_id, Action.APPROVE, Decision(actor=cast.approver.email), id=decision_id)
    person = await world.record.person(cast.approver)
    async with orchestrator(world) as api:
        state = await api.decide(await world.head(request_id), person, Action.APPROVE, "", decision_id)
    assert state.status is Status.APPROVED
