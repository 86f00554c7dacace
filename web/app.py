"""The API with the pages beside it: what `justiam api` serves."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import api.app
from api.authentication import caller
from api.headers import MACHINES_PATHS
from settings import Settings
from web import refusals
from web.authentication import own_form, refuse_foreign_forms, signed_in
from web.cookies import Cookies
from web.headers import PageHeaders
from web.live import Changes
from web.rendering import Pages
from web.routes import asking, audit_log, automation, deciding, directory, history, live, sign_in, templates, tokens

_A_YEAR: Final = "public, max-age=31536000, immutable"


class _Static(StaticFiles):
    """Files whose paths change with their content."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 - passed on
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = _A_YEAR
        return response


class _Below(Mount):
    """Everything that is not for programs: these get their problem documents, also where there is nothing."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["path"].startswith(MACHINES_PATHS):
            return Match.NONE, {}
        return super().matches(scope)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI application.

    Args:
        settings: None reads them from the environment, as uvicorn's factory does.

    Raises:
        SettingsError: the environment does not describe a service that can run.
    """
    app = api.app.create_app(settings)
    chosen: Settings = app.state.settings
    app.state.cookies = Cookies(chosen)
    app.state.pages = Pages(chosen)
    app.state.changes = Changes(chosen.database_url.get_secret_value())
    pages = FastAPI(openapi_url=None, redirect_slashes=False)
    pages.state = app.state
    # What a route of the API asks of its caller, a page asks of who is signed in: who may do what is said once.
    pages.dependency_overrides[caller] = signed_in
    pages.add_middleware(PageHeaders, secure=urlsplit(chosen.token_issuer).scheme == "https")
    refusals.install(pages)
    pages.mount("/static", _Static(packages=[("web", "static")]))
    pages.include_router(sign_in.router, dependencies=[Depends(refuse_foreign_forms)])
    pages.include_router(_own())
    app.router.routes.append(_Below("/", app=pages))
    return app


def _own() -> APIRouter:
    # Nothing is seen by nobody, and nothing changed by a form that is not the person's own, whatever a route forgets.
    own = APIRouter(dependencies=[Depends(refuse_foreign_forms), Depends(caller), Depends(own_form)])
    for routes in (asking, deciding, history, templates, directory, automation, tokens, audit_log, live):
        own.include_router(routes.router)
    return own
