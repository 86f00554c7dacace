"""API tokens: one's own and those of one's programs, and everybody's for who manages the directory."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.datastructures import FormData
from starlette.responses import Response

from api.authentication import Caller, DirectoryManager
from api.reading import Paging
from api.resources import Db
from api.routes import api_tokens
from api.routes.api_tokens import TokenValues
from db import tokens, users
from db.database import Database
from db.paging import Position
from domain.errors import AccessError
from web import reading
from web.authentication import Form
from web.rendering import by_field
from web.resources import Visit, Visitor

router = APIRouter()

_DAYS: Final = (7, 30, 90, 365)


@router.get("/tokens")
async def mine(visit: Visit, _: Caller, db: Db, position: Paging) -> Response:
    """My tokens and those of my service accounts."""
    return await _mine(visit, db, position)


@router.post("/tokens")
async def create(visit: Visit, _: Caller, db: Db, sent: Form) -> Response:
    """Make a token, and show it this once."""
    days = reading.text(sent, "expires_in_days")
    found: dict[str, Any] = {
        "name": reading.text(sent, "name"),
        "expires_in_days": int(days) if days in {str(each) for each in _DAYS} else 0,
        "user_id": reading.text(sent, "user_id") or None,
    }
    try:
        values = TokenValues.model_validate(found)
        made = await api_tokens.create_api_token(db, visit.person, values, Response())
    except ValidationError as error:
        return await _mine(visit, db, Position(), by_field(reading.invalid(error)), sent)
    except AccessError as error:
        return await _mine(visit, db, Position(), {"name": error.detail}, sent)
    return await _mine(visit, db, Position(), made=made.token)


@router.post("/tokens/{token_id}/revoke")
async def revoke(visit: Visit, _: Caller, db: Db, sent: Form, token_id: UUID) -> Response:
    """End a token at once."""
    await api_tokens.revoke_api_token(db, visit.person, token_id)
    back = "/admin/tokens" if reading.text(sent, "back") == "/admin/tokens" else "/tokens"
    return visit.back(back, "The token is revoked; it stopped working.")


@router.get("/admin/tokens")
async def everybodys(visit: Visit, _: DirectoryManager, db: Db, position: Paging) -> Response:
    """Everybody's tokens."""
    return await visit.show("admin_tokens.html", tokens=await tokens.list_tokens(db, position))


async def _mine(
    visit: Visitor,
    db: Database,
    position: Position,
    errors: dict[str, str] | None = None,
    sent: FormData | None = None,
    made: str | None = None,
) -> Response:
    return await visit.show(
        "tokens.html",
        status=422 if errors else 200,
        tokens=await tokens.list_tokens(db, position, of=visit.person),
        programs=await users.list_owned(db, visit.person.id),
        days=_DAYS,
        errors=errors or {},
        given=sent or {},
        made=made,
    )
