"""Signals are held to the rules of updates, whoever sends them and whatever is in them (design, section 3)."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowUpdateFailedError
from temporalio.common import RawValue

from domain.errors import Forbidden, Invalid, RequestNotPending
from domain.proofs import ProofKey
from domain.states import Action, Status
from domain.transitions import REFUSALS_KEPT, Decision
from tests.record import PROOFS, Cast
from tests.servers import CONTINUE_AS_NEW_AFTER
from tests.workflows.world import World, eventually
from workflows import names


async def refusals(world: World, request_id: UUID) -> list[dict[str, Any]]:
    return [entry for entry in await world.record.timeline(request_id) if entry["kind"] == "refused"]


async def wait_for_refusals(world: World, request_id: UUID, count: int = 1) -> list[dict[str, Any]]:
    async def enough() -> list[dict[str, Any]] | None:
        found = await refusals(world, request_id)
        return found if len(found) >= count else None

    return await eventually(enough)


async def assert_goes_on(world: World, request_id: UUID, cast: Cast) -> None:
    """Nothing has changed, and the next decision is carried out."""
    assert (await world.record.row(request_id))["status"] == Status.PENDING
    assert await world.record.temporary_groups(request_id) == []
    assert (await world.decide(request_id, Action.DENY, cast.approver)).status is Status.DENIED
    await world.ends(request_id)


@pytest.mark.parametrize(
    ("action", "who", "status"),
    [
        (Action.APPROVE, "approver", Status.APPROVED),
        (Action.DENY, "approver", Status.DENIED),
        (Action.REVOKE, "requester", Status.REVOKED),
    ],
)
async def test_a_proven_signal_decides(world: World, action: Action, who: str, status: Status) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.signal(request_id, action, getattr(cast, who), comment="by a \u202escript")
    await world.status_is(request_id, status)
    entry = (await world.record.timeline(request_id))[-1]
    assert (entry["actor"], entry["verified"]) == (getattr(cast, who).email, True)
    assert entry["detail"]["channel"] == "signal"
    assert entry["detail"]["comment"] == "by a \ufffdscript"


async def test_an_actor_without_proof_changes_nothing(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.handle(request_id).signal("approve", {"actor": cast.approver.email, "comment": "ok"})
    (refused,) = await wait_for_refusals(world, request_id)
    assert (refused["actor"], refused["verified"]) == (cast.approver.email, False)
    assert refused["detail"]["code"] == Forbidden.code
    assert refused["event"] is None
    await assert_goes_on(world, request_id, cast)


@pytest.mark.parametrize("update_id", [None, "a\x00b"])
async def test_an_update_needs_a_proof_too(world: World, update_id: str | None) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    with pytest.raises(Forbidden):
        await world.update(request_id, Action.APPROVE, {"actor": cast.approver.email}, id=update_id)
    await wait_for_refusals(world, request_id)
    await assert_goes_on(world, request_id, cast)


def unsigned(claims: dict[str, Any]) -> str:
    def part(content: dict[str, Any]) -> str:
        return urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none', 'typ': 'justiam-proof+jwt'})}.{part(claims)}."


def wrong_proofs(request_id: UUID, cast: Cast, now: datetime) -> dict[str, str]:
    """Proofs that must not count, though the approver they name could decide."""
    jti, instant = str(uuid4()), int(now.timestamp())
    claims = {
        "sub": str(cast.approver.id),
        "req": str(request_id),
        "act": "approve",
        "jti": jti,
        "iat": instant,
        "exp": instant + 300,
    }
    header = {"alg": "HS256", "typ": "justiam-proof+jwt"}
    forger = OctKey.import_key("another key that is long enough for it")

    def mint(key: ProofKey, *, request: UUID = request_id, action: Action = Action.APPROVE, at: datetime = now) -> str:
        return key.mint(request, action, cast.approver.id, jti=jti, now=at)

    good = mint(PROOFS)
    head, _, signature = good.split(".")
    return {
        "another request": mint(PROOFS, request=uuid4()),
        "another action": mint(PROOFS, action=Action.DENY),
        "expired": mint(PROOFS, at=now - timedelta(minutes=6)),
        "from the future": mint(PROOFS, at=now + timedelta(hours=1)),
        "another secret": mint(ProofKey("another secret, as long as it has to be")),
        "another key": jwt.encode(header, claims, forger),
        "no algorithm": unsigned(claims),
        "changed": f"{head}.{unsigned({**claims, 'jti': str(uuid4())}).split('.')[1]}.{signature}",
        "without signature": good.removesuffix(signature),
        "garbage": "not.a.proof",
        "empty": "",
    }


@pytest.mark.parametrize(
    "kind",
    [
        "another request",
        "another action",
        "expired",
        "from the future",
        "another secret",
        "another key",
        "no algorithm",
        "changed",
        "without signature",
        "garbage",
        "empty",
    ],
)
async def test_a_wrong_proof_is_recorded_and_changes_nothing(world: World, kind: str) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    proof = wrong_proofs(request_id, cast, await world.now())[kind]
    await world.handle(request_id).signal("approve", Decision(actor=cast.approver.email, proof=proof))
    (refused,) = await wait_for_refusals(world, request_id)
    assert refused["verified"] is False
    assert refused["detail"]["code"] == Forbidden.code
    with pytest.raises(Forbidden):
        await world.update(request_id, Action.APPROVE, Decision(proof=proof))
    await assert_goes_on(world, request_id, cast)


async def test_a_proof_of_somebody_who_may_not_changes_nothing(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.signal(request_id, Action.APPROVE, cast.requester)
    (refused,) = await wait_for_refusals(world, request_id)
    assert (refused["actor"], refused["verified"]) == (cast.requester.email, True)
    await assert_goes_on(world, request_id, cast)


async def test_a_proof_does_not_lend_itself_to_another_actor(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    proof = world.record.proof(request_id, Action.APPROVE, cast.approver, now=await world.now())
    await world.handle(request_id).signal("approve", Decision(actor=cast.second_approver.email, proof=proof))
    (refused,) = await wait_for_refusals(world, request_id)
    # The timeline names who was proven, not who was claimed.
    assert refused["actor"] == cast.approver.email
    # The proof stays good for the step that it proves.
    await world.handle(request_id).signal("approve", Decision(actor=cast.approver.email, proof=proof))
    row = await world.status_is(request_id, Status.APPROVED)
    assert row["decided_by"] == cast.approver.email


async def test_a_proof_works_once(world: World) -> None:
    """A refused attempt uses it up as well: what was not allowed then is not carried out later."""
    cast = await world.record.cast()
    request_id = await world.request(cast)
    now = await world.now()
    proof = world.record.proof(request_id, Action.APPROVE, cast.manager, now=now)
    with pytest.raises(Forbidden):
        await world.update(request_id, Action.APPROVE, Decision(proof=proof))
    await world.record.execute(
        "INSERT INTO group_members (group_id, user_id) VALUES (%s, %s)", cast.team.id, cast.manager.id
    )
    with pytest.raises(Forbidden):
        await world.update(request_id, Action.APPROVE, Decision(proof=proof))
    await world.handle(request_id).signal("approve", Decision(proof=proof))
    assert (await world.decide(request_id, Action.APPROVE, cast.manager)).status is Status.APPROVED
    assert await world.record.kinds(request_id) == ["submitted", "refused", "approved"]


async def test_a_used_proof_sent_as_a_signal_again_changes_nothing(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    proof = world.record.proof(request_id, Action.APPROVE, cast.approver, now=await world.now())
    for _ in range(3):
        await world.handle(request_id).signal("approve", Decision(proof=proof))
    await world.status_is(request_id, Status.APPROVED)
    await world.decide(request_id, Action.REVOKE, cast.requester)
    await world.ends(request_id)
    assert await world.record.kinds(request_id) == ["submitted", "approved", "revoked"]


async def test_signals_that_come_too_late_are_recorded(world: World) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.APPROVE, cast.approver)
    await world.signal(request_id, Action.DENY, cast.second_approver)
    (refused,) = await wait_for_refusals(world, request_id)
    assert refused["detail"]["code"] == RequestNotPending.code
    await world.skip(minutes=61)
    await world.ends(request_id)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("approve", []),
        ("approve", [{"comment": "one"}, {"comment": "two"}]),
        ("approve", ["bob@example.com"]),
        ("approve", [["bob@example.com"]]),
        ("approve", [None]),
        ("approve", [7]),
        ("approve", [{"actor": 7}]),
        ("approve", [{"actor": "bob@example.com", "decided_by": "bob@example.com"}]),
        ("approve", [{"actor": "bob@example.com", "sta\x00tus": "approved"}]),
        ("approve", [{"comment": "a NUL \x00 in it"}]),
        ("approve", [{"comment": "x" * 10_001}]),
        ("approve", [{"proof": "x" * 10_001}]),
        ("approve", [b"\x00\x01\xff"]),
        ("approve", [RawValue(Payload(data=b"{}"))]),
        ("approve", [RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"{broken"))]),
        ("approve", [RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b'{"comment": "\\ud800"}'))]),
        ("approve", [RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"[" * 100_000))]),
        ("approve", [RawValue(Payload(metadata={"encoding": b"json/protobuf"}, data=b"{}"))]),
        ("approve", [RawValue(Payload(metadata={"encoding": b"binary/encrypted"}, data=b"\x01\x02"))]),
        ("Approve", [{"comment": "ok"}]),
        ("expire", [{"comment": "ok"}]),
        ("escalate", [{"actor": "system:escalation"}]),
        ("grant", []),
        ("x" * 900, [{"comment": "ok"}]),
        ("nul\x00name", [{"comment": "ok"}]),
    ],
)
async def test_a_malformed_signal_is_recorded_and_wedges_nothing(world: World, name: str, args: list[Any]) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.handle(request_id).signal(name, args=args)
    (refused,) = await wait_for_refusals(world, request_id)
    assert refused["detail"]["code"] == Invalid.code
    assert refused["verified"] is False
    assert len(refused["detail"]["action"]) <= 100
    await assert_goes_on(world, request_id, cast)


@pytest.mark.parametrize("args", [[], [None], [b"\x00"], ["bob@example.com"], [{"decided_by": "bob"}], [{}, {}]])
async def test_a_malformed_update_is_refused_and_wedges_nothing(world: World, args: list[Any]) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    with pytest.raises(WorkflowUpdateFailedError):
        await world.handle(request_id).execute_update("approve", args=args)
    await assert_goes_on(world, request_id, cast)


@pytest.mark.parametrize("readable", [True, False])
async def test_at_most_so_many_refusals_are_kept(world: World, *, readable: bool) -> None:
    cast = await world.record.cast()
    request_id = await world.request(cast)
    content = {"actor": "mallory@example.com"} if readable else "mallory"
    for _ in range(4):
        await asyncio.gather(*(world.handle(request_id).signal("approve", content) for _ in range(30)))
    await wait_for_refusals(world, request_id, REFUSALS_KEPT)
    with pytest.raises(Forbidden):
        await world.decide(request_id, Action.APPROVE, cast.requester)
    assert len(await refusals(world, request_id)) == REFUSALS_KEPT
    await assert_goes_on(world, request_id, cast)


async def test_signals_that_come_before_the_first_task_are_heard(real_world: World) -> None:
    world = real_world
    cast = await world.record.cast()
    request_id = await world.submit(cast)
    await world.stop_worker()
    try:
        await world.start(request_id, signal=names.RECONCILE_SIGNAL)
        await world.handle(request_id).signal("approve", "nonsense")
        await world.signal(request_id, Action.APPROVE, cast.requester)
        await world.signal(request_id, Action.APPROVE, cast.approver)
    finally:
        await world.start_worker()
    row = await world.status_is(request_id, Status.APPROVED)
    assert row["decided_by"] == cast.approver.email
    # What cannot be read is written down beside the steps, not in turn with them.
    await wait_for_refusals(world, request_id, 2)
    assert sorted(await world.record.kinds(request_id)) == ["approved", "refused", "refused", "submitted"]


@pytest.mark.parametrize("content", [{"actor": "mallory@example.com"}, "nonsense"])
async def test_a_flood_makes_it_continue_as_new_and_loses_nothing(real_world: World, content: Any) -> None:
    world = real_world
    cast = await world.record.cast()
    request_id = await world.request(cast)
    first_run = (await world.handle(request_id).describe()).run_id
    sent = CONTINUE_AS_NEW_AFTER + 1
    for _ in range(CONTINUE_AS_NEW_AFTER):
        await world.handle(request_id).signal("approve", content)
    await wait_for_refusals(world, request_id, CONTINUE_AS_NEW_AFTER)
    # However few tasks the others came in, with this one it is suggested.
    await world.handle(request_id).signal("approve", content)

    async def is_another_run() -> bool:
        return (await world.handle(request_id).describe()).run_id != first_run

    await eventually(is_another_run)
    await wait_for_refusals(world, request_id, sent)
    assert (await world.events(request_id, first_run))[-1] == "WORKFLOW_EXECUTION_CONTINUED_AS_NEW"
    assert len(await refusals(world, request_id)) == sent
    # The new run is found the same way, with the same attributes.
    description = await world.handle(request_id).describe()
    assert description.typed_search_attributes.get(names.REQUESTER) == cast.requester.email
    await assert_goes_on(world, request_id, cast)


async def test_decisions_in_the_middle_of_a_flood_are_answered(real_world: World) -> None:
    world = real_world
    cast = await world.record.cast()
    request_id = await world.request(cast)

    async def flood() -> None:
        for _ in range(CONTINUE_AS_NEW_AFTER // 2):
            await world.handle(request_id).signal("approve", {"actor": "mallory@example.com"})

    async def refused() -> None:
        for _ in range(10):
            with pytest.raises(Forbidden):
                await world.decide(request_id, Action.APPROVE, cast.requester)

    await asyncio.gather(flood(), flood(), refused())
    assert (await world.decide(request_id, Action.APPROVE, cast.approver)).status is Status.APPROVED
    assert (await world.record.kinds(request_id)).count("approved") == 1
