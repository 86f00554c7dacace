"""Webhooks: a CloudEvent (1.0, structured JSON), signed as Standard Webhooks says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from standardwebhooks import Webhook

from deliveries import posting
from domain.deliveries import Attempt, Envelope, Outbound

MEDIA_TYPE: Final = "application/cloudevents+json"


async def send(url: str, signing_secrets: list[str], envelope: Envelope, policy: Outbound) -> Attempt:
    """Make one attempt, signed with each of the secrets that are valid at the moment."""
    body = json.dumps(cloud_event(envelope, policy.source), ensure_ascii=False, separators=(",", ":"))
    headers = {"Content-Type": MEDIA_TYPE, **signed(str(envelope.delivery_id), body, signing_secrets)}
    return await posting.post(url, body.encode(), headers, policy)


def cloud_event(envelope: Envelope, source: str) -> dict[str, Any]:
    """The event as the body of a webhook; `id` is the same in all attempts, so that a receiver can drop repetitions."""
    return {
        "specversion": "1.0",
        "id": str(envelope.delivery_id),
        "source": source,
        "type": envelope.event,
        "subject": str(envelope.request.id),
        "time": envelope.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": envelope.payload,
    }


def signed(message_id: str, body: str, secrets: list[str]) -> dict[str, str]:
    """The headers of Standard Webhooks. The time is that of the attempt: receivers refuse what is old."""
    now = datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, now, body) for secret in secrets),
    }
