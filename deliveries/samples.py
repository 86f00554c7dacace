"""An event of a request that does not exist, to see whether an integration works."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from domain import events
from domain.deliveries import Contact, Envelope, RequestFacts
from domain.events import Event
from domain.integrations import Role
from domain.states import Status

_TEMPLATE: Final = "Test of the integration"
_REQUEST_ID: Final = UUID(int=0)
_MINUTES: Final = 60
_STATUS_AFTER: Final = {
    Event.APPROVED: Status.APPROVED,
    Event.DENIED: Status.DENIED,
    Event.REVOKED: Status.REVOKED,
    Event.EXPIRED: Status.EXPIRED,
}


def sample(event: Event, delivery_id: UUID, at: datetime, asked_by: Contact) -> Envelope:
    """An event as it would be sent, and that says of itself that it is a test."""
    decided_by = asked_by.email if event in {Event.APPROVED, Event.DENIED} else None
    granted = event in {Event.APPROVED, Event.REVOKED, Event.EXPIRED}
    return Envelope(
        delivery_id=delivery_id,
        event=event,
        at=at,
        payload=dict(
            events.payload(
                event,
                request_id=str(_REQUEST_ID),
                template_name=_TEMPLATE,
                requester_email=asked_by.email,
                notified_approvers=[asked_by.email],
                decided_by=decided_by,
            )
        ),
        request=RequestFacts(
            id=_REQUEST_ID,
            template_name=_TEMPLATE,
            app_name="No application",
            requester=asked_by,
            requested_duration_mins=_MINUTES,
            justification="This is a test that somebody sent. There is no such request, and nothing to do.",
            approvers=[asked_by],
            status=_STATUS_AFTER.get(event, Status.PENDING),
            decided_by=decided_by,
            expires_at=at + timedelta(minutes=_MINUTES) if granted else None,
            ended_by=asked_by.email if event is Event.REVOKED else None,
        ),
    )


def role_of(event: Event, roles: list[Role]) -> Role:
    """As whom to write to somebody about this event; one of `roles` where that fits."""
    asked = event in {Event.SUBMITTED, Event.ESCALATED}
    fitting = [Role.APPROVER] if asked else [Role.REQUESTER, Role.HANDLED]
    return next((role for role in fitting if role in roles), fitting[0])
