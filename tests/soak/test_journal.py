"""What clients were told is held against the record: anything that is lost, doubled or made up is named."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from soak import journal
from soak.journal import Answer, Decision, Journal, Message, Signal, Submission
from soak.record import Entry, Record, Request, grants

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
REQUEST = Request(
    id="r1",
    status="expired",
    requester="ann",
    template="Told to all",
    app="db",
    key="key",
    minutes=1,
    values=frozenset({("roles", "read")}),
    created_at=AT,
    decided_by="bob",
    decided_at=AT,
    expires_at=AT + MINUTE,
    ended_at=AT + MINUTE,
)
LIFE = (("submitted", "ann", 0), ("approved", "bob", 0), ("expired", "system:expiry", 60))


def record(request: Request = REQUEST, life: tuple[tuple[str, str, int], ...] = LIFE, *others: Request) -> Record:
    found = Record({each.id: each for each in (request, *others)})
    found.timelines[request.id] = [
        Entry(request.id, AT + timedelta(seconds=secs), kind, actor, f"{request.id}:{number}", f"access_request.{kind}")
        for number, (kind, actor, secs) in enumerate(life)
    ]
    return found


def submitted(answer: Answer = Answer.DONE, *ids: str, key: str = "key") -> Journal:
    return Journal(submissions=[Submission(key, "ann", answer, set(ids))])


def test_a_submission_that_was_acknowledged_is_one_request() -> None:
    assert journal.lost_or_doubled(submitted(Answer.DONE, "r1"), record()) == []
    assert journal.lost_or_doubled(submitted(Answer.UNKNOWN), record()) == []
    assert journal.lost_or_doubled(submitted(Answer.UNKNOWN), Record()) == []
    assert journal.lost_or_doubled(submitted(Answer.DONE, "r1"), Record()) == [
        "ann was told r1; the record has nothing"
    ]


def test_a_submission_that_made_two_requests_or_was_answered_with_two_is_found() -> None:
    doubled = record(REQUEST, LIFE, replace(REQUEST, id="r2"))
    assert "made 2 requests" in journal.lost_or_doubled(submitted(Answer.DONE, "r1"), doubled)[0]
    assert journal.lost_or_doubled(submitted(Answer.DONE, "r1", "r2"), record())


def test_a_request_that_nobody_sent_or_that_was_refused_is_found() -> None:
    assert journal.lost_or_doubled(Journal(), record()) == ["r1 of ann was sent by nobody"]
    assert journal.lost_or_doubled(submitted(Answer.REFUSED), record()) == ["ann was refused, and the record has r1"]


def decided(*decisions: tuple[str, str, Answer]) -> Journal:
    return Journal(decisions=[Decision("r1", action, actor, answer) for action, actor, answer in decisions])


def test_an_acknowledged_decision_is_in_the_timeline_once_and_in_the_row() -> None:
    assert journal.decisions_that_differ(decided(("approve", "bob", Answer.DONE)), record()) == []
    assert journal.decisions_that_differ(decided(("approve", "carol", Answer.DONE)), record())
    twice = record(REQUEST, (*LIFE, ("approved", "bob", 1)))
    assert "2 times" in journal.decisions_that_differ(decided(("approve", "bob", Answer.DONE)), twice)[0]
    denied = decided(("deny", "bob", Answer.DONE))
    assert len(journal.decisions_that_differ(denied, record())) == 2
    assert journal.decisions_that_differ(denied, Record())


def test_a_decision_that_was_refused_each_time_and_is_there_is_found() -> None:
    refused = decided(("approve", "bob", Answer.REFUSED), ("approve", "bob", Answer.REFUSED))
    assert "refused each time" in journal.decisions_that_differ(refused, record())[0]
    once = decided(("approve", "bob", Answer.REFUSED), ("approve", "bob", Answer.UNKNOWN))
    assert journal.decisions_that_differ(once, record()) == []


@pytest.mark.parametrize(
    ("answer", "there", "is_wrong"),
    [
        (Answer.DONE, 1, False),
        (Answer.DONE, 0, True),
        (Answer.DONE, 2, True),
        (Answer.UNKNOWN, 0, False),
        (Answer.UNKNOWN, 1, False),
        (Answer.UNKNOWN, 2, True),
        (Answer.REFUSED, 0, False),
        (Answer.REFUSED, 1, True),
    ],
)
def test_a_message_is_there_as_often_as_was_said(answer: Answer, there: int, is_wrong: bool) -> None:
    found = Record(messages=Counter({("r1", "hello"): there}))
    written = Journal(messages=[Message("r1", "hello", answer)])
    assert bool(journal.messages_that_differ(written, found)) is is_wrong


def test_a_signal_that_temporal_took_is_in_the_timeline_once() -> None:
    def wrong(jti: str, answer: Answer, found: Record | None = None) -> list[str]:
        return journal.signals_that_differ(Journal(signals=[Signal("r1", jti, answer=answer)]), found or record())

    assert wrong("1", Answer.DONE) == []
    assert wrong("9", Answer.DONE) == ["r1: a signal that Temporal took is in the timeline 0 times"]
    assert wrong("9", Answer.UNKNOWN) == []
    twice = record()
    twice.timelines["r1"] *= 2
    assert wrong("1", Answer.UNKNOWN, twice)


def test_a_signal_that_a_task_blocked_is_there_as_a_refusal() -> None:
    blocked = Journal(signals=[Signal("r1", "9", blocks=True, answer=Answer.DONE)])
    assert journal.signals_that_differ(blocked, record())
    refused = record(REQUEST, (LIFE[0], ("refused", "bob", 5), *LIFE[1:]))
    assert journal.signals_that_differ(blocked, refused) == []


@pytest.mark.parametrize(
    "life",
    [
        LIFE[1:],
        (LIFE[0], *LIFE),
        (*LIFE, LIFE[2]),
        (LIFE[0], LIFE[1], *LIFE[1:]),
        LIFE[:2],
        (*LIFE[:2], ("revoked", "ann", 30)),
        (*LIFE[:2], ("expired", "system:expiry", 59)),
    ],
    ids=["no beginning", "two beginnings", "two ends", "two grants", "no end", "another end", "an early end"],
)
def test_a_life_that_cannot_be_is_found(life: tuple[tuple[str, str, int], ...]) -> None:
    assert journal.broken_lives(record()) == []
    assert journal.broken_lives(record(REQUEST, life))


@pytest.mark.parametrize(
    "change",
    [
        {"expires_at": AT + 2 * MINUTE},
        {"ended_at": AT + 2 * MINUTE},
        {"ended_at": AT},
        {"minutes": 5},
    ],
)
def test_a_grant_that_lasts_longer_or_shorter_than_agreed_is_found(change: dict[str, Any]) -> None:
    assert journal.broken_lives(record(replace(REQUEST, **change)))


def test_an_event_is_told_as_often_as_it_happened() -> None:
    told = {("r1", f"access_request.{kind}"): 1 for kind in ("submitted", "approved", "expired")}

    def wrong(received: dict[tuple[str, str], int], *wanted: str) -> list[str]:
        return journal.events_not_told(record(), record(), received, set(wanted or {"Told to all"}))

    assert wrong(told) == []
    missing = {about: count for about, count in told.items() if "expired" not in about[1]}
    assert wrong(missing) == ["r1: access_request.expired happened 1 times, told 0"]
    assert wrong({**told, ("r1", "access_request.approved"): 2}), "under two ids"
    assert wrong({**told, ("r1", "access_request.denied"): 1}), "it did not happen"
    assert wrong({}, "another") == []
    assert wrong(told, "another"), "told of what does not concern it"


def test_an_event_that_happened_after_all_was_told_may_be_told_or_not() -> None:
    open_still = record(replace(REQUEST, status="approved", ended_at=None), LIFE[:2])
    told = {("r1", f"access_request.{kind}"): 1 for kind in ("submitted", "approved")}
    later = {**told, ("r1", "access_request.expired"): 1}
    for received in (told, later):
        assert journal.events_not_told(open_still, record(), received, {"Told to all"}) == []


def test_a_grant_gives_its_claims_from_its_decision_to_its_end() -> None:
    (right,) = grants(record(), {("r1", "approved"): AT.timestamp() + 2})
    assert (right.opens, right.open_by) == (AT.timestamp(), AT.timestamp() + 2)
    assert right.closes == right.closed_by == right.limit == (AT + MINUTE).timestamp()


def test_the_end_of_a_revoked_grant_is_known_when_somebody_has_read_of_it() -> None:
    revoked = replace(REQUEST, status="revoked", ended_at=AT + timedelta(seconds=20))
    (right,) = grants(record(revoked), {("r1", "revoked"): AT.timestamp() + 21})
    assert (right.closes, right.closed_by) == (AT.timestamp() + 20, AT.timestamp() + 21)
    (unread,) = grants(record(revoked), {})
    assert unread.closed_by == unread.limit
