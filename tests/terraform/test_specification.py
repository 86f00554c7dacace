"""The specification's configurations, to the letter."""

from __future__ import annotations

import shutil

from tests.api.house import House
from tests.terraform.conftest import ROOT, Workspace

REFERRED_TO = """
resource "justiam_application" "internal_db" { name = "Internal DB" }
resource "justiam_application" "postgres" { name = "PostgreSQL" }
resource "justiam_app_mapping" "db_readonly_role" {
  app_id = justiam_application.internal_db.id
  name   = "DB read-only role"
  claim  = "roles"
  value  = "db_readonly"
}
resource "justiam_group" "dba_team" { name = "dba_team" }
resource "justiam_group" "engineering_managers" { name = "engineering_managers" }
"""
TEMPLATE = """
resource "justiam_access_request_template" "db_readonly" {
  name        = "Database read-only access"
  description = "Grants read-only database credentials for up to 8 hours."
  app_id      = justiam_application.internal_db.id

  mapping_ids        = [justiam_app_mapping.db_readonly_role.id]
  allowed_durations  = [60, 240, 480]   # 1h, 4h, 8h
  approver_group_ids = [justiam_group.dba_team.id]

  require_justification = true
  auto_approve          = false
  notification_policy   = "all"

  escalation_after_mins = 30
  escalation_group_id   = justiam_group.engineering_managers.id
}
"""
TRIGGERED = """
resource "justiam_scheduled_task" "access_logger" {
  name          = "Access Request Event Logger"
  task_type     = "script"
  schedule_type = "once"
  script        = file("${path.module}/scripts/access_request_event_logger.go")
}

resource "justiam_access_request_template" "db_access" {
  name    = "Database Read Access"
  app_id  = justiam_application.postgres.id

  trigger_task_id           = justiam_scheduled_task.access_logger.id
  trigger_task_failure_mode = "ignore"
}
"""


async def test_its_examples_apply_unchanged(workspace: Workspace, house: House) -> None:
    (workspace.directory / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "access_request_event_logger.go", workspace.directory / "scripts")
    workspace.write(REFERRED_TO + TEMPLATE + TRIGGERED)

    assert "8 added, 0 changed, 0 destroyed" in workspace.apply()
    workspace.changes_nothing()

    state = workspace.state()
    made = state["justiam_access_request_template.db_readonly"]
    served = (await house.call("GET", f"/access-request-templates/{made['id']}", house.admin)).json()
    assert served["allowed_durations"] == [60, 240, 480]
    assert served["mapping_ids"] == [state["justiam_app_mapping.db_readonly_role"]["id"]]
    assert served["approver_group_ids"] == [state["justiam_group.dba_team"]["id"]]
    assert served["escalation_group_id"] == state["justiam_group.engineering_managers"]["id"]
    task = state["justiam_scheduled_task.access_logger"]
    assert (task["language"], task["language_inferred"]) == ("go", True)
    assert state["justiam_access_request_template.db_access"] == {
        "id": state["justiam_access_request_template.db_access"]["id"],
        "name": "Database Read Access",
        "app_id": state["justiam_application.postgres"]["id"],
        "trigger_task_id": task["id"],
        "trigger_task_failure_mode": "ignore",
        # The defaults of its table of arguments.
        "description": "",
        "mapping_ids": [],
        "allowed_durations": [],
        "approver_group_ids": [],
        "allowed_group_ids": [],
        "prefer_requester_groups": False,
        "require_justification": True,
        "auto_approve": False,
        "notification_policy": "all",
        "notification_count": 1,
        "escalation_after_mins": None,
        "escalation_group_id": None,
        "custom_fields": "[]",
    }

    assert "8 destroyed" in workspace.destroy()
    assert (await house.call("GET", "/access-request-templates", house.admin)).json()["items"] == []
