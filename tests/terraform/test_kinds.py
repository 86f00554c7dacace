"""What is particular about some: custom fields, secrets, people."""

from __future__ import annotations

import json
from typing import Final

from tests.api.house import House
from tests.terraform.conftest import LEAST, Workspace


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
        # Its membership is made again, and nothing undoes the deactivation until the configuration says so.
        assert "1 imported, 1 added, 0 changed" in configured.apply()
        assert (await house.call("GET", f"/users/{user['id']}", house.admin)).json()["active"] is False
        configured.write(LEAST.replace('name  = "User"', 'name  = "User"\n  active = true'))
        assert "0 added, 1 changed" in configured.apply()
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

    async def test_keep_an_address_however_it_is_spelled(self, configured: Workspace, house: House) -> None:
        spellings = {
            "puny": ("puny-${var.mark}@xn--strae-oqa.example", "puny-${var.mark}@straße.example"),
            "wide": ("wide-${var.mark}@\uff25xample\u3002ORG", "WIDE-${var.mark}@example.org"),
            "taken_apart": ("u\u0308-${var.mark}@example.org", "\u00fc-${var.mark}@example.org"),
        }
        configured.write(
            "\n".join(
                f'resource "justiam_user" "{name}" {{\n  email = "{typed}"\n  name  = "{name}"\n}}\n'
                f'data "justiam_user" "{name}" {{\n  email = "{other}"\n  depends_on = [justiam_user.{name}]\n}}'
                for name, (typed, other) in spellings.items()
            )
        )
        configured.apply()
        configured.changes_nothing()
        state = configured.state()
        for name in spellings:
            made, found = state[f"justiam_user.{name}"], state[f"data.justiam_user.{name}"]
            assert made["id"] == found["id"]
            assert (await house.call("GET", f"/users/{made['id']}", house.admin)).json()["active"] is True


class TestText:
    async def test_that_the_service_writes_differently_is_no_difference(self, configured: Workspace) -> None:
        names = ("Zoe\u0308", "a  b", "a\u00a0 b c", "\U0001f6e1\ufe0f x", "a \ufe0f b d", "\u6771\u3000\u4eac")
        configured.write(
            "\n".join(
                f'resource "justiam_group" "g{number}" {{\n'
                f'  name = " {name} ${{var.mark}}"\n  description = "{name}"\n}}'
                for number, name in enumerate(names)
            )
        )
        configured.apply()
        configured.changes_nothing()

    async def test_that_the_service_refuses_is_refused_at_its_argument(self, configured: Workspace) -> None:
        configured.write('resource "justiam_group" "group" {\n  name = "a\u200b ${var.mark}"\n}\n')
        said = configured.apply(code=1)
        assert "U+200B ZERO WIDTH SPACE" in said
        assert 'name = "a' in said
