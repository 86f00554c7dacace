"""Refusals as problem documents (RFC 9457): the one place where an error becomes HTTP.

Everything that goes wrong is answered in this form, whatever the client sent: `code` is stable and made for programs,
`detail` for the person who has to act on it. SCIM clients are answered in theirs (RFC 7644, section 3.12).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, cast
from urllib.parse import quote

import psycopg
import sqlalchemy.exc
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from scim2_models import Error as ScimError
from scim2_models import SCIMException
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.observation import SCIM
from domain.errors import AccessError, InUse, Invalid, SecretUnreadable, TooManyCalls

_log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
_SCIM_MEDIA_TYPE: Final = "application/scim+json"
_SCIM_ERROR: Final = "#/components/schemas/ScimError"
_NOT_OF_SCIM: Final = frozenset({f"{SCIM}/Me", f"{SCIM}/Bulk", f"{SCIM}/.search"})
"""What RFC 7644 has and this service does not."""
_RETRY_AFTER_SECS: Final = "2"
_MOST_ERRORS: Final = 50
"""A body can be wrong in more places than anybody reads; the answer must not grow with it."""
_LONGEST_FIELD: Final = 200
_LONGEST_DETAIL: Final = 1_000
_SUMMARISED_ERRORS: Final = 3

_KINDS: Final[dict[str, tuple[int, str, str]]] = {
    "unauthenticated": (401, "Authentication is required", "The token is unknown, expired or revoked."),
    "forbidden": (403, "Not allowed", "This needs the permission directory.manage."),
    "not_found": (404, "Not found", "There is no such thing."),
    "method_not_allowed": (405, "Method not allowed", "This path answers to other methods."),
    "pending_request_exists": (
        409,
        "A pending request exists",
        "You have a pending request for this template. Wait for its decision, or cancel it first.",
    ),
    "request_not_pending": (
        409,
        "The request is not pending",
        "The request is no longer pending: it is approved, decided by bob@example.com.",
    ),
    "request_not_active": (409, "The request is over", "The request is over: it is expired."),
    "template_in_use": (409, "The template is in use", "3 open requests were made from this template."),
    "decision_in_progress": (409, "A decision is in progress", "Another approval is being carried out."),
    "trigger_task_failed": (409, "The trigger task failed", "The task that has to succeed first failed."),
    "system_group": (409, "System group", "This group belongs to an access request and cannot be managed here."),
    "in_use": (409, "In use", "The template “Database read-only access” names it."),
    "changed_meanwhile": (
        412,
        "It was changed meanwhile",
        "It was changed since you read it, and nothing was done. Read it again, and apply your change to that.",
    ),
    "payload_too_large": (413, "The body is too large", "The body may have at most 262144 bytes."),
    "unsupported_media_type": (415, "Unsupported media type", "Send the body as application/json."),
    "validation_error": (422, "The input is not valid", "name: is required"),
    "too_many_calls": (
        429,
        "Too many calls",
        "You send more calls than are taken from one caller. Try again in 1 second.",
    ),
    "internal_error": (500, "Something went wrong here", "The failure was logged."),
    "secret_unreadable": (
        500,
        "A secret cannot be decrypted",
        "The secret SLACK_WEBHOOK was encrypted under a key that is not set any more. Set it anew.",
    ),
    "orchestrator_unavailable": (503, "Temporal is unavailable", "Temporal did not answer in time. Try again."),
    "issuer_unavailable": (
        503,
        "The issuer of the token is unavailable",
        "The issuer https://login.example.com does not publish its keys. Try again.",
    ),
    "record_unavailable": (503, "The database is unavailable", "The database did not answer in time. Try again."),
}
"""Each code with its status, its title and, for the documentation, a detail it may come with."""

_ALWAYS: Final = ("unauthenticated", "validation_error", "too_many_calls", "issuer_unavailable", "record_unavailable")
"""What every route under /api/v1 may answer."""

_RETRY_AFTER: Final = {
    "description": "Seconds after which to try again.",
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
}
_DOCUMENTED_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {
        "WWW-Authenticate": {
            "description": "How to authenticate (RFC 6750).",
            "required": True,
            "schema": {"const": "Bearer", "type": "string"},
        }
    },
    429: {"Retry-After": _RETRY_AFTER},
    503: {"Retry-After": _RETRY_AFTER},
}
"""What `_headers` adds, as the OpenAPI document says it."""

_CODE_OF_STATUS: Final = {
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
}


_SCIM_CODES: Final = {"in_use": "uniqueness", "validation_error": "invalidValue"}
"""The `scimType` of errors, where RFC 7644 has one."""


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="Path of the field, with dots: `custom_fields.0.label`.")
    message: str = Field(description="What would be accepted.")


class Problem(BaseModel):
    """Why the service says no (RFC 9457)."""

    type: str = Field(description="The kind of problem as a URI; made of the code.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened, for the person who has to act on it.")
    code: str = Field(description="The kind of problem for programs; stable.")
    instance: str | None = Field(default=None, description="The path that was called.")
    errors: list[FieldError] | None = Field(default=None, description="With `validation_error`: each field's problem.")


def status_and_title(code: str) -> tuple[int, str]:
    """The HTTP status of an error's code, and the kind of problem in words."""
    status, title, _ = _KINDS.get(code, _KINDS[AccessError.code])
    return status, title


def problem(
    code: str, detail: str, *, instance: str | None = None, errors: Iterable[tuple[str, str]] | None = None
) -> Problem:
    """The document for `code`."""
    status, title, _ = _KINDS[code]
    return Problem(
        type=f"urn:justiam:problem:{code}",
        title=title,
        status=status,
        detail=_printable(detail),
        code=code,
        instance=instance,
        errors=None
        if errors is None
        else [FieldError(field=field, message=_printable(message)) for field, message in errors],
    )


def answer(document: Problem, headers: dict[str, str] | None = None) -> Response:
    """`document` as a response."""
    return Response(
        document.model_dump_json(exclude_none=True),
        status_code=document.status,
        headers={**_headers(document.status), **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def refusals(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may say no with `codes`, beside those that every route under /api/v1 knows."""
    documented: dict[int | str, dict[str, Any]] = {}
    for code in sorted({*codes, *_ALWAYS}, key=list(_KINDS).index):
        status, title, detail = _KINDS[code]
        response = documented.setdefault(
            status,
            {
                "description": title,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
                **({"headers": headers} if (headers := _DOCUMENTED_HEADERS.get(status)) else {}),
            },
        )
        errors = [("name", "is required")] if code == "validation_error" else None
        response["content"][MEDIA_TYPE]["examples"][code] = {
            "summary": title,
            "value": problem(code, detail, errors=errors).model_dump(exclude_none=True),
        }
    return documented


def scim_refusals(*codes: str) -> dict[int | str, dict[str, Any]]:
    """As `refusals`, of a route that SCIM clients call."""
    documented: dict[int | str, dict[str, Any]] = {}
    for answer in refusals(*codes).values():
        for code, example in answer["content"][MEDIA_TYPE]["examples"].items():
            error = _scim_error(code, example["value"]["detail"])
            response = documented.setdefault(
                int(error.status or 0),
                {**answer, "content": {_SCIM_MEDIA_TYPE: {"schema": {"$ref": _SCIM_ERROR}, "examples": {}}}},
            )
            response["content"][_SCIM_MEDIA_TYPE]["examples"][code] = {
                "summary": example["summary"],
                "value": error.model_dump(),
            }
    return documented


def schemas() -> dict[str, Any]:
    """The schemas that `refusals` refers to, for `components` of the OpenAPI document."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "Problem": schema}


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(AccessError, _access_error)
    app.add_exception_handler(SCIMException, _scim_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    for kind in (
        # Unreachable, out of connections, out of time, or a deadlock: all pass, and the call may be repeated.
        psycopg.OperationalError,
        psycopg.InterfaceError,
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.InterfaceError,
    ):
        app.add_exception_handler(kind, _record_unavailable)
    app.add_exception_handler(Exception, _internal_error)


async def _access_error(request: Request, raised: Exception) -> Response:
    error = cast("AccessError", raised)
    code = error.code if error.code in _KINDS else AccessError.code
    if code == AccessError.code:
        _log.error("refused without a code", path=request.scope["path"], detail=error.detail)
        return _say(request, code, _KINDS[code][2])
    if isinstance(error, Invalid):
        return _invalid(request, error.errors)
    if isinstance(error, TooManyCalls):
        headers = {"Retry-After": str(error.retry_after_secs)}
        return _say(request, code, error.detail, headers)
    if isinstance(error, SecretUnreadable):
        _log.error("a secret cannot be decrypted", path=request.scope["path"], detail=error.detail)
    return _say(request, code, error.detail)


async def _validation_error(request: Request, raised: Exception) -> Response:
    errors = [field_error(error) for error in cast("RequestValidationError", raised).errors()]
    return _invalid(request, errors)


async def _http_exception(request: Request, raised: Exception) -> Response:
    error = cast("HTTPException", raised)
    headers = dict(error.headers or {})
    if error.status_code == 400:  # noqa: PLR2004 - FastAPI's answer to a body that it could not read
        return _invalid(request, [("body", "is not JSON that can be read")])
    code = _CODE_OF_STATUS.get(error.status_code, AccessError.code)
    path = request.scope["path"]
    if path in _NOT_OF_SCIM:
        return _say_in_scim(ScimError(status=501, detail=f"{path} is not supported."))
    if code == "method_not_allowed":
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
    detail = {
        "not_found": f"There is nothing at {path}.",
        "method_not_allowed": f"{path} answers to {headers.get('Allow')}.",
    }.get(code, error.detail)
    return _say(request, code, detail, headers)


async def _record_unavailable(request: Request, error: Exception) -> Response:
    _log.warning("the database is unavailable", path=request.scope["path"], error=str(error))
    code = "record_unavailable"
    return _say(request, code, _KINDS[code][2])


async def _internal_error(request: Request, _: Exception) -> Response:
    # The server logs the exception with its traceback: Starlette raises it again once this is sent.
    code = AccessError.code
    return _say(request, code, _KINDS[code][2])


def _methods(request: Request) -> set[str]:
    """What the called path answers to: of several routes at one path, Starlette names the methods of the first."""
    path = request.scope["path"]
    methods = {
        method
        for route in iter_route_contexts(request.app.routes)
        if route.path_regex is not None and route.path_regex.match(path)
        for method in route.methods or ()
    }
    # No route of ours: a file of the documentation's.
    return methods | {"HEAD"} if "GET" in methods else methods or {"GET", "HEAD"}


def _invalid(request: Request, errors: Sequence[tuple[str, str]]) -> Response:
    kept = [(_printable(field)[:_LONGEST_FIELD] or "body", message) for field, message in errors[:_MOST_ERRORS]]
    detail = Invalid(*kept[:_SUMMARISED_ERRORS]).detail
    if len(errors) > _SUMMARISED_ERRORS:
        detail += f"; and {len(errors) - _SUMMARISED_ERRORS} more"
    return _say(request, Invalid.code, detail, errors=kept)


def field_error(error: dict[str, Any]) -> tuple[str, str]:
    """Return the field that an error of FastAPI's validation is about, and what would be accepted."""
    kind, location, message = error["type"], error["loc"], str(error["msg"])
    if kind == "json_invalid":
        return "body", f"is not JSON: {error['ctx']['error']} at character {location[-1]}"
    # The first part says where the value came from; the field's own name is enough to find it.
    path = ".".join(str(part) for part in location[1:]) or str(location[0])
    match kind:
        case "missing":
            return path, "is required"
        case "extra_forbidden":
            return path, "is not a known field"
        case "model_attributes_type":
            return path, "must be a JSON object"
    message = message.removeprefix("Value error, ").replace("Input should", "must", 1)
    # Not where it begins with an abbreviation, as in “UUID input …”.
    return path, message if message[:2].isupper() else message[:1].lower() + message[1:]


def _say(
    request: Request,
    code: str,
    detail: str,
    headers: dict[str, str] | None = None,
    errors: Iterable[tuple[str, str]] | None = None,
) -> Response:
    """The answer, in the words of who called."""
    if request.scope["path"].startswith(f"{SCIM}/"):
        error = _scim_error(code, detail)
        if request.method == "DELETE" and error.status == status_and_title(InUse.code)[0]:
            # Something else depends on it; nothing of it is taken.
            error.scim_type = None
        return _say_in_scim(error, headers)
    return answer(problem(code, detail, instance=_instance(request), errors=errors), headers)


def _scim_error(code: str, detail: str) -> ScimError:
    status = 400 if code == Invalid.code else status_and_title(code)[0]
    return ScimError(status=status, scim_type=_SCIM_CODES.get(code), detail=_printable(detail))


def _say_in_scim(error: ScimError, headers: dict[str, str] | None = None) -> Response:
    return Response(
        error.model_dump_json(),
        status_code=error.status or 500,
        headers={**_headers(error.status or 500), **(headers or {})},
        media_type=_SCIM_MEDIA_TYPE,
    )


async def _scim_exception(_: Request, raised: Exception) -> Response:
    error = cast("SCIMException", raised).to_error()
    return _say_in_scim(error.model_copy(update={"detail": _printable(error.detail or "")[:_LONGEST_DETAIL]}))


def _instance(request: Request) -> str:
    # Not from `request.url`, which a garbled Host header breaks.
    return quote(request.scope["path"], errors="replace")


def _headers(status: int) -> dict[str, str]:
    match status:
        case 401:
            return {"WWW-Authenticate": "Bearer"}
        case 413:
            # The rest of the body is still on its way; it is not worth reading.
            return {"Connection": "close"}
        case 503:
            return {"Retry-After": _RETRY_AFTER_SECS}
    return {}


def _printable(text: str) -> str:
    """`text` as it can be encoded: what a client sent, and is told about, may have lone surrogates."""
    return text.encode(errors="replace").decode()
