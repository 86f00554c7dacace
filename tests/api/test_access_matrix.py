"""Who may call what: each route for each kind of caller, on the whole stack.

A row that is missing for a route of the OpenAPI document, or is there for none, fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from tests.api.house import House
from tests.api.problem import check_problem
from tests.api.scene import Scene, integration, new, scim_group, scim_patch, scim_user
from tests.api.test_adversarial import ROUTES

# The callers, by column:
#
# asker  made the request, owns the bot
# bot    a service account of the asker: where requests are decided the two are one
# other  anybody who is signed in
# appr   a member of the approver group of the request's template
# escal  a member of its escalation group, which is not asked unless the row says so
# reqs   holds access_requests.manage and nothing else
# dir    holds directory.manage and nothing else
# tasks  holds tasks.manage and nothing else
# root   holds all three
#
# The answers: "yes" is the route's own 2xx; "-" is 403, forbidden; a number is another refusal, which comes after the
# caller was let in. Callers without a valid token are in no column: they get 401 in every row.
TABLE: Final = """
                                                              asker bot   other appr  escal reqs  dir   tasks root

GET    /access-request-templates                              yes   yes   yes   yes   yes   yes   yes   yes   yes
POST   /access-request-templates                              -     -     -     -     -     yes   -     -     yes
GET    /access-request-templates/{template_id}                yes   yes   yes   yes   yes   yes   yes   yes   yes
PUT    /access-request-templates/{template_id}                -     -     -     -     -     yes   -     -     yes
DELETE /access-request-templates/{template_id}                -     -     -     -     -     yes   -     -     yes
DELETE /access-request-templates/{template_id} in use         -     -     -     -     -     409   -     -     409

GET    /access-requests                                       yes   yes   yes   yes   yes   yes   yes   yes   yes
POST   /access-requests                                       yes   yes   yes   yes   yes   yes   yes   yes   yes
POST   /access-requests for members only                      yes   -     -     -     -     -     -     -     -
GET    /access-requests/pending                               yes   yes   yes   yes   yes   yes   yes   yes   yes
GET    /access-requests/all                                   -     -     -     -     -     yes   -     -     yes
GET    /access-requests/{request_id}                          yes   yes   -     yes   -     yes   -     -     yes
GET    /access-requests/{request_id} escalated                yes   yes   -     yes   yes   yes   -     -     yes
GET    /access-requests/{request_id}/timeline                 yes   yes   -     yes   -     yes   -     -     yes
GET    /access-requests/{request_id}/runs                     yes   yes   -     yes   -     yes   -     -     yes
GET    /access-requests/{request_id}/messages                 yes   yes   -     yes   -     yes   -     -     yes
POST   /access-requests/{request_id}/messages                 yes   yes   -     yes   -     yes   -     -     yes
POST   /access-requests/{request_id}/signal-proofs            yes   yes   -     yes   -     yes   -     -     yes
POST   /access-requests/{request_id}/approve                  -     -     -     yes   -     -     -     -     -
POST   /access-requests/{request_id}/approve escalated        -     -     -     yes   yes   -     -     -     -
POST   /access-requests/{request_id}/approve no approvers     -     -     -     -     -     yes   -     -     yes
POST   /access-requests/{request_id}/approve granted          -     -     -     409   -     -     -     -     -
POST   /access-requests/{request_id}/deny                     -     -     -     yes   -     -     -     -     -
POST   /access-requests/{request_id}/deny escalated           -     -     -     yes   yes   -     -     -     -
POST   /access-requests/{request_id}/deny no approvers        -     -     -     -     -     yes   -     -     yes
POST   /access-requests/{request_id}/deny granted             -     -     -     409   -     -     -     -     -
POST   /access-requests/{request_id}/revoke                   yes   yes   -     -     -     yes   -     -     yes
POST   /access-requests/{request_id}/revoke granted           yes   yes   -     yes   -     yes   -     -     yes
POST   /access-requests/{request_id}/revoke over              409   409   -     409   -     409   -     -     409

GET    /users                                                 -     -     -     -     -     yes   yes   -     yes
POST   /users                                                 -     -     -     -     -     -     yes   -     yes
POST   /users who holds more                                  -     -     -     -     -     -     -     -     yes
GET    /users/me                                              yes   yes   yes   yes   yes   yes   yes   yes   yes
GET    /users/{user_id}                                       -     -     -     -     -     yes   yes   -     yes
PUT    /users/{user_id}                                       -     -     -     -     -     -     yes   -     yes
PUT    /users/{user_id} who holds more                        -     -     -     -     -     -     -     -     yes
GET    /users/{user_id}/groups                                yes   -     -     -     -     -     yes   -     yes
GET    /users/{user_id}/groups of the bot                     yes   yes   -     -     -     -     yes   -     yes
GET    /users/{user_id}/mapping-values                        yes   -     -     -     -     -     yes   -     yes
GET    /users/{user_id}/mapping-values of the bot             yes   yes   -     -     -     -     yes   -     yes

GET    /groups                                                yes   yes   yes   yes   yes   yes   yes   yes   yes
POST   /groups                                                -     -     -     -     -     -     yes   -     yes
POST   /groups with permissions                               -     -     -     -     -     -     -     -     yes
GET    /groups/{group_id}                                     yes   yes   yes   yes   yes   yes   yes   yes   yes
PUT    /groups/{group_id}                                     -     -     -     -     -     -     yes   -     yes
PUT    /groups/{group_id} with permissions                    -     -     -     -     -     -     -     -     yes
DELETE /groups/{group_id}                                     -     -     -     -     -     -     yes   -     yes
DELETE /groups/{group_id} with permissions                    -     -     -     -     -     -     -     -     yes
GET    /groups/{group_id}/members                             -     -     -     -     -     yes   yes   -     yes
PUT    /groups/{group_id}/members/{user_id}                   -     -     -     -     -     -     yes   -     yes
PUT    /groups/{group_id}/members/{user_id} with permissions  -     -     -     -     -     -     -     -     yes
DELETE /groups/{group_id}/members/{user_id}                   -     -     -     -     -     -     yes   -     yes
DELETE /groups/{group_id}/members/{user_id} with permissions  -     -     -     -     -     -     -     -     yes

GET    /applications                                          yes   yes   yes   yes   yes   yes   yes   yes   yes
POST   /applications                                          -     -     -     -     -     -     yes   -     yes
GET    /applications/{app_id}                                 yes   yes   yes   yes   yes   yes   yes   yes   yes
PUT    /applications/{app_id}                                 -     -     -     -     -     -     yes   -     yes
DELETE /applications/{app_id}                                 -     -     -     -     -     -     yes   -     yes
POST   /applications/{app_id}/client-secret                   -     -     -     -     -     -     yes   -     yes

GET    /app-mappings                                          yes   yes   yes   yes   yes   yes   yes   yes   yes
POST   /app-mappings                                          -     -     -     -     -     -     yes   -     yes
GET    /app-mappings/{mapping_id}                             yes   yes   yes   yes   yes   yes   yes   yes   yes
PUT    /app-mappings/{mapping_id}                             -     -     -     -     -     -     yes   -     yes
DELETE /app-mappings/{mapping_id}                             -     -     -     -     -     -     yes   -     yes
PUT    /app-mappings/{mapping_id} of a powerful group         -     -     -     -     -     -     -     -     yes
DELETE /app-mappings/{mapping_id} of a powerful group         -     -     -     -     -     -     -     -     yes
PUT    /app-mappings/{mapping_id}/groups/{group_id}           -     -     -     -     -     -     yes   -     yes
PUT    /app-mappings/{mapping_id}/groups/{group_id} with permissions  -  -  -   -     -     -     -     -     yes
DELETE /app-mappings/{mapping_id}/groups/{group_id}           -     -     -     -     -     -     yes   -     yes
DELETE /app-mappings/{mapping_id}/groups/{group_id} with permissions  -  -  -  -    -     -     -     -     yes

GET    /scheduled-tasks                                       -     -     -     -     -     yes   -     yes   yes
POST   /scheduled-tasks                                       -     -     -     -     -     -     -     yes   yes
GET    /scheduled-tasks/{task_id}                             -     -     -     -     -     yes   -     yes   yes
PUT    /scheduled-tasks/{task_id}                             -     -     -     -     -     -     -     yes   yes
DELETE /scheduled-tasks/{task_id}                             -     -     -     -     -     -     -     yes   yes
DELETE /scheduled-tasks/{task_id} that a template fires       -     -     -     -     -     -     -     409   409
POST   /scheduled-tasks/{task_id}/run                         -     -     -     -     -     -     -     yes   yes
POST   /scheduled-tasks/{task_id}/pause                       -     -     -     -     -     -     -     yes   yes
POST   /scheduled-tasks/{task_id}/resume                      -     -     -     -     -     -     -     yes   yes
GET    /scheduled-tasks/{task_id}/next-runs                   -     -     -     -     -     yes   -     yes   yes
GET    /scheduled-tasks/{task_id}/runs                        -     -     -     -     -     yes   -     yes   yes
GET    /scheduled-tasks/{task_id}/runs/{run_id}               -     -     -     -     -     yes   -     yes   yes

GET    /integrations                                          -     -     -     -     -     -     -     yes   yes
POST   /integrations                                          -     -     -     -     -     -     -     yes   yes
GET    /integrations/{integration_id}                         -     -     -     -     -     -     -     yes   yes
PUT    /integrations/{integration_id}                         -     -     -     -     -     -     -     yes   yes
DELETE /integrations/{integration_id}                         -     -     -     -     -     -     -     yes   yes
POST   /integrations/{integration_id}/rotate-secret           -     -     -     -     -     -     -     yes   yes
POST   /integrations/{integration_id}/test                    -     -     -     -     -     -     -     yes   yes
GET    /integrations/{integration_id}/deliveries              -     -     -     -     -     -     -     yes   yes
POST   /integrations/{integration_id}/deliveries/{delivery_id}/redeliver  -  -  -  -    -     -     -     yes   yes

GET    /secrets                                               -     -     -     -     -     -     -     yes   yes
POST   /secrets                                               -     -     -     -     -     -     -     yes   yes
GET    /secrets/{secret_id}                                   -     -     -     -     -     -     -     yes   yes
PUT    /secrets/{secret_id}                                   -     -     -     -     -     -     -     yes   yes
DELETE /secrets/{secret_id}                                   -     -     -     -     -     -     -     yes   yes
DELETE /secrets/{secret_id} that a task reads                 -     -     -     -     -     -     -     409   409

GET    /api-tokens                                            yes   yes   yes   yes   yes   yes   yes   yes   yes
GET    /api-tokens of everybody                               -     -     -     -     -     -     yes   -     yes
POST   /api-tokens                                            yes   yes   yes   yes   yes   yes   yes   yes   yes
POST   /api-tokens of the bot                                 yes   yes   -     -     -     -     -     -     -
DELETE /api-tokens/{token_id}                                 yes   404   404   404   404   404   yes   404   yes
DELETE /api-tokens/{token_id} of the bot                      yes   yes   404   404   404   404   yes   404   yes
DELETE /api-tokens/{token_id} who holds more                  404   404   404   404   404   404   -     404   yes

GET    /scim/v2/ServiceProviderConfig                         -     -     -     -     -     -     yes   -     yes
GET    /scim/v2/ResourceTypes                                 -     -     -     -     -     -     yes   -     yes
GET    /scim/v2/ResourceTypes/{name}                          -     -     -     -     -     -     yes   -     yes
GET    /scim/v2/Schemas                                       -     -     -     -     -     -     yes   -     yes
GET    /scim/v2/Schemas/{uri}                                 -     -     -     -     -     -     yes   -     yes
GET    /scim/v2/Users                                         -     -     -     -     -     -     yes   -     yes
POST   /scim/v2/Users                                         -     -     -     -     -     -     yes   -     yes
GET    /scim/v2/Users/{user_id}                               -     -     -     -     -     -     yes   -     yes
GET    /scim/v2/Users/{user_id} of the bot                    -     -     -     -     -     -     404   -     404
PUT    /scim/v2/Users/{user_id}                               -     -     -     -     -     -     yes   -     yes
PUT    /scim/v2/Users/{user_id} who holds more                -     -     -     -     -     -     -     -     yes
PUT    /scim/v2/Users/{user_id} of the bot                    -     -     -     -     -     -     404   -     404
PATCH  /scim/v2/Users/{user_id}                               -     -     -     -     -     -     yes   -     yes
PATCH  /scim/v2/Users/{user_id} who holds more                -     -     -     -     -     -     -     -     yes
PATCH  /scim/v2/Users/{user_id} of the bot                    -     -     -     -     -     -     404   -     404
DELETE /scim/v2/Users/{user_id}                               -     -     -     -     -     -     yes   -     yes
DELETE /scim/v2/Users/{user_id} who holds more                -     -     -     -     -     -     -     -     yes
DELETE /scim/v2/Users/{user_id} of the bot                    -     -     -     -     -     -     404   -     404
GET    /scim/v2/Groups                                        -     -     -     -     -     -     yes   -     yes
POST   /scim/v2/Groups                                        -     -     -     -     -     -     yes   -     yes
GET    /scim/v2/Groups/{group_id}                             -     -     -     -     -     -     yes   -     yes
PUT    /scim/v2/Groups/{group_id}                             -     -     -     -     -     -     yes   -     yes
PUT    /scim/v2/Groups/{group_id} with permissions            -     -     -     -     -     -     -     -     yes
PATCH  /scim/v2/Groups/{group_id}                             -     -     -     -     -     -     yes   -     yes
PATCH  /scim/v2/Groups/{group_id} with permissions            -     -     -     -     -     -     -     -     yes
DELETE /scim/v2/Groups/{group_id}                             -     -     -     -     -     -     yes   -     yes
DELETE /scim/v2/Groups/{group_id} with permissions            -     -     -     -     -     -     -     -     yes

GET    /audit-log                                              -     -     -     -     -     yes   yes   yes   yes

POST   /temporal-codec/decode                                 -     -     -     -     -     yes   -     -     yes
POST   /temporal-codec/encode                                 -     -     -     -     -     yes   -     -     yes
"""

COLUMNS: Final = ("asker", "bot", "other", "appr", "escal", "reqs", "dir", "tasks", "root")


@dataclass(frozen=True)
class Row:
    """One route in one situation, and its answer to each caller."""

    method: str
    path: str
    situation: str
    answers: dict[str, str]

    @property
    def route(self) -> str:
        return f"{self.method} {self.path}"

    def __str__(self) -> str:
        return f"{self.route} {self.situation}".strip()


def _rows() -> Iterator[Row]:
    for line in TABLE.strip().splitlines()[1:]:
        if line.strip():
            method, path, *words = line.split()
            situation, answers = words[: -len(COLUMNS)], words[-len(COLUMNS) :]
            yield Row(method, path, " ".join(situation), dict(zip(COLUMNS, answers, strict=True)))


ROWS: Final = list(_rows())
SUCCESS: Final = {
    f"{method} {path}": {int(status) for status in operation["responses"] if status.startswith("2")}
    for method, path, operation in ROUTES
}

# What is reached without a token and is not in the OpenAPI document: the probe, the documentation, and the endpoints of
# OAuth and of the script workers, which have authentication of their own.
PUBLIC: Final = [
    "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/docs",
    "/docs/assets",
    "/docs/start.js",
    "/healthz",
    "/oauth2/introspect",
    "/oauth2/revoke",
    "/oauth2/token",
    "/openapi.json",
    "/readyz",
    "/script-runs/redeem",
]

Make = Callable[[Scene], Awaitable[dict[str, Any]]]

# What has to be there, by the situation or else by what the path begins with.
SITUATIONS: Final[dict[str, Make]] = {
    "in use": Scene.request,
    "for members only": Scene.for_members_only,
    "escalated": Scene.escalated,
    "no approvers": Scene.without_approvers,
    "granted": Scene.granted,
    "over": Scene.denied,
    "who holds more": Scene.manager,
    "of the bot": Scene.about_the_bot,
    "of everybody": Scene.about_the_asker,
    "with permissions": Scene.powerful_group,
    "of a powerful group": Scene.powerful_mapping,
    "that a task reads": Scene.secret_in_use,
    "that a template fires": Scene.task_in_use,
}
BEGINNINGS: Final[dict[str, Make]] = {
    "/access-request-templates": Scene.template,
    "/access-requests/{": Scene.request,
    "/access-requests": Scene.template,
    "/users/{user_id}/": Scene.about_the_asker,
    "/users": Scene.user,
    "/groups": Scene.group,
    "/applications": Scene.application,
    "/app-mappings": Scene.mapping,
    "/scheduled-tasks": Scene.task,
    "/integrations": Scene.integration,
    "/secrets": Scene.secret,
    "/api-tokens": Scene.about_the_asker,
    "/audit-log": Scene.about_the_asker,
    "/scim/v2/Users": Scene.user,
    "/scim/v2/Groups": Scene.group,
    "/scim/v2": Scene.of_scim,
    "/temporal-codec": Scene.about_the_asker,
}
QUERIES: Final = {
    "GET /users/{user_id}/mapping-values": "?app_id={app_id}",
    "GET /users/{user_id}/mapping-values of the bot": "?app_id={app_id}",
    "GET /api-tokens of everybody": "?all=true",
}

Body = Callable[[dict[str, Any]], dict[str, Any]]


def _mapping(there: dict[str, Any]) -> dict[str, Any]:
    return {"app_id": str(there["app_id"]), "name": new("mapping"), "claim": "roles", "value": "db_readonly"}


# What every route accepts from whoever may call it.
BODIES: Final[dict[str, Body]] = {
    "POST /access-request-templates": lambda there: {"name": new("template"), "app_id": str(there["app_id"])},
    "PUT /access-request-templates/{template_id}": lambda there: {
        "name": new("template"),
        "app_id": str(there["app_id"]),
    },
    "POST /access-requests": lambda there: {
        "template_id": str(there["template_id"]),
        "requested_duration_mins": 60,
        "justification": "an incident",
    },
    "POST /access-requests/{request_id}/messages": lambda _: {"body": "Which tables?"},
    "POST /access-requests/{request_id}/signal-proofs": lambda _: {"action": "deny"},
    "POST /users": lambda _: {"email": f"{new('new')}@example.com".replace(" ", "."), "name": "New"},
    "PUT /users/{user_id}": lambda _: {"email": f"{new('new')}@example.com".replace(" ", "."), "name": "New"},
    "POST /users who holds more": lambda there: {
        "email": f"{new('new')}@example.com".replace(" ", "."),
        "name": "New",
        "owner_id": str(there["user_id"]),
    },
    "POST /groups": lambda there: {"name": new("group"), "permissions": there.get("permissions", [])},
    "PUT /groups/{group_id}": lambda there: {"name": new("group"), "permissions": there.get("permissions", [])},
    "POST /applications": lambda _: {"name": new("application")},
    "PUT /applications/{app_id}": lambda _: {"name": new("application")},
    "POST /app-mappings": _mapping,
    "PUT /app-mappings/{mapping_id}": lambda there: {**_mapping(there), "value": "db_admin"},
    "POST /scheduled-tasks": lambda _: {"name": new("task"), "script": "def run(): ..."},
    "PUT /scheduled-tasks/{task_id}": lambda _: {"name": new("task"), "script": "def run(): ..."},
    "POST /integrations": lambda _: integration(),
    "PUT /integrations/{integration_id}": lambda _: integration(),
    "POST /secrets": lambda _: {"name": new("secret").upper().replace(" ", "_"), "value": "hush-hush"},
    "PUT /secrets/{secret_id}": lambda _: {"value": "hush-hush"},
    "POST /temporal-codec/decode": lambda _: {"payloads": [{"metadata": {}, "data": "e30="}]},
    "POST /temporal-codec/encode": lambda _: {"payloads": [{"metadata": {}, "data": "e30="}]},
    "POST /scim/v2/Users": lambda _: scim_user(),
    "PUT /scim/v2/Users/{user_id}": lambda _: scim_user(),
    "PATCH /scim/v2/Users/{user_id}": lambda _: scim_patch(new("Name")),
    "POST /scim/v2/Groups": lambda _: scim_group(),
    "PUT /scim/v2/Groups/{group_id}": lambda _: scim_group(),
    "PATCH /scim/v2/Groups/{group_id}": lambda _: scim_patch(new("group")),
    "POST /api-tokens": lambda _: {"name": "laptop"},
    "POST /api-tokens of the bot": lambda there: {"name": "laptop", "user_id": str(there["user_id"])},
}


# What leaves the record as it is, but for runs and deliveries, which are records of their own.
NO_CHANGES: Final = {
    "POST /scheduled-tasks/{task_id}/run",
    "POST /integrations/{integration_id}/test",
    "POST /integrations/{integration_id}/deliveries/{delivery_id}/redeliver",
    "POST /temporal-codec/decode",
    "POST /temporal-codec/encode",
}
# Doing these again is no change.
MAY_BE_SO_ALREADY: Final = {
    "PUT /groups/{group_id}/members/{user_id}",
    "POST /scheduled-tasks/{task_id}/resume",
    "DELETE /groups/{group_id}/members/{user_id}",
    "DELETE /app-mappings/{mapping_id}/groups/{group_id}",
}


async def _last_entry(house: House) -> tuple[int, str]:
    async with house.db.connection() as connection:
        rows = await connection.execute("SELECT id, actor FROM audit_log ORDER BY id DESC LIMIT 1")
        row = await rows.fetchone()
    return (row["id"], row["actor"]) if row else (0, "")


@pytest.fixture(scope="module")
async def scene(stack: House) -> Scene:
    return await Scene.set(stack)


class TestMatrix:
    def test_has_each_route_of_the_openapi_document_and_no_other(self) -> None:
        assert {row.route for row in ROWS} == {f"{method} {path}" for method, path, _ in ROUTES}

    def test_holds_each_route_that_changes_something_of_an_account_or_group_to_what_the_caller_lacks(self) -> None:
        held = {
            row.route
            for row in ROWS
            if row.situation in {"who holds more", "with permissions", "of a powerful group"}
            and row.answers["dir"] == "-"
        }
        changing = {
            f"{method} {path}"
            for method, path, _ in ROUTES
            if method != "GET"
            and any(name in path for name in ("{user_id}", "{group_id}", "{token_id}", "{mapping_id}"))
        }
        assert changing <= held

    def test_says_nothing_twice(self) -> None:
        assert len({str(row) for row in ROWS}) == len(ROWS)

    def test_names_its_columns_as_it_reads_them(self) -> None:
        assert tuple(TABLE.split("\n")[1].split()) == COLUMNS

    def test_whatever_else_is_served_is_public_on_purpose(self, application: FastAPI) -> None:
        served = {
            (method, context.path or "")
            for context in iter_route_contexts(application.routes)
            for method in context.methods or {"GET"}
        }
        documented = {(method, path if path.startswith("/scim/") else f"/api/v1{path}") for method, path, _ in ROUTES}
        assert documented <= served
        assert sorted({path for _, path in served - documented}) == PUBLIC

    @pytest.mark.parametrize("row", ROWS, ids=str)
    async def test_holds(self, scene: Scene, row: Row) -> None:
        if row.situation:
            make = SITUATIONS[row.situation]
        else:
            make = next(make for beginning, make in BEGINNINGS.items() if row.path.startswith(beginning))
        there = await make(scene)

        async def call(authorization: str) -> str:
            path = (row.path + QUERIES.get(str(row), "")).format_map(there)
            headers = {"Authorization": authorization} if authorization else {}
            body = BODIES.get(str(row)) or BODIES.get(row.route)
            sent: dict[str, Any] = {"json": body(there)} if body else {}
            answer = await scene.house.call(row.method, path, headers=headers, **sent)
            if answer.status_code in SUCCESS[row.route]:
                return "yes"
            problem = check_problem(answer, {401, 403, 404, 409})
            return "-" if problem["code"] == "forbidden" else str(answer.status_code)

        # Whoever is refused goes first, all at the same thing: that it is still there for the first who may shows that
        # a refusal changed nothing.
        answers = {name: await call(authorization) for name, authorization in scene.strangers.items()}
        assert answers == dict.fromkeys(scene.strangers, "401")
        used_up = False
        for name in sorted(COLUMNS, key=lambda name: row.answers[name] == "yes"):
            there = await make(scene) if used_up else there
            seen, _ = await _last_entry(scene.house)
            answers[name] = await call(f"Bearer {scene.callers[name].token}")
            used_up = answers[name] == "yes" and row.method != "GET"
            # Whoever changes something is in the audit log with it; what is in none is listed above.
            last, actor = await _last_entry(scene.house)
            changes = used_up and row.route not in NO_CHANGES and not row.path.startswith("/access-requests")
            if changes and row.route not in MAY_BE_SO_ALREADY:
                assert last > seen, f"{row} by {name} is not in the audit log"
            if used_up and last > seen:
                assert actor == scene.callers[name].email
        assert {name: answers[name] for name in COLUMNS} == row.answers
