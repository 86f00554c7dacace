"""Two steps of one request at once: the second waits for the first, and sees what it did (design, section 2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import transitions
from db.timeline import add_to_timeline
from domain.actors import SystemActor
from domain.errors import AccessError, RequestNotActive, RequestNotPending
from domain.states import Action, Status
from domain.transitions import Outcome
from tests.record import Record

A_MOMENT_SECS = 0.2
LATER = timedelta(hours=2)

Holding = Callable[[], AbstractAsyncContextManager[asyncio.Event]]


@pytest.fixture
async def holding(monkeypatch: pytest.MonkeyPatch) -> Holding:
    """The first step that is taken stops before its commit for as long as the block lasts."""
    write = add_to_timeline

    @asynccontextmanager
    async def held() -> AsyncIterator[asyncio.Event]:
        reached, proceed = asyncio.Event(), asyncio.Event()

        async def wait(*arguments: Any, **entry: Any) -> None:
            if not reached.is_set():
                reached.set()
                await proceed.wait()
            await write(*arguments, **entry)

        monkeypatch.setattr(transitions, "add_to_timeline", wait)
        try:
            yield reached
        finally:
            proceed.set()

    return held


async def in_order(holding: Holding, first: Any, second: Any) -> tuple[Outcome, Outcome]:
    async with holding() as reached:
        leading = asyncio.create_task(first)
        await reached.wait()
        following = asyncio.create_task(second)
        await asyncio.sleep(A_MOMENT_SECS)
        assert not following.done()
    return await leading, await following


@pytest.mark.parametrize(
    ("first", "second", "refusal", "status"),
    [
        (Action.APPROVE, Action.APPROVE, RequestNotPending, Status.APPROVED),
        (Action.APPROVE, Action.DENY, RequestNotPending, Status.APPROVED),
        (Action.DENY, Action.APPROVE, RequestNotPending, Status.DENIED),
        (Action.REVOKE, Action.APPROVE, RequestNotPending, Status.REVOKED),
        (Action.DENY, Action.REVOKE, RequestNotActive, Status.DENIED),
        (Action.APPROVE, Action.REVOKE, None, Status.REVOKED),
    ],
)
async def test_of_two_decisions_the_second_is_told_what_the_first_did(
    shared: Record,
    holding: Holding,
    first: Action,
    second: Action,
    refusal: type[AccessError] | None,
    status: Status,
) -> None:
    cast = await shared.cast()
    request_id = await shared.submit(cast.template, cast.requester)
    leading = cast.requester if first is Action.REVOKE else cast.approver
    following = cast.requester if second is Action.REVOKE else cast.second_approver
    won, other = await in_order(
        holding, shared.decide(request_id, first, leading), shared.decide(request_id, second, following)
    )
    assert won.refusal is None
    assert other.refusal == (refusal.code if refusal else None)
    assert (await shared.row(request_id))["status"] == status
    assert len(await shared.temporary_groups(request_id)) == (status is Status.APPROVED)


async def test_an_escalation_finds_the_request_decided(shared: Record, holding: Holding) -> None:
    cast = await shared.cast()
    request_id = await shared.submit(cast.template, cast.requester)
    await in_order(
        holding,
        shared.decide(request_id, Action.DENY, cast.approver),
        shared.take(request_id, Action.ESCALATE, SystemActor.ESCALATION, key="escalate"),
    )
    assert await shared.kinds(request_id) == ["submitted", "denied"]


@pytest.mark.parametrize("revoked_first", [True, False])
async def test_a_grant_ends_once(shared: Record, holding: Holding, revoked_first: bool) -> None:
    cast = await shared.cast()
    request_id = await shared.submit(cast.template, cast.requester)
    await shared.decide(request_id, Action.APPROVE, cast.approver)
    revoking = shared.decide(request_id, Action.REVOKE, cast.requester)
    expiring = shared.take(request_id, Action.EXPIRE, SystemActor.EXPIRY, key="expire", at=datetime.now(UTC) + LATER)
    await in_order(holding, *((revoking, expiring) if revoked_first else (expiring, revoking)))
    ended = "revoked" if revoked_first else "expired"
    assert (await shared.row(request_id))["status"] == ended
    assert [kind for kind in await shared.kinds(request_id) if kind != "refused"] == ["submitted", "approved", ended]


async def test_the_same_step_twice_is_taken_once(shared: Record, holding: Holding) -> None:
    cast = await shared.cast()
    request_id = await shared.submit(cast.template, cast.requester)
    at = datetime.now(UTC)
    first, again = await in_order(
        holding,
        *(shared.decide(request_id, Action.APPROVE, cast.approver, key="once", at=at) for _ in range(2)),
    )
    assert first == again
    assert await shared.kinds(request_id) == ["submitted", "approved"]


async def test_requests_do_not_wait_for_each_other(shared: Record, holding: Holding) -> None:
    cast = await shared.cast()
    first = await shared.submit(cast.template, cast.requester)
    second = await shared.submit(cast.template, cast.manager)
    async with holding() as reached:
        deciding = asyncio.create_task(shared.decide(first, Action.APPROVE, cast.approver))
        await reached.wait()
        async with asyncio.timeout(60):
            assert (await shared.decide(second, Action.APPROVE, cast.approver)).refusal is None
    assert (await deciding).refusal is None
