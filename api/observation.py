"""What is told of every call: its id, a line in the log, a measurement."""

from __future__ import annotations

import re
import time
from typing import Any, Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry import metrics

_log = structlog.get_logger("http")

API: Final = "/api/v1"
"""What every route of the API is below."""
SCIM: Final = "/scim/v2"
"""What every route for SCIM clients is below."""
HEADER: Final = "X-Request-Id"
"""Names a call in the log; a proxy before us may have named it already."""
_ID: Final = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_QUIET: Final = frozenset({"/healthz", "/readyz"})
"""Asked every few seconds by machines."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NO_ROUTE: Final = "none"


class Observation:
    """ASGI middleware: names each call, and tells of it when it is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on and watch what becomes of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _ID.fullmatch(given) else uuid4().hex
        status = 500
        began = time.perf_counter()

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, named)
            finally:
                took = time.perf_counter() - began
                # Methods and paths are up to whoever sends them; what labels a metric has to have few values.
                method = scope["method"] if scope["method"] in _METHODS else "other"
                metrics.HTTP_SECONDS.labels(method, _route(scope), str(status)).observe(took)
                if scope["path"] not in _QUIET:
                    _log.info(
                        "call",
                        method=scope["method"],
                        # Without the query, which can be a secret: the code that an issuer sends somebody with.
                        path=scope["path"],
                        status=status,
                        duration_ms=round(took * 1000, 1),
                        client=(scope.get("client") or ("",))[0],
                    )


def _route(scope: Scope) -> str:
    """The path of the route that served it, as the documentation has it."""
    route: Any = scope.get("route")
    path = str(getattr(route, "path", "")) or _NO_ROUTE
    # A route does not know what it is below.
    above = next((prefix for prefix in (API, SCIM) if scope["path"].startswith(f"{prefix}/")), "")
    return above + path if path != _NO_ROUTE else path
