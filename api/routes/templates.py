"""Templates (specification, API Reference)."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response

from api.authentication import RequestsManager
from api.problems import refusals
from api.reading import Paging
from api.resources import AppSettings, Db
from api.versions import IfMatch, tagged
from db import templates
from db.paging import Page
from db.templates import TemplateView
from domain.templates import TemplateValues

router = APIRouter(prefix="/access-request-templates", tags=["Templates"])

TemplateId = Annotated[UUID, Path(description="Id of the template.")]


@router.get("", summary="List all templates", responses=refusals())
async def list_templates(database: Db, position: Paging) -> Page[TemplateView]:
    """All templates, newest first. What may be asked for depends on `allowed_group_ids`."""
    return await templates.list_templates(database, position)


@router.get("/{template_id}", summary="Get a template", responses=refusals("not_found"))
async def get_template(database: Db, template_id: TemplateId, response: Response) -> TemplateView:
    """One template with all its values."""
    return tagged(response, await templates.get(database, template_id))


@router.post("", summary="Create a template", status_code=201, responses=refusals("forbidden"))
async def create_template(
    database: Db, settings: AppSettings, _: RequestsManager, values: TemplateValues, response: Response
) -> TemplateView:
    """Needs `access_requests.manage`.

    Everything that the values name has to exist, and the mappings belong to the application.
    """
    view = await templates.create(database, values, longest_mins=settings.max_duration_mins)
    response.headers["Location"] = f"/api/v1/access-request-templates/{view.id}"
    return tagged(response, view)


@router.put(
    "/{template_id}",
    summary="Update a template",
    responses=refusals("forbidden", "not_found", "changed_meanwhile"),
)
async def update_template(
    database: Db,
    settings: AppSettings,
    _: RequestsManager,
    template_id: TemplateId,
    values: TemplateValues,
    expected: IfMatch,
    response: Response,
) -> TemplateView:
    """Needs `access_requests.manage`.

    Replaces all values: what is left out gets its default. `app_id` cannot be changed. Requests made before keep the
    values of their submission.
    """
    view = await templates.replace(
        database, template_id, values, longest_mins=settings.max_duration_mins, expected=expected
    )
    return tagged(response, view)


@router.delete(
    "/{template_id}",
    summary="Delete a template",
    status_code=204,
    responses=refusals("forbidden", "not_found", "template_in_use", "changed_meanwhile"),
)
async def delete_template(database: Db, _: RequestsManager, template_id: TemplateId, expected: IfMatch) -> None:
    """Needs `access_requests.manage`.

    Refused while requests made from it are pending or grants last. Closed requests are kept, with the template's name
    and without its id.
    """
    await templates.delete(database, template_id, expected)
