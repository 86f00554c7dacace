"""Conditional replacement over HTTP: `ETag` on an answer, `If-Match` on a call (RFC 9110)."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

from fastapi import Depends, Header, Request, Response

from db.views import Versioned
from domain.versions import ANY_VERSION, Expected

View = TypeVar("View", bound=Versioned)

PARAMETER: Final = "If-Match"
"""The header that makes a call conditional."""
HEADER: Final = {
    "ETag": {
        "description": "The version, for `If-Match`.",
        "schema": {"type": "string", "pattern": '^"[0-9a-f]{32}"$'},
    }
}
"""The header that `tagged` adds, for the OpenAPI document."""


async def _if_match(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(
            alias=PARAMETER,
            description="Go on only from the version that was read: its `ETag`, several of them, or `*` for any. "
            "Refused (412) where it was changed meanwhile. Left out: from any version, so that what was changed "
            "meanwhile is lost.",
        ),
    ] = None,
) -> Expected:
    # A list may come in several lines, of which the parameter is one.
    return ANY_VERSION if if_match is None else Expected.parse(", ".join(request.headers.getlist(PARAMETER)))


IfMatch = Annotated[Expected, Depends(_if_match)]
"""The versions that the caller is prepared to replace or delete."""


def tagged(response: Response, view: View) -> View:
    """Add the version of `view` to the response that shows it."""
    response.headers["ETag"] = view.version
    return view
