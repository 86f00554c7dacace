"""People and groups for identity providers: SCIM 2.0 (RFC 7643, RFC 7644)."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Response
from scim2_models import Context

from api import scim
from api.authentication import DirectoryManager
from api.problems import scim_refusals
from api.resources import Db, Temporal
from api.scim import GROUPS, SERVICE, USERS, BaseUrl, Document, ScimDocument, Search, Shown
from api.scim_documents import answers, takes
from api.versions import IfMatch
from db import scim as directory

router = APIRouter(default_response_class=ScimDocument)

UserId = Annotated[str, Path(description="Id of the User.")]
GroupId = Annotated[str, Path(description="Id of the Group.")]

_PEOPLE: Final = "SCIM Users"
_GROUPS: Final = "SCIM Groups"
_ABOUT: Final = "SCIM service"


@router.get(
    "/ServiceProviderConfig",
    summary="What of SCIM is served",
    tags=[_ABOUT],
    responses={**answers(200, "ServiceProviderConfig"), **scim_refusals("forbidden")},
)
async def get_scim_config(_: DirectoryManager, url: BaseUrl) -> Response:
    """Needs `directory.manage`. RFC 7643, section 5."""
    return scim.described(SERVICE.service_provider_config, f"{url}/ServiceProviderConfig")


@router.get(
    "/ResourceTypes",
    summary="List the kinds of resources",
    tags=[_ABOUT],
    responses={**answers(200, "ListResponse"), **scim_refusals("forbidden")},
)
async def list_scim_resource_types(_: DirectoryManager, url: BaseUrl) -> Response:
    """Needs `directory.manage`. RFC 7643, section 6."""
    return scim.described(SERVICE.resource_types, f"{url}/ResourceTypes")


@router.get(
    "/ResourceTypes/{name}",
    summary="Get a kind of resource",
    tags=[_ABOUT],
    responses={**answers(200, "ResourceType"), **scim_refusals("forbidden", "not_found")},
)
async def get_scim_resource_type(
    _: DirectoryManager, url: BaseUrl, name: Annotated[str, Path(description="`User` or `Group`.")]
) -> Response:
    """Needs `directory.manage`. RFC 7643, section 6."""
    return scim.described(SERVICE.resource_type, f"{url}/ResourceTypes/{name}", name)


@router.get(
    "/Schemas",
    summary="List the schemas",
    tags=[_ABOUT],
    responses={**answers(200, "ListResponse"), **scim_refusals("forbidden")},
)
async def list_scim_schemas(_: DirectoryManager, url: BaseUrl) -> Response:
    """Needs `directory.manage`. The attributes that are kept; others are ignored. RFC 7643, section 7."""
    return scim.described(SERVICE.schemas, f"{url}/Schemas")


@router.get(
    "/Schemas/{uri}",
    summary="Get a schema",
    tags=[_ABOUT],
    responses={**answers(200, "Schema"), **scim_refusals("forbidden", "not_found")},
)
async def get_scim_schema(
    _: DirectoryManager, url: BaseUrl, uri: Annotated[str, Path(description="URI of the schema.")]
) -> Response:
    """Needs `directory.manage`. RFC 7643, section 7."""
    return scim.described(SERVICE.schema, f"{url}/Schemas/{uri}", uri)


@router.get(
    "/Users",
    summary="List Users",
    tags=[_PEOPLE],
    responses={**answers(200, "ListResponse"), **scim_refusals("forbidden")},
)
async def list_scim_users(database: Db, _: DirectoryManager, url: BaseUrl, query: Search) -> Response:
    """Needs `directory.manage`. People, the oldest first; no service accounts."""
    request, matching = scim.read_search(USERS, query)
    part = await directory.list_users(database, matching, request.start_index, request.count)
    return scim.found(USERS, url, part, request, query)


@router.post(
    "/Users",
    summary="Create a User",
    status_code=201,
    tags=[_PEOPLE],
    responses={**answers(201, "User"), **scim_refusals("forbidden", "in_use")},
    openapi_extra=takes("UserRequest"),
)
async def create_scim_user(database: Db, caller: DirectoryManager, url: BaseUrl, document: Document) -> Response:
    """Needs `directory.manage`.

    A person without any permission, as `POST /api/v1/users` makes one. Somebody whom a SCIM client deleted, and who is
    sent again under the same `userName`, is the same account again, with nothing of what it had.
    """
    return scim.made(url, await directory.create_user(database, caller, scim.read_new_user(document)))


@router.get(
    "/Users/{user_id}",
    summary="Get a User",
    tags=[_PEOPLE],
    responses={**answers(200, "User"), **scim_refusals("forbidden", "not_found")},
)
async def get_scim_user(database: Db, _: DirectoryManager, url: BaseUrl, user_id: UserId, query: Shown) -> Response:
    """Needs `directory.manage`."""
    scim.parameters(USERS, query)
    return scim.shown(USERS, url, await directory.get_user(database, user_id), query)


@router.put(
    "/Users/{user_id}",
    summary="Replace a User",
    tags=[_PEOPLE],
    responses={**answers(200, "User"), **scim_refusals("forbidden", "not_found", "in_use", "changed_meanwhile")},
    openapi_extra=takes("UserRequest"),
)
async def replace_scim_user(  # noqa: PLR0917 - what FastAPI brings
    database: Db,
    temporal: Temporal,
    caller: DirectoryManager,
    url: BaseUrl,
    user_id: UserId,
    query: Shown,
    document: Document,
    expected: IfMatch,
) -> Response:
    """Needs `directory.manage`, and every permission that the person and their service accounts have.

    `active: false` counts at once: tokens stop working, claims and votes are gone, pending requests are cancelled,
    grants end. Where `active` is left out, it stays as it is.
    """
    scim.parameters(USERS, query)
    change = scim.read_replacement(document)
    user, marked = await directory.change_user(database, caller, user_id, change, expected)
    await temporal.reconcile(marked)
    return scim.changed(USERS, url, user, query)


@router.patch(
    "/Users/{user_id}",
    summary="Change a User",
    tags=[_PEOPLE],
    responses={**answers(200, "User"), **scim_refusals("forbidden", "not_found", "in_use", "changed_meanwhile")},
    openapi_extra=takes("PatchOp"),
)
async def patch_scim_user(  # noqa: PLR0917 - what FastAPI brings
    database: Db,
    temporal: Temporal,
    caller: DirectoryManager,
    url: BaseUrl,
    user_id: UserId,
    query: Shown,
    document: Document,
    expected: IfMatch,
) -> Response:
    """Needs `directory.manage`, and every permission that the person and their service accounts have.

    `active: false` counts at once, as it does with PUT.
    """
    scim.parameters(USERS, query)
    change = scim.read_user_patch(document)
    user, marked = await directory.change_user(database, caller, user_id, change, expected)
    await temporal.reconcile(marked)
    return scim.changed(USERS, url, user, query)


@router.delete(
    "/Users/{user_id}",
    summary="Delete a User",
    status_code=204,
    tags=[_PEOPLE],
    responses=scim_refusals("forbidden", "not_found", "changed_meanwhile"),
)
async def delete_scim_user(
    database: Db, temporal: Temporal, caller: DirectoryManager, user_id: UserId, expected: IfMatch
) -> Response:
    """Needs `directory.manage`, and every permission that the person and their service accounts have.

    Deactivates them at once, takes them out of all groups, and forgets their identities, sessions and tokens. History
    keeps the account, and SCIM clients see it no more.
    """
    await temporal.reconcile(await directory.delete_user(database, caller, user_id, expected))
    return Response(status_code=204)


@router.get(
    "/Groups",
    summary="List Groups",
    tags=[_GROUPS],
    responses={**answers(200, "ListResponse"), **scim_refusals("forbidden")},
)
async def list_scim_groups(database: Db, _: DirectoryManager, url: BaseUrl, query: Search) -> Response:
    """Needs `directory.manage`. The oldest first; without the temporary groups of requests."""
    request, matching = scim.read_search(GROUPS, query)
    part = await directory.list_groups(
        database, matching, request.start_index, request.count, with_members=bool(scim.members_shown(query))
    )
    return scim.found(GROUPS, url, part, request, query)


@router.post(
    "/Groups",
    summary="Create a Group",
    status_code=201,
    tags=[_GROUPS],
    responses={**answers(201, "Group"), **scim_refusals("forbidden", "in_use")},
    openapi_extra=takes("GroupRequest"),
)
async def create_scim_group(database: Db, _: DirectoryManager, url: BaseUrl, document: Document) -> Response:
    """Needs `directory.manage`. A group without permissions."""
    group = scim.read_group(document, Context.RESOURCE_CREATION_REQUEST)
    return scim.made(url, await directory.create_group(database, group))


@router.get(
    "/Groups/{group_id}",
    summary="Get a Group",
    tags=[_GROUPS],
    responses={**answers(200, "Group"), **scim_refusals("forbidden", "not_found")},
)
async def get_scim_group(database: Db, _: DirectoryManager, url: BaseUrl, group_id: GroupId, query: Shown) -> Response:
    """Needs `directory.manage`. Its people, in the order in which they joined."""
    scim.parameters(GROUPS, query)
    group = await directory.get_group(database, group_id, with_members=bool(scim.members_shown(query)))
    return scim.shown(GROUPS, url, group, query)


@router.put(
    "/Groups/{group_id}",
    summary="Replace a Group",
    tags=[_GROUPS],
    responses={**answers(200, "Group"), **scim_refusals("forbidden", "not_found", "in_use", "changed_meanwhile")},
    openapi_extra=takes("GroupRequest"),
)
async def replace_scim_group(  # noqa: PLR0917 - what FastAPI brings
    database: Db,
    temporal: Temporal,
    caller: DirectoryManager,
    url: BaseUrl,
    group_id: GroupId,
    query: Shown,
    document: Document,
    expected: IfMatch,
) -> Response:
    """Needs `directory.manage`, and every permission that the group has.

    Who stays keeps their place in the order. Permissions, description and service accounts are left as they are.
    """
    scim.parameters(GROUPS, query)
    replacement = scim.read_group(document, Context.RESOURCE_REPLACEMENT_REQUEST)
    group, marked = await directory.change_group(database, caller, group_id, lambda _: replacement, None, expected)
    await temporal.reconcile(marked)
    return scim.changed(GROUPS, url, group, query)


@router.patch(
    "/Groups/{group_id}",
    summary="Change a Group",
    status_code=204,
    tags=[_GROUPS],
    responses={**answers(200, "Group"), **scim_refusals("forbidden", "not_found", "in_use", "changed_meanwhile")},
    openapi_extra=takes("PatchOp"),
)
async def patch_scim_group(  # noqa: PLR0917 - what FastAPI brings
    database: Db,
    temporal: Temporal,
    caller: DirectoryManager,
    url: BaseUrl,
    group_id: GroupId,
    query: Shown,
    document: Document,
    expected: IfMatch,
) -> Response:
    """Needs `directory.manage`, and every permission that the group has.

    204, unless attributes are asked for: then 200 with these.
    """
    scim.parameters(GROUPS, query)
    change, named = scim.read_group_patch(document)
    _, marked = await directory.change_group(database, caller, group_id, change, named, expected)
    await temporal.reconcile(marked)
    if not query:
        return Response(status_code=204)
    group = await directory.get_group(database, group_id, with_members=bool(scim.members_shown(query)))
    return scim.changed(GROUPS, url, group, query)


@router.delete(
    "/Groups/{group_id}",
    summary="Delete a Group",
    status_code=204,
    tags=[_GROUPS],
    responses=scim_refusals("forbidden", "not_found", "in_use", "changed_meanwhile"),
)
async def delete_scim_group(
    database: Db, temporal: Temporal, caller: DirectoryManager, group_id: GroupId, expected: IfMatch
) -> Response:
    """Needs `directory.manage`, and every permission that the group has. As `DELETE /api/v1/groups/{group_id}` does."""
    await temporal.reconcile(await directory.delete_group(database, caller, group_id, expected))
    return Response(status_code=204)
