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


class Verdict(StrEnum):
    """What was decided, as lists of requests show it (specification, Cancel and revoke)."""

    APPROVED = "approved"
    DENIED = "denied"
    CANCELLED = "cancelled"


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


def verdict(status: Status, *, decided: bool, granted: bool) -> Verdict | None:
    """What was decided; None where nothing was yet.

    A request that was taken back was cancelled and never approved; a grant that was revoked stays approved.

    Args:
        status: where the request stands.
        decided: `decided_by` is set: somebody decided other than its requester.
        granted: it has a time at which its grant ends, or ended.
    """
    if status is Status.DENIED:
        return Verdict.DENIED
    if granted:
        return Verdict.APPROVED
    return Verdict.CANCELLED if decided or status is Status.REVOKED else None
