"""The audit log: what an entry says, and how entries are chained (docs/audit-log.md)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, Field

from domain.actors import Permission
from domain.deciding import Person
from domain.errors import Forbidden


class Change(StrEnum):
    """What was done to something."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


class Kind(StrEnum):
    """What was changed, by the name of its table."""

    USERS = "users"
    IDENTITIES = "user_identities"
    TOKENS = "api_tokens"
    GROUPS = "groups"
    MEMBERS = "group_members"
    APPLICATIONS = "applications"
    MAPPINGS = "app_mappings"
    MAPPING_GROUPS = "app_mapping_groups"
    SIGNING_KEYS = "signing_keys"
    TEMPLATES = "access_request_templates"
    TASKS = "scheduled_tasks"
    INTEGRATIONS = "integrations"
    SECRETS = "secrets"


READABLE_WITH: Final[dict[Kind, Permission]] = {
    Kind.TEMPLATES: Permission.REQUESTS,
    Kind.TASKS: Permission.TASKS,
    Kind.INTEGRATIONS: Permission.TASKS,
    Kind.SECRETS: Permission.TASKS,
    **dict.fromkeys(
        (
            Kind.USERS,
            Kind.IDENTITIES,
            Kind.TOKENS,
            Kind.GROUPS,
            Kind.MEMBERS,
            Kind.APPLICATIONS,
            Kind.MAPPINGS,
            Kind.MAPPING_GROUPS,
            Kind.SIGNING_KEYS,
        ),
        Permission.DIRECTORY,
    ),
}
"""Whoever manages something may read how it was changed."""


def readable(person: Person, kind: Kind | None = None) -> list[Kind]:
    """Of what somebody may read the log: all that they manage, or this one thing.

    Raises:
        Forbidden: they do not manage it, or manage nothing.
    """
    kinds = [each for each, permission in READABLE_WITH.items() if person.holds(permission)]
    if not kinds or (kind is not None and kind not in kinds):
        raise Forbidden("The audit log of something is for whoever may manage it.")
    return sorted(kinds) if kind is None else [kind]


class AuditEntry(BaseModel):
    """One change. Times are UTC."""

    id: int = Field(description="Counts from 1, without a gap.")
    at: datetime
    actor: str = Field(
        description="Who: an email address; `operator:…` for a command; `issuer:…` for the word of an OpenID Connect "
        "issuer; `system:…` for the service itself; `database:…` for whoever changed the tables by themselves."
    )
    request_id: str | None = Field(description="`X-Request-Id` of the call, which its lines in the log have as well.")
    action: Change
    kind: Kind
    object_id: str = Field(description="Id of what was changed; of a membership, both its ids with a slash.")
    before: dict[str, Any] | None = Field(description="Null where it is new. What nobody may read is `(hidden)`.")
    after: dict[str, Any] | None = Field(description="Null where it was deleted.")
    hash: str = Field(description="SHA-256 in hexadecimal, of this entry and the hash of the one before.")
    unreadable: bool = Field(
        default=False,
        description="The entry was changed in the database so that it cannot be read: `before` and `after` are not "
        "known, and the rest is what the log is searched by. `justiam audit verify` says where the log does not hold.",
    )


_SAID: Final = AuditEntry.model_fields.keys() - {"hash", "unreadable"}


@dataclass(frozen=True)
class Link:
    """An entry as it is stored."""

    id: int
    entry: str
    """Canonical text: what is hashed."""
    columns: dict[str, str]
    """What the log is searched by, which has to say the same."""
    hash: bytes


@dataclass(frozen=True)
class Broken:
    """Where the chain does not hold."""

    id: int
    why: str


@dataclass
class Chain:
    """Follows a chain from its first entry."""

    head: bytes = b""
    length: int = 0

    def follow(self, link: Link) -> Broken | None:
        """Go on with the next entry in the order of their numbers; why it does not hold, if it does not."""
        if link.id < 1:
            return Broken(link.id, "has a number that no entry has")
        if link.id <= self.length:
            return Broken(link.id, "is there twice")
        if link.id != self.length + 1:
            return Broken(self.length + 1, "is missing")
        if hashlib.sha256(self.head + link.entry.encode()).digest() != link.hash:
            return Broken(link.id, "was changed, or an entry before it")
        said, stored = _read(link.entry), {"id": link.id, **link.columns}
        if said is None or {name: said[name] for name in stored} != stored:
            why = "cannot be read" if said is None else "is listed under another name, number or time than it says"
            return Broken(link.id, why)
        self.head, self.length = link.hash, link.id
        return None


def _read(entry: str) -> dict[str, Any] | None:
    """What an entry says; None: it is none, whoever wrote it."""
    try:
        said = json.loads(entry)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not said.keys() >= _SAID:
        return None
    rows = [said["before"], said["after"]]
    fits = (
        type(said["id"]) is int
        and all(isinstance(row, dict | None) for row in rows)
        and isinstance(said["request_id"], str | None)
    )
    return said if fits and rows != [None, None] else None
