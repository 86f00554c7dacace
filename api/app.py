"""The application: what it opens, what it serves, how it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Literal

from fastapi import Depends, FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api import bodies, documentation, problems, queries
from api.authentication import caller
from api.bodies import BodyLimit
from api.headers import HeadAsGet, ResponseHeaders
from api.issuers import Issuers
from api.limits import CallLimit
from api.observation import API, SCIM, Observation
from api.orchestrator import Orchestrator
from api.readiness import Readiness, Ready
from api.routes import (
    api_tokens,
    app_mappings,
    applications,
    audit_log,
    groups,
    integrations,
    oauth2,
    requests,
    scheduled_tasks,
    scim,
    script_runs,
    secrets,
    templates,
    temporal_codec,
    users,
)
from api.signing import KeyRing
from api.start_marks import StartMarks
from db.database import Database
from db.secrets import SecretVault
from db.signing_keys import Vault
from settings import Settings, load_settings
from telemetry import metrics, serving, tracing
from temporal_client import metrics_port


class Health(BaseModel):
    """The process answers. Whether its database and Temporal do is not asked: a restart would not mend them."""

    status: Literal["ok"] = "ok"


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI application.

    Args:
        settings: None reads them from the environment, as uvicorn's factory does.

    Raises:
        SettingsError: the environment does not describe a service that can run.
    """
    chosen = settings or load_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            Database(
                chosen.database_url.get_secret_value(), max_connections=chosen.database_pool_max
            ) as app.state.database,
            StartMarks(app.state.database) as start_marks,
            Orchestrator(chosen, start_marks) as app.state.orchestrator,
            Issuers(chosen.oidc_issuers, leeway_secs=chosen.oidc_leeway_secs) as app.state.issuers,
        ):
            app.state.readiness = readiness = Readiness(app.state.database, app.state.orchestrator)
            app.state.signing_keys = KeyRing(app.state.database, Vault(chosen.secret_key.get_secret_value()))
            metrics.watch_pool(app.state.database)
            async with serving.serving(
                chosen.metrics_host, chosen.metrics_port, missing=readiness.missing, temporal_port=metrics_port()
            ):
                yield

    app = FastAPI(
        title=documentation.TITLE,
        description=documentation.DESCRIPTION,
        version=version("justiam"),
        openapi_tags=documentation.TAGS,
        lifespan=lifespan,
        # Metrics are ours (`api.observation`), and so is the log.
        telemetry={
            "tracing": tracing.provider() is not None,
            "tracer_provider": tracing.provider(),
            "metrics": False,
            "logs": False,
            "operation_spans": False,
        },
        # Documentation is served by `documentation`, from this server alone.
        docs_url=None,
        redoc_url=None,
        # /groups/ is not /groups: a redirect would lose a body and hide a mistake.
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    app.state.settings = chosen
    app.state.call_limit = CallLimit(chosen.calls_per_minute)
    app.state.vault = SecretVault(chosen.secret_key, chosen.encryption_keys)
    # Innermost: the log and the metrics name the method that was sent.
    app.add_middleware(HeadAsGet)
    app.add_middleware(BodyLimit, limit=chosen.max_body_bytes)
    app.add_middleware(temporal_codec.CodecCors, temporal_ui_url=chosen.temporal_ui_url)
    app.add_middleware(ResponseHeaders)
    app.add_middleware(Observation)
    problems.install(app)
    documentation.install(app)
    app.add_api_route("/healthz", healthz, summary="Whether the process answers", include_in_schema=False)
    app.add_api_route("/readyz", readyz, summary="Whether the process can serve", include_in_schema=False)
    # Before those of the API, which are matched one by one: these are few, and called as often.
    app.routes.extend(oauth2.routes())
    _include_routes(app)
    app.include_router(script_runs.router, dependencies=[Depends(bodies.acceptable)])
    return app


async def healthz() -> Health:
    """Liveness, for whatever restarts the process."""
    return Health()


async def readyz(request: Request, response: Response) -> Ready:
    """Readiness, for whatever sends people here."""
    readiness: Readiness = request.app.state.readiness
    found = await readiness.look()
    if found.missing:
        response.status_code = 503
    return found


def _include_routes(app: FastAPI) -> None:
    # Nothing under /api/v1 and /scim/v2 is reached without a known caller, whatever a route forgets.
    known = [Depends(caller), Depends(bodies.acceptable)]
    guards = [*known, Depends(queries.acceptable)]
    # Routes are tried in this order, so the ones that are called most come first. One by one, because a router within
    # a router is matched twice for each call.
    for routes in (
        requests,
        templates,
        users,
        groups,
        applications,
        app_mappings,
        scheduled_tasks,
        integrations,
        secrets,
        api_tokens,
        audit_log,
    ):
        app.include_router(routes.router, prefix=API, dependencies=guards)
    # Temporal's UI and command line call it, each version with query parameters of its own.
    app.include_router(temporal_codec.router, prefix=API, dependencies=known)
    scim_guards = [Depends(caller), Depends(bodies.acceptable_to_scim), Depends(queries.acceptable_to_scim)]
    app.include_router(scim.router, prefix=SCIM, dependencies=scim_guards)


def _operation_id(route: APIRoute) -> str:
    return route.name
