"""SCIM over HTTP: what this service says it is, what it reads and how it answers (RFC 7643, RFC 7644).

The protocol is that of scim2-server, step by step; `db.scim` keeps what it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Query, Request
from pydantic import ValidationError
from scim2_models import (
    AuthenticationScheme,
    Bulk,
    ChangePassword,
    Context,
    ETag,
    Filter,
    InvalidPathException,
    InvalidValueException,
    Patch,
    PatchOp,
    Resource,
    ResourceType,
    ResponseParameters,
    ScimFilter,
    ScimPolicy,
    ScimProvider,
    ServiceProviderConfig,
    Sort,
)
from scim2_server.conditions import Conditions
from scim2_server.responses import ScimResponse
from scim2_server.service import ScimService, scim_exception_of
from scim2_server.storage import SearchPage
from starlette.responses import JSONResponse, Response

from api.observation import SCIM
from api.resources import AppSettings
from db.scim import LARGEST_PAGE, Slice
from domain import scim
from domain import scim_quirks as quirks
from domain.errors import Invalid
from domain.text import STORABLE
from settings import Settings

MEDIA_TYPE: Final = "application/scim+json"

_CONFIG: Final = ServiceProviderConfig(
    patch=Patch(supported=True),
    bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
    filter=Filter(supported=True, max_results=LARGEST_PAGE),
    change_password=ChangePassword(supported=False),
    sort=Sort(supported=False),
    etag=ETag(supported=True),
    authentication_schemes=[
        AuthenticationScheme(
            type=AuthenticationScheme.Type.oauthbearertoken,
            name="API token",
            description="An API token of a service account that holds directory.manage, as Authorization: Bearer",
            primary=True,
        )
    ],
)

SERVICE: Final = ScimService(
    ScimProvider(
        models=[scim.User, scim.Group],
        config=_CONFIG,
        policy=ScimPolicy(
            # Okta and Entra send what they have: attributes that nobody maps here are not kept.
            unknown=ScimPolicy.Unknown.ignore,
            # Entra names the members that it removes in the value, and the address that it sets by its type.
            remove_value_as_filter=ScimPolicy.RemoveValue.apply,
            unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
        ),
    )
)
"""The protocol, as this service speaks it."""

USERS: Final[ResourceType] = SERVICE.get_resource_type("User")
GROUPS: Final[ResourceType] = SERVICE.get_resource_type("Group")

_LONGEST_FILTER: Final = 1_000
"""Characters of a filter, and of a list of attributes."""
_LONGEST_PATH: Final = 300
"""Characters of a path in a PATCH: the URN of a schema, an attribute, and which of its values."""
_MOST_OPERATIONS: Final = 100
"""Of a PATCH, beside those on members: each has the library look at all there is."""
_MEMBER_PARTS: Final = ("value", "$ref", "type")
_GROUP_URN: Final = f"{scim.Group.__schema__}:".lower()

Model = TypeVar("Model", scim.User, scim.Group)


class ScimDocument(JSONResponse):
    """An answer in SCIM's own media type (RFC 7644, section 8.1)."""

    media_type = MEDIA_TYPE


async def _query(
    attributes: Annotated[
        str | None,
        Query(max_length=_LONGEST_FILTER, description="The only attributes to answer with, separated by commas."),
    ] = None,
    excludedAttributes: Annotated[  # noqa: N803 - RFC 7644, section 3.4.2.5
        str | None, Query(max_length=_LONGEST_FILTER, description="Attributes to leave out, separated by commas.")
    ] = None,
) -> dict[str, str]:
    given = {"attributes": attributes, "excludedAttributes": excludedAttributes}
    return {name: value for name, value in given.items() if value is not None}


async def _search(
    shown: Annotated[dict[str, str], Depends(_query)],
    filter: Annotated[  # noqa: A002 - RFC 7644, section 3.4.2.2
        str | None,
        Query(
            max_length=_LONGEST_FILTER,
            description='What to look for (RFC 7644, section 3.4.2.2): `userName eq "dana@example.com"`.',
        ),
        STORABLE,
    ] = None,
    startIndex: Annotated[  # noqa: N803 - RFC 7644, section 3.4.2.4
        int, Query(description="The index of the first one on the page, from 1.")
    ] = 1,
    count: Annotated[int, Query(description=f"How many there are on a page; {LARGEST_PAGE} at most.")] = LARGEST_PAGE,
) -> dict[str, str]:
    # Less than the least means the least.
    page = {"startIndex": str(max(startIndex, 1)), "count": str(max(count, 0))}
    return {**shown, **page, **({} if filter is None else {"filter": filter})}


async def _document(request: Request) -> dict[str, Any]:
    if not await request.body():
        raise Invalid(("body", "is required"))
    document = await request.json()
    if not isinstance(document, dict):
        raise Invalid(("body", "must be a JSON object"))
    return document


async def _base_url(request: Request, settings: AppSettings) -> str:
    return base_url(request, settings)


Shown = Annotated[dict[str, str], Depends(_query)]
"""Which attributes the caller wants to see."""

Search = Annotated[dict[str, str], Depends(_search)]
"""What the caller looks for, and which page of it."""

Document = Annotated[dict[str, Any], Depends(_document)]
"""The body of a call."""

BaseUrl = Annotated[str, Depends(_base_url)]
"""Where SCIM is served, as the caller reaches it."""


def base_url(request: Request, settings: Settings) -> str:
    """Where SCIM is served: at `public_url`, else where this call came in."""
    origin = settings.public_url or f"{request.scope['scheme']}://{request.headers.get('host', '')}"
    return f"{origin}{SCIM}"


def read_new_user(document: Mapping[str, Any]) -> scim.User:
    """Return the User that was sent, active where it does not say.

    Raises:
        SCIMException: it is none.
    """
    return _read_user(document, Context.RESOURCE_CREATION_REQUEST, {"active": True})


def read_replacement(document: Mapping[str, Any]) -> Callable[[scim.User], scim.User]:
    """Return what a PUT makes of a User.

    Where it does not say if the person is active, that stays as it is. One that says that they are not, and has no
    address or user name, leaves these as they are.

    Raises:
        SCIMException: it is no User, when it is applied.
    """
    sent = quirks.tidied_value(scim.User, document)
    is_off = quirks.says_inactive(sent.items())
    if is_off:
        sent = quirks.without_cleared(sent)

    def change(current: scim.User) -> scim.User:
        kept: dict[str, Any] = {"active": current.active}
        if is_off:
            emails = [each.model_dump(exclude_none=True) for each in current.emails or ()]
            kept |= {"userName": current.user_name, "emails": emails}
        return _read_user(sent, Context.RESOURCE_REPLACEMENT_REQUEST, kept)

    return change


def _read_user(document: Mapping[str, Any], context: Context, otherwise: Mapping[str, Any]) -> scim.User:
    """Read a User, with values from `otherwise` for attributes that are missing or empty."""
    completed = quirks.tidied_value(scim.User, document)
    given = {key.lower(): value for key, value in completed.items() if value not in (None, "", [])}
    address = given.get("username")
    if isinstance(address, str) and "@" in address:
        otherwise = {**otherwise, "emails": [{"value": address, "type": "work", "primary": True}]}
    for name, value in otherwise.items():
        if name.lower() not in given:
            completed = {key: each for key, each in completed.items() if key.lower() != name.lower()}
            completed[name] = value
    user: scim.User = _read(scim.User, completed, context)
    return user


def read_group(document: Mapping[str, Any], context: Context) -> scim.Group:
    """A Group that was sent.

    Raises:
        SCIMException: it is none.
    """
    group: scim.Group = _read(scim.Group, document, context)
    return group


def read_user_patch(document: Mapping[str, Any]) -> Callable[[scim.User], scim.User]:
    """What a PATCH makes of a User.

    Raises:
        SCIMException: it is none; or, when it is applied, it cannot be.
    """
    operations = _bounded(_operations(document, scim.User))
    said = [(each.get("path") or "", each.get("value")) for each in operations if isinstance(each, Mapping)]
    if quirks.says_inactive(said):
        # Providers clear the address of a leaver in the same call. The account keeps its last one.
        left = [quirks.without_clearing(each) if isinstance(each, Mapping) else each for each in operations]
        operations = [each for each in left if each is not None]
    return _patch(scim.User, document, operations)


def read_group_patch(
    document: Mapping[str, Any],
) -> tuple[Callable[[scim.Group], scim.Group], set[str] | None]:
    """What a PATCH makes of a Group, and the only members that it is about; None: all.

    Members are changed here: the library takes a second for each operation where there are ten thousand.

    Raises:
        Invalid: a member is named by nothing.
        SCIMException: it is no PATCH; or, when it is applied, it cannot be.
    """
    changes: list[scim.MemberChange] = []
    left: list[Any] = []
    for operation in _operations(document, scim.Group):
        if not isinstance(operation, Mapping):
            left.append(operation)
            continue
        apart, rest = scim.taken_apart(operation)
        changes += apart
        left += [] if rest is None else [rest]
    patch = _patch(scim.Group, document, _bounded(left)) if left or not changes else None
    if patch is None:
        # The envelope is looked at all the same.
        _patch(scim.Group, document, [{"op": "remove", "path": "members"}])

    def change(group: scim.Group) -> scim.Group:
        members = scim.with_changes(group.members or [], changes)
        group.members = None
        changed = group if patch is None else patch(group)
        changed.members = members
        return changed

    return change, scim.members_named(changes)


def _operations(document: Mapping[str, Any], model: type[Model]) -> list[Any]:
    operations = next((value for key, value in document.items() if key.lower() == "operations"), None)
    found = operations if isinstance(operations, list) else [operations] if isinstance(operations, Mapping) else []
    for operation in found:
        for key, path in operation.items() if isinstance(operation, Mapping) else ():
            if key.lower() == "path" and isinstance(path, str) and len(path) > _LONGEST_PATH:
                raise InvalidPathException(detail=f"A path may have at most {_LONGEST_PATH} characters.")
    return [quirks.tidied_operation(model, each) if isinstance(each, Mapping) else each for each in found]


def _bounded(operations: list[Any]) -> list[Any]:
    if len(operations) > _MOST_OPERATIONS:
        raise Invalid(("Operations", f"may be at most {_MOST_OPERATIONS}, beside those on members"))
    return operations


def _patch(model: type[Model], document: Mapping[str, Any], operations: list[Any]) -> Callable[[Model], Model]:
    sent = {key: value for key, value in document.items() if key.lower() != "operations" or not operations}
    patch: PatchOp[Model] = _read(
        PatchOp[model],  # type: ignore[valid-type]
        {**sent, **({"Operations": operations} if operations else {})},
        Context.RESOURCE_PATCH_REQUEST,
    )

    def change(resource: Model) -> Model:
        with SERVICE.provider:
            try:
                patch.patch(resource)
            except InvalidValueException as error:
                # The library would show the client the report of its validator, over several lines.
                if isinstance(error.__cause__, ValidationError):
                    raise scim_exception_of(error.__cause__) from error
                raise
        return resource

    return change


def read_search(kind: ResourceType, query: Mapping[str, str]) -> tuple[Any, ScimFilter[Any] | None]:
    """What is looked for, and its filter.

    Raises:
        SCIMException: the filter cannot be read, or names an attribute that there is not.
    """
    with SERVICE.provider:
        request, _ = SERVICE.read_search_query([kind], query)
    return request, request.filter


def members_shown(query: Mapping[str, str]) -> frozenset[str]:
    """Which parts of its members an answer about a Group has; none: it has no members."""
    shown, hidden = (
        {name.strip().lower().removeprefix(_GROUP_URN) for name in query.get(given, "").split(",") if name.strip()}
        for given in ("attributes", "excludedAttributes")
    )
    if shown and "members" not in shown:
        return frozenset(part for part in _MEMBER_PARTS if f"members.{part}".lower() in shown)
    if "members" in hidden:
        return frozenset()
    return frozenset(part for part in _MEMBER_PARTS if f"members.{part}".lower() not in hidden)


def found(kind: ResourceType, url: str, part: Slice[Any], request: Any, query: Mapping[str, str]) -> Response:  # noqa: ANN401 - of its library
    """A page of a list."""
    members = [_taken_off(resource) for resource in part.resources]
    with SERVICE.provider:
        response = SERVICE.search_response(url, [kind], SearchPage(part.total, part.resources), request)
    for document, those in zip((response.body or {}).get("Resources", ()), members, strict=True):
        _put_back(document, those, url, query)
    return _response(response)


def shown(kind: ResourceType, url: str, resource: Resource[Any], query: Mapping[str, str]) -> Response:
    """One resource that was read."""
    return _one(
        url,
        resource,
        query,
        lambda: SERVICE.query_response(url, resource, parameters(kind, query), Conditions()),
    )


def made(url: str, resource: Resource[Any]) -> Response:
    """A resource that was made."""
    return _one(url, resource, {}, lambda: SERVICE.creation_response(url, resource))


def changed(kind: ResourceType, url: str, resource: Resource[Any], query: Mapping[str, str]) -> Response:
    """A resource that was changed."""
    return _one(url, resource, query, lambda: SERVICE.replacement_response(url, resource, parameters(kind, query)))


def parameters(kind: ResourceType, query: Mapping[str, str]) -> ResponseParameters[Any]:
    """Which attributes to answer with.

    Raises:
        SCIMException: both are named, those to show and those to leave out, or there is no such attribute.
    """
    with SERVICE.provider:
        return SERVICE.read_response_parameters(kind, query)


def described(step: Callable[..., ScimResponse], *arguments: object) -> Response:
    """What the service says about itself."""
    with SERVICE.provider:
        return _response(step(*arguments, {}))


def _one(url: str, resource: Resource[Any], query: Mapping[str, str], answer: Callable[[], ScimResponse]) -> Response:
    members = _taken_off(resource)
    with SERVICE.provider:
        response = answer()
    if response.body is not None:
        _put_back(response.body, members, url, query)
    return _response(response)


def _taken_off(resource: Resource[Any]) -> list[scim.Member]:
    """The members of a group, which the library would take seconds to write where there are ten thousand."""
    if not isinstance(resource, scim.Group):
        return []
    members = resource.members or []
    resource.members = None
    return members


def _put_back(document: dict[str, Any], members: list[scim.Member], url: str, query: Mapping[str, str]) -> None:
    parts = members_shown(query)
    if members and parts:
        document["members"] = [
            {
                part: value
                for part, value in (
                    ("value", member.value),
                    ("$ref", f"{url}{USERS.endpoint}/{member.value}"),
                    ("type", "User"),
                )
                if part in parts
            }
            for member in members
        ]


def _read(model: type[Any], document: Mapping[str, Any], context: Context) -> Any:  # noqa: ANN401 - one of `model`
    with SERVICE.provider:
        try:
            return model.model_validate(document, scim_ctx=context)
        except ValidationError as error:
            raise scim_exception_of(error) from error


def _response(response: ScimResponse) -> Response:
    headers = {name: value for name, value in response.headers.items() if name != "Content-Type"}
    if response.body is None:
        return Response(status_code=response.status, headers=headers)
    return ScimDocument(response.body, status_code=response.status, headers=headers)
