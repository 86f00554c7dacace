"""The steps between states are exactly those of the diagram (design, section 2)."""

from __future__ import annotations

from itertools import product

from domain.states import OPEN, Action, Status, after

DIAGRAM = {
    (Status.PENDING, Action.APPROVE): Status.APPROVED,
    (Status.PENDING, Action.DENY): Status.DENIED,
    (Status.PENDING, Action.REVOKE): Status.REVOKED,
    (Status.PENDING, Action.ESCALATE): Status.PENDING,
    (Status.APPROVED, Action.REVOKE): Status.REVOKED,
    (Status.APPROVED, Action.EXPIRE): Status.EXPIRED,
}


def test_every_pair_of_state_and_step_leads_where_the_diagram_says() -> None:
    for status, action in product(Status, Action):
        assert after(status, action) is DIAGRAM.get((status, action))


def test_what_is_closed_stays_closed() -> None:
    for status in set(Status) - OPEN:
        assert all(after(status, action) is None for action in Action)
