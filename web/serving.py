"""The HTTP server: uvicorn, which lets go of pages that listen for changes before it waits for what is in hand."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from api.readiness import Readiness
from settings import Settings
from telemetry import tracing
from web.app import create_app
from web.connections import BoundedConnection, make_room_for_connections
from web.live import Changes

_KEEP_ALIVE_SECS: Final = 75
"""Longer than load balancers keep an idle connection, so that none sends a call into one that is being closed."""
_GRACEFUL_SHUTDOWN_SECS: Final = 5
"""How long answers in progress may take after the API was told to stop."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        readiness: Readiness | None = getattr(self._app.state, "readiness", None)
        if readiness is not None:
            readiness.drain()
        # An open page would otherwise keep its connection, and the process, until it is ended by force.
        changes: Changes = self._app.state.changes
        changes.close()
        super().handle_exit(sig, frame)


def configured(app: Any, settings: Settings) -> uvicorn.Config:  # noqa: ANN401 - any ASGI application
    """How calls are taken and answered."""
    return uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        http=BoundedConnection,
        ws="none",
        log_config=None,
        # `api.observation` tells of each call.
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACEFUL_SHUTDOWN_SECS,
        timeout_keep_alive=_KEEP_ALIVE_SECS,
        # A call that was sent before the answer to the one before would know who made that one (`db.acting`).
        reset_contextvars=True,
    )


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    app = create_app(settings)
    make_room_for_connections()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Once all is done, uvicorn sends itself the signal again: to have ended as told is no failure.
        signal.signal(number, _as_told)
    _Server(configured(app, settings), app).run()
    tracing.flush()


def _as_told(_: int, __: FrameType | None) -> None:
    pass
