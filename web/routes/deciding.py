"""For who decides, and for everybody who looks at one request."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import FormData
from starlette.responses import Response

from api import lifecycle
from api.lifecycle import Step, readable
from api.reading import Paging, Reading
from api.resources import Db, Temporal
from api.routes.requests import NewMessage
from db import requests, run_history
from db.paging import LARGEST_LIMIT, Position
from db.requests import RequestView
from domain import deciding
from domain.deciding import Standing
from domain.errors import AccessError, Invalid, NotFound, OrchestratorUnavailable
from domain.states import Action, after
from domain.text import LongText
from web import reading
from web.authentication import Form
from web.rendering import by_field
from web.resources import Visit
from web.routes.sign_in import local

router = APIRouter()

_UNCERTAIN: Final = (
    "It is not certain yet whether that was carried out: Temporal did not answer in time. Look again in a moment; "
    "doing it a second time does no harm."
)
_COMMENT: Final = TypeAdapter(LongText)
_EVERYTHING: Final = Position(LARGEST_LIMIT)
_ACTIONS: Final = {"approve": Action.APPROVE, "deny": Action.DENY, "revoke": Action.REVOKE}


@router.get("/decide")
async def awaiting(visit: Visit, connection: Reading, position: Paging) -> Response:
    """What waits for me, as it came."""
    listed = await requests.list_awaiting(connection, visit.person, position, oldest_first=True)
    return await visit.show("decide.html", requests=listed)


@router.get("/requests/{request_id}")
async def detail(visit: Visit, db: Db, request_id: UUID) -> Response:
    """Everything about one request."""
    return await _detail(visit, db, request_id)


@router.post("/requests/{request_id}/messages")
async def say(visit: Visit, db: Db, sent: Form, request_id: UUID) -> Response:
    """Add to the discussion."""
    try:
        message = NewMessage(body=reading.content(sent, "body"))
    except ValidationError:
        errors = {"body": "Write something first, of at most 10,000 characters."}
        return await _detail(visit, db, request_id, status=422, errors=errors, given=sent)
    async with db.connection() as connection:
        await readable(connection, request_id, visit.person)
        await requests.add_message(connection, request_id, visit.person, message.body)
    return visit.back(f"/requests/{request_id}#discussion")


@router.post("/requests/{request_id}/{action}")
async def decide(visit: Visit, db: Db, temporal: Temporal, sent: Form, request_id: UUID, action: str) -> Response:
    """Approve, deny, cancel or end, and go back to where that was decided."""
    if action not in _ACTIONS:
        raise NotFound("There is nothing at this address.")
    back = local(reading.text(sent, "back") or f"/requests/{request_id}")
    try:
        comment = _COMMENT.validate_python(reading.content(sent, "comment"))
        taken = await lifecycle.take(db, temporal, Step(request_id, _ACTIONS[action], visit.person, comment))
    except ValidationError:
        return visit.back(back, "The comment is longer than 10,000 characters; nothing was decided.", "problem")
    except Invalid as error:
        return visit.back(back, " ".join(by_field(error).values()), "problem")
    except OrchestratorUnavailable:
        return visit.back(back, _UNCERTAIN, "problem")
    except AccessError as error:
        return visit.back(back, error.detail, "problem")
    return visit.back(back, _done(_ACTIONS[action], taken.view))


async def _detail(
    visit: Visit,
    db: Db,
    request_id: UUID,
    *,
    status: int = 200,
    errors: dict[str, str] | None = None,
    given: FormData | None = None,
) -> Response:
    async with db.connection() as connection:
        view, asked = await readable(connection, request_id, visit.person)
        timeline = await requests.list_timeline(connection, request_id, _EVERYTHING)
        messages = await requests.list_messages(connection, request_id, _EVERYTHING)
        runs = await run_history.list_of_request(
            connection, request_id, _EVERYTHING, with_output=lifecycle.may_see_output(visit.person)
        )
    standing = Standing.of(visit.person, asked)
    return await visit.show(
        "request.html",
        status=status,
        view=view,
        standing=standing,
        may={
            action.value
            for action in _ACTIONS.values()
            if deciding.may_do(action, standing, view.status) and after(view.status, action) is not None
        },
        timeline=timeline.items[::-1],
        messages=messages.items[::-1],
        runs=runs.items,
        errors=errors or {},
        given=given or {},
    )


def _done(action: Action, view: RequestView) -> str:
    who, what = view.requester.name, view.template_name
    match action:
        case Action.APPROVE:
            return f"Approved: {who} has “{what}” now."
        case Action.DENY:
            return f"Denied: {who} does not get “{what}”."
        case _:
            return f"Ended: “{what}”." if view.expires_at is not None else f"Cancelled: “{what}”."
