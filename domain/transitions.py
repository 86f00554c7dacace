"""What travels between the workflow, its activities and its callers: one model in, one model out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from domain.actors import SystemActor
from domain.states import OPEN, Action, Status
from domain.tasks import BlockingRun
from domain.text import STORABLE


class AccessRequestResult(BaseModel):
    """How it ended. `status` is null where the record does not know the request."""

    request_id: str
    status: Status | None
    decided_by: str | None = None
    ended_by: str | None = None


_SignalText = Annotated[str, StringConstraints(max_length=10_000), STORABLE]
"""Text of a signal. Workflows are replayed with what was accepted once, so that the rule is no stricter than it was
then; what such text must not do is taken out of it where it is written to the record (`made_harmless`)."""


class Decision(BaseModel):
    """The input of `approve`, `deny` and `revoke`, as update and as signal."""

    model_config = ConfigDict(extra="forbid")

    actor: Annotated[str, StringConstraints(max_length=1000), STORABLE] | None = Field(
        default=None, description="Email address or id of who acts. Counts without a proof in development only."
    )
    comment: _SignalText = Field(default="", description="Shown with the decision.")
    proof: _SignalText | None = Field(
        default=None, description="From POST /access-requests/{id}/signal-proofs; names the actor beyond doubt."
    )


class Channel(StrEnum):
    """How a step reached the workflow."""

    UPDATE = "update"
    SIGNAL = "signal"
    SYSTEM = "system"


class Transition(BaseModel):
    """A step to carry out on the record."""

    request_id: UUID
    action: Action
    channel: Channel
    at: datetime
    """The workflow's time; every rule of the step judges by it."""
    key: str
    """Idempotency key within the request; a proof's `jti` takes its place."""
    actor: str | None = None
    comment: str = ""
    proof: str | None = None


@dataclass(frozen=True)
class ServiceStep:
    """A step that the service takes by itself, once per `key`."""

    action: Action
    actor: SystemActor
    key: str


class Refused(BaseModel):
    """An attempt that was refused before it became a transition, to be written to the timeline."""

    request_id: UUID
    at: datetime | None
    """None: the database's now."""
    key: str
    action: str
    code: str
    reason: str
    actor: str | None = None
    """Email address of who tried, where that is certain."""


class RequestState(BaseModel):
    """What the workflow knows of its request, and what the `state` query answers."""

    request_id: UUID
    status: Status
    template_name: str
    app_name: str
    requester_email: str
    requester_active: bool = True
    requested_duration_mins: int
    auto_approve: bool = False
    approval_blocks: bool = False
    """A task has to succeed before the request is approved."""
    waiting_for: list[str] = Field(default_factory=list)
    """Names of the groups that may decide."""
    decidable: bool = True
    """Somebody who was asked can decide."""
    created_at: datetime
    escalates_at: datetime | None = None
    escalated_at: datetime | None = None
    admins_decide: bool = False
    decided_by: str | None = None
    decided_at: datetime | None = None
    expires_at: datetime | None = None
    ended_by: str | None = None
    ended_at: datetime | None = None
    refusals: int = 0
    """Refused signals and decisions in the timeline so far."""

    @property
    def is_open(self) -> bool:
        """Pending or approved: the workflow goes on."""
        return self.status in OPEN

    @property
    def duration(self) -> timedelta:
        """How long a grant lasts from its decision."""
        return timedelta(minutes=self.requested_duration_mins)


class AccessRequestInput(BaseModel):
    """All a workflow needs to start, or to start again: the rest is in the record."""

    request_id: UUID
    state: RequestState | None = None
    """The request as its submission committed it, which spares the first look at the record.

    A hint: it serves to wait for decisions. Everyone who may write to the namespace can start a workflow with another
    one, so the workflow loads the record before it takes a step by itself, and the transition judges each step by the
    record. None: the workflow begins with the record."""


class Outcome(BaseModel):
    """What became of a step. The workflow adopts `state` whatever it says: the record may be ahead of it."""

    state: RequestState | None
    """None where the record knows no such request."""
    refusal: str | None = None
    """The code of the error, where the step was refused."""
    detail: str = ""
    actor: str | None = None
    """Email address of the person whose approval a task blocked, where a proof verified it."""


class BlockBegun(BaseModel):
    """What became of an approval that has to wait for a task."""

    outcome: Outcome
    run: BlockingRun | None = None
    """None where `outcome` says all."""
    holder: str = ""
    actor: str | None = None
    """Email address of the person who approves, where a proof verified it."""


REFUSALS_KEPT = 100
"""Refused attempts written to one request's timeline; what comes after is refused without a trace."""
