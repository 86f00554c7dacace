"""A lifecycle event on its way to one recipient: what is sent, what comes of an attempt, when the next one is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from domain.addresses import HostName
from domain.integrations import Role, Target

RESPONSE_HEAD_BYTES: Final = 1024
"""As much of an answer as is read, and kept."""

PAUSES: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 30, 2 * 60, 10 * 60, 30 * 60, 3_600, 2 * 3_600, 4 * 3_600, 8 * 3_600, 8 * 3_600)
)
"""Between a failed attempt and the next: together a day, after which the delivery is parked."""

MOST_ATTEMPTS: Final = len(PAUSES) + 1
_JITTER: Final = 0.2
"""So that what failed together is not tried again together."""


class DeliveryInput(BaseModel):
    """All that a delivery's workflow needs to start, or to start again: the rest is in the record."""

    delivery_id: UUID


class DeliveryNext(BaseModel):
    """What follows an attempt."""

    pause_seconds: float | None = None
    """Until the next; null: there is none."""


class Contact(BaseModel):
    """Somebody, as messages name them."""

    email: str
    name: str


class RequestFacts(BaseModel):
    """What messages say about a request, as it is when they are sent."""

    id: UUID
    template_name: str
    app_name: str
    requester: Contact
    requested_duration_mins: int
    justification: str
    approvers: list[Contact]
    """Who was notified."""
    status: str
    decided_by: str | None = None
    decision_comment: str | None = None
    expires_at: datetime | None = None
    ended_by: str | None = None
    mappings: list[str] = Field(default_factory=list)
    """What is asked for, in words: the names of the mappings."""
    link: str | None = None
    """The page that shows the request; None where the service does not know its own address."""


@dataclass(frozen=True)
class Envelope:
    """One delivery."""

    delivery_id: UUID
    """The same in all attempts, so that a receiver can tell a repetition."""
    event: str
    at: datetime
    """When it happened."""
    payload: dict[str, Any]
    """Exactly the keys of the specification (Lifecycle Events)."""
    request: RequestFacts


@dataclass(frozen=True)
class Outgoing:
    """What one attempt needs. It has secrets: never in a workflow's history."""

    target: Target
    settings: dict[str, Any]
    secrets: dict[str, Any]
    envelope: Envelope
    recipient: str | None
    role: Role | None


class Attempt(BaseModel):
    """What came of an attempt."""

    delivered: bool
    response_status: int | None = Field(default=None, description="The status that the receiver answered with.")
    response_head: str | None = Field(default=None, description="The first KiB of its answer.")
    latency_ms: int = Field(default=0, description="How long it took.")
    error: str | None = Field(default=None, description="What went wrong, in a sentence; null where it was delivered.")
    retryable: bool = Field(default=False, description="Whether another attempt could succeed.")
    retry_after_secs: int | None = Field(default=None, description="When the receiver wants to be asked again.")


class Smtp(BaseModel):
    """The mail server."""

    model_config = ConfigDict(frozen=True)

    host: HostName
    port: int = 587
    username: str | None = None
    password: SecretStr | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"
    sender: str
    """The `From` of all messages: an address, with or without a name."""


class Outbound(BaseModel):
    """What the operator says about messages that leave the house."""

    model_config = ConfigDict(frozen=True)

    allowed_internal_hosts: frozenset[str] = frozenset()
    """`host` or `host:port`, in lower case: reached at any address, and over plain HTTP if the URL says so."""
    source: str = "urn:justiam:access-requests"
    """Who sends: the service's public URL where it has one."""
    smtp: Smtp | None = None
    timeout_secs: float = 15.0
    """For one attempt, all of it."""


def pause_after(attempts: int, chance: Random, *, wanted_secs: int | None = None) -> timedelta | None:
    """How long to wait after the failure of an attempt.

    Args:
        attempts: how many were made.
        chance: for the jitter.
        wanted_secs: what the receiver asked for; no less than the usual pause, no more than the longest.

    Returns:
        None where it was the last.
    """
    if attempts >= MOST_ATTEMPTS:
        return None
    pause = PAUSES[max(attempts, 1) - 1] * chance.uniform(1 - _JITTER, 1 + _JITTER)
    return pause if wanted_secs is None else max(pause, min(timedelta(seconds=wanted_secs), PAUSES[-1]))
