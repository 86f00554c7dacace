"""Receivers on this machine, and something to send."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from domain.deliveries import Contact, Envelope, Outbound, RequestFacts
from domain.events import Event
from tests.deliveries.receiver import Receiver, receiving

MakeEnvelope = Callable[..., Envelope]

REQUEST_ID = UUID("7d3a0c66-6f0e-4f5c-9d57-0a2f2c6a6b01")
DELIVERY_ID = UUID("5f6f2f57-2d0c-4f2f-8f0f-1b8b9a3f7c02")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def policy(receiver: Receiver) -> Outbound:
    """Lets the receiver be reached, and nothing else on this machine."""
    return Outbound(
        allowed_internal_hosts=frozenset({receiver.authority}), source="https://access.example.com", timeout_secs=5
    )


@pytest.fixture
def envelope() -> MakeEnvelope:
    def make(event: str = Event.SUBMITTED, **facts: Any) -> Envelope:
        request = {
            "id": REQUEST_ID,
            "template_name": "Database read-only access",
            "app_name": "Internal DB",
            "requester": Contact(email="alice@example.com", name="Alice Ardent"),
            "requested_duration_mins": 480,
            "justification": "An incident: customers cannot pay",
            "approvers": [
                Contact(email="bob@example.com", name="Bob Brown"),
                Contact(email="carol@example.com", name="Carol Castle"),
            ],
            "status": "pending",
            "mappings": ["DB read-only role"],
            "link": f"https://access.example.com/requests/{REQUEST_ID}",
        }
        payload = {
            "request_id": str(REQUEST_ID),
            "template_name": "Database read-only access",
            "requester_email": "alice@example.com",
        }
        if event in {Event.APPROVED, Event.DENIED}:
            payload["decided_by"] = facts.setdefault("decided_by", "bob@example.com")
        return Envelope(
            delivery_id=DELIVERY_ID,
            event=event,
            at=datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
            payload=payload,
            request=RequestFacts.model_validate({**request, **facts}),
        )

    return make
