"""API tokens."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.authentication import Caller
from api.problems import refusals
from api.reading import Paging
from api.resources import Db
from db import tokens
from db.paging import Page
from db.tokens import NewToken, TokenView
from domain.actors import Permission
from domain.errors import Forbidden
from domain.text import Name

router = APIRouter(prefix="/api-tokens", tags=["API tokens"])


class TokenValues(BaseModel):
    """A token to make."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "laptop", "expires_in_days": 30}]}
    )

    name: Name = Field(description="What it is for.")
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=365)] = Field(
        default=90, description="Days for which it works."
    )
    user_id: UUID | None = Field(
        default=None, description="A service account that the caller owns; left out: the caller."
    )


@router.get("", summary="List API tokens", responses=refusals("forbidden"))
async def list_api_tokens(
    database: Db,
    caller: Caller,
    position: Paging,
    everybodys: Annotated[bool, Query(alias="all", description="Everybody's; needs `directory.manage`.")] = False,  # noqa: FBT002
) -> Page[TokenView]:
    """The caller's tokens and those of their service accounts, newest first, expired and revoked ones included."""
    if everybodys and not caller.holds(Permission.DIRECTORY):
        raise Forbidden("Everybody's tokens are shown to holders of directory.manage.")
    return await tokens.list_tokens(database, position, of=None if everybodys else caller)


@router.post("", summary="Create an API token", status_code=201, responses=refusals("forbidden"))
async def create_api_token(database: Db, caller: Caller, values: TokenValues, response: Response) -> NewToken:
    """For the caller, or for a service account that the caller owns. The answer is the only time it is shown."""
    token = await tokens.create_for(
        database, caller, values.user_id or caller.id, values.name, timedelta(days=values.expires_in_days)
    )
    response.headers["Location"] = f"/api/v1/api-tokens/{token.id}"
    return token


@router.delete(
    "/{token_id}", summary="Revoke an API token", status_code=204, responses=refusals("forbidden", "not_found")
)
async def revoke_api_token(
    database: Db, caller: Caller, token_id: Annotated[UUID, Path(description="Id of the token.")]
) -> None:
    """It stops working at once.

    One's own, those of one's service accounts, and with `directory.manage` those of accounts that have no permission
    which the caller lacks.
    """
    await tokens.revoke_token(database, token_id, by=caller)
