"""What a template says (specification, Arguments). The same values, frozen at submission, travel with a request."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from domain.custom_fields import CustomField, refuse_ambiguous
from domain.errors import Invalid
from domain.lists import DISTINCT, distinct
from domain.text import LongText, Name


class NotificationPolicy(StrEnum):
    """Who is told of a new request (specification, Notification Policies)."""

    ALL = "all"
    FIRST_N = "first_n"
    RANDOM_N = "random_n"
    ROUND_ROBIN = "round_robin"


class TriggerFailureMode(StrEnum):
    """What a failing trigger task means for the request (specification, Trigger Tasks)."""

    IGNORE = "ignore"
    RETRY = "retry"
    BLOCK = "block"


Ids = Annotated[list[UUID], Field(max_length=200, json_schema_extra=DISTINCT), AfterValidator(distinct)]
Durations = Annotated[
    list[Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]],
    Field(max_length=50, json_schema_extra=DISTINCT),
    AfterValidator(distinct),
]


class TemplateValues(BaseModel):
    """Everything an administrator sets. Minutes are whole minutes."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="Display name.", examples=["Database read-only access"])
    description: LongText = Field(default="", description="Shown to requesters.")
    app_id: UUID = Field(description="Application that access is granted to; cannot be changed later.")
    mapping_ids: Ids = Field(default_factory=list, description="App mappings to grant, all of this application.")
    allowed_durations: Durations = Field(
        default_factory=list,
        description="Durations to choose from, in minutes. Empty: any whole minute up to the server's maximum.",
        examples=[[60, 240, 480]],
    )
    approver_group_ids: Ids = Field(
        default_factory=list,
        description="Groups whose current members decide. Empty: holders of `access_requests.manage` decide.",
    )
    allowed_group_ids: Ids = Field(
        default_factory=list, description="Groups whose members may submit requests. Empty: anyone."
    )
    prefer_requester_groups: bool = Field(
        default=False, description="Notify those first who share a group with the requester."
    )
    require_justification: bool = Field(default=True, description="Refuse a submission without a justification.")
    auto_approve: bool = Field(default=False, description="Approve at once, decided by `system:auto`.")
    notification_policy: NotificationPolicy = Field(
        default=NotificationPolicy.ALL, description="Which approvers are notified of a new request."
    )
    notification_count: int = Field(
        default=1, ge=1, le=1000, strict=True, description="How many, for `first_n`, `random_n` and `round_robin`."
    )
    escalation_after_mins: int | None = Field(
        default=None,
        ge=1,
        le=525_600,
        strict=True,
        description="Minutes after which a pending request is escalated. Null: never.",
    )
    escalation_group_id: UUID | None = Field(
        default=None,
        description="Group that may decide too once escalated; at once where nobody else could. Null: administrators.",
    )
    custom_fields: Annotated[list[CustomField], Field(max_length=50), AfterValidator(refuse_ambiguous)] = Field(
        default_factory=list, description="Extra questions at submission."
    )
    trigger_task_id: UUID | None = Field(default=None, description="Script task to fire on every status change.")
    trigger_task_failure_mode: TriggerFailureMode = Field(
        default=TriggerFailureMode.IGNORE,
        description="What a failure of that task means. `ignore`: nothing, and it is not repeated; `retry`: it is "
        "repeated as the task says; `block`: before an approval it has to succeed, once, within 30 s or the task's "
        "own `timeout_seconds`, whichever is less; for all other events as `ignore`.",
    )

    @field_validator("escalation_group_id")
    @classmethod
    def _another_group(cls, group_id: UUID | None, others: ValidationInfo) -> UUID | None:
        if group_id is not None and group_id in others.data.get("approver_group_ids", []):
            raise ValueError("must not be one of approver_group_ids: escalating would change nothing")
        return group_id


class GrantedMapping(BaseModel):
    """A claim that the grant adds for the application."""

    id: UUID
    name: str
    claim: str
    value: str


class Snapshot(TemplateValues):
    """The template as it was at submission: a later edit can neither widen nor break what was asked for."""

    mappings: list[GrantedMapping] = Field(default_factory=list)


def check_duration(minutes: int, allowed: list[int], longest: int) -> None:
    """Hold a requested duration to the template.

    Raises:
        Invalid: it is not among `allowed` or, where that is empty, not a whole minute from 1 to `longest`.
    """
    if allowed and minutes not in allowed:
        choices = ", ".join(str(choice) for choice in sorted(allowed))
        raise Invalid(("requested_duration_mins", f"must be one of the allowed durations: {choices} minutes"))
    if not allowed and not 1 <= minutes <= longest:
        raise Invalid(("requested_duration_mins", f"must be between 1 and {longest} minutes"))
