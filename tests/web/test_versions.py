"""A form does not overwrite what was changed after it was opened: both are shown, and saving again is deliberate."""

from __future__ import annotations

import html
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import pytest

from db import groups, users
from db.administrators import OPERATOR
from domain.directory import ApplicationValues, GroupValues, UserReplacement
from domain.integrations import IntegrationReplacement
from domain.tasks import TaskValues
from domain.templates import TemplateValues
from tests.api.house import House
from tests.web.conftest import Visitor, shown
from web.routes import automation, directory
from web.routes import templates as template_pages


class Edited:
    """Something with an editor: its route of the API, its page, and what its form sends beside what is changed."""

    def __init__(self, house: House, api: str, page: str, body: dict[str, Any], form: dict[str, Any]) -> None:
        self._house, self._api, self.page, self._body, self.form = house, api, page, body, form

    async def put(self, **changed: Any) -> None:
        """Change it as another administrator does."""
        answer = await self._house.call("PUT", self._api, self._house.admin, json={**self._body, **changed})
        assert answer.status_code == 200, answer.text

    async def get(self) -> dict[str, Any]:
        answer = await self._house.call("GET", self._api, self._house.admin)
        found: dict[str, Any] = answer.json()
        return found


async def _made(house: House, kind: str, body: dict[str, Any]) -> str:
    answer = await house.call("POST", kind, house.admin, json=body)
    assert answer.status_code == 201, answer.text
    return f"{kind}/{answer.json()['id']}"


async def _template(house: House) -> Edited:
    app = await house.application(f"app {uuid4()}")
    body = {"name": "Read", "app_id": str(app.id)}
    api = await _made(house, "/access-request-templates", body)
    form = {**body, "do": "save", "notification_policy": "all", "notification_count": "1", "questions": "0"}
    form |= {"trigger_task_failure_mode": "ignore", "require_justification": "true"}
    return Edited(house, api, f"/admin/templates/{api.rpartition('/')[2]}", body, form)


async def _task(house: House) -> Edited:
    body = {"name": f"task {uuid4()}", "script": "def run(): ..."}
    api = await _made(house, "/scheduled-tasks", body)
    form = {**body, "schedule_type": "once", "max_retries": "3", "timeout_seconds": "60", "network": "true"}
    return Edited(house, api, f"/admin/tasks/{api.rpartition('/')[2]}/edit", body, form)


async def _integration(house: House) -> Edited:
    body = {"name": f"mail {uuid4()}", "target": "email", "events": ["access_request.denied"]}
    api = await _made(house, "/integrations", body)
    return Edited(house, api, f"/admin/integrations/{api.rpartition('/')[2]}/edit", body, {**body, "enabled": "true"})


async def _group(house: House) -> Edited:
    body = {"name": f"group {uuid4()}"}
    api = await _made(house, "/groups", body)
    return Edited(house, api, f"/admin{api}", body, body)


async def _application(house: House) -> Edited:
    body = {"name": f"app {uuid4()}"}
    api = await _made(house, "/applications", body)
    return Edited(house, api, f"/admin{api}", body, body)


async def _person(house: House) -> Edited:
    body = {"email": f"p-{uuid4()}@example.com", "name": "Dana"}
    api = await _made(house, "/users", body)
    return Edited(house, api, f"/admin/people/{api.rpartition('/')[2]}", body, body)


EDITORS: Final[dict[str, Callable[[House], Awaitable[Edited]]]] = {
    "template": _template,
    "task": _task,
    "integration": _integration,
    "group": _group,
    "application": _application,
    "person": _person,
}


def version(answer: httpx.Response) -> str:
    """The version that a page's form carries."""
    found = re.search(r'name="version" value="([^"]+)"', answer.text)
    assert found
    return html.unescape(found[1])


@pytest.mark.parametrize("editor", EDITORS)
async def test_what_was_changed_meanwhile_is_shown_and_not_overwritten(
    house: House, root: Visitor, editor: str
) -> None:
    edited = await EDITORS[editor](house)
    opened = version(await root.get(edited.page))
    await edited.put(name=f"theirs {editor}")

    typed = {**edited.form, "name": f"mine {editor}", "version": opened}
    refused = await root.post(edited.page, typed)
    assert refused.status_code == 412
    assert (await edited.get())["name"] == f"theirs {editor}"
    said = shown(refused)
    assert "Not saved: it was changed since you opened it. The last change is by root@example.com" in said
    assert f"Name mine {editor} theirs {editor}" in said
    assert f'value="mine {editor}"' in refused.text, "what was typed stays in the form"

    # Saved again from that page, it replaces what was shown there; and nothing that came after that.
    assert (again := version(refused)) != opened
    assert (await root.post(edited.page, {**typed, "version": again})).status_code == 303
    assert (await edited.get())["name"] == f"mine {editor}"
    assert (await root.post(edited.page, {**typed, "name": "third", "version": again})).status_code == 412
    # A form that is sent twice was saved.
    assert (await root.post(edited.page, {**typed, "version": again})).status_code == 303
    assert (await edited.get())["name"] == f"mine {editor}"


async def test_a_permission_that_was_taken_away_does_not_come_back(house: House, root: Visitor) -> None:
    group = await house.group(f"crew {uuid4()}", permissions=["tasks.manage"])  # type: ignore[list-item]
    page = f"/admin/groups/{group.id}"
    opened = version(await root.get(page))
    await groups.replace(house.db, OPERATOR, group.id, GroupValues(name=group.name))
    form = {"name": group.name, "description": "What it is for", "permissions": "tasks.manage", "version": opened}
    refused = await root.post(page, form)
    assert refused.status_code == 412
    assert "What membership brings tasks.manage nothing" in shown(refused)
    assert (await groups.get(house.db, group.id)).permissions == []


async def test_names_are_shown_and_the_buttons_of_the_editor_keep_the_version(house: House, root: Visitor) -> None:
    edited = await _template(house)
    first, second = await house.group(f"first {uuid4()}"), await house.group(f"second {uuid4()}")
    opened = version(await root.get(edited.page))
    await edited.put(allowed_group_ids=[str(first.id)], custom_fields=[{"label": "Ticket", "type": "text"}])
    typed = {**edited.form, "allowed_group_ids": str(second.id), "version": opened}
    # Another button shows the form anew, and not what was changed: the version stays that of what was opened.
    assert version(await root.post(edited.page, {**typed, "do": "add"})) == opened
    assert version(await root.post(edited.page, {**typed, "name": ""})) == opened
    refused = await root.post(edited.page, typed)
    assert f"Who may ask {second.name} {first.name}" in shown(refused)
    assert "Questions nothing Ticket (text)" in shown(refused)


async def test_what_was_changed_is_not_deleted_unseen(house: House, root: Visitor) -> None:
    for editor in ("template", "group", "application", "task", "integration"):
        edited = await EDITORS[editor](house)
        page = edited.page.removesuffix("/edit")
        opened = version(await root.get(page))
        await edited.put(name=f"changed {editor}")
        answer = await root.follow(await root.post(f"{page}/delete", {"version": opened}))
        assert "It was changed since you read it, and nothing was done. Read it again" in shown(answer), editor
        assert (await edited.get())["name"] == f"changed {editor}"
        assert (await root.post(f"{page}/delete", {"version": version(await root.get(page))})).status_code == 303


async def test_saving_a_name_does_not_undo_a_deactivation(house: House, root: Visitor) -> None:
    edited = await _person(house)
    user_id = UUID(edited.page.rpartition("/")[2])
    opened = version(await root.get(edited.page))
    values = UserReplacement(email=edited.form["email"], name="Dana", active=False)
    await users.replace(house.db, OPERATOR, user_id, values)
    await root.post(edited.page, {**edited.form, "name": "Dana F.", "version": opened})
    await root.post(edited.page, {**edited.form, "name": "Dana F."})
    assert (await edited.get())["active"] is False
    await root.post(edited.page, {"do": "activate"})
    assert (await edited.get())["active"] is True


@pytest.mark.parametrize(
    ("labels", "model", "apart"),
    [
        (template_pages._LABELS, TemplateValues, {"app_id"}),
        (automation._TASK_LABELS, TaskValues, {"task_type"}),
        (automation._INTEGRATION_LABELS, IntegrationReplacement, {"target", "slack_url"}),
        (directory._DESCRIBED, ApplicationValues, set()),
        (directory._GROUP_LABELS, GroupValues, set()),
        (directory._ACCOUNT_LABELS, UserReplacement, {"active", "owner_id"}),
    ],
)
def test_every_value_is_compared(labels: dict[str, str], model: Any, apart: set[str]) -> None:
    assert labels.keys() == model.model_fields.keys() - apart
