"""People and service accounts."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response

from api.authentication import Caller, DirectoryManager, DirectoryReader
from api.problems import refusals
from api.reading import Paging
from api.resources import Db, Temporal
from api.versions import IfMatch, tagged
from db import applications, claims, users
from db.database import Database
from db.paging import Page
from db.users import HeldGroup, Me, UserView
from domain.actors import Permission
from domain.deciding import Person
from domain.directory import UserReplacement, UserValues
from domain.errors import Forbidden
from domain.text import FilterText

router = APIRouter(prefix="/users", tags=["People"])

UserId = Annotated[UUID, Path(description="Id of the user.")]


@router.get("", summary="List users", responses=refusals("forbidden"))
async def list_users(
    database: Db,
    _: DirectoryReader,
    position: Paging,
    email: Annotated[FilterText | None, Query(description="Part of the email address, in any case.")] = None,
) -> Page[UserView]:
    """Needs `directory.manage` or `access_requests.manage`. Newest first."""
    return await users.list_users(database, position, email=email)


@router.get("/me", summary="Who am I", responses=refusals())
async def get_me(database: Db, caller: Caller) -> Me:
    """The caller, with the permissions and groups they have at this moment."""
    return await users.me(database, caller)


@router.get("/{user_id}", summary="Get a user", responses=refusals("forbidden", "not_found"))
async def get_user(database: Db, _: DirectoryReader, user_id: UserId, response: Response) -> UserView:
    """Needs `directory.manage` or `access_requests.manage`."""
    return tagged(response, await users.get(database, user_id))


@router.post("", summary="Create a user", status_code=201, responses=refusals("forbidden", "in_use"))
async def create_user(database: Db, caller: DirectoryManager, values: UserValues, response: Response) -> UserView:
    """Needs `directory.manage`.

    With `owner_id` it is a service account: one and the same with its owner to every rule, and the owner makes its
    tokens.
    """
    view = await users.create(database, values, by=caller)
    response.headers["Location"] = f"/api/v1/users/{view.id}"
    return tagged(response, view)


@router.put(
    "/{user_id}",
    summary="Update a user",
    responses=refusals("forbidden", "not_found", "in_use", "changed_meanwhile"),
)
async def update_user(  # noqa: PLR0917 - what FastAPI brings
    database: Db,
    temporal: Temporal,
    caller: DirectoryManager,
    user_id: UserId,
    values: UserReplacement,
    expected: IfMatch,
    response: Response,
) -> UserView:
    """Needs `directory.manage`, and every permission that the user and their service accounts have.

    Replaces all values; `owner_id` cannot be changed. `active: false` counts at once: tokens stop working, claims and
    votes are gone, pending requests are cancelled, grants end, and the service accounts of the user are deactivated
    too. Left out, it stays as it is: only `active: true` activates again. People are not deleted, since history names
    them.
    """
    view, marked = await users.replace(database, caller, user_id, values, expected)
    await temporal.reconcile(marked)
    return tagged(response, view)


@router.get("/{user_id}/groups", summary="List a user's groups", responses=refusals("forbidden", "not_found"))
async def list_user_groups(database: Db, caller: Caller, user_id: UserId) -> Page[HeldGroup]:
    """The groups that the user is in at this moment, by name and on one page; temporary ones while they last.

    For the user, the owner of a service account, and holders of `directory.manage`.
    """
    await _may_look(database, caller, user_id)
    async with database.connection() as connection:
        return Page(items=await users.held_groups(connection, user_id), next_cursor=None)


@router.get(
    "/{user_id}/mapping-values",
    summary="Get a user's effective mapping values",
    responses=refusals("forbidden", "not_found"),
)
async def get_mapping_values(
    database: Db,
    caller: Caller,
    user_id: UserId,
    app_id: Annotated[UUID, Query(description="Id of the application.")],
) -> dict[str, list[str]]:
    """The claims that the user has for an application at this moment: `{"roles": ["db_readonly"]}`.

    For the user, the owner of a service account, and holders of `directory.manage`.
    """
    await _may_look(database, caller, user_id)
    await applications.get_application(database, app_id)
    async with database.connection() as connection:
        return await claims.get_effective_mapping_values(connection, user_id, app_id)


async def _may_look(database: Database, caller: Person, user_id: UUID) -> None:
    if user_id == caller.id:
        return
    if caller.holds(Permission.DIRECTORY):
        await users.get(database, user_id)
    elif not await users.owns(database, caller.id, user_id):
        raise Forbidden("What somebody holds is shown to them and to holders of directory.manage.")
