"""What administrators say about people, groups, applications and mappings (design, section 4)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set as AbstractSet
from typing import Annotated, Final
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from domain.actors import TEMPORARY_GROUP_PREFIX, Permission
from domain.addresses import Email
from domain.claims import ClaimName, ClaimValue
from domain.errors import Forbidden, SystemGroup
from domain.text import UNSEEN, LongText, Name

_ALIKE: Final = {
    **dict.fromkeys(map(ord, "\u0251\u0391\u03b1\u0410\u0430\u13aa\u15c5\u237a\ua4ee\U000102a0\U00016f40"), "a"),
    **dict.fromkeys(
        map(
            ord,
            "\u03f2\u03f9\u0421\u0441\u13df\u1d04\u2ca4\u2ca5\ua4da\uabaf\U000102a2\U00010302\U00010415\U0001043d\U0001051c\U000118e9\U000118f2\U0001f74c",
        ),
        "c",
    ),
    **dict.fromkeys(
        map(ord, "\u0395\u03b5\u0415\u0435\u04bd\u13ac\u212e\u22ff\u2d39\ua4f0\uab32\U00010286\U000118a6\U000118ae"),
        "e",
    ),
    **dict.fromkeys(map(ord, "\u051b\u0563\u0566\u2d55"), "q"),
    **dict.fromkeys(
        map(ord, "\u01a6\u0433\u13a1\u13d2\u1587\u1d26\u2c85\ua4e3\uab47\uab48\uab81\U000104b4\U00016f35\U0001d216"),
        "r",
    ),
    **dict.fromkeys(
        map(
            ord,
            "\u01bd\u0405\u0455\u054f\u13d5\u13da\ua4e2\ua731\uabaa\U00010296\U00010420\U00010448\U000118c1\U00016f3a",
        ),
        "s",
    ),
    **dict.fromkeys(map(ord, "\u07fa\u2017\u203f\u2054\uff3f"), "_"),
}
"""The characters that look like a letter of the prefix, by confusables.txt of UTS #39, beyond those that compatibility
decomposition (NFKD) makes the letter. Underscores also have the ties, which look like them at the size of text."""
_LOW_LINE: Final = re.compile(r"(?:\A|\s)[\u0320\u0331-\u0333\u0347]")
_UNSEEN: Final = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "Me"})


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
        SystemGroup: the name starts with the prefix, or with what looks like it: in any case, width or spacing, with
            invisible characters, with accents, or in letters of other scripts that look the same.
    """
    if _skeleton(name).startswith(TEMPORARY_GROUP_PREFIX):
        raise SystemGroup(f"Names that start with {TEMPORARY_GROUP_PREFIX} belong to the groups of access requests.")


def _skeleton(name: str) -> str:
    """Return what a reader sees of `name`, as far as the prefix is concerned (UTS #39, section 4)."""
    # A mark below a blank looks like an underscore.
    text = unicodedata.normalize("NFKD", _LOW_LINE.sub("_", unicodedata.normalize("NFKC", name)))
    # Mapped before and after casefold: of some letters, only the capital looks like a letter of the prefix.
    text = text.translate(_ALIKE).casefold().translate(_ALIKE)
    return "".join(char for char in text if unicodedata.category(char) not in _UNSEEN and not UNSEEN.match(char))


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
