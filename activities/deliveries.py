"""Attempts at deliveries: what leaves the house for a webhook, Slack or a mailbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from temporalio import activity

from activities.heartbeats import beating
from db import deliveries
from db.database import Database
from db.secrets import SecretVault
from deliveries.sending import send
from domain.deliveries import DeliveryInput, DeliveryNext, Outbound
from telemetry import metrics
from workflows import names

_log = structlog.get_logger(__name__)


class DeliveryActivities:
    """Makes attempts at deliveries; which, and whether at all, the record says."""

    def __init__(self, db: Database, vault: SecretVault, policy: Outbound, public_url: str | None) -> None:
        self._db = db
        self._vault = vault
        self._policy = policy
        self._public_url = public_url

    @property
    def all(self) -> list[Callable[..., Any]]:
        """For the worker."""
        return [self.deliver]

    @activity.defn(name=names.DELIVER)
    async def deliver(self, start: DeliveryInput) -> DeliveryNext:
        """One attempt. Whoever may schedule activities here can at most have a delivery tried that is due."""
        async with beating():
            return await self._attempt(start.delivery_id)

    async def _attempt(self, delivery_id: UUID) -> DeliveryNext:
        outgoing = await deliveries.begin(self._db, self._vault, delivery_id, public_url=self._public_url)
        if outgoing is None:
            return DeliveryNext()
        attempt = await send(
            outgoing.target,
            outgoing.settings,
            outgoing.secrets,
            outgoing.envelope,
            recipient=outgoing.recipient,
            role=outgoing.role,
            policy=self._policy,
        )
        metrics.DELIVERIES.labels(outgoing.target.value, "delivered" if attempt.delivered else "failed").inc()
        pause = await deliveries.finish(self._db, delivery_id, attempt)
        _log.info(
            "delivery_attempted",
            delivery_id=str(delivery_id),
            target=outgoing.target.value,
            delivered=attempt.delivered,
            error=attempt.error,
        )
        return DeliveryNext(pause_seconds=None if pause is None else pause.total_seconds())
