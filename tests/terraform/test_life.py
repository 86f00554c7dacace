"""What is configured is so, stays so, and is seen when it is not: each resource through its whole life."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from db import templates
from tests.api.house import House
from tests.terraform.conftest import LEAST, SURROUNDINGS, Installed, Workspace

MOST: Final = """
resource "justiam_application" "app" {
  name        = "App ${var.mark}, renamed"
  description = "What it is"
}
resource "justiam_app_mapping" "mapping" {
  app_id    = justiam_application.app.id
  name      = "Writer"
  claim     = "entitlements"
  value     = "writer"
  group_ids = [justiam_group.two.id, justiam_group.one.id]
}
resource "justiam_group" "group" {
  name        = "group ${var.mark}, renamed"
  description = "What it is for"
  permissions = ["tasks.manage", "access_requests.manage"]
}
resource "justiam_user" "user" {
  email  = "renamed-${var.mark}@example.com"
  name   = "Renamed"
  active = false
}
resource "justiam_group_membership" "membership" {
  group_id = justiam_group.group.id
  user_id  = justiam_user.user.id
}
resource "justiam_scheduled_task" "task" {
  name            = "task ${var.mark}, renamed"
  description     = "What it does"
  task_type       = "script"
  language        = "go"
  script          = "package task; func Run() (string, error) { return ``, nil }"
  schedule_type   = "cron"
  cron            = "0  6 * * 1-5"
  time_zone       = "Europe/Berlin"
  max_retries     = 0
  timeout_seconds = 5
  secret_names    = [justiam_secret.token.name]
  network         = false
}
resource "justiam_access_request_template" "template" {
  name                      = "Template, renamed"
  description               = "Shown"
  app_id                    = justiam_application.app.id
  mapping_ids               = [justiam_app_mapping.mapping.id]
  allowed_durations         = [480, 60]
  approver_group_ids        = [justiam_group.two.id, justiam_group.one.id]
  allowed_group_ids         = [justiam_group.group.id]
  prefer_requester_groups   = true
  require_justification     = false
  auto_approve              = true
  notification_policy       = "first_n"
  notification_count        = 2
  escalation_after_mins     = 30
  escalation_group_id       = justiam_group.group.id
  custom_fields             = jsonencode([{ label = "Ticket", type = "text", required = true }])
  trigger_task_id           = justiam_scheduled_task.task.id
  trigger_task_failure_mode = "block"
}
resource "justiam_integration" "mail" {
  name        = "mail ${var.mark}, renamed"
  target      = "email"
  enabled     = false
  events      = ["access_request.expired", "access_request.approved"]
  template_id = justiam_access_request_template.template.id
  app_id      = justiam_application.app.id
  roles       = ["requester", "approver"]
}
resource "justiam_integration" "hook" {
  name   = "hook ${var.mark}, renamed"
  target = "webhook"
  events = ["access_request.denied"]
  url    = "https://two.example.com/hook"
}
resource "justiam_integration" "script" {
  name    = "script ${var.mark}, renamed"
  target  = "task"
  events  = ["access_request.denied"]
  task_id = justiam_scheduled_task.task.id
}
resource "justiam_secret" "secret" {
  name          = "SECRET_${upper(var.mark)}"
  value         = "hidden-3"
  value_version = 2
  description   = "What it is for"
}
"""

PATHS: Final = {
    "justiam_application.app": "/applications",
    "justiam_app_mapping.mapping": "/app-mappings",
    "justiam_group.group": "/groups",
    "justiam_user.user": "/users",
    "justiam_scheduled_task.task": "/scheduled-tasks",
    "justiam_access_request_template.template": "/access-request-templates",
    "justiam_integration.mail": "/integrations",
    "justiam_integration.hook": "/integrations",
    "justiam_integration.script": "/integrations",
    "justiam_secret.secret": "/secrets",
}


CHANGED: Final = {
    "justiam_application.app": {"name", "description"},
    "justiam_app_mapping.mapping": {"name", "claim", "value", "group_ids"},
    "justiam_group.group": {"name", "description", "permissions"},
    "justiam_user.user": {"email", "name", "active"},
    "justiam_scheduled_task.task": {
        *{"name", "description", "language", "language_inferred", "script", "schedule_type", "cron", "time_zone"},
        *{"max_retries", "timeout_seconds", "secret_names", "network"},
    },
    "justiam_access_request_template.template": {
        *{"name", "description", "app_name", "mapping_ids", "allowed_durations", "approver_group_ids"},
        *{"allowed_group_ids", "prefer_requester_groups", "require_justification", "auto_approve"},
        *{"notification_policy", "notification_count", "escalation_after_mins", "escalation_group_id"},
        *{"custom_fields", "trigger_task_id", "trigger_task_failure_mode"},
    },
    "justiam_integration.mail": {"name", "enabled", "events", "template_id", "app_id", "roles"},
    "justiam_integration.hook": {"name", "events", "url"},
    "justiam_integration.script": {"name", "events"},
    "justiam_secret.secret": {"description"},
}
"""What the service has otherwise then: everything that can be said of each, but for what makes another of it."""
KINDS: Final = {
    "application": "app",
    "app_mapping": "mapping",
    "group": "group",
    "scheduled_task": "task",
    "access_request_template": "template",
}


@pytest.fixture(scope="module")
def everything(
    installed: Installed,
    address: str,
    house: House,
    attached: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A directory whose configuration was applied, to be copied: what is in the service is left as it is."""
    workspace = Workspace(
        installed,
        tmp_path_factory.mktemp("everything"),
        JUSTIAM_ENDPOINT=address,
        JUSTIAM_TOKEN=house.admin.token,
        **attached,
    )
    workspace.write(SURROUNDINGS.replace("MARK", uuid4().hex[:8]), "surroundings.tf")
    workspace.write(LEAST)
    workspace.apply()
    return workspace.directory


@pytest.fixture
def applied(everything: Path, configured: Workspace) -> Workspace:
    """What was applied, in a directory of this test's own."""
    for path in everything.glob("*.tf*"):
        shutil.copy(path, configured.directory)
    return configured


async def served(house: House, state: dict[str, dict[str, Any]], address: str) -> dict[str, Any]:
    answer = await house.call("GET", f"{PATHS[address]}/{state[address]['id']}", house.admin)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_every_attribute_changes_in_place_and_back(configured: Workspace, house: House) -> None:
    configured.write(LEAST)
    configured.apply()
    configured.changes_nothing()
    before = configured.state()
    first = {address: await served(house, before, address) for address in PATHS}

    configured.write(MOST)
    assert "0 added, 10 changed, 0 destroyed" in configured.apply()
    configured.changes_nothing()
    after = configured.state()
    for address in PATHS:
        assert after[address]["id"] == before[address]["id"]
        now = await served(house, after, address)
        differs = {name for name, value in now.items() if value != first[address][name]}
        assert differs - {"updated_at"} == CHANGED[address], address
    assert after["justiam_integration.mail"]["roles"] == ["approver", "requester"]
    assert (await served(house, after, "justiam_app_mapping.mapping"))["group_ids"] != []

    configured.write(LEAST)
    assert "0 added, 10 changed, 0 destroyed" in configured.apply()
    configured.changes_nothing()
    # What was taken out is back at its default, there and here; but nobody is active again because nothing is said.
    stays = {address: {"active": False} if address == "justiam_user.user" else {} for address in PATHS}
    for address in PATHS:
        back = await served(house, before, address)
        assert {**back, "updated_at": ""} == {**first[address], "updated_at": "", **stays[address]}, address
    again = configured.state()
    for address in PATHS:
        assert again[address] == {**before[address], **stays[address]}, address

    configured.destroy()
    user = await served(house, before, "justiam_user.user")
    assert not user["active"]


async def test_changes_from_outside_are_shown_and_what_was_deleted_comes_back(
    configured: Workspace, house: House
) -> None:
    configured.write(LEAST)
    configured.apply()
    state = configured.state()

    template = await served(house, state, "justiam_access_request_template.template")
    for name in ("id", "app_name", "created_at", "updated_at"):
        template.pop(name)
    changed = {**template, "auto_approve": True, "custom_fields": [{"label": "Why", "type": "text"}]}
    path = f"/access-request-templates/{state['justiam_access_request_template.template']['id']}"
    assert (await house.call("PUT", path, house.admin, json=changed)).status_code == 200
    mapping, group = state["justiam_app_mapping.mapping"]["id"], state["justiam_group.one"]["id"]
    answer = await house.call("PUT", f"/app-mappings/{mapping}/groups/{group}", house.admin)
    assert answer.status_code == 204
    said = configured.plan("-detailed-exitcode", code=2)
    assert "auto_approve = true -> false" in said
    assert "Why" in said
    assert "group_ids" in said
    assert "0 to add, 2 to change, 0 to destroy" in said

    membership = state["justiam_group_membership.membership"]["id"]
    group, user = membership.split("/")
    deleted = [
        f"/groups/{group}/members/{user}",
        f"/integrations/{state['justiam_integration.mail']['id']}",
        f"/secrets/{state['justiam_secret.secret']['id']}",
        path,
    ]
    for each in deleted:
        assert (await house.call("DELETE", each, house.admin)).status_code == 204
    assert "4 added, 1 changed, 0 destroyed" in configured.apply()
    configured.changes_nothing()


async def test_everything_can_be_imported_by_its_id(applied: Workspace) -> None:
    state = applied.state()
    addresses = [address for address in state if not address.startswith("terraform_")]

    (applied.directory / "terraform.tfstate").unlink()
    blocks = [f'import {{\n  to = {address}\n  id = "{state[address]["id"]}"\n}}\n' for address in addresses]
    applied.write("".join(blocks), "imports.tf")
    said = applied.apply()
    assert f"{len(addresses)} imported, 0 added, 0 changed, 0 destroyed" in said
    applied.changes_nothing()
    imported = applied.state()
    for address in addresses:
        # It is shown once, when the integration is made.
        assert imported[address] == {**state[address], **({"signing_secret": None} if "hook" in address else {})}

    applied.run("state", "rm", "justiam_group.one", "justiam_group.two")
    wrong = {"one": "one", "two": str(uuid4())}
    blocks = [f'import {{\n  to = justiam_group.{name}\n  id = "{given}"\n}}\n' for name, given in wrong.items()]
    applied.write("".join(blocks), "imports.tf")
    said = applied.plan(code=1)
    assert "The id must be a UUID" in said
    assert f"There is none with the id {wrong['two']}." in said


async def test_another_application_is_another_template(configured: Workspace) -> None:
    configured.write(LEAST)
    configured.apply()
    before = configured.state()
    moved = LEAST.replace(
        'name   = "Template ${var.mark}"\n  app_id = justiam_application.app.id',
        'name   = "Template ${var.mark}"\n  app_id = justiam_application.other.id',
    )
    configured.write(moved)
    said = configured.apply()
    assert "forces replacement" in said
    assert "1 added, 0 changed, 1 destroyed" in said
    after = configured.state()
    address = "justiam_access_request_template.template"
    assert after[address]["id"] != before[address]["id"]
    assert after[address]["app_id"] == after["justiam_application.other"]["id"]


async def test_a_template_with_active_requests_is_not_destroyed(applied: Workspace, house: House) -> None:
    template = await templates.get(house.db, UUID(applied.state()["justiam_access_request_template.template"]["id"]))
    asker = await house.person(f"asker-{uuid4().hex[:8]}")
    request_id = await house.request(template, asker)

    said = applied.destroy("-target=justiam_access_request_template.template", code=1)
    assert "Cannot delete the template" in said
    assert "1 open request was made from this template. Decide what is pending; revoke what is granted" in said
    assert "(template_in_use)" in said
    applied.changes_nothing()

    withdrawn = await house.call("DELETE", f"/access-request-templates/{template.id}", house.admin)
    assert withdrawn.status_code == 409
    async with house.db.connection() as connection:
        row = await (
            await connection.execute("SELECT status FROM access_requests WHERE id = %s", [request_id])
        ).fetchone()
    assert row is not None
    assert row["status"] == "pending"


async def test_data_sources_find_by_name_and_by_id(applied: Workspace) -> None:
    state = applied.state()
    sought = []
    for kind, name in KINDS.items():
        there = state[f"justiam_{kind}.{name}"]
        sought.append(f'data "justiam_{kind}" "id" {{\n  id = "{there["id"]}"\n}}\n')
        within = f'  app_id = "{there["app_id"]}"\n' if kind == "app_mapping" else ""
        sought.append(f'data "justiam_{kind}" "name" {{\n  name = upper("{there["name"]}")\n{within}}}\n')
    sought.append(f'data "justiam_user" "email" {{\n  email = "{state["justiam_user.user"]["email"]}"\n}}\n')
    applied.write("".join(sought), "data.tf")
    applied.apply()
    applied.changes_nothing()
    found = applied.state()
    for kind, name in KINDS.items():
        resource = state[f"justiam_{kind}.{name}"]
        for way in ("id", "name"):
            looked_up = found[f"data.justiam_{kind}.{way}"]
            assert {**looked_up, "name": resource["name"]} == resource
    assert found["data.justiam_user.email"]["id"] == state["justiam_user.user"]["id"]

    applied.write('data "justiam_group" "x" {\n  name = "nobody"\n}\n', "data.tf")
    assert "There is no group with the name nobody." in applied.plan(code=1)
    both = f'name = "a"\n  id   = "{uuid4()}"'
    applied.write(f'data "justiam_group" "x" {{}}\ndata "justiam_group" "y" {{\n  {both}\n}}\n', "data.tf")
    said = applied.plan(code=1)
    assert "there is no group to look for." in said
    assert "Give id or name, not both" in said
