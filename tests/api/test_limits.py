"""One caller's calls are bounded, and nobody else's with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as some

from api.limits import CallLimit
from domain.errors import TooManyCalls
from tests.api.house import House, open_house, settings
from tests.api.problem import check_problem
from tests.conftest import Databases
from web.app import create_app

ALICE, BOB = uuid4(), uuid4()


@given(some.integers(60, 6_000), some.lists(some.floats(0, 30), max_size=300))
def test_never_more_is_taken_than_a_burst_and_what_has_come_in_since(per_minute: int, pauses: list[float]) -> None:
    now, taken = 0.0, 0
    limit = CallLimit(per_minute, lambda: now)
    for pause in pauses:
        now += pause
        with suppress(TooManyCalls):
            limit.take(ALICE)
            taken += 1
        assert taken <= per_minute / 6 + now * per_minute / 60 + 1e-6


def _send(limit: CallLimit, calls: int) -> None:
    for _ in range(calls):
        limit.take(ALICE)


@given(some.integers(60, 6_000))
def test_who_waits_as_long_as_they_are_told_is_taken(per_minute: int) -> None:
    now = 0.0
    limit = CallLimit(per_minute, lambda: now)
    with pytest.raises(TooManyCalls) as refused:
        _send(limit, per_minute)
    now += refused.value.retry_after_secs
    limit.take(ALICE)


def test_what_one_sends_is_not_counted_for_another() -> None:
    limit = CallLimit(60, lambda: 0.0)
    with pytest.raises(TooManyCalls):
        _send(limit, 11)
    limit.take(BOB)


def test_callers_are_forgotten_the_longest_silent_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.limits._MOST_CALLERS", 2)
    limit = CallLimit(60, lambda: 0.0)
    for caller in (ALICE, BOB, uuid4()):
        limit.take(caller)
    assert ALICE not in limit._left
    assert BOB in limit._left


@pytest.fixture
async def slow(new_database: Databases) -> AsyncIterator[House]:
    with new_database() as url:
        app = create_app(settings(url).model_copy(update={"calls_per_minute": 60}))
        async with app.router.lifespan_context(app), open_house(url, app) as house:
            yield house


async def test_too_many_calls_are_refused_with_the_time_to_wait(slow: House) -> None:
    person = await slow.person("alice")
    bot = await slow.person("bot", owner=person)
    other = await slow.person("bob")
    answers = [await slow.call("GET", "/users/me", bot if number % 2 else person) for number in range(14)]
    assert [answer.status_code for answer in answers[:10]] == [200] * 10
    problem = check_problem(answers[-1], 429, "too_many_calls")
    assert "Try again in 1 second." in problem["detail"]
    assert answers[-1].headers["retry-after"] == "1"
    assert (await slow.call("GET", "/users/me", other)).status_code == 200
    assert (await slow.call("GET", "/users/me")).status_code == 401
