"""What SCIM calls people and groups, and what that is here (RFC 7643; docs/scim.md says what is mapped and kept).

The attributes of these models are those that the service knows; whatever else a client sends is ignored, as RFC 7644,
section 3.3, lets a service do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError
from scim2_models import (
    URN,
    CaseExact,
    ComplexAttribute,
    Meta,
    Mutability,
    PatchOp,
    PatchOperation,
    Reference,
    Required,
    Resource,
    Uniqueness,
)
from scim2_models.path import AttrPath, CompareOperator, Comparison, ValuePath

from domain.directory import Email as Address
from domain.errors import Invalid
from domain.text import STORABLE, Name, one_line

_ADDRESS: Final[TypeAdapter[str]] = TypeAdapter(Address)
_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)
_IDENTIFIER: Final[TypeAdapter[str]] = TypeAdapter(
    Annotated[
        str, StringConstraints(min_length=1, max_length=320, strip_whitespace=True), STORABLE, AfterValidator(one_line)
    ]
)
_LONGEST_NAME: Final = 200
_LONGEST_PART: Final = 200


class PersonName(ComplexAttribute):
    """The parts of a name, kept as they were sent."""

    formatted: str | None = None
    """The full name; the account's name where there is no displayName."""

    family_name: str | None = None
    """The family name."""

    given_name: str | None = None
    """The given name; with the family name the account's name, where neither displayName nor formatted is given."""

    middle_name: str | None = None
    """The middle names."""

    honorific_prefix: str | None = None
    """Titles before the name."""

    honorific_suffix: str | None = None
    """Suffixes after the name."""


class EmailAddress(ComplexAttribute):
    """An address of a person."""

    value: Annotated[str | None, Required.true] = None
    """The address."""

    display: str | None = None
    """How it is shown."""

    type: str | None = Field(None, examples=["work", "home", "other"])
    """What it is for."""

    primary: bool | None = None
    """Whether it is the one that counts. With none that is, the first of type work counts, else the first."""


class User(Resource[Any]):
    """User Account"""  # noqa: D415 - the name that RFC 7643, section 8.7.1, gives it

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    user_name: Annotated[str | None, Uniqueness.server, Required.true] = None
    """What the client calls the person; unique in any case. Where it is an address, emails may be left out."""

    name: PersonName | None = None
    """The parts of the name."""

    display_name: str | None = None
    """The account's name, as others see it."""

    active: Annotated[bool | None, Required.true] = None
    """False: no access, no claims, no vote, and every grant ends at once. True where a new user leaves it out."""

    emails: Annotated[list[EmailAddress] | None, Required.true] = None
    """The account's address. One is kept: the primary, else the first of type work, else the first."""


class Member(ComplexAttribute):
    """Somebody in a group."""

    value: Annotated[str | None, Mutability.immutable, CaseExact.true, Required.true] = None
    """The id of a User."""

    ref: Annotated[Reference[User] | None, Mutability.immutable] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    """Where the User is."""

    type: Annotated[Literal["User"] | None, Mutability.immutable] = Field(None, examples=["User"])
    """User; groups do not contain groups."""


class Group(Resource[Any]):
    """Group"""  # noqa: D415 - the name that RFC 7643, section 8.7.1, gives it

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[str | None, Required.true, Uniqueness.server] = None
    """The name of the group; unique in any case."""

    members: list[Member] | None = None
    """The people in it, in the order in which they joined. New ones join at the end, as they are named."""


@dataclass(frozen=True)
class Account:
    """A person as the directory keeps them."""

    email: str
    name: str
    active: bool
    user_name: str | None
    """What the client calls them, where that is not the address."""
    external_id: str | None
    profile: dict[str, Any] = field(hash=False)
    """What is given back as it was sent: displayName, the parts of the name, type and display of the address."""


def account(user: User) -> Account:
    """The account of a User.

    Raises:
        Invalid: it has no address, or something in it is none of what it should be.
    """
    user_name = _checked(_IDENTIFIER, "userName", user.user_name)
    address = _address_that_counts(user.emails or [])
    email = _checked(_ADDRESS, "emails.value", address.value)
    parts = {} if user.name is None else user.name.model_dump(exclude_none=True, by_alias=True)
    for part, text in parts.items():
        if len(text) > _LONGEST_PART:
            raise Invalid((f"name.{part}", f"may have at most {_LONGEST_PART} characters"))
    display_name = user.display_name or None
    name = _name_of(parts, user_name) if display_name is None else _checked(_NAME, "displayName", display_name)
    kind = {key: value for key in ("type", "display", "primary") if (value := getattr(address, key)) is not None}
    if any(len(value) > _LONGEST_PART for value in kind.values() if isinstance(value, str)):
        raise Invalid(("emails", f"type and display may have at most {_LONGEST_PART} characters"))
    return Account(
        email=email,
        name=name,
        active=user.active is not False,
        user_name=None if user_name == email else user_name,
        external_id=external_id(user),
        profile={
            **({"displayName": name} if display_name else {}),
            **({"name": parts} if parts else {}),
            "email": kind,
        },
    )


def external_id(resource: Resource[Any]) -> str | None:
    """What the client calls a resource by.

    Raises:
        Invalid: it is too long, or more than a line.
    """
    return _checked(_IDENTIFIER, "externalId", resource.external_id) if resource.external_id else None


def group_name(group: Group) -> str:
    """The name of a group.

    Raises:
        Invalid: it is none.
    """
    return _checked(_NAME, "displayName", group.display_name)


def user(
    user_id: UUID,
    *,
    email: str,
    name: str,
    active: bool,
    user_name: str | None,
    external_id: str | None,
    profile: Mapping[str, Any] | None,
    created_at: datetime,
) -> User:
    """A person as SCIM has them. The account says address, name and whether it is active, whoever changed it last."""
    told = profile or {"displayName": name, "email": {"type": "work", "primary": True}}
    parts = told.get("name")
    derived = _name_of(parts or {}, user_name or email)
    return User(
        id=str(user_id),
        external_id=external_id,
        user_name=user_name or email,
        name=None if parts is None else PersonName.model_validate(parts),
        # Nobody said it, and it goes without saying.
        display_name=None if "displayName" not in told and name == derived else name,
        active=active,
        emails=[EmailAddress(value=email, **told.get("email", {}))],
        meta=Meta(resource_type="User", created=created_at),
    )


def group(
    group_id: UUID, *, name: str, external_id: str | None, members: list[Member] | None, created_at: datetime
) -> Group:
    """A group as SCIM has it.

    Args:
        group_id: its id.
        name: its name.
        external_id: what a client calls it by.
        members: who is in it, in the order in which they joined; None: that does not matter.
        created_at: when it was made.
    """
    made = Group(
        id=str(group_id),
        external_id=external_id,
        display_name=name,
        meta=Meta(resource_type="Group", created=created_at),
    )
    made.members = members
    return made


def members_named(patch: PatchOp[Group]) -> set[str] | None:
    """The members that a PATCH is about, so that a large group need not be read whole for a small change.

    Returns:
        Ids; None where it is about all of them.
    """
    named: set[str] = set()
    for operation in patch.operations or []:
        about = _named_by(operation)
        if about is None:
            return None
        named |= about
    return named


def _named_by(operation: PatchOperation[Group]) -> set[str] | None:
    adds = operation.op is PatchOperation.Op.add
    if operation.path is None:
        values = operation.value if isinstance(operation.value, Mapping) else {}
        found = [value for key, value in values.items() if _is_members(key)]
        return set() if not found else _ids(found[0]) if adds else None
    path = operation.path.ast
    if not _is_members(str(path.attr_path if isinstance(path, ValuePath | Comparison) else path).partition("[")[0]):
        return set()
    if isinstance(path, AttrPath) and path.sub_attr is None:
        # A remove with a value is Entra's way to name whom it removes.
        return _ids(operation.value) if adds or (operation.value and not _replaces(operation)) else None
    if isinstance(path, ValuePath):
        by = path.val_filter
        if isinstance(by, Comparison) and by.attr_path.attr.lower() == "value" and by.op is CompareOperator.eq:
            return {str(by.value)}
    return None


def _replaces(operation: PatchOperation[Group]) -> bool:
    return operation.op is PatchOperation.Op.replace_


def _is_members(attribute: str) -> bool:
    name = attribute.lower().removeprefix(f"{Group.__schema__}:".lower())
    return name.partition(".")[0] == "members"


def _ids(value: object) -> set[str]:
    entries = value if isinstance(value, list) else [value]
    ids = set()
    for entry in entries:
        told = (
            next((said for key, said in entry.items() if key.lower() == "value"), None)
            if isinstance(entry, Mapping)
            else getattr(entry, "value", entry)
        )
        if isinstance(told, str):
            ids.add(told)
    return ids


def parsed_ids(values: Iterable[str]) -> list[UUID]:
    """Those of `values` that can be ids of ours."""
    ids = []
    for value in values:
        try:
            ids.append(UUID(value))
        except ValueError:
            continue
    return ids


def _address_that_counts(emails: list[EmailAddress]) -> EmailAddress:
    if not emails:
        raise Invalid(("emails", "are required where userName is no address"))
    return next(
        (email for email in emails if email.primary),
        next((email for email in emails if (email.type or "").lower() == "work"), emails[0]),
    )


def _name_of(parts: Mapping[str, str], otherwise: str) -> str:
    """The name of somebody without a displayName."""
    joined = parts.get("formatted") or " ".join(filter(None, (parts.get("givenName"), parts.get("familyName"))))
    try:
        return _NAME.validate_python(joined)
    except ValidationError:
        return otherwise[:_LONGEST_NAME]


def _checked(adapter: TypeAdapter[str], attribute: str, value: object) -> str:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise Invalid((attribute, message[:1].lower() + message[1:])) from None
