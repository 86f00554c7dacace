"""Who may decide, end and read (design, section 2), over every combination of facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import product
from uuid import uuid4

import pytest

from domain.actors import Permission
from domain.deciding import Asked, Person, Standing, may_decide, may_do, may_read, may_revoke, why_not
from domain.states import Action, Status

NOBODY = Standing(
    active=True,
    is_requester=False,
    in_approver_group=False,
    in_escalation_group=False,
    is_admin=False,
    escalated=False,
    admins_decide=False,
)


def _all() -> Iterator[Standing]:
    for facts in product([True, False], repeat=len(fields(Standing))):
        yield Standing(*facts)


class TestDeciding:
    def test_the_requester_never_decides_whatever_else_they_are(self) -> None:
        assert not any(may_decide(standing) for standing in _all() if standing.is_requester)

    def test_somebody_deactivated_may_nothing(self) -> None:
        for standing in _all():
            if not standing.active:
                assert not may_decide(standing)
                assert not may_read(standing)
                assert not any(may_revoke(standing, status) for status in Status)

    def test_approvers_decide_escalated_or_not(self) -> None:
        for escalated in (True, False):
            assert may_decide(replace(NOBODY, in_approver_group=True, escalated=escalated))

    def test_the_escalation_group_decides_once_asked(self) -> None:
        assert not may_decide(replace(NOBODY, in_escalation_group=True))
        assert may_decide(replace(NOBODY, in_escalation_group=True, escalated=True))

    def test_admins_decide_only_what_falls_to_them(self) -> None:
        assert not may_decide(replace(NOBODY, is_admin=True, escalated=True))
        assert may_decide(replace(NOBODY, is_admin=True, admins_decide=True))

    def test_who_was_not_asked_does_not_decide(self) -> None:
        for escalated, admins_decide in product([True, False], repeat=2):
            assert not may_decide(replace(NOBODY, escalated=escalated, admins_decide=admins_decide))

    @pytest.mark.parametrize("action", [Action.EXPIRE, Action.ESCALATE])
    def test_nobody_takes_the_steps_of_the_service(self, action: Action) -> None:
        assert not any(may_do(action, standing, status) for standing in _all() for status in Status)


class TestRevoking:
    def test_requester_and_admin_end_at_any_time(self) -> None:
        for status in Status:
            assert may_revoke(replace(NOBODY, is_requester=True), status)
            assert may_revoke(replace(NOBODY, is_admin=True), status)

    def test_approvers_end_grants_but_do_not_cancel(self) -> None:
        approver = replace(NOBODY, in_approver_group=True)
        assert may_revoke(approver, Status.APPROVED)
        assert not may_revoke(approver, Status.PENDING)


class TestEverything:
    """Every combination of facts and states, held to the sentences of the design as one would say them."""

    @pytest.mark.parametrize("status", Status)
    def test_is_as_the_design_says(self, status: Status) -> None:
        for facts in _all():
            asked = {
                "approver": facts.in_approver_group,
                "manager": facts.in_escalation_group and facts.escalated,
                "admin": facts.is_admin and facts.admins_decide,
            }
            decides = facts.active and any(asked.values()) and not facts.is_requester
            ends_anything = facts.active and (facts.is_requester or facts.is_admin)
            revokes = ends_anything or (decides and status is not Status.PENDING)
            assert may_do(Action.APPROVE, facts, status) is may_do(Action.DENY, facts, status) is decides
            assert may_do(Action.REVOKE, facts, status) is revokes
            assert may_read(facts) is (ends_anything or decides)

    def test_nobody_may_do_what_they_may_not_read(self) -> None:
        for facts, action, status in product(_all(), Action, Status):
            assert may_read(facts) or not may_do(action, facts, status)

    def test_more_standing_never_takes_a_right_away_but_that_of_the_requester_to_decide(self) -> None:
        for facts, action, status in product(_all(), Action, Status):
            if may_do(action, facts, status):
                for more in ("in_approver_group", "in_escalation_group", "is_admin", "escalated", "admins_decide"):
                    assert may_do(action, replace(facts, **{more: True}), status)


class TestReading:
    def test_is_for_requester_deciders_and_admins(self) -> None:
        for standing in _all():
            expected = standing.active and (standing.is_requester or standing.is_admin or may_decide(standing))
            assert may_read(standing) is expected


class TestStanding:
    def test_a_service_account_and_its_owner_are_one(self) -> None:
        owner = uuid4()
        group = uuid4()
        robot = Person(uuid4(), "robot@example.com", "Robot", True, owner, frozenset({group}), frozenset())  # noqa: FBT003
        asked = Asked(owner, frozenset({group}), None, escalated=False, admins_decide=False)
        standing = Standing.of(robot, asked)
        assert standing.is_requester
        assert not may_decide(standing)

    def test_a_request_without_escalation_group_has_nobody_in_it(self) -> None:
        person = Person(uuid4(), "a@example.com", "A", True, uuid4(), frozenset(), frozenset())  # noqa: FBT003
        asked = Asked(uuid4(), frozenset(), None, escalated=True, admins_decide=False)
        assert not Standing.of(person, asked).in_escalation_group

    def test_a_permission_of_somebody_deactivated_counts_for_nothing(self) -> None:
        permissions = frozenset({Permission.REQUESTS})
        person = Person(uuid4(), "a@example.com", "A", False, uuid4(), frozenset(), permissions)  # noqa: FBT003
        assert not person.is_admin


class TestRefusal:
    def test_says_what_stands_in_the_way(self) -> None:
        assert "their own request" in why_not(Action.APPROVE, replace(NOBODY, is_requester=True))
        assert "approver groups" in why_not(Action.DENY, NOBODY)
        assert "requester or an administrator" in why_not(Action.REVOKE, NOBODY)
        assert "deactivated" in why_not(Action.APPROVE, replace(NOBODY, active=False))
