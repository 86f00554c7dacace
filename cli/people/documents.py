"""The API's JSON as far as the commands read it. Fields that a newer service adds do no harm."""

from __future__ import annotations

from typing import Any, Generic, TypedDict, TypeVar

T = TypeVar("T")


class Page(TypedDict, Generic[T]):
    """A part of a list, newest first."""

    items: list[T]
    next_cursor: str | None


class Person(TypedDict):
    """A person as others see them."""

    id: str
    email: str
    name: str


class Group(TypedDict):
    """A group by name."""

    id: str
    name: str


class HeldGroup(Group):
    """A group that somebody is in."""

    system: bool
    expires_at: str | None


class Me(Person):
    """Who calls."""

    owner_id: str | None
    permissions: list[str]
    groups: list[HeldGroup]


class Field(TypedDict):
    """A custom field of a template."""

    id: str
    label: str
    type: str
    required: bool
    placeholder: str
    options: list[str]


class Template(TypedDict):
    """What can be asked for."""

    id: str
    name: str
    description: str
    app_name: str
    mapping_ids: list[str]
    allowed_durations: list[int]
    approver_group_ids: list[str]
    allowed_group_ids: list[str]
    require_justification: bool
    auto_approve: bool
    escalation_after_mins: int | None
    escalation_group_id: str | None
    custom_fields: list[Field]


class Mapping(TypedDict):
    """A claim that a grant adds."""

    id: str
    name: str
    claim: str
    value: str


class Request(TypedDict):
    """An access request."""

    id: str
    status: str
    template_id: str | None
    template_name: str
    app_id: str | None
    app_name: str
    requester: Person
    requested_duration_mins: int
    justification: str
    custom_answers: dict[str, Any]
    custom_fields: list[Field]
    mappings: list[Mapping]
    approver_groups: list[Group]
    admins_decide: bool
    notified_approvers: list[Person]
    decided_by: str | None
    decided_at: str | None
    decision_comment: str | None
    created_at: str
    escalates_at: str | None
    escalated_at: str | None
    expires_at: str | None
    ended_at: str | None
    ended_by: str | None


class TimelineEntry(TypedDict):
    """Something that happened to a request."""

    id: int
    at: str
    kind: str
    actor: str
    verified: bool
    detail: dict[str, Any]


class Message(TypedDict):
    """A line of a request's discussion."""

    id: str
    author: Person
    body: str
    created_at: str
