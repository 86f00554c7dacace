"""Check that a form shows all that is chosen, and that a form that is saved unchanged changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from db.choices import MOST_OTHERS
from domain.actors import Permission
from tests.api.house import House
from tests.conftest import Databases
from tests.web.conftest import Visitor, open_pages, shown, visitor
from tests.web.forms import Form, form_to, forms
from tests.web.test_frame import FORMS, PAGES

AWKWARD: Final = "\n\n  first\r\n\tsecond\rthird <b>&amp;</b> \n\n  "
EDITORS: Final = {
    "/admin/templates/{template_id}": "/access-request-templates/",
    "/admin/applications/{app_id}": "/applications/",
    "/admin/people/{user_id}": "/users/",
    "/admin/groups/{group_id}": "/groups/",
    "/admin/tasks/{task_id}/edit": "/scheduled-tasks/",
    "/admin/integrations/{integration_id}/edit": "/integrations/",
}
"""The page of each editor, and the route of the API that shows the same resource."""
_NEWER: Final = """
INSERT INTO {table} SELECT (jsonb_populate_record(old, jsonb_build_object(
    'id', gen_random_uuid(), 'name', 'NEWER_' || n, 'client_id', 'newer-' || n, 'created_at', now()
))).* FROM {table} old, generate_series(1, {count}) n WHERE old.id = '{like}'
"""
"""Makes copies of a row that are newer."""


class _Crowded:
    """Hold a record in which all that the tests name is older than 201 others of its kind."""

    def __init__(self, house: House, root: Visitor) -> None:
        self.house = house
        self.root = root
        self.ids: dict[str, str] = {}

    async def make(self, path: str, name: str, **values: Any) -> None:
        answer = await self.house.call("POST", path, self.house.admin, json={"name": name, **values})
        assert answer.status_code == 201, answer.text
        self.ids[name] = answer.json()["id"]

    async def seen(self, editor: str, name: str) -> dict[str, Any]:
        """Return what the API shows of a resource."""
        answer = await self.house.call("GET", EDITORS[editor] + self.ids[name], self.house.admin)
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return {key: value for key, value in shown.items() if key != "updated_at"}

    async def opened(self, editor: str, name: str) -> Form:
        """Return the form of a resource, in its editor."""
        path = self.path(editor, name)
        page = await self.root.get(path)
        assert page.status_code == 200, shown(page)
        return form_to(page.text, path)

    async def sent(self, form: Form, button: str) -> Form:
        """Press a button that saves nothing, and return the form after it."""
        page = await self.root.post(form.action, form.sends(form.button(button)))
        assert page.status_code == 200, shown(page)
        return form_to(page.text, form.action)

    def path(self, editor: str, name: str) -> str:
        return editor.partition("{")[0] + self.ids[name] + editor.partition("}")[2]


@pytest.fixture(scope="module")
async def crowded(new_database: Databases) -> AsyncIterator[_Crowded]:
    with new_database() as url:
        async with open_pages(url) as house:
            yield await _filled(_Crowded(house, await visitor(house, house.admin)))


async def _filled(record: _Crowded) -> _Crowded:
    make, ids = record.make, record.ids
    for name in ("zz first", "mm second", "aa third", "late"):
        await make("/groups", name, description=AWKWARD, permissions=["tasks.manage", "directory.manage"])
    await make("/applications", "app", description=AWKWARD)
    await make("/applications", "plain app")
    await make("/app-mappings", "z claim", app_id=ids["app"], claim="roles", value="z")
    await make("/app-mappings", "a claim", app_id=ids["app"], claim="roles", value="a")
    for name in ("Z_SECRET", "A_SECRET"):
        await make("/secrets", name, value="hush")
    script = "\n\ndef run():\r\n    return 1\r# end  \n\n"
    numbers = {"max_retries": 0, "timeout_seconds": 3600}
    for name in ("once", "turned"):
        await make("/scheduled-tasks", name, script="def run(): ...", description="")
    await make(
        "/scheduled-tasks",
        "cron",
        script=script,
        description=AWKWARD,
        language="python",
        network=False,
        schedule_type="cron",
        cron=" 0  9 * * 1-5 ",
        time_zone="Europe/Berlin",
        secret_names=["Z_SECRET", "A_SECRET"],
        **numbers,
    )
    await make("/scheduled-tasks", "interval", script=script, schedule_type="interval", interval_seconds=90)
    fields = [
        {"label": "Several", "type": "select", "options": ["z  z", "a", "Ünï <b>"], "required": True},
        {"label": "Hinted", "type": "textarea", "placeholder": AWKWARD},
        {"label": "Alone", "type": "checkbox"},
    ]
    await make(
        "/access-request-templates",
        "template",
        description=AWKWARD,
        app_id=ids["app"],
        custom_fields=fields,
        mapping_ids=[ids["z claim"], ids["a claim"]],
        allowed_durations=[480, 43200, 61, 1],
        approver_group_ids=[ids[name] for name in ("zz first", "mm second", "aa third")],
        allowed_group_ids=[ids["zz first"], ids["aa third"]],
        escalation_group_id=ids["late"],
        notification_policy="first_n",
        notification_count=2,
        escalation_after_mins=1501,
        trigger_task_id=ids["cron"],
        trigger_task_failure_mode="block",
        auto_approve=True,
        require_justification=False,
        prefer_requester_groups=True,
    )
    await make("/access-request-templates", "plain template", app_id=ids["plain app"])
    only = {"template_id": ids["template"], "app_id": ids["app"], "enabled": False}
    events = ["access_request.submitted", "access_request.expired"]
    url = "https://hooks.example.com/a?b=%20c&d=<e>"
    await make("/integrations", "webhook", target="webhook", events=events, url=url, **only)
    await make("/integrations", "slack", target="slack", events=events, slack_url=url, **only)
    await make("/integrations", "email", target="email", events=events, roles=["handled"], **only)
    await make("/integrations", "task", target="task", events=events[:1], task_id=ids["cron"])
    await make("/users", "person", email="first.last+tag@example.com")
    await make("/users", "beyond ascii", email="zoë@straße.example")
    await make("/users", "program", email="program@example.com", owner_id=ids["person"])
    await make("/users", "gone", email="gone@example.com", active=False)
    async with record.house.db.connection() as connection:
        for table, like in (
            ("groups", "late"),
            ("applications", "plain app"),
            ("app_mappings", "z claim"),
            ("scheduled_tasks", "once"),
            ("access_request_templates", "plain template"),
            ("secrets", "Z_SECRET"),
        ):
            await connection.execute(_NEWER.format(table=table, like=ids[like], count=MOST_OTHERS + 1))
    return record


CASES: Final = [
    *[("/admin/templates/{template_id}", name) for name in ("template", "plain template")],
    *[("/admin/applications/{app_id}", name) for name in ("app", "plain app")],
    *[("/admin/people/{user_id}", name) for name in ("person", "beyond ascii", "program", "gone")],
    *[("/admin/groups/{group_id}", name) for name in ("zz first", "late")],
    *[("/admin/tasks/{task_id}/edit", name) for name in ("once", "cron", "interval")],
    *[("/admin/integrations/{integration_id}/edit", name) for name in ("webhook", "slack", "email", "task")],
]


def test_every_editor_is_tried() -> None:
    found = {path for path in FORMS if path in PAGES and "{" in path}
    assert found - {"/ask/{template_id}"} == set(EDITORS) == {editor for editor, _ in CASES}


@pytest.mark.parametrize("key", ["Save", "Enter"])
@pytest.mark.parametrize(("editor", "name"), CASES)
async def test_a_form_saved_unchanged_changes_nothing(crowded: _Crowded, editor: str, name: str, key: str) -> None:
    before = await crowded.seen(editor, name)
    form = await crowded.opened(editor, name)
    button = form.first_button() if key == "Enter" else [each for each in form.controls if each.text == "Save"][-1]
    answer = await crowded.root.post(form.action, form.sends(button))
    assert answer.status_code == 303, shown(answer)
    assert await crowded.seen(editor, name) == before


@pytest.mark.parametrize("text", ["", "x", "x\n", "\nx", "  x  ", "x\n\n", "\r\n\r\n", "a\r\nb"])
async def test_a_text_is_stored_as_it_was_typed(crowded: _Crowded, text: str) -> None:
    for editor, name in (
        ("/admin/templates/{template_id}", "plain template"),
        ("/admin/applications/{app_id}", "plain app"),
        ("/admin/groups/{group_id}", "mm second"),
        ("/admin/tasks/{task_id}/edit", "once"),
    ):
        form = await crowded.opened(editor, name)
        form.fill("description", text)
        answer = await crowded.root.post(form.action, form.sends(form.button("Save")))
        assert answer.status_code == 303, shown(answer)
        assert (await crowded.seen(editor, name))["description"] == text.replace("\r\n", "\n")


async def test_text_that_was_kept_before_it_was_checked_is_not_altered(crowded: _Crowded) -> None:
    """Check that a form with a mark in the place of a character does not store the mark: the rule of text answers."""
    turned = "before \u202egpj\u202c after"
    async with crowded.house.db.connection() as connection:
        await connection.execute(
            "UPDATE scheduled_tasks SET name = %(text)s, script = %(text)s, description = %(text)s WHERE id = %(id)s",
            {"text": turned, "id": crowded.ids["turned"]},
        )
    editor = "/admin/tasks/{task_id}/edit"
    before = await crowded.seen(editor, "turned")
    form = await crowded.opened(editor, "turned")
    assert form.values("script") == form.values("name") == ["before \ufffdgpj\ufffd after"]
    answer = await crowded.root.post(form.action, form.sends(form.first_button()))
    assert answer.status_code == 422
    assert "U+202E" in shown(answer)
    assert await crowded.seen(editor, "turned") == before


TEMPLATE: Final = "/admin/templates/{template_id}"


async def test_the_order_of_approvers_and_grants_is_set_with_buttons(crowded: _Crowded) -> None:
    before = await crowded.seen(TEMPLATE, "template")
    form = await crowded.opened(TEMPLATE, "template")
    form = await crowded.sent(form, "Down: zz first")
    form = await crowded.sent(form, "Up: aa third")
    form = await crowded.sent(form, "Up: a claim")
    expected = [crowded.ids[name] for name in ("mm second", "aa third", "zz first")]
    assert form.values("approver_group_ids") == expected
    assert await crowded.seen(TEMPLATE, "template") == before
    await crowded.root.post(form.action, form.sends(form.button("Save")))
    after = await crowded.seen(TEMPLATE, "template")
    assert after["approver_group_ids"] == expected
    assert after["mapping_ids"] == [crowded.ids["a claim"], crowded.ids["z claim"]]
    form = await crowded.opened(TEMPLATE, "template")
    for button in ("Up: zz first", "Up: zz first", "Up: z claim"):
        form = await crowded.sent(form, button)
    await crowded.root.post(form.action, form.sends(form.button("Save")))
    assert await crowded.seen(TEMPLATE, "template") == before


async def test_an_entry_beyond_the_newest_is_found_by_name_and_chosen(crowded: _Crowded) -> None:
    form = await crowded.opened(TEMPLATE, "plain template")
    form.fill("description", "a draft")
    oldest = crowded.ids["late"]
    assert not [each for each in form.controls if each.value == oldest]
    form.fill("find.allowed_group_ids", "LAT")
    # The Enter key in the search searches, and does not save.
    page = await crowded.root.post(form.action, form.sends(form.first_button()))
    assert page.status_code == 200
    form = form_to(page.text, form.action)
    form.tick("allowed_group_ids", oldest)
    form.fill("find.escalation_group_id", "aa th")
    form = await crowded.sent(form, "Find: escalation group id")
    assert form.values("allowed_group_ids") == [oldest]
    assert crowded.ids["aa third"] in [value for each in form.controls for value, _ in each.options]
    form.fill("find.allowed_group_ids", "there is none")
    page = await crowded.root.post(form.action, form.sends(form.button("Find: allowed group ids")))
    assert "No other name contains “there is none”." in shown(page)
    form = form_to(page.text, form.action)
    assert form.values("description") == ["a draft"]
    await crowded.root.post(form.action, form.sends(form.button("Save")))
    after = await crowded.seen(TEMPLATE, "plain template")
    assert after["allowed_group_ids"] == [oldest]
    form = await crowded.opened(TEMPLATE, "plain template")
    form.tick("allowed_group_ids", oldest, on=False)
    await crowded.root.post(form.action, form.sends(form.button("Save")))
    assert (await crowded.seen(TEMPLATE, "plain template"))["allowed_group_ids"] == []


async def test_the_editors_of_tasks_and_integrations_find_entries_too(crowded: _Crowded) -> None:
    editor = "/admin/tasks/{task_id}/edit"
    form = await crowded.opened(editor, "once")
    form.fill("find.secret_names", "z_sec")
    form.fill("script", "def run(): return 'draft'\n")
    form = await crowded.sent(form, "Find: secret names")
    form.tick("secret_names", "Z_SECRET")
    assert form.values("script") == ["def run(): return 'draft'\n"]
    await crowded.root.post(form.action, form.sends(form.button("Save")))
    assert (await crowded.seen(editor, "once"))["secret_names"] == ["Z_SECRET"]
    editor = "/admin/integrations/{integration_id}/edit"
    form = await crowded.opened(editor, "task")
    form.fill("find.template_id", "plain")
    form = await crowded.sent(form, "Find: template id")
    form.fill("find.app_id", "plain")
    form = await crowded.sent(form, "Find: app id")
    offered = {value for each in form.controls for value, _ in each.options}
    assert {crowded.ids["plain app"], crowded.ids["plain template"]} <= offered
    assert (await crowded.seen(editor, "task"))["template_id"] is None


async def test_what_is_chosen_and_gone_is_shown_as_gone(crowded: _Crowded) -> None:
    form = await crowded.opened(TEMPLATE, "plain template")
    gone = str(uuid4())
    sent = {**form.sends(form.button("Save")), "allowed_group_ids": [gone], "escalation_group_id": [gone]}
    answer = await crowded.root.post(form.action, sent)
    assert answer.status_code == 422
    assert f"Does not exist any more: {gone}" in shown(answer)
    again = form_to(answer.text, form.action)
    assert again.values("allowed_group_ids") == again.values("escalation_group_id") == [gone]
    # Without it the template would be for everybody: nothing is stored before an administrator takes it out.
    assert (await crowded.seen(TEMPLATE, "plain template"))["allowed_group_ids"] == []


async def test_a_filter_that_is_set_stays_set(crowded: _Crowded) -> None:
    template, app, gone = crowded.ids["template"], crowded.ids["app"], str(UUID(int=7))
    page = await crowded.root.get(f"/history?template_id={template}&app_id={app}&find.template_id=plain")
    form = next(each for each in forms(page.text) if each.action == "/history")
    assert form.values("template_id") == [template]
    assert form.values("app_id") == [app]
    assert crowded.ids["plain template"] in [value for each in form.controls for value, _ in each.options]
    page = await crowded.root.get(f"/history?template_id={gone}")
    assert "Does not exist any more" in shown(page)
    form = next(each for each in forms(page.text) if each.action == "/history")
    assert form.values("template_id") == [gone]


async def test_lists_name_what_is_older_than_what_they_offer(crowded: _Crowded) -> None:
    house, root, ids = crowded.house, crowded.root, crowded.ids
    template = await house.template(name="Newest", approver_group_ids=[ids["mm second"]])
    assert "mm second" in shown(await root.get("/admin/templates"))
    path = f"/admin/applications/{template.app_id}"
    mapping = await house.mapping(template.app_id, "Older group")
    answer = await root.post(f"{path}/mappings/{mapping.id}/attach", {"group": "mm SECOND"})
    assert "Its members get the claim" in shown(await root.follow(answer))
    page = await root.get(path)
    assert "Always for the members of: mm second" in shown(page)
    form = form_to(page.text, f"{path}/mappings/{mapping.id}/detach")
    assert (await root.post(form.action, form.sends(form.first_button()))).status_code == 303
    assert "Through grants alone" in shown(await root.get(path))


async def test_mappings_beyond_a_page_are_reached(crowded: _Crowded) -> None:
    path, text = f"/admin/applications/{crowded.ids['app']}", ""
    page = await crowded.root.get(path)
    assert "z claim" not in page.text
    for _ in range(5):
        text += page.text
        if 'href="?cursor=' not in page.text:
            break
        page = await crowded.root.get(path + "?cursor=" + page.text.partition('href="?cursor=')[2].partition('"')[0])
    assert "z claim" in text


async def test_a_form_that_is_refused_shows_what_was_sent(crowded: _Crowded) -> None:
    root = crowded.root
    path = crowded.path("/admin/groups/{group_id}", "mm second")
    answer = await root.post(path, {"name": "", "permissions": [Permission.REQUESTS]})
    assert answer.status_code == 422
    assert form_to(answer.text, path).values("permissions") == [Permission.REQUESTS]
    person = await crowded.house.person("owner")
    bot = await crowded.house.person("bot", owner=person)
    answer = await (await visitor(crowded.house, person)).post("/tokens", {"name": "", "user_id": str(bot.id)})
    assert answer.status_code == 422
    assert form_to(answer.text, "/tokens").values("user_id") == [str(bot.id)]
