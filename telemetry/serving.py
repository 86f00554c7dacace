"""`/metrics`, `/healthz` and `/readyz` of a program, on a port of its own that only operators reach.

One scrape has our metrics and those of the Temporal client, whose own exporter listens on this machine alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import httpx
import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from telemetry.metrics import REGISTRY

_log = structlog.get_logger(__name__)

_PATIENCE_SECS = 2.0

Missing = Callable[[], Awaitable[Sequence[str]]]
"""What keeps a program from doing its work, by name; nothing: it is ready."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The program itself decides what a signal means.
        yield


@asynccontextmanager
async def serving(
    host: str,
    port: int | None,
    *,
    missing: Missing,
    refresh: Callable[[], Awaitable[None]] | None = None,
    temporal_port: int | None = None,
) -> AsyncIterator[None]:
    """Answer operators as long as the block lasts.

    Args:
        host: the address to listen on.
        port: None: nobody asked for it, and nothing is served.
        missing: what keeps the program from doing its work.
        refresh: brings up to date what is looked up for a scrape; one that fails leaves the figures as they were.
        temporal_port: where the Temporal client of this process serves its metrics.
    """
    if port is None:
        yield
        return
    async with httpx.AsyncClient(trust_env=False, timeout=_PATIENCE_SECS) as http:
        app = _app(missing, refresh, f"http://127.0.0.1:{temporal_port}/metrics" if temporal_port else None, http)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            # Not the faster httptools, which keeps a head that does not end for as long as memory goes.
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
        )
        server = _Server(config)
        serves = asyncio.create_task(_serve(server, port))
        try:
            yield
        finally:
            server.should_exit = True
            await serves


async def _serve(server: uvicorn.Server, port: int) -> None:
    try:
        await server.serve()
    except SystemExit:
        # How uvicorn says that it cannot listen, which it has logged. No reason for the program not to do its work.
        _log.error("metrics_not_served", port=port)


def _app(
    missing: Missing, refresh: Callable[[], Awaitable[None]] | None, temporal_url: str | None, http: httpx.AsyncClient
) -> Starlette:
    async def metrics(_: Request) -> Response:
        if refresh is not None:
            try:
                async with asyncio.timeout(_PATIENCE_SECS):
                    await refresh()
            except Exception as error:  # noqa: BLE001 - whatever it is: the other figures are wanted most when it fails
                _log.warning("figures_not_refreshed", error=str(error) or repr(error))
        content = generate_latest(REGISTRY)
        if temporal_url is not None:
            try:
                content += (await http.get(temporal_url)).content
            except httpx.HTTPError as error:
                _log.warning("temporal_metrics_missing", error=str(error) or repr(error))
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        found = await missing()
        return JSONResponse(
            {"status": "not ready" if found else "ready", "missing": found}, status_code=503 if found else 200
        )

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)])
