"""Applications."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Path, Response

from api.authentication import DirectoryManager
from api.problems import refusals
from api.reading import Paging
from api.resources import Db
from api.versions import IfMatch, tagged
from db import applications
from db.applications import ApplicationView, NewClientSecret
from db.paging import Page
from domain.directory import ApplicationValues

_log = structlog.get_logger(__name__)

router = APIRouter(prefix="/applications", tags=["Applications"])

AppId = Annotated[UUID, Path(description="Id of the application.")]


@router.get("", summary="List applications", responses=refusals())
async def list_applications(database: Db, position: Paging) -> Page[ApplicationView]:
    """All applications, newest first."""
    return await applications.list_applications(database, position)


@router.get("/{app_id}", summary="Get an application", responses=refusals("not_found"))
async def get_application(database: Db, app_id: AppId, response: Response) -> ApplicationView:
    """One application."""
    return tagged(response, await applications.get_application(database, app_id))


@router.post("", summary="Create an application", status_code=201, responses=refusals("forbidden", "in_use"))
async def create_application(
    database: Db, _: DirectoryManager, values: ApplicationValues, response: Response
) -> ApplicationView:
    """Needs `directory.manage`."""
    view = await applications.create_application(database, values)
    response.headers["Location"] = f"/api/v1/applications/{view.id}"
    return tagged(response, view)


@router.put(
    "/{app_id}",
    summary="Update an application",
    responses=refusals("forbidden", "not_found", "in_use", "changed_meanwhile"),
)
async def update_application(
    database: Db,
    _: DirectoryManager,
    app_id: AppId,
    values: ApplicationValues,
    expected: IfMatch,
    response: Response,
) -> ApplicationView:
    """Needs `directory.manage`. Replaces all values."""
    return tagged(response, await applications.replace_application(database, app_id, values, expected))


@router.delete(
    "/{app_id}",
    summary="Delete an application",
    status_code=204,
    responses=refusals("forbidden", "not_found", "in_use", "changed_meanwhile"),
)
async def delete_application(database: Db, _: DirectoryManager, app_id: AppId, expected: IfMatch) -> None:
    """Needs `directory.manage`. Refused while an open request or a template is for it, or it has mappings."""
    await applications.delete_application(database, app_id, expected)


@router.post(
    "/{app_id}/client-secret",
    summary="Make a new client secret",
    status_code=201,
    responses=refusals("forbidden", "not_found"),
)
async def rotate_client_secret(database: Db, caller: DirectoryManager, app_id: AppId) -> NewClientSecret:
    """Needs `directory.manage`. The one before stops working at once. The answer is the only time it is shown.

    With its `client_id` and this secret, the application introspects and revokes the tokens that are issued for it
    (`/oauth2/introspect`, `/oauth2/revoke`).
    """
    made = await applications.rotate_client_secret(database, app_id)
    _log.info("client_secret_rotated", app_id=str(app_id), client_id=made.client_id, by=str(caller.id))
    return made
