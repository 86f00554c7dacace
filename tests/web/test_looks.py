"""Every page, in a record that looks like one that is used: light, dark and narrow, held to WCAG 2.2 AA.

`make screenshots` keeps what is seen in docs/images.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from playwright.async_api import Page

from db import demo
from tests.api.house import Somebody
from tests.web.conftest import Stage, Visitor, violations, visitor
from tests.web.test_frame import PAGES

_IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
_LOOKS: Final[dict[str, dict[str, Any]]] = {
    "": {"color_scheme": "light", "viewport": {"width": 1200, "height": 800}},
    "-dark": {"color_scheme": "dark", "viewport": {"width": 1200, "height": 800}},
    "-narrow": {"color_scheme": "light", "viewport": {"width": 360, "height": 780}},
}
_OF: Final = {
    "template_id": "SELECT id FROM access_request_templates WHERE name LIKE 'Production%%'",
    "request_id": "SELECT id FROM access_requests WHERE status = 'pending' AND template_name LIKE 'Production%%'",
    "app_id": "SELECT id FROM applications ORDER BY name LIMIT 1",
    "user_id": "SELECT id FROM users WHERE email = 'alice@example.com'",
    "group_id": "SELECT id FROM groups WHERE name = 'dba_team'",
    "task_id": "SELECT id FROM scheduled_tasks ORDER BY name LIMIT 1",
    "run_id": "SELECT id FROM task_runs ORDER BY created_at LIMIT 1",
    "integration_id": "SELECT id FROM integrations ORDER BY name LIMIT 1",
}
"""What the parameter of a path is filled with."""
_KEPT: Final = {
    "/": "ask",
    "/ask/{template_id}": "form",
    "/decide": "decide",
    "/requests/{request_id}": "request",
    "/history": "history",
    "/overview": "overview",
    "/admin/templates/{template_id}": "template",
    "/admin/tasks": "tasks",
}
"""The pages that pictures are kept of."""


@pytest.fixture(scope="module")
async def lived_in(stage: Stage) -> AsyncIterator[dict[str, Somebody]]:
    """The demo, after a month."""
    house = stage.house
    known = await demo._load(stage.house.url, {})
    cast = {who: Somebody(UUID(each["id"]), each["email"], each["token"]) for who, each in known.items()}
    # Where there are administrators, the demo makes no other.
    cast["admin"] = house.admin
    async with house.db.connection() as connection:
        rows = await connection.execute("SELECT id, name FROM access_request_templates")
        templates = {row["name"]: row["id"] for row in await rows.fetchall()}
        # A month of requests that are over; what is open is made by the service itself, below.
        await connection.execute(_A_MONTH)
    await _ask(stage, cast["alice"], templates["Staging cluster"], 480, "")
    database = await _ask(stage, cast["alice"], templates["Database read-only access"], 240, "For the auditors.")
    comment = {"comment": "Until this evening."}
    assert (await house.call("POST", f"/access-requests/{database}/approve", cast["bob"], json=comment)).is_success
    cluster = await _ask(stage, cast["alice"], templates["Production cluster, break glass"], 60, "Checkout fails.")
    for who, body in (("erin", "Who else is on the call?"), ("alice", "Bob. The graphs are in the channel.")):
        await house.call("POST", f"/access-requests/{cluster}/messages", cast[who], json={"body": body})
    root = await visitor(stage.house, stage.house.admin)
    task = await _automate(stage, root)
    await _administer(stage, root, cast["alice"], task)
    yield cast
    # Its Schedule is in a Temporal that other tests use as well.
    await root.post(f"{task}/delete", {}, Origin=stage.url)


async def _automate(stage: Stage, root: Visitor) -> str:
    """A task that has run, an integration that is told, a secret and a token; the path of the task."""
    secret = {"name": "SLACK_WEBHOOK", "value": "hush", "description": "The channel"}
    await root.post("/admin/secrets", secret, Origin=stage.url)
    script = "from justiam import config\n\n\ndef run():\n    print(config.get('run_id'))"
    task = {"name": "Log every change", "script": script, "schedule_type": "cron", "cron": "0 9 * * 1-5"}
    numbers = {"max_retries": "3", "timeout_seconds": "60"}
    made = await root.post("/admin/tasks/new", {**task, **numbers, "secret_names": ["SLACK_WEBHOOK"]}, Origin=stage.url)
    assert (await root.post(f"{made.headers['location']}/run", {}, Origin=stage.url)).status_code == 303
    mail = {"name": "Tell the people concerned", "target": "email", "events": ["access_request.submitted"]}
    assert (await root.post("/admin/integrations/new", {**mail, "enabled": "1"}, Origin=stage.url)).status_code == 303
    token = {"name": "laptop", "expires_in_days": "30"}
    assert (await root.post("/tokens", token, Origin=stage.url)).status_code == 200
    return str(made.headers["location"])


async def _administer(stage: Stage, root: Visitor, member: Somebody, task: str) -> None:
    """A team that is made, joined, described and deleted, and a script that is mended: for the audit log."""
    made = await root.post("/admin/groups", {"name": "on_call", "description": "Who is woken"}, Origin=stage.url)
    group = made.headers["location"]
    assert (await root.post(f"{group}/members", {"email": member.email}, Origin=stage.url)).status_code == 303
    values = {"name": "on_call", "description": "Who is woken first"}
    assert (await root.post(group, values, Origin=stage.url)).status_code == 303
    script = "from justiam import config\n\n\ndef run():\n    print(config.get('event'), config.get('run_id'))"
    values = {"name": "Log every change", "script": script, "schedule_type": "cron", "cron": "0 9 * * 1-5"}
    numbers = {"max_retries": "3", "timeout_seconds": "60", "secret_names": ["SLACK_WEBHOOK"]}
    assert (await root.post(f"{task}/edit", {**values, **numbers}, Origin=stage.url)).status_code == 303
    assert (await root.post(f"{group}/delete", {}, Origin=stage.url)).status_code == 303


async def _ask(stage: Stage, who: Somebody, template: UUID, minutes: int, why: str) -> str:
    """A request, with an answer to every question."""
    fields = (await stage.house.call("GET", f"/access-request-templates/{template}", who)).json()["custom_fields"]
    answers = {"text": "INC-4711", "select": "SEV 1", "multi_select": ["checkout", "search"], "checkbox": True}
    sent = {
        "template_id": str(template),
        "requested_duration_mins": minutes,
        "justification": why,
        "custom_answers": {field["id"]: answers[field["type"]] for field in fields if field["type"] in answers},
    }
    answer = await stage.house.call("POST", "/access-requests", who, json=sent)
    assert answer.status_code == 201, answer.text
    request_id: str = answer.json()["id"]
    return request_id


_A_MONTH: Final = """
    INSERT INTO access_requests (
        id, status, template_id, template_name, app_id, app_name, requester_id, requested_duration_mins, justification,
        snapshot, created_at, decided_by, decided_at, expires_at, ended_at, ended_by, attention_at,
        admins_decide)
    SELECT gen_random_uuid(), kind, t.id, t.name, t.app_id, a.name, u.id, 240, 'Ticket OPS-' || n,
           '{"custom_fields": [], "mappings": []}', at,
           CASE WHEN kind <> 'revoked' THEN 'bob@example.com' END, at + waited,
           CASE WHEN kind = 'expired' THEN at + waited + interval '4 hours' END,
           at + waited + CASE WHEN kind = 'expired' THEN interval '4 hours' ELSE interval '0' END,
           CASE WHEN kind = 'expired' THEN 'system:expiry' ELSE 'bob@example.com' END, NULL,
           false
    FROM (
        SELECT n, now() - interval '1 day' * (1 + n % 29) - interval '37 minutes' * (n % 11) AS at,
               interval '3 minutes' * (1 + n % 13) AS waited,
               (ARRAY['expired', 'expired', 'expired', 'denied', 'expired', 'revoked'])[1 + n % 6] AS kind
        FROM generate_series(1, 90) n WHERE n % 29 % 7 < 5
    ) each
    JOIN LATERAL (SELECT * FROM access_request_templates ORDER BY name, id OFFSET n % 5 LIMIT 1) t ON true
    JOIN applications a ON a.id = t.app_id
    JOIN LATERAL (SELECT * FROM users WHERE email IN ('alice@example.com', 'carol@example.com', 'erin@example.com')
                  ORDER BY email OFFSET n % 3 LIMIT 1) u ON true
"""


@pytest.mark.parametrize("look", _LOOKS)
@pytest.mark.timeout(300)
async def test_every_page_is_for_everybody(
    stage: Stage, lived_in: dict[str, Somebody], look: str, pytestconfig: pytest.Config
) -> None:
    found: dict[str, list[str]] = {}
    shown = 0
    for who in ("admin", "alice", "erin"):
        async with stage.person(lived_in[who], **_LOOKS[look]) as page:
            for path in PAGES:
                if who != _who_looks_at(path) or (target := await _filled(stage, path)) is None:
                    continue
                if target == "/admin":
                    continue
                answer = await page.goto(target)
                assert answer is not None
                if "text/html" not in answer.headers.get("content-type", ""):
                    continue
                assert answer.status < 300, f"{target}: {answer.status}"
                shown += 1
                # On a narrow screen it is the same page, laid out otherwise.
                found[target] = [] if look == "-narrow" else await violations(page, colours_only=look == "-dark")
                width = await page.evaluate("document.documentElement.scrollWidth")
                assert width <= _LOOKS[look]["viewport"]["width"], f"{target} is {width} wide"
                if pytestconfig.getoption("--store-screenshots") and path in _KEPT:
                    await _keep(page, _KEPT[path] + look)
    assert shown >= 25
    assert not any(found.values()), {path: each for path, each in found.items() if each}


def _who_looks_at(path: str) -> str:
    if path.startswith(("/admin", "/history", "/overview", "/tokens")):
        return "admin"
    return "erin" if path == "/decide" or "{request_id}" in path else "alice"


async def _filled(stage: Stage, path: str) -> str | None:
    """The path with what is there, None where nothing is, or where it is no page but a file."""
    for parameter in re.findall(r"{(\w+)}", path):
        if parameter not in _OF:
            return None
        async with stage.house.db.connection() as connection:
            row = await (await connection.execute(_OF[parameter])).fetchone()
        if row is None:
            return None
        path = path.replace(f"{{{parameter}}}", str(row["id"]))
    return None if "." in path else path


async def _keep(page: Page, name: str) -> None:
    _IMAGES.mkdir(exist_ok=True)
    await page.screenshot(path=_IMAGES / f"{name}.png", animations="disabled")
