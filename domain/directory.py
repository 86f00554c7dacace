"""What administrators say about people, groups, applications and mappings (design, section 4)."""

from __future__ import annotations

import unicodedata
from collections.abc import Set as AbstractSet
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from domain.actors import TEMPORARY_GROUP_PREFIX, Permission
from domain.addresses import Email
from domain.claims import ClaimName, ClaimValue
from domain.errors import Forbidden, SystemGroup
from domain.text import LongText, Name


class UserReplacement(BaseModel):
    """What an account is to be from now on."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"email": "dana@example.com", "name": "Dana Fischer"}]}
    )

    email: Email = Field(description="Unique, in any case.")
    name: Name = Field(description="As others see it.")
    active: Annotated[bool, Field(strict=True)] | None = Field(
        default=None,
        description="False: no access, no claims, no vote; history keeps the name. Left out, it stays as it is: only "
        "true makes somebody active again who was deactivated.",
    )
    owner_id: UUID | None = Field(
        default=None,
        description="The person that a service account belongs to, for good; null for a person. "
        "To every rule the two are one: an account cannot decide its owner's requests.",
    )


class UserValues(UserReplacement):
    """A person or a service account."""

    active: Annotated[bool, Field(strict=True)] = Field(
        default=True, description="False: no access, no claims, no vote; history keeps the name."
    )


class GroupValues(BaseModel):
    """A group of people."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "dba_team", "description": "Runs the databases", "permissions": []}]},
    )

    name: Name = Field(description=f"Unique, in any case; `{TEMPORARY_GROUP_PREFIX}…` is for requests.")
    description: LongText = Field(default="", description="What the group is for.")
    permissions: Annotated[list[Permission], AfterValidator(lambda values: sorted(set(values)))] = Field(
        default_factory=list, description="What membership brings; only what the caller holds can be given."
    )


class ApplicationValues(BaseModel):
    """Something that access is granted to."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "Internal DB", "description": "The customer database"}]},
    )

    name: Name = Field(description="Unique, in any case.")
    description: LongText = Field(default="", description="What it is.")


class MappingValues(BaseModel):
    """A claim and its value for one application."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "app_id": "0b0ba6ac-3c6b-4a1b-a5e5-9b7b8d3d9a51",
                    "name": "DB read-only role",
                    "claim": "roles",
                    "value": "db_readonly",
                }
            ]
        },
    )

    app_id: UUID = Field(description="The application; cannot be changed later.")
    name: Name = Field(description="Unique within the application, in any case.")
    claim: ClaimName = Field(description="Name of the claim; registered and protocol names are refused.")
    value: ClaimValue = Field(description="Value of the claim.")


def refuse_reserved(name: str) -> None:
    """Keep names of temporary groups, and what looks like one, for temporary groups.

    Raises:
        SystemGroup: the name starts with the prefix, in any case, width or spacing.
    """
    visible = "".join(
        char
        for char in unicodedata.normalize("NFKC", name)
        if not char.isspace() and unicodedata.category(char) != "Cf"
    )
    if visible.casefold().startswith(TEMPORARY_GROUP_PREFIX):
        raise SystemGroup(f"Names that start with {TEMPORARY_GROUP_PREFIX} belong to the groups of access requests.")


def refuse_giving(held: AbstractSet[str], given: AbstractSet[str], what: str) -> None:
    """Nobody gives, takes or comes by permissions that they do not hold themselves.

    Args:
        held: the permissions of who acts.
        given: the permissions at stake.
        what: whose they are, for the message.

    Raises:
        Forbidden: there are some that are not held.
    """
    if missing := sorted(given - held):
        raise Forbidden(f"{what} has permissions that you do not hold yourself: {', '.join(missing)}.")
