"""Headers that every response has."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MACHINES_PATHS: Final = ("/api/", "/scim/", "/oauth2/", "/script-runs/", "/.well-known/")
"""What only programs call."""


class ResponseHeaders:
    """ASGI middleware: no cache keeps what one person may see, and no browser guesses at types."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on and add to its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                if scope["path"].startswith(MACHINES_PATHS):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


class HeadAsGet:
    """ASGI middleware: a HEAD is answered like a GET of the same path, without the body (RFC 9110, section 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on as a GET, and its answer back without the body."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        ended = False

        async def without_body(message: Message) -> None:
            nonlocal ended
            if message["type"] != "http.response.body":
                await send(message)
            elif not ended:
                ended = True
                await send({"type": "http.response.body", "body": b""})
                if message.get("more_body", False):
                    # A stream may have no end.
                    answering.cancel()

        answering = asyncio.ensure_future(self._app({**scope, "method": "GET"}, receive, without_body))
        try:
            await answering
        except asyncio.CancelledError:
            if not ended:
                answering.cancel()
                raise
