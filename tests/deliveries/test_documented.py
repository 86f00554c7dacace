"""What docs/integrations.md shows works: the integrations, the message, and how it is verified."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from deliveries import send
from deliveries.webhook import cloud_event
from domain.deliveries import Outbound
from domain.events import Event
from domain.integrations import IntegrationValues, Target
from tests.deliveries.conftest import MakeEnvelope
from tests.deliveries.receiver import Receiver
from tests.documented import ROOT, blocks

PAGE = ROOT / "docs/integrations.md"
SHOWN: list[dict[str, Any]] = [json.loads(block) for block in blocks(PAGE, "json")]


def _shown_receiver() -> dict[str, Any]:
    [code] = blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - the page's example is what is tested
    return names


def test_integrations_can_be_made() -> None:
    made = [IntegrationValues.model_validate(shown) for shown in SHOWN if "target" in shown]
    assert [values.target for values in made] == [Target.WEBHOOK, Target.SLACK, Target.EMAIL]


def test_the_message_is_what_is_sent(envelope: MakeEnvelope) -> None:
    [shown] = [shown for shown in SHOWN if "specversion" in shown]
    assert shown == cloud_event(envelope(Event.APPROVED), "https://access.example.com")
    assert datetime.fromisoformat(shown["time"]).tzinfo == UTC


async def test_the_receiver_verifies_what_is_sent_once(
    receiver: Receiver, policy: Outbound, envelope: MakeEnvelope
) -> None:
    shown = _shown_receiver()
    for _ in range(2):
        await send(
            Target.WEBHOOK,
            {"url": receiver.url},
            {"signing_secrets": [shown["SECRET"]]},
            envelope(Event.APPROVED),
            recipient=None,
            role=None,
            policy=policy,
        )
    first, second = receiver.received
    event = shown["receive"](first.headers, first.body)
    assert (event["type"], event["data"]["decided_by"]) == ("access_request.approved", "bob@example.com")
    assert shown["receive"](second.headers, second.body) is None
    with pytest.raises(WebhookVerificationError):
        shown["receive"](first.headers, first.body.replace(b"bob", b"eve"))
