"""What every request body is held to before anybody looks at what it says."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message
from itertools import islice
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from domain import json_text
from domain.errors import Invalid
from domain.json_text import RepeatedName
from domain.text import storable

REFUSALS: Final = ("payload_too_large", "unsupported_media_type")
"""The codes with which a body is refused whatever it says."""
_DEEPEST: Final = 16
"""Levels of lists and objects. Ours have four; functions that walk a value by recursion have to get through."""
_LARGEST_NUMBER: Final = 2**63
_LONGEST_NAME: Final = 200
"""Characters of a field's name; the longest of ours, a UUID, has 36. What is wrong below a name is told with it: one as
long as half a body would be repeated for each value in the other half."""
_MOST_FIELDS: Final = 200
"""Fields of an object; the largest of ours has 50. To refuse one that nobody knows costs far more than sending it."""
_MOST_VALUES: Final = 12_000
"""Values in all: a template with 50 custom fields of 200 options each has the most of ours."""
_MOST_FOUND: Final = 50
"""As many as an answer names."""


class BodyLimit:
    """ASGI middleware: refuses a body of more than `limit` bytes (413), also where its length was not declared.

    One that its caller does not send to the end is refused as well (400).
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with a body that ends where the limit is."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        size = int(declared) if declared.isdigit() else 0
        read, more = 0, size > 0 or any(name == b"transfer-encoding" for name, _ in scope["headers"])

        async def limited() -> Event:
            nonlocal read, more
            if size > self._limit:
                raise self._refusal()
            message = await receive()
            if more and message["type"] == "http.disconnect":
                # Nobody reads the answer; but it is the caller's failure and not ours, to the log and the metrics too.
                raise HTTPException(400, "The body ended before it was complete.")
            more = more and message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > self._limit:
                raise self._refusal()
            return message

        await self._app(scope, limited, send)

    def _refusal(self) -> HTTPException:
        # This passes through whoever reads the body, up to the handler that makes a problem document of it.
        return HTTPException(413, f"The body may have at most {self._limit} bytes.")


async def acceptable(request: Request) -> None:
    """Hold a body to what every layer below can work with: JSON, not too deep, text and numbers that can be stored.

    Raises:
        HTTPException: 415, it is not declared as JSON.
        Invalid: it is not JSON, or has something in it that cannot be stored.
    """
    await _hold(request, "application/json")


async def acceptable_to_scim(request: Request) -> None:
    """As `acceptable`, also where the body is declared as SCIM (RFC 7644, section 8.1).

    Raises:
        HTTPException: 415, it is not declared as JSON.
        Invalid: it is not JSON, or has something in it that cannot be stored.
    """
    await _hold(request, "application/scim+json", "application/json")


async def _hold(request: Request, *media_types: str) -> None:
    if request.method not in {"POST", "PUT", "PATCH"} or not await request.body():
        return
    declared = Message()
    declared["Content-Type"] = request.headers.get("content-type", "")
    if declared.get_content_type() not in media_types:
        raise HTTPException(415, f"Send the body as {media_types[0]}.")
    try:
        body = json_text.parsed(await request.body())
    except RepeatedName as error:
        raise Invalid(("body", str(error))) from None
    except (ValueError, RecursionError):
        raise Invalid(("body", "is not JSON that can be read")) from None
    # What `request.json()` returns from now on: a body is parsed once.
    request._json = body  # noqa: SLF001
    found = islice(_unacceptable(body), _MOST_FOUND)
    errors = [(".".join(path) or "body", message) for path, message in found]
    if errors:
        raise Invalid(*errors)


def _unacceptable(body: Any) -> Iterator[tuple[tuple[str, ...], str]]:  # noqa: ANN401 - any JSON
    waiting: list[tuple[tuple[str, ...], Any]] = [((), body)]
    values = 1
    while waiting:
        path, value = waiting.pop()
        values += len(value) if isinstance(value, (dict, list)) else 0
        if values > _MOST_VALUES:
            yield (), f"has more than {_MOST_VALUES} values"
            return
        if message := _too_much(path, value):
            yield path, message
        elif isinstance(value, dict):
            for key, item in value.items():
                if len(key) > _LONGEST_NAME:
                    yield path, f"has a field whose name is longer than {_LONGEST_NAME} characters"
                    continue
                if message := _not_storable(key):
                    yield path, f"has a field whose name {message}"
                waiting.append(((*path, key), item))
        elif isinstance(value, list):
            waiting.extend(((*path, str(index)), item) for index, item in enumerate(value))
        elif message := _not_storable(value):
            yield path, message


def _too_much(path: tuple[str, ...], value: Any) -> str | None:  # noqa: ANN401 - any JSON
    if len(path) > _DEEPEST:
        return f"is nested deeper than {_DEEPEST} levels"
    if isinstance(value, dict) and len(value) > _MOST_FIELDS:
        return f"has more than {_MOST_FIELDS} fields"
    return None


def _not_storable(value: str | float | None) -> str | None:
    if isinstance(value, str):
        try:
            storable(value)
        except ValueError as error:
            return str(error)
    # Not below is not the same as above: NaN is neither.
    elif value is not None and not abs(value) < _LARGEST_NUMBER:
        return "must be a number of ordinary size"
    return None
