"""Integrations: what is told of lifecycle events, and how (specification, Lifecycle Events)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Target(StrEnum):
    """How an integration tells."""

    TASK = "task"
    WEBHOOK = "webhook"
    SLACK = "slack"
    EMAIL = "email"


class DeliveryStatus(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    """To be tried, for the first time or again."""
    DELIVERED = "delivered"
    PARKED = "parked"
    """Given up after all retries; it can be delivered again on demand."""
    DROPPED = "dropped"
    """Nobody needs it any more: a reminder of what has ended already."""


REMINDER: Final = "access_request.ending"
"""The event of a reminder before a grant ends. Not a lifecycle event: only the requester gets it, by email."""
