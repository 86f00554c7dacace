"""The audit log: what an entry says, and how entries are chained (docs/audit-log.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, Field

from domain.actors import Permission


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


class AuditEntry(BaseModel):
    """One change. Times are UTC."""

    id: int = Field(description="Counts from 1, without a gap.")
    at: datetime
    actor: str = Field(
        description="Who: an email address; `operator:…` for a command; `issuer:…` for the word of an OpenID Connect "
        "issuer; `database:…` for whoever changed the tables by themselves."
    )
    request_id: str | None = Field(description="`X-Request-Id` of the call, which its lines in the log have as well.")
    action: Change
    kind: Kind
    object_id: str = Field(description="Id of what was changed; of a membership, both its ids with a slash.")
    before: dict[str, Any] | None = Field(description="Null where it is new. What nobody may read is `(hidden)`.")
    after: dict[str, Any] | None = Field(description="Null where it was deleted.")
    hash: str = Field(description="SHA-256 in hexadecimal, of this entry and the hash of the one before.")


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

    def follow(self, links: Iterable[Link]) -> Broken | None:
        """Go on with these; the first of them that does not hold, if there is one."""
        for link in links:
            if link.id != self.length + 1:
                return Broken(self.length + 1, "is missing")
            if hashlib.sha256(self.head + link.entry.encode()).digest() != link.hash:
                return Broken(link.id, "was changed, or an entry before it")
            said = json.loads(link.entry)
            if said["id"] != link.id or any(said[name] != value for name, value in link.columns.items()):
                return Broken(link.id, "is listed under other names than it was written with")
            self.head, self.length = link.hash, link.id
        return None
