"""Server-sent events: the request that has changed, by its id (HTML, server-sent events)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from api.authentication import Caller
from api.resources import Db
from web.live import Changes, TooManyLook, Word
from web.resources import Live

router = APIRouter()

_PATIENCE_SECS: Final = 15.0
_LIFETIME_SECS: Final = 300.0
"""The browser connects again by itself, with its cookie: who was signed out meanwhile is told no more."""


@router.get("/live")
async def live(request: Request, caller: Caller, db: Db, changes: Live) -> Response:
    """Tells of changes to requests that the caller may read, until the connection ends."""
    return StreamingResponse(
        _events(changes, db, request.state.session, caller),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


async def _events(changes: Changes, db: Db, session: str, caller: Caller) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    try:
        async for word in changes.seen_by(db, session, caller, _PATIENCE_SECS, _LIFETIME_SECS):
            match word:
                case Word.NOTHING:
                    # A comment, by which proxies and ours see that the other side is still there.
                    yield ": nothing\n\n"
                case Word.LOOK:
                    yield "event: look\ndata:\n\n"
                case Word.ENOUGH:
                    # The page's script connects again when the page is looked at again; without it, slowly.
                    yield "retry: 60000\nevent: enough\ndata:\n\n"
                case request_id:
                    yield f"event: changed\ndata: {request_id}\n\n"
    except TooManyLook:
        yield "retry: 60000\n\n"
