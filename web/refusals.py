"""What a page says when the service says no."""

from __future__ import annotations

from typing import Final, cast
from urllib.parse import quote

import psycopg
import sqlalchemy.exc
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from api.problems import field_error, status_and_title
from domain.errors import AccessError, RecordUnavailable, TooManyCalls, Unauthenticated
from web.authentication import SignInNeeded
from web.rendering import Pages

_log = structlog.get_logger(__name__)

_NOTHING_HERE: Final = "There is nothing at this address. It may have been deleted, or the link is incomplete."


def install(pages: FastAPI) -> None:
    """Answer every error of `pages` with a page."""
    pages.add_exception_handler(SignInNeeded, _sign_in)
    pages.add_exception_handler(AccessError, _access_error)
    pages.add_exception_handler(RequestValidationError, _garbled)
    pages.add_exception_handler(HTTPException, _http_exception)
    for kind in (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.InterfaceError,
    ):
        pages.add_exception_handler(kind, _record_unavailable)
    pages.add_exception_handler(Exception, _internal_error)


async def _sign_in(request: Request, _: Exception) -> Response:
    if request.method == "GET" and request.headers.get("sec-fetch-dest", "document") == "document":
        # From the scope: `request.url` cannot be parsed where the Host header is garbled.
        query = request.scope["query_string"].decode("latin-1")
        target = quote(request.scope["path"]) + (f"?{query}" if query else "")
        return RedirectResponse(f"/sign-in?next={quote(target, safe='')}", status_code=303)
    return await _page(request, 401, "You are signed out", "Sign in again; what you sent was not carried out.")


async def _access_error(request: Request, raised: Exception) -> Response:
    error = cast("AccessError", raised)
    status, title = status_and_title(error.code)
    if isinstance(error, Unauthenticated):
        title = "You are not signed in"
    answer = await _page(request, status, title, error.detail)
    if isinstance(error, TooManyCalls):
        answer.headers["Retry-After"] = str(error.retry_after_secs)
    return answer


async def _garbled(request: Request, raised: Exception) -> Response:
    # A filter that cannot be read: without it, the page would show what was not asked for.
    filters = [error for error in cast("RequestValidationError", raised).errors() if error["loc"][0] == "query"]
    if filters and len(filters) == len(cast("RequestValidationError", raised).errors()):
        said = "; ".join(f"{field}: {message}" for field, message in map(field_error, filters))
        return await _page(request, 422, "A filter cannot be read", f"{said}. Change it in the address, or remove it.")
    return await _page(request, 404, "Not found", _NOTHING_HERE)


async def _http_exception(request: Request, raised: Exception) -> Response:
    error = cast("HTTPException", raised)
    if error.status_code in {404, 405}:
        answer = await _page(request, error.status_code, "Not found", _NOTHING_HERE)
        if allowed := (error.headers or {}).get("Allow"):
            answer.headers["Allow"] = f"{allowed}, HEAD" if "GET" in allowed and "HEAD" not in allowed else allowed
        return answer
    return await _page(request, error.status_code, "That could not be read", str(error.detail))


async def _record_unavailable(request: Request, error: Exception) -> Response:
    _log.warning("the database is unavailable", path=request.scope["path"], error=str(error))
    status, title = status_and_title(RecordUnavailable.code)
    return await _page(request, status, title, "The database did not answer in time. Try again in a moment.")


async def _internal_error(request: Request, _: Exception) -> Response:
    # The server logs the exception with its traceback: Starlette raises it again once this is sent.
    return await _page(request, 500, "Something went wrong here", "The failure was logged. Try again.")


async def _page(request: Request, status: int, title: str, detail: str) -> Response:
    pages: Pages = request.app.state.pages
    return pages.refusal(request, status, title, detail)
