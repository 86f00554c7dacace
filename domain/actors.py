"""Who acts when it is not a person, and how system groups and workflows are named."""

from __future__ import annotations

from enum import StrEnum
from typing import Final
from uuid import UUID


class SystemActor(StrEnum):
    """The service itself, named by the reason it acts for; stored in `decided_by` and `ended_by`."""

    AUTO = "system:auto"
    """An auto-approved template."""
    OPERATOR = "system:operator"
    """Somebody cancelled the workflow in Temporal."""
    DEACTIVATED = "system:deactivated"
    """The requester was deactivated."""
    EXPIRY = "system:expiry"
    """The end of the granted time."""
    ESCALATION = "system:escalation"
    """The escalation timer, or a request that nobody else could decide."""
    TRIGGER = "system:trigger"
    """The task that has to succeed before an approval."""


class Permission(StrEnum):
    """What membership in a group may bring besides claims (design, section 4)."""

    REQUESTS = "access_requests.manage"
    DIRECTORY = "directory.manage"
    TASKS = "tasks.manage"


TEMPORARY_GROUP_PREFIX: Final = "__access_req_"


def temporary_group_name(request_id: UUID) -> str:
    """The name of the group that carries a grant (specification, Concepts)."""
    return f"{TEMPORARY_GROUP_PREFIX}{request_id}"


def temporary_group_id(drawn: UUID) -> UUID:
    """A random id as the id of a temporary group, which is one by its version: 8 (RFC 9562, section 5.8)."""
    return UUID(int=drawn.int & ~(0xF << 76) | 8 << 76)


def workflow_id(request_id: UUID) -> str:
    """The id of the one workflow of a request."""
    return f"access-request-{request_id}"
