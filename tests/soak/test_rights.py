"""A claim without a grant is found, and nothing else is: whatever of the instants is not known."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hypothesis import assume, given
from hypothesis import strategies as st

from soak.rights import Absence, Introspection, Right, Rights, Sighting

READ, WRITE = ("roles", "read"), ("roles", "write")
GRANT = Right("ann", "db", frozenset({READ}), 10, 11, 50, 52, limit=60, source="request 1", asked=5)
SECS = st.floats(0, 100, allow_nan=False).map(lambda secs: round(secs, 3))
GAP = st.floats(0, 5, allow_nan=False).map(lambda secs: round(secs, 3))


def seen(sent: float, received: float, *values: tuple[str, str], expires_at: float | None = None) -> Sighting:
    return Sighting("ann", "db", sent, received, frozenset(values), expires_at)


def problems(sighting: Sighting, *absences: Absence) -> list[str]:
    return Rights([GRANT], absences).judge(sighting)


def test_a_claim_before_its_grant_or_after_its_end_is_found() -> None:
    assert problems(seen(8, 9.9, READ))
    assert problems(seen(52, 53, READ))
    assert not problems(seen(9, 10, READ)), "it may have been granted by then"
    assert not problems(seen(51.9, 53, READ)), "nobody knows that it was over by then"


def test_a_claim_of_another_grant_person_or_application_is_found() -> None:
    assert problems(seen(20, 21, READ, WRITE)) == ["ann at db had roles=write without a grant"]
    assert problems(replace(seen(20, 21, READ), user="bob"))
    assert problems(replace(seen(20, 21, READ), app="payroll"))


def test_a_grant_without_its_claim_is_found_where_it_was_there_all_the_time() -> None:
    assert problems(seen(20, 21)) == ["ann at db lacked roles=read of request 1"]
    assert not problems(seen(10.5, 12)), "nobody had read of the grant when this was sent"
    assert not problems(seen(49, 50)), "it may have been over"


def test_a_token_must_not_outlast_its_grant() -> None:
    assert problems(seen(20, 21, READ, expires_at=61))
    assert not problems(seen(20, 21, READ, expires_at=60))


def test_a_token_need_not_carry_a_grant_in_its_last_second() -> None:
    late = replace(GRANT, closes=60, closed_by=60)
    judge = Rights([late], []).judge
    assert not judge(seen(59, 59.2, expires_at=300))
    assert judge(seen(58, 58.2, expires_at=300))
    assert judge(seen(59, 59.2)), "an answer that is no token knows no whole seconds"


def test_who_is_deactivated_has_nothing_and_may_be_refused() -> None:
    away = Absence("ann", 20, 21, 30, 31)
    assert problems(seen(22, 23, READ), away) == ["ann at db had roles=read, and their account is deactivated"]
    assert not problems(seen(22, 23), away)
    assert not problems(seen(20.5, 20.8), away), "from when on is not known"
    assert not problems(replace(seen(22, 23), values=None), away)
    assert problems(replace(seen(40, 41), values=None), away) == ["ann at db was refused, and their account is active"]


def told(sent: float, *absences: Absence, active: bool) -> list[str]:
    issued = seen(20, 21, READ, expires_at=60)
    return Rights([GRANT], absences).judge_introspection(Introspection(issued, sent, sent + 0.5, active))


def test_a_token_that_counts_after_its_grant_is_found() -> None:
    assert not told(30, active=True)
    assert told(52, active=True) == ["a token of ann for roles=read counts whose grant is over"]
    assert not told(51, active=True)
    away = Absence("ann", 40, 41, 44, 45)
    assert "a token of ann counts, and their account is deactivated" in told(42, away, active=True)
    assert told(46, away, active=True) == [
        "a token of ann counts that is from before a deactivation",
        "a token of ann for roles=read counts whose grant is over",
    ]
    assert not told(30, active=False), "the record may forget a token in a crash"


def test_a_grant_that_came_later_does_not_bring_a_token_back() -> None:
    again = replace(GRANT, opens=53, open_by=54, closes=90, closed_by=90, limit=90)
    token = seen(20, 21, READ, expires_at=60)
    assert Rights([GRANT, again], []).judge_introspection(Introspection(token, 55, 56, active=True))


def test_nor_does_a_membership_that_came_later() -> None:
    left = replace(GRANT, asked=None, limit=math.inf, source="the group staff")
    again = replace(left, opens=60, open_by=61, closes=90, closed_by=91)
    judge = Rights([left, again], []).judge_introspection
    token = seen(20, 21, READ, expires_at=300)
    assert judge(Introspection(token, 55, 56, active=True))
    assert judge(Introspection(token, 62, 63, active=True))


def test_nor_does_an_account_that_is_active_again() -> None:
    lasting = replace(GRANT, asked=None, closes=math.inf, closed_by=math.inf)
    judge = Rights([lasting], [Absence("ann", 30, 31, 40, 41)]).judge_introspection
    before, after = seen(20, 21, READ, expires_at=300), seen(42, 43, READ, expires_at=300)
    known = ["a token of ann counts that is from before a deactivation"]
    assert judge(Introspection(before, 50, 51, active=True)) == known
    assert not judge(Introspection(after, 50, 51, active=True))
    assert not judge(Introspection(before, 29, 29.5, active=True))


def test_a_grant_does_not_come_back_with_its_account() -> None:
    away = Absence("ann", 20, 21, 30, 31)
    assert problems(seen(40, 41, READ), away) == ["ann at db had roles=read without a grant"]
    assert not problems(seen(40, 41), away)
    after = replace(GRANT, asked=32, opens=33, open_by=34)
    assert not Rights([after], [away]).judge(seen(40, 41, READ)), "it was asked for since"
    assert Rights([after], [away]).judge(seen(40, 41))


def test_of_a_grant_that_was_asked_for_while_its_account_went_nothing_is_known() -> None:
    meanwhile = replace(GRANT, asked=20.5, opens=20.6, open_by=22)
    judge = Rights([meanwhile], [Absence("ann", 20, 21, 30, 31)]).judge
    assert not judge(seen(40, 41))
    assert not judge(seen(40, 41, READ))


def test_a_membership_does() -> None:
    lasting = replace(GRANT, asked=None)
    judge = Rights([lasting], [Absence("ann", 20, 21, 30, 31)]).judge
    assert judge(seen(40, 41))
    assert not judge(seen(40, 41, READ))


def test_a_token_that_counts_after_its_own_end_is_found() -> None:
    lasting = replace(GRANT, closes=math.inf, closed_by=math.inf, limit=math.inf)
    token = seen(20, 21, READ, expires_at=30)
    judge = Rights([lasting], []).judge_introspection
    assert judge(Introspection(token, 30, 31, active=True))
    assert not judge(Introspection(token, 29.9, 31, active=True))


@dataclass(frozen=True)
class Truth:
    """When a grant was really there, and when that was read."""

    begins: float
    ends: float
    right: Right


@st.composite
def truths(draw: st.DrawFn) -> Truth:
    begins, lasts = draw(SECS), draw(st.floats(0.001, 60))
    limit = begins + lasts
    ends = draw(st.floats(begins, limit))
    revoked = ends < limit
    value = draw(st.sampled_from([READ, WRITE]))
    return Truth(
        begins,
        ends,
        Right(
            "ann",
            "db",
            frozenset({value}),
            opens=begins - draw(GAP),
            open_by=draw(st.one_of(st.just(math.inf), GAP.map(lambda gap: begins + gap))),
            closes=max(begins, ends - draw(GAP)) if revoked else limit,
            closed_by=min(limit, draw(st.one_of(st.just(math.inf), GAP.map(lambda gap: ends + gap)))),
            limit=limit,
            asked=begins,
        ),
    )


@st.composite
def intervals(draw: st.DrawFn) -> tuple[float, float, float]:
    """When a call was sent, judged by PostgreSQL and answered."""
    judged = draw(SECS)
    return judged - draw(GAP), judged, judged + draw(GAP)


def held(grants: list[Truth], at: float) -> frozenset[tuple[str, str]]:
    """What the service says at an instant if it is right."""
    return frozenset(value for grant in grants if grant.begins <= at < grant.ends for value in grant.right.values)


@given(st.lists(truths(), max_size=4), intervals())
def test_a_service_that_is_right_is_never_accused(grants: list[Truth], call: tuple[float, float, float]) -> None:
    sent, judged, received = call
    rights = Rights([grant.right for grant in grants], [])
    assert rights.judge(Sighting("ann", "db", sent, received, held(grants, judged))) == []


@given(st.lists(truths(), max_size=4), intervals(), st.sampled_from([READ, WRITE]))
def test_a_claim_that_no_grant_can_explain_is_always_found(
    grants: list[Truth], call: tuple[float, float, float], value: tuple[str, str]
) -> None:
    sent, judged, received = call
    rights = [grant.right for grant in grants]
    assume(not any(value in right.values and right.opens <= received and right.closed_by > sent for right in rights))
    assert Rights(rights, []).judge(Sighting("ann", "db", sent, received, held(grants, judged) | {value}))


@given(st.lists(truths(), min_size=1, max_size=4), intervals(), intervals())
def test_a_right_service_is_never_accused_for_its_introspection(
    grants: list[Truth], issued: tuple[float, float, float], asked: tuple[float, float, float]
) -> None:
    values = held(grants, issued[1])
    drawn_on = [grant for grant in grants if grant.begins <= issued[1] < grant.ends]
    expires_at = min((grant.right.limit for grant in drawn_on), default=issued[1] + 300)
    token = Sighting("ann", "db", issued[0], issued[2], values, expires_at)
    assume(asked[1] >= issued[1])
    active = asked[1] < expires_at and all(asked[1] < grant.ends for grant in drawn_on)
    rights = Rights([grant.right for grant in grants], [])
    assert rights.judge_introspection(Introspection(token, asked[0], asked[2], active)) == []
