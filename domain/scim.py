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

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError
from scim2_models import (
    URN,
    CaseExact,
    ComplexAttribute,
    InvalidFilterException,
    Meta,
    Mutability,
    MutabilityException,
    PatchOperation,
    Path,
    Reference,
    Required,
    Resource,
    Uniqueness,
)
from scim2_models.path import AttrPath, CompareOperator, Comparison, ValuePath

from domain.addresses import Email as Address
from domain.addresses import sought_address
from domain.errors import Invalid
from domain.text import LONGEST_NAME, SEEN_WHOLE, STORABLE, UNTURNED, VISIBLE, Name, at_most
from domain.versions import version_of

_ADDRESS: Final[TypeAdapter[str]] = TypeAdapter(Address)
_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)
_IDENTIFIER: Final[TypeAdapter[str]] = TypeAdapter(
    Annotated[
        str,
        StringConstraints(min_length=1, max_length=320, strip_whitespace=True),
        STORABLE,
        SEEN_WHOLE,
        at_most(320),
        VISIBLE,
    ]
)
# Checked here also where the edge did: the filter of a path can spell with escapes what a text must not have.
_PART: Final[TypeAdapter[str]] = TypeAdapter(Annotated[str, StringConstraints(max_length=200), STORABLE, UNTURNED])


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

    emails: Annotated[list[EmailAddress] | None, Required.true] = Field(None, max_length=100)
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


def account(user: User, before: User | None = None) -> Account:
    """The account of a User.

    Args:
        user: as a client sends it.
        before: what is stored, where there is an account. Texts that stay as they are are not checked: they may be
            older than a rule, which must not keep their person from being deactivated.

    Raises:
        Invalid: it has no address, or something in it is none of what it should be.
    """
    was = before or User()
    user_name = _checked(_IDENTIFIER, "userName", user.user_name, was.user_name)
    if user_name != was.user_name and (normal := sought_address(user_name)).casefold() != user_name.casefold():
        # In Punycode, or in full width. Kept as all addresses are, so that any spelling finds it.
        user_name = normal
    address = _address_that_counts(user.emails or [])
    address_before = _address_that_counts(was.emails) if was.emails else EmailAddress()
    email = _checked(_ADDRESS, "emails.value", address.value, address_before.value)
    parts = _parts(user)
    parts_before = _parts(was)
    for part, text in parts.items():
        _checked(_PART, f"name.{part}", text, parts_before.get(part))
    display_name = user.display_name or None
    name = (
        _name_of(parts, user_name)
        if display_name is None
        else _checked(_NAME, "displayName", display_name, was.display_name)
    )
    kind = {key: value for key in ("type", "display", "primary") if (value := getattr(address, key)) is not None}
    for part, value in kind.items():
        if isinstance(value, str):
            _checked(_PART, f"emails.{part}", value, getattr(address_before, part))
    return Account(
        email=email,
        name=name,
        active=user.active is not False,
        user_name=None if user_name == email else user_name,
        external_id=external_id(user, was.external_id),
        profile={
            **({"displayName": name} if display_name else {}),
            **({"name": parts} if parts else {}),
            "email": kind,
        },
    )


def external_id(resource: Resource[Any], before: str | None = None) -> str | None:
    """What the client calls a resource by.

    Args:
        resource: as a client sends it.
        before: what is stored, which is not checked again.

    Raises:
        Invalid: it is too long, or more than a line.
    """
    return _checked(_IDENTIFIER, "externalId", resource.external_id, before) if resource.external_id else None


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
        meta=Meta(
            resource_type="User",
            created=created_at,
            version=version_of(
                {
                    "id": str(user_id),
                    "email": email,
                    "name": name,
                    "active": active,
                    "user_name": user_name,
                    "external_id": external_id,
                    "profile": profile,
                }
            ),
        ),
    )


def group(
    group_id: UUID, *, name: str, external_id: str | None, members: list[Member] | None, created_at: datetime
) -> Group:
    """A group as SCIM has it.

    Args:
        group_id: its id.
        name: its name.
        external_id: what a client calls it by.
        members: who is in it, in the order in which they joined; None: that does not matter, and without them it has
            no version, since they are replaced with it.
        created_at: when it was made.
    """
    version = None
    if members is not None:
        ids = [member.value for member in members]
        version = version_of({"id": str(group_id), "name": name, "external_id": external_id, "members": ids})
    made = Group(
        id=str(group_id),
        external_id=external_id,
        display_name=name,
        meta=Meta(resource_type="Group", created=created_at, version=version),
    )
    made.members = members
    return made


@dataclass(frozen=True)
class MemberChange:
    """What one operation of a PATCH does to the members of a group."""

    op: PatchOperation.Op
    ids: tuple[str, ...] | None
    """Whom it is about, in the order in which they are named; None: everybody in the group, to be removed."""


def taken_apart(operation: Mapping[str, Any]) -> tuple[list[MemberChange], dict[str, Any] | None]:
    """What an operation on a Group does to its members, and what is left of it beside that.

    A member is named by its `value` alone. What else a client says of one does not choose among members: who is to be
    removed as this service shows them, with `$ref`, is removed.

    Raises:
        Invalid: a member has no `value`.
        SCIMException: the path is none, or chooses members by anything but their `value`.
    """
    told = {key.lower(): value for key, value in operation.items()}
    said = str(told.get("op")).lower()
    path = told.get("path")
    if said not in set(PatchOperation.Op) or not isinstance(path, str | None):
        return [], dict(operation)
    op, value = PatchOperation.Op(said), told.get("value")
    if path and not _is_group(path):
        change = _change(op, Path[Group](path).ast, value)
        return ([], dict(operation)) if change is None else ([change], None)
    if op is PatchOperation.Op.remove or not isinstance(value, Mapping):
        return [], dict(operation)
    changes: list[MemberChange] = []
    left: dict[str, Any] = {}
    for key, part in value.items():
        if _is_members(key):
            changes.append(_named(op, part))
        elif _is_group(key) and isinstance(part, Mapping):
            changes += [_named(op, inner) for name, inner in part.items() if _is_members(name)]
            left[key] = {name: inner for name, inner in part.items() if not _is_members(name)}
        else:
            left[key] = part
    if not changes:
        return [], dict(operation)
    rest = {"op": op.value, "value": left, **({"path": path} if path else {})}
    return changes, rest if any(left.values()) else None


def with_changes(members: Iterable[Member], changes: Iterable[MemberChange]) -> list[Member]:
    """The members of a group after changes. Who stays keeps their place; who is new comes last."""
    by_id = {member.value or "": member for member in members}
    for change in changes:
        if change.ids is None or change.op is PatchOperation.Op.replace_:
            by_id.clear()
        for each in change.ids or ():
            if change.op is PatchOperation.Op.remove:
                by_id.pop(each, None)
            elif each not in by_id:
                by_id[each] = Member.model_construct(value=each, type="User")
    return list(by_id.values())


def members_named(changes: Iterable[MemberChange]) -> set[str] | None:
    """The members that changes are about, so that a large group need not be read whole for a small change.

    Returns:
        Ids; None where they are about all of them.
    """
    named: set[str] = set()
    for change in changes:
        if change.ids is None or change.op is PatchOperation.Op.replace_:
            return None
        named.update(change.ids)
    return named


def _change(op: PatchOperation.Op, path: Any, value: object) -> MemberChange | None:  # noqa: ANN401 - any path
    attribute = path.attr_path if isinstance(path, ValuePath | Comparison) else path
    if not _is_members(str(attribute)):
        return None
    if isinstance(path, AttrPath) and path.sub_attr is None:
        if op is PatchOperation.Op.remove and value is None:
            return MemberChange(op, None)
        return _named(op, value)
    if op is not PatchOperation.Op.remove or isinstance(path, AttrPath) or getattr(path, "sub_attr", None):
        raise MutabilityException(detail="members are added and removed, not changed")
    by = path.val_filter if isinstance(path, ValuePath) else path
    if not isinstance(by, Comparison) or by.op is not CompareOperator.eq or not _is_of_values(path, by):
        raise InvalidFilterException(detail='members are named by their value: members[value eq "…"]')
    return MemberChange(op, (str(by.value).lower(),))


def _is_of_values(path: ValuePath | Comparison, by: Comparison) -> bool:
    name = by.attr_path.attr if isinstance(path, ValuePath) else by.attr_path.sub_attr or "value"
    return str(name).lower() == "value"


def _named(op: PatchOperation.Op, value: object) -> MemberChange:
    if value is None and op is PatchOperation.Op.add:
        raise Invalid(("members", "value is required"))
    entries = value if isinstance(value, list) else [] if value is None else [value]
    ids = []
    for entry in entries:
        said = {key.lower(): part for key, part in entry.items()} if isinstance(entry, Mapping) else {}
        if not isinstance(said.get("value"), str):
            raise Invalid(("members.value", "is required, and a text"))
        # As ids are written here.
        ids.append(said["value"].lower())
    return MemberChange(op, tuple(dict.fromkeys(ids)))


def _is_group(attribute: str) -> bool:
    return attribute.strip().lower() == str(Group.__schema__).lower()


def _is_members(attribute: str) -> bool:
    name = attribute.strip().lower().removeprefix(f"{Group.__schema__}:".lower())
    return name.partition(".")[0] == "members"


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
        return " ".join(otherwise[:LONGEST_NAME].split())


def _parts(user: User) -> dict[str, str]:
    return {} if user.name is None else user.name.model_dump(exclude_none=True, by_alias=True)


def _checked(adapter: TypeAdapter[str], attribute: str, value: object, before: str | None = None) -> str:
    """Return `value` as it is kept; what equals `before`, which is stored, as it is."""
    if before is not None and value == before:
        return before
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise Invalid((attribute, message[:1].lower() + message[1:])) from None
