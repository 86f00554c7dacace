"""Integrations: what is told of lifecycle events, and how (specification, Lifecycle Events)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from domain.events import Event
from domain.text import STORABLE, UNTURNED, Name, one_line, storable

_LONGEST_URL: Final = 2000


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


class Role(StrEnum):
    """Why a person is written to."""

    APPROVER = "approver"
    """They can decide the request."""
    REQUESTER = "requester"
    """What came of their request."""
    HANDLED = "handled"
    """They were asked as well, and somebody else has decided."""
    REMINDER = "reminder"
    """Their access ends soon."""


REMINDER: Final = "access_request.ending"
"""The event of a reminder before a grant ends. Not a lifecycle event: only the requester gets it, by email."""


def _each_once(events: list[Event]) -> list[Event]:
    return [event for event in Event if event in events]


def _roles_once(roles: list[Role]) -> list[Role]:
    return [role for role in Role if role in roles]


def _secret_line(secret: SecretStr) -> SecretStr:
    one_line(storable(secret.get_secret_value()))
    return secret


class IntegrationFields(BaseModel):
    """What is set of an integration, and may be read."""

    name: Name = Field(description="Display name; no two integrations share one.", examples=["Tell the DBAs"])
    target: Target = Field(description="`task`, `webhook`, `slack` or `email`; cannot be changed later.")
    enabled: Annotated[bool, Field(strict=True)] | None = Field(
        default=None,
        description="False: nothing is made for it, and what waits to be sent is dropped. Left out of a replacement, "
        "it stays.",
    )
    events: Annotated[list[Event], Field(min_length=1, max_length=50), AfterValidator(_each_once)] = Field(
        description="The lifecycle events that it is told of.", examples=[["access_request.submitted"]]
    )
    template_id: UUID | None = Field(default=None, description="Only requests made from this template; null: all.")
    app_id: UUID | None = Field(default=None, description="Only requests for this application; null: all.")
    task_id: UUID | None = Field(default=None, description="`task`: the scheduled task to run.")
    url: (
        Annotated[
            str, StringConstraints(min_length=1, max_length=_LONGEST_URL), STORABLE, AfterValidator(one_line), UNTURNED
        ]
        | None
    ) = Field(default=None, description="`webhook`: where to send; https, on the public internet or an allowed host.")
    roles: Annotated[list[Role], Field(min_length=1, max_length=20), AfterValidator(_roles_once)] | None = Field(
        default=None,
        description="`email`: who is written to; left out, all. `approver`: who was asked; `requester`: what came of "
        "it; `handled`: who was asked as well, when another has decided; `reminder`: before an access ends, with "
        "`access_request.approved` among the events.",
    )


class IntegrationReplacement(IntegrationFields):
    """What an integration is to be from now on."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "Audit log",
                    "target": "webhook",
                    "events": ["access_request.approved", "access_request.revoked", "access_request.expired"],
                    "url": "https://audit.example.com/hooks/justiam",
                }
            ]
        },
    )

    slack_url: (
        Annotated[SecretStr, Field(min_length=1, max_length=_LONGEST_URL), AfterValidator(_secret_line)] | None
    ) = Field(
        default=None,
        description="`slack`: the URL of an incoming webhook. Never shown; left out of a replacement, it stays.",
    )

    @model_validator(mode="after")
    def _fits_its_target(self) -> Self:
        for name, target in (("task_id", Target.TASK), ("url", Target.WEBHOOK)):
            if (getattr(self, name) is not None) != (self.target is target):
                raise ValueError(f"{name} goes with target {target}, and only with that")
        for name, target in (("slack_url", Target.SLACK), ("roles", Target.EMAIL)):
            if getattr(self, name) is not None and self.target is not target:
                raise ValueError(f"{name} goes with target {target} only")
        return self

    @property
    def settings(self) -> dict[str, str | list[str]]:
        """What the target needs besides, and may be read."""
        match self.target:
            case Target.WEBHOOK:
                return {"url": self.url or ""}
            case Target.EMAIL:
                return {"roles": [role.value for role in self.roles or Role]}
        return {}


class IntegrationValues(IntegrationReplacement):
    """A binding from lifecycle events to somebody who is told of them."""

    enabled: Annotated[bool, Field(strict=True)] = Field(
        default=True, description="False: nothing is made for it, and what waits to be sent is dropped."
    )


def request_link(public_url: str | None, request_id: UUID) -> str | None:
    """The page that shows a request; None where the service does not know its own address."""
    return None if public_url is None else f"{public_url}/requests/{request_id}"
