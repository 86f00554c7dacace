"""What is configured is so, stays so, and is seen when it is not: each resource through its whole life."""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from db import templates
from tests.api.house import House
from tests.terraform.conftest import Workspace

SURROUNDINGS: Final = """
resource "justiam_application" "other" { name = "Other ${var.mark}" }
resource "justiam_group" "one" { name = "one ${var.mark}" }
resource "justiam_group" "two" { name = "two ${var.mark}" }
resource "justiam_user" "dana" {
  email = "dana-${var.mark}@example.com"
  name  = "Dana"
}
resource "justiam_secret" "token" {
  name  = "TOKEN_${upper(var.mark)}"
  value = "hidden-1"
}
variable "mark" { default = "MARK" }
"""

LEAST: Final = """
resource "justiam_application" "app" { name = "App ${var.mark}" }
resource "justiam_app_mapping" "mapping" {
  app_id = justiam_application.app.id
  name   = "Reader"
  claim  = "roles"
  value  = "reader"
}
resource "justiam_group" "group" { name = "group ${var.mark}" }
resource "justiam_user" "user" {
  email = "user-${var.mark}@example.com"
  name  = "User"
}
resource "justiam_group_membership" "membership" {
  group_id = justiam_group.group.id
  user_id  = justiam_user.user.id
}
resource "justiam_scheduled_task" "task" {
  name   = "task ${var.mark}"
  script = "def run(): ..."
}
resource "justiam_access_request_template" "template" {
  name   = "Template ${var.mark}"
  app_id = justiam_application.app.id
}
resource "justiam_integration" "mail" {
  name   = "mail ${var.mark}"
  target = "email"
  events = ["access_request.submitted"]
}
resource "justiam_integration" "hook" {
  name   = "hook ${var.mark}"
  target = "webhook"
  events = ["access_request.submitted"]
  url    = "https://one.example.com/hook"
}
resource "justiam_integration" "script" {
  name    = "script ${var.mark}"
  target  = "task"
  events  = ["access_request.submitted"]
  task_id = justiam_scheduled_task.task.id
}
resource "justiam_secret" "secret" {
  name  = "SECRET_${upper(var.mark)}"
  value = "hidden-2"
}
"""

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
  script          = "package task"
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


@pytest.fixture
def configured(workspace: Workspace) -> Workspace:
    """The surroundings, under names that no other test has."""
    workspace.write(SURROUNDINGS.replace("MARK", uuid4().hex[:8]), "surroundings.tf")
    return workspace


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
    # What was taken out is back at its default, there and here.
    for address in PATHS:
        back = await served(house, before, address)
        assert {**back, "updated_at": ""} == {**first[address], "updated_at": ""}, address
    again = configured.state()
    for address in PATHS:
        assert again[address] == before[address], address

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
    assert '"label":"Why"' in said.replace("\\", "").replace(" ", "") or "Why" in said
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


async def test_everything_can_be_imported_by_its_id(configured: Workspace) -> None:
    configured.write(LEAST)
    configured.apply()
    state = configured.state()
    addresses = [address for address in state if not address.startswith("terraform_")]

    (configured.directory / "terraform.tfstate").unlink()
    blocks = [f'import {{\n  to = {address}\n  id = "{state[address]["id"]}"\n}}\n' for address in addresses]
    configured.write("".join(blocks), "imports.tf")
    said = configured.apply()
    assert f"{len(addresses)} imported, 0 added, 0 changed, 0 destroyed" in said
    configured.changes_nothing()
    imported = configured.state()
    for address in addresses:
        # It is shown once, when the integration is made.
        assert imported[address] == {**state[address], **({"signing_secret": None} if "hook" in address else {})}

    configured.run("state", "rm", "justiam_group.one")
    for wrong, reason in (("one", "must be a UUID"), (str(uuid4()), "There is none with the id")):
        configured.write(f'import {{\n  to = justiam_group.one\n  id = "{wrong}"\n}}\n', "imports.tf")
        assert reason in configured.plan(code=1)


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


async def test_a_template_with_active_requests_is_not_destroyed(configured: Workspace, house: House) -> None:
    configured.write(LEAST)
    configured.apply()
    template = await templates.get(house.db, UUID(configured.state()["justiam_access_request_template.template"]["id"]))
    asker = await house.person(f"asker-{uuid4().hex[:8]}")
    request_id = await house.request(template, asker)

    said = configured.destroy("-target=justiam_access_request_template.template", code=1)
    assert "Cannot delete the template" in said
    assert "1 open request was made from this template. Decide what is pending; revoke what is granted" in said
    assert "(template_in_use)" in said
    configured.changes_nothing()

    withdrawn = await house.call("DELETE", f"/access-request-templates/{template.id}", house.admin)
    assert withdrawn.status_code == 409
    async with house.db.connection() as connection:
        row = await (
            await connection.execute("SELECT status FROM access_requests WHERE id = %s", [request_id])
        ).fetchone()
    assert row is not None
    assert row["status"] == "pending"


class TestCustomFields:
    TEMPLATE: Final = """
resource "justiam_application" "app" {{ name = "Fields ${{var.mark}}" }}
resource "justiam_access_request_template" "template" {{
  name          = "With fields"
  app_id        = justiam_application.app.id
  custom_fields = {fields}
}}
"""
    FIELDS: Final = """jsonencode([
    { label = "Ticket", type = "text", required = true, placeholder = "INC-1 é <&>" },
    { label = "Region", type = "select", options = ["eu", "us"] },
  ])"""
    SPREAD: Final = """<<-JSON
    [
      {"type": "text",   "required": true, "placeholder": "INC-1 \\u00e9 <&>", "label": "Ticket", "options": []},
      {"options": ["eu", "us"], "placeholder": "", "label": "Region", "required": false, "type": "select"}
    ]
  JSON"""

    async def test_never_differ_for_how_they_are_written(self, configured: Workspace, house: House) -> None:
        configured.write(self.TEMPLATE.format(fields=self.FIELDS))
        configured.apply()
        configured.changes_nothing()
        configured.write(self.TEMPLATE.format(fields=self.SPREAD))
        configured.changes_nothing()

        made = configured.state()["justiam_access_request_template.template"]
        served = (await house.call("GET", f"/access-request-templates/{made['id']}", house.admin)).json()
        own = json.dumps(served["custom_fields"])
        configured.write(self.TEMPLATE.format(fields=json.dumps(own)))
        configured.changes_nothing()

        configured.write(self.TEMPLATE.format(fields=self.FIELDS.replace('"us"]', '"us", "ap"]')))
        assert "1 changed" in configured.apply()
        configured.changes_nothing()
        again = (await house.call("GET", f"/access-request-templates/{made['id']}", house.admin)).json()
        assert again["custom_fields"][1]["options"] == ["eu", "us", "ap"]
        assert [each["id"] for each in again["custom_fields"]] == [each["id"] for each in served["custom_fields"]]

        # The order of the fields is what people see.
        swapped = json.dumps(json.dumps(list(reversed(again["custom_fields"]))))
        configured.write(self.TEMPLATE.format(fields=swapped))
        assert "1 to change" in configured.plan("-detailed-exitcode", code=2)


class TestSecrets:
    async def test_a_value_goes_to_the_service_and_nowhere_else(self, configured: Workspace, house: House) -> None:
        configured.write(
            """
variable "hush" { ephemeral = true }
variable "generation" {}
resource "justiam_secret" "secret" {
  name          = "WRITTEN_${upper(var.mark)}"
  value         = var.hush
  value_version = var.generation
}
"""
        )
        old = {"TF_VAR_hush": "hush-hush-1", "TF_VAR_generation": "1"}
        new = {"TF_VAR_hush": "hush-hush-2", "TF_VAR_generation": "1"}
        configured.run("plan", "-input=false", "-out=saved.tfplan", variables=old)
        said = configured.run("show", "-json", "saved.tfplan")
        said += configured.run("apply", "-input=false", "saved.tfplan", variables=old)
        said += (configured.directory / "terraform.tfstate").read_text()
        assert "hush-hush" not in said
        state = configured.state()["justiam_secret.secret"]
        first = (await house.call("GET", f"/secrets/{state['id']}", house.admin)).json()["updated_at"]

        # Another value is not seen; another version sends it.
        configured.plan("-detailed-exitcode", code=0, variables=new)
        assert "1 changed" in configured.apply(variables=new | {"TF_VAR_generation": "2"})
        second = (await house.call("GET", f"/secrets/{state['id']}", house.admin)).json()["updated_at"]
        assert second > first
        assert "hush-hush" not in (configured.directory / "terraform.tfstate").read_text()

    async def test_a_slack_address_is_one(self, configured: Workspace) -> None:
        configured.write(
            """
resource "justiam_integration" "slack" {
  name      = "slack ${var.mark}"
  target    = "slack"
  events    = ["access_request.submitted"]
  slack_url = "https://hooks.slack.com/services/hush-hush"
}
"""
        )
        configured.apply()
        configured.changes_nothing()
        assert "hush-hush" not in (configured.directory / "terraform.tfstate").read_text()


class TestPeople:
    async def test_are_deactivated_and_can_be_taken_back(self, configured: Workspace, house: House) -> None:
        configured.write(LEAST)
        configured.apply()
        user = configured.state()["justiam_user.user"]
        said = configured.destroy("-target=justiam_user.user")
        assert f"{user['email']} was deactivated" in said
        # To make the same person again is refused, and the refusal says what to do.
        said = configured.apply(code=1)
        assert "Cannot create the user" in said
        assert "import it by its id" in said
        configured.write(f'import {{\n  to = justiam_user.user\n  id = "{user["id"]}"\n}}\n', "imports.tf")
        assert "1 imported, 1 added, 1 changed" in configured.apply()
        assert (await house.call("GET", f"/users/{user['id']}", house.admin)).json()["active"] is True

    async def test_a_service_account_keeps_its_owner(self, configured: Workspace) -> None:
        configured.write(
            """
resource "justiam_user" "bot" {
  email    = "bot-${var.mark}@Example.COM"
  name     = " Bot "
  owner_id = upper(justiam_user.dana.id)
}
"""
        )
        configured.apply()
        # However an address, a name and an id are written.
        configured.changes_nothing()


async def test_data_sources_find_by_name_and_by_id(configured: Workspace) -> None:
    configured.write(LEAST)
    configured.apply()
    state = configured.state()
    sought = []
    for kind, name in KINDS.items():
        there = state[f"justiam_{kind}.{name}"]
        sought.append(f'data "justiam_{kind}" "id" {{\n  id = "{there["id"]}"\n}}\n')
        within = f'  app_id = "{there["app_id"]}"\n' if kind == "app_mapping" else ""
        sought.append(f'data "justiam_{kind}" "name" {{\n  name = upper("{there["name"]}")\n{within}}}\n')
    sought.append(f'data "justiam_user" "email" {{\n  email = "{state["justiam_user.user"]["email"]}"\n}}\n')
    configured.write("".join(sought), "data.tf")
    configured.apply()
    configured.changes_nothing()
    found = configured.state()
    for kind, name in KINDS.items():
        resource = state[f"justiam_{kind}.{name}"]
        for way in ("id", "name"):
            looked_up = found[f"data.justiam_{kind}.{way}"]
            assert {**looked_up, "name": resource["name"]} == resource
    assert found["data.justiam_user.email"]["id"] == state["justiam_user.user"]["id"]

    configured.write('data "justiam_group" "x" {\n  name = "nobody"\n}\n', "data.tf")
    assert "There is no group with the name nobody." in configured.plan(code=1)
    configured.write('data "justiam_group" "x" {}\n', "data.tf")
    assert "Give id or name" in configured.plan(code=1)
    configured.write(f'data "justiam_group" "x" {{\n  name = "a"\n  id   = "{uuid4()}"\n}}\n', "data.tf")
    assert "Give id or name, not both" in configured.plan(code=1)
