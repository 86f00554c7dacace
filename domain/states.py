"""The states of a request and the steps between them (design, section 2).

    pending ──approve──▶ approved ──timer──▶ expired
       │  └─deny──▶ denied       └──revoke──▶ revoked
       └──revoke──▶ revoked

Escalation is not a state: it adds people who may decide.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """Where a request stands."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REVOKED = "revoked"
    EXPIRED = "expired"


class Action(StrEnum):
    """What can be done to a request after its submission."""

    APPROVE = "approve"
    DENY = "deny"
    REVOKE = "revoke"
    ESCALATE = "escalate"
    EXPIRE = "expire"


OPEN: Final = frozenset({Status.PENDING, Status.APPROVED})
"""A request in one of these has a running workflow."""

PEOPLES_ACTIONS: Final = frozenset({Action.APPROVE, Action.DENY, Action.REVOKE})
"""What people and scripts may ask for; the rest belongs to the timers."""

_STEPS: Final[dict[tuple[Status, Action], Status]] = {
    (Status.PENDING, Action.APPROVE): Status.APPROVED,
    (Status.PENDING, Action.DENY): Status.DENIED,
    (Status.PENDING, Action.REVOKE): Status.REVOKED,
    (Status.PENDING, Action.ESCALATE): Status.PENDING,
    (Status.APPROVED, Action.REVOKE): Status.REVOKED,
    (Status.APPROVED, Action.EXPIRE): Status.EXPIRED,
}


def after(status: Status, action: Action) -> Status | None:
    """The status that `action` leads to from `status`, or None where the step does not exist."""
    return _STEPS.get((status, action))
