"""One attempt, whatever the target."""

from __future__ import annotations

from typing import Any

from deliveries import mail, slack, webhook
from domain.deliveries import Attempt, Envelope, Outbound
from domain.integrations import Role, Target


async def send(
    target: Target,
    settings: dict[str, Any],
    secrets: dict[str, Any],
    envelope: Envelope,
    *,
    recipient: str | None,
    role: Role | None,
    policy: Outbound,
) -> Attempt:
    """Make one attempt.

    Args:
        target: how to tell.
        settings: of the integration; webhook: `url`.
        secrets: of the integration, opened; webhook: `signing_secrets`, the newest first; Slack: `url`.
        envelope: what to tell.
        recipient: the address to write to, for email.
        role: why this person is written to, for email.
        policy: what the operator says about messages that leave the house.

    Raises:
        ValueError: tasks are not sent, they are runs; or a mail without a recipient.
    """
    match target:
        case Target.WEBHOOK:
            return await webhook.send(settings["url"], secrets["signing_secrets"], envelope, policy)
        case Target.SLACK:
            return await slack.send(secrets["url"], envelope, policy)
        case Target.EMAIL if recipient is not None and role is not None:
            return await mail.send(recipient, role, envelope, policy)
    raise ValueError(f"Nothing can be sent to this target: {target}")
