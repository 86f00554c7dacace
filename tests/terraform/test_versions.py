"""What was changed after Terraform read it is not overwritten: an apply is refused, and the next plan shows it."""

from __future__ import annotations

from typing import Any, Final

from tests.api.house import House
from tests.terraform.conftest import Workspace

CREW: Final = """
resource "justiam_group" "crew" {
  name        = "crew ${var.mark}"
  description = "%s"
  permissions = ["tasks.manage"]
}
resource "justiam_application" "app" { name = "App ${var.mark}" }
resource "justiam_app_mapping" "mapping" {
  app_id    = justiam_application.app.id
  name      = "Reader"
  claim     = "roles"
  value     = "%s"
  group_ids = [justiam_group.one.id]
}
resource "justiam_user" "bot" {
  email    = "bot-${var.mark}@example.com"
  name     = "Bot"
  owner_id = justiam_user.dana.id
%s}
"""
FIRST: Final = CREW % ("first", "one", "")
SECOND: Final = CREW % ("second", "two", "")


async def _is(house: House, path: str) -> Any:
    answer = await house.call("GET", path, house.admin)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_what_is_changed_between_plan_and_apply_is_not_overwritten(configured: Workspace, house: House) -> None:
    configured.write(FIRST)
    configured.apply()
    state = configured.state()
    crew = f"/groups/{state['justiam_group.crew']['id']}"
    mapping = f"/app-mappings/{state['justiam_app_mapping.mapping']['id']}"
    two = state["justiam_group.two"]["id"]

    configured.write(SECOND)
    configured.plan("-out=planned", code=0)
    # An administrator takes the permission away, and another gives the claim to one more group.
    values = {"name": state["justiam_group.crew"]["name"], "description": "first", "permissions": []}
    assert (await house.call("PUT", crew, house.admin, json=values)).status_code == 200
    assert (await house.call("PUT", f"{mapping}/groups/{two}", house.admin)).status_code == 204
    said = configured.apply("planned", code=1)
    assert "Cannot update the group" in said
    assert "It was changed since Terraform read it: permissions. Nothing was overwritten. Run terraform plan" in said
    assert "Cannot update the app mapping" in said
    assert "It was changed since Terraform read it: group_ids. Nothing was overwritten. Run terraform plan" in said
    assert (await _is(house, crew))["permissions"] == []
    assert two in (await _is(house, mapping))["group_ids"]

    # Read again, the change is shown, and what is decided then counts.
    said = configured.plan(code=0)
    assert "tasks.manage" in said
    assert two in said
    assert "0 added, 2 changed, 0 destroyed" in configured.apply()
    assert (await _is(house, crew))["permissions"] == ["tasks.manage"]
    assert (await _is(house, mapping))["group_ids"] == [state["justiam_group.one"]["id"]]
    configured.changes_nothing()

    # Without a refresh, what the last apply answered is what is known.
    configured.write(FIRST)
    assert (await house.call("PUT", crew, house.admin, json=values)).status_code == 200
    assert "Cannot update the group" in configured.apply("-refresh=false", "-target=justiam_group.crew", code=1)
    said = configured.destroy("-refresh=false", "-target=justiam_group.crew", code=1)
    assert "Cannot delete the group" in said
    assert "It was changed since Terraform read it" in said
    assert (await _is(house, crew))["permissions"] == []
    configured.apply()


async def test_what_is_as_planned_already_is_no_conflict(configured: Workspace, house: House) -> None:
    """The service deactivates a service account with its owner, who is changed first in the same apply."""
    configured.write(FIRST)
    configured.apply()
    bot = f"/users/{configured.state()['justiam_user.bot']['id']}"
    surroundings = configured.directory / "surroundings.tf"
    surroundings.write_text(surroundings.read_text().replace('= "Dana"', '= "Dana"\n  active = false'))
    configured.write(CREW % ("first", "one", "  active   = false\n"))
    assert "0 added, 2 changed, 0 destroyed" in configured.apply()
    assert (await _is(house, bot))["active"] is False
    configured.changes_nothing()

    # And nobody is active again because the configuration says nothing any more.
    surroundings.write_text(surroundings.read_text().replace("\n  active = false", ""))
    configured.write(FIRST)
    configured.changes_nothing()
    assert (await _is(house, bot))["active"] is False


async def test_a_group_that_is_replaced_leaves_its_templates_to_the_next_run(configured: Workspace) -> None:
    """When it is destroyed, the service takes it out of them: they are not as they were planned from."""
    configured.write(
        """
resource "justiam_access_request_template" "template" {
  name               = "Template ${var.mark}"
  app_id             = justiam_application.other.id
  approver_group_ids = [justiam_group.one.id, justiam_group.two.id]
}
"""
    )
    configured.apply()
    said = configured.apply("-replace=justiam_group.one", code=1)
    assert "It was changed since Terraform read it: approver_group_ids." in said
    assert "0 added, 1 changed, 0 destroyed" in configured.apply()
    configured.changes_nothing()
