"""Groups and their members."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response

from api.authentication import DirectoryManager, DirectoryReader
from api.problems import refusals
from api.reading import Paging
from api.resources import Db, Temporal
from api.versions import IfMatch, tagged
from db import groups
from db.groups import GroupView, MemberView
from db.paging import Page
from domain.directory import GroupValues
from domain.text import FilterText

router = APIRouter(prefix="/groups", tags=["Groups"])

GroupId = Annotated[UUID, Path(description="Id of the group.")]
UserId = Annotated[UUID, Path(description="Id of the user.")]


@router.get("", summary="List groups", responses=refusals())
async def list_groups(
    database: Db,
    position: Paging,
    name: Annotated[FilterText | None, Query(description="Part of the name, in any case.")] = None,
) -> Page[GroupView]:
    """All groups but the temporary ones of requests, newest first."""
    return await groups.list_groups(database, position, name=name)


@router.get("/{group_id}", summary="Get a group", responses=refusals("not_found", "system_group"))
async def get_group(database: Db, group_id: GroupId, response: Response) -> GroupView:
    """One group."""
    return tagged(response, await groups.get(database, group_id))


@router.post("", summary="Create a group", status_code=201, responses=refusals("forbidden", "in_use", "system_group"))
async def create_group(database: Db, caller: DirectoryManager, values: GroupValues, response: Response) -> GroupView:
    """Needs `directory.manage`, and every permission that the group is to have."""
    view = await groups.create(database, caller, values)
    response.headers["Location"] = f"/api/v1/groups/{view.id}"
    return tagged(response, view)


@router.put(
    "/{group_id}",
    summary="Update a group",
    responses=refusals("forbidden", "not_found", "in_use", "system_group", "changed_meanwhile"),
)
async def update_group(
    database: Db,
    caller: DirectoryManager,
    group_id: GroupId,
    values: GroupValues,
    expected: IfMatch,
    response: Response,
) -> GroupView:
    """Needs `directory.manage`, and every permission that the group has or is to have.

    Replaces all values. Members are no part of them: they are added and removed one at a time, and `If-Match` does not
    look at them.
    """
    return tagged(response, await groups.replace(database, caller, group_id, values, expected))


@router.delete(
    "/{group_id}",
    summary="Delete a group",
    status_code=204,
    responses=refusals("forbidden", "not_found", "in_use", "system_group", "changed_meanwhile"),
)
async def delete_group(
    database: Db, temporal: Temporal, caller: DirectoryManager, group_id: GroupId, expected: IfMatch
) -> None:
    """Needs `directory.manage`, and every permission that the group has.

    Refused while a template is for its members only (`allowed_group_ids`), since it would be for anyone. Templates
    that name it as approvers or for escalation go on without it; where nobody is left who could decide a pending
    request, the escalation group is asked, else the administrators.
    """
    await temporal.reconcile(await groups.delete(database, caller, group_id, expected))


@router.get(
    "/{group_id}/members",
    summary="List a group's members",
    responses=refusals("forbidden", "not_found", "system_group"),
)
async def list_group_members(database: Db, _: DirectoryReader, group_id: GroupId, position: Paging) -> Page[MemberView]:
    """Needs `directory.manage` or `access_requests.manage`. Last joined first; `joined` gives the order."""
    return await groups.list_members(database, group_id, position)


@router.put(
    "/{group_id}/members/{user_id}",
    summary="Add a member",
    status_code=204,
    responses=refusals("forbidden", "not_found", "system_group"),
)
async def add_group_member(database: Db, caller: DirectoryManager, group_id: GroupId, user_id: UserId) -> None:
    """Needs `directory.manage`, and every permission that the group has. A member keeps their place in the order."""
    await groups.add_member(database, caller, group_id, user_id)


@router.delete(
    "/{group_id}/members/{user_id}",
    summary="Remove a member",
    status_code=204,
    responses=refusals("forbidden", "not_found", "system_group"),
)
async def remove_group_member(
    database: Db, temporal: Temporal, caller: DirectoryManager, group_id: GroupId, user_id: UserId
) -> None:
    """Needs `directory.manage`, and every permission that the group has. 204 as well where there was no such member."""
    await temporal.reconcile(await groups.remove_member(database, caller, group_id, user_id))
