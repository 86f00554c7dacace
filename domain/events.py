"""Lifecycle events: their names and exactly the payload keys of the specification (Lifecycle Events)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from domain.states import Action


class Event(StrEnum):
    """What integrations and scripts are told."""

    SUBMITTED = "access_request.submitted"
    APPROVED = "access_request.approved"
    DENIED = "access_request.denied"
    REVOKED = "access_request.revoked"
    EXPIRED = "access_request.expired"
    ESCALATED = "access_request.escalated"


EVENT_OF: Final[dict[Action, Event]] = {
    Action.APPROVE: Event.APPROVED,
    Action.DENY: Event.DENIED,
    Action.REVOKE: Event.REVOKED,
    Action.ESCALATE: Event.ESCALATED,
    Action.EXPIRE: Event.EXPIRED,
}

Payload = dict[str, str | list[str] | None]


def payload(
    event: Event,
    *,
    request_id: str,
    template_name: str,
    requester_email: str,
    notified_approvers: list[str] | None = None,
    decided_by: str | None = None,
) -> Payload:
    """The payload of `event`; `notified_approvers` are email addresses, `decided_by` an email or a system actor."""
    keys: Payload = {
        "request_id": request_id,
        "template_name": template_name,
        "requester_email": requester_email,
    }
    if event is Event.SUBMITTED:
        keys["notified_approvers"] = notified_approvers or []
    if event in {Event.APPROVED, Event.DENIED}:
        keys["decided_by"] = decided_by
    return keys
