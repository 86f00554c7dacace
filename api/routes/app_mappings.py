"""App mappings and the groups that they are attached to."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response

from api.authentication import DirectoryManager
from api.problems import refusals
from api.reading import Paging
from api.resources import Db
from api.versions import IfMatch, tagged
from db import applications
from db.applications import MappingView
from db.paging import Page
from domain.directory import MappingValues

router = APIRouter(prefix="/app-mappings", tags=["App mappings"])

MappingId = Annotated[UUID, Path(description="Id of the mapping.")]
GroupId = Annotated[UUID, Path(description="Id of the group.")]


@router.get("", summary="List app mappings", responses=refusals())
async def list_app_mappings(
    database: Db,
    position: Paging,
    app_id: Annotated[UUID | None, Query(description="Only those of this application.")] = None,
) -> Page[MappingView]:
    """All mappings, newest first."""
    return await applications.list_mappings(database, position, app_id=app_id)


@router.get("/{mapping_id}", summary="Get an app mapping", responses=refusals("not_found"))
async def get_app_mapping(database: Db, mapping_id: MappingId, response: Response) -> MappingView:
    """One mapping, and the groups whose members get its claim."""
    return tagged(response, await applications.get_mapping(database, mapping_id))


@router.post("", summary="Create an app mapping", status_code=201, responses=refusals("forbidden", "in_use"))
async def create_app_mapping(
    database: Db, _: DirectoryManager, values: MappingValues, response: Response
) -> MappingView:
    """Needs `directory.manage`.

    Claim names that mean something of their own in tokens (`sub`, `exp`, `scope`, `email`, …) are refused.
    """
    view = await applications.create_mapping(database, values)
    response.headers["Location"] = f"/api/v1/app-mappings/{view.id}"
    return tagged(response, view)


@router.put(
    "/{mapping_id}",
    summary="Update an app mapping",
    responses=refusals("forbidden", "not_found", "in_use", "changed_meanwhile"),
)
async def update_app_mapping(
    database: Db,
    caller: DirectoryManager,
    mapping_id: MappingId,
    values: MappingValues,
    expected: IfMatch,
    response: Response,
) -> MappingView:
    """Needs `directory.manage`, and for a change of claim or value every permission of the groups that have it.

    Replaces all values; `app_id` cannot be changed. While an open request uses the mapping, nor can its claim and
    value. The groups that it is attached to stay; `If-Match` looks at them as well.
    """
    return tagged(response, await applications.replace_mapping(database, mapping_id, values, expected, by=caller))


@router.delete(
    "/{mapping_id}",
    summary="Delete an app mapping",
    status_code=204,
    responses=refusals("forbidden", "not_found", "in_use", "changed_meanwhile"),
)
async def delete_app_mapping(database: Db, caller: DirectoryManager, mapping_id: MappingId, expected: IfMatch) -> None:
    """Needs `directory.manage`, and every permission of the groups that it is attached to.

    Refused while an open request or a template names it.
    """
    await applications.delete_mapping(database, mapping_id, expected, by=caller)


@router.put(
    "/{mapping_id}/groups/{group_id}",
    summary="Attach an app mapping to a group",
    status_code=204,
    responses=refusals("forbidden", "not_found", "system_group"),
)
async def attach_app_mapping(database: Db, caller: DirectoryManager, mapping_id: MappingId, group_id: GroupId) -> None:
    """Needs `directory.manage`. From then on the members of the group have the claim."""
    await applications.attach(database, mapping_id, group_id, by=caller)


@router.delete(
    "/{mapping_id}/groups/{group_id}",
    summary="Detach an app mapping from a group",
    status_code=204,
    responses=refusals("forbidden", "not_found", "system_group"),
)
async def detach_app_mapping(database: Db, caller: DirectoryManager, mapping_id: MappingId, group_id: GroupId) -> None:
    """Needs `directory.manage`. 204 as well where it was not attached."""
    await applications.detach(database, mapping_id, group_id, by=caller)
