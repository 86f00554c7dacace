"""The interactive documentation at /docs, with Swagger UI from this server: no content network, no inline script."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from api import bodies, problems, scim_documents, versions
from api.observation import SCIM

TITLE: Final = "JustIAM Access Requests"

DESCRIPTION: Final = """
Time-limited access to applications: a user asks, approvers decide, a temporary group carries the grant, and the grant
ends by itself. Each request is one durable workflow.

### A tour of the demo

`justiam dev` (or `make dev`) printed a token for each of the demo's people. They are in `.justiam/dev.json` as well.

1. **Authorize** (the button on this page) with the token of **alice**.
2. [List the templates](#/Templates/list_templates) and copy the `id` of “Database read-only access”.
3. [Submit a request](#/Requests/submit_request) with that `template_id`, 60 minutes and a justification. The answer
   says who was notified, and has the request's `id`.
4. **Authorize** again, with the token of **bob**, who is in `dba_team`. The request is among those
   [awaiting your decision](#/Requests/list_requests_awaiting_me): [approve it](#/Requests/approve_request).
5. As **alice** again: [the request](#/Requests/get_request) has its `expires_at`, and
   [your claims for the application](#/People/get_mapping_values) now have the granted value: until the hour is over, or
   until somebody [revokes](#/Requests/revoke_request) the grant.
6. [The timeline](#/Requests/list_timeline) tells what happened. The same request is a workflow
   `access-request-<id>` in the Temporal UI.

### Conventions

* Times are RFC 3339 in UTC, durations whole minutes, ids UUIDs.
* A list is newest first. Where `next_cursor` is not null, pass it as `cursor` for the page that follows.
* Unknown fields in a body are refused.
* What a PUT replaces has an `ETag`. Sent back as `If-Match`, nothing is overwritten that was changed meanwhile (412,
  `changed_meanwhile`).
* An error is a problem document (RFC 9457, `application/problem+json`) with a stable `code`; `validation_error` names
  each field in `errors`. 503 means that the same call may be repeated.
"""

TAGS: Final[list[dict[str, Any]]] = [
    {"name": "Templates", "description": "What may be asked for, by whom, who decides and for how long."},
    {"name": "Requests", "description": "Asking for access, deciding, ending it, and talking about it."},
    {"name": "People", "description": "People and service accounts: who they are and what they hold at this moment."},
    {
        "name": "Groups",
        "description": "People in the order in which they joined, and the permissions that membership brings. The "
        "temporary groups of requests are not managed here.",
    },
    {"name": "Applications", "description": "What access is granted to."},
    {
        "name": "App mappings",
        "description": "A claim and its value for one application, given to the members of the attached groups.",
    },
    {
        "name": "Scheduled tasks",
        "description": "Scripts that run when a request changes, at their own times or on demand, and their runs.",
    },
    {
        "name": "Integrations",
        "description": "Who is told of lifecycle events, and how: webhooks, Slack, mail, tasks.",
    },
    {
        "name": "Secrets",
        "description": "Values that scripts read by name: webhook addresses, passwords. They are set and never shown.",
    },
    {"name": "API tokens", "description": "Bearer tokens of people and service accounts."},
    {
        "name": "Audit log",
        "description": "Every administrative change: who, what, before and after. Append-only and chained.",
    },
    {
        "name": "SCIM Users",
        "description": "People, as identity providers keep them current (RFC 7644). Errors and lists are SCIM's.",
    },
    {"name": "SCIM Groups", "description": "Groups and their members, as identity providers keep them current."},
    {"name": "SCIM service", "description": "What of SCIM is served, for clients that ask."},
    {"name": "Temporal", "description": "For the Temporal UI, where histories are encrypted: its codec server."},
]

_ASSETS: Final = "/docs/assets"

_PAGE: Final = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{TITLE}: API</title>
<link rel="stylesheet" href="{_ASSETS}/swagger-ui.css">
<link rel="icon" href="{_ASSETS}/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{_ASSETS}/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""

_START: Final = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
"""

_POLICY: Final = (
    # Swagger UI sets styles from its script and draws its icons from data URLs.
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def _page(_: Request) -> Response:
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


async def _start(_: Request) -> Response:
    return Response(_START, media_type="text/javascript")


def _link(paths: dict[str, Any]) -> None:
    """Say of whatever makes a thing where the thing is then, and what can be done with it: links of OpenAPI."""
    for collection, operations in paths.items():
        about = [
            (operation, parameter)
            for path, others in paths.items()
            if (parameter := _parameter_after(collection, path))
            for operation in others.values()
        ]
        if "post" not in operations or not about:
            continue
        made = operations["post"]["responses"]["201"]
        made["headers"] = {
            "Location": {
                "description": "Path of what was made.",
                "required": True,
                "schema": {"type": "string", "format": "uri-reference"},
            }
        }
        made["links"] = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "description": operation["summary"],
                "parameters": {parameter: "$response.body#/id"},
            }
            for operation, parameter in about
        }


def _parameter_after(collection: str, path: str) -> str | None:
    """The name of the parameter that follows `collection` in `path`, where one does."""
    first = path.removeprefix(f"{collection}/").partition("/")[0]
    return first.strip("{}") if first.startswith("{") else None


def _tag(paths: dict[str, Any]) -> None:
    """Say of whatever can be replaced conditionally that its answers have a version."""
    for path, operations in paths.items():
        conditional = any(
            each["name"] == versions.PARAMETER for each in operations.get("put", {}).get("parameters", [])
        )
        if conditional:
            for operation in operations.values():
                if "200" in operation["responses"]:
                    operation["responses"]["200"].setdefault("headers", {}).update(versions.HEADER)
            made = paths[path.rpartition("/")[0]]["post"]["responses"]["201"]
            made.setdefault("headers", {}).update(versions.HEADER)


def _refuse_bodies(paths: dict[str, Any]) -> None:
    """Say of whatever takes a body how `bodies` refuses it."""
    for path, operations in paths.items():
        refusals = problems.scim_refusals if path.startswith(f"{SCIM}/") else problems.refusals
        refused = {str(status): answer for status, answer in refusals(*bodies.REFUSALS).items()}
        for operation in operations.values():
            if "requestBody" in operation:
                operation["responses"] = dict(sorted({**refused, **operation["responses"]}.items()))


def _refuse_in_scim(schema: dict[str, Any]) -> None:
    """SCIM has no 422, which FastAPI documents of itself."""
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            if path.startswith(f"{SCIM}/"):
                operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def install(app: FastAPI) -> None:
    """Serve /docs and complete the OpenAPI document of `app`."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                tags=app.openapi_tags,
                routes=app.routes,
            )
            schema["components"]["schemas"].update(problems.schemas() | scim_documents.schemas())
            _link(schema["paths"])
            _tag(schema["paths"])
            _refuse_bodies(schema["paths"])
            _refuse_in_scim(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # the documented way to extend the document
    app.add_route("/docs", _page, include_in_schema=False)
    app.add_route("/docs/start.js", _start, include_in_schema=False)
    app.mount(_ASSETS, StaticFiles(packages=[("fastapi_swagger", "resources")]))
