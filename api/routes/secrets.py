"""Secrets that scripts read by name. No answer has a value."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Path, Response

from api.authentication import TasksManager
from api.problems import refusals
from api.reading import Paging
from api.resources import Db, Secrets
from api.versions import IfMatch, tagged
from db import secrets
from db.paging import Page
from db.secrets import SecretView
from domain.secrets import NewSecret, SecretChange

_log = structlog.get_logger(__name__)

router = APIRouter(prefix="/secrets", tags=["Secrets"])

SecretId = Annotated[UUID, Path(description="Id of the secret.")]


@router.get("", summary="List secrets", responses=refusals("forbidden"))
async def list_secrets(database: Db, _: TasksManager, position: Paging) -> Page[SecretView]:
    """Needs `tasks.manage`. All secrets without their values, newest first."""
    return await secrets.list_secrets(database, position)


@router.get("/{secret_id}", summary="Get a secret", responses=refusals("forbidden", "not_found"))
async def get_secret(database: Db, _: TasksManager, secret_id: SecretId, response: Response) -> SecretView:
    """Needs `tasks.manage`. One secret without its value, which nobody can read back."""
    return tagged(response, await secrets.get(database, secret_id))


@router.post("", summary="Create a secret", status_code=201, responses=refusals("forbidden", "in_use"))
async def create_secret(
    database: Db, vault: Secrets, caller: TasksManager, values: NewSecret, response: Response
) -> SecretView:
    """Needs `tasks.manage`. A script reads it where its task names it in `secret_names`.

    The value is encrypted, and masked in the output of scripts.
    """
    view = await secrets.create(database, vault, values)
    response.headers["Location"] = f"/api/v1/secrets/{view.id}"
    _log.info("secret_created", secret_id=str(view.id), name=view.name, by=str(caller.id))
    return tagged(response, view)


@router.put(
    "/{secret_id}", summary="Update a secret", responses=refusals("forbidden", "not_found", "changed_meanwhile")
)
async def update_secret(  # noqa: PLR0917 - what FastAPI brings
    database: Db,
    vault: Secrets,
    caller: TasksManager,
    secret_id: SecretId,
    values: SecretChange,
    expected: IfMatch,
    response: Response,
) -> SecretView:
    """Needs `tasks.manage`. Sets what is given; unlike elsewhere, what is left out stays.

    Runs that start from then on read the new value.
    """
    view = await secrets.change(database, vault, secret_id, values, expected)
    _log.info(
        "secret_changed", secret_id=str(view.id), name=view.name, value=values.value is not None, by=str(caller.id)
    )
    return tagged(response, view)


@router.delete(
    "/{secret_id}",
    summary="Delete a secret",
    status_code=204,
    responses=refusals("forbidden", "not_found", "in_use", "changed_meanwhile"),
)
async def delete_secret(database: Db, caller: TasksManager, secret_id: SecretId, expected: IfMatch) -> None:
    """Needs `tasks.manage`. Refused while a scheduled task names it in its `secret_names`."""
    await secrets.delete(database, secret_id, expected)
    _log.info("secret_deleted", secret_id=str(secret_id), by=str(caller.id))
