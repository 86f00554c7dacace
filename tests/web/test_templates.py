"""The editor of templates: every value there and back, questions moved about, what is wrong beside its field."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from db import templates
from domain.actors import Permission
from domain.templates import TemplateValues
from tests.api.house import House
from tests.web.conftest import Visitor, shown, visitor


def _questions(*labels: str) -> dict[str, str]:
    form = {"questions": str(len(labels))}
    for number, label in enumerate(labels):
        form |= {f"q{number}.label": label, f"q{number}.type": "text"}
    return form


@pytest.fixture
async def filled(house: House) -> dict[str, Any]:
    """Everything that the form can say."""
    mark = uuid4().hex[:6]
    application = await house.application(f"app {mark}")
    mapping = await house.mapping(application.id)
    deciders, askers, late = [await house.group(f"{name} {mark}") for name in ("deciders", "askers", "late")]
    task = await house.task()
    return {
        "do": "save",
        "name": f"Everything {mark}",
        "description": "Two\r\nlines",
        "app_id": str(application.id),
        "mapping_ids": [str(mapping.id)],
        "allowed_durations": "1h, 90m, 1d",
        "approver_group_ids": [str(deciders.id)],
        "allowed_group_ids": [str(askers.id)],
        "prefer_requester_groups": "true",
        "auto_approve": "true",
        "notification_policy": "round_robin",
        "notification_count": "2",
        "escalation_after_mins": "45",
        "escalation_group_id": str(late.id),
        "trigger_task_id": str(task.id),
        "trigger_task_failure_mode": "block",
        "questions": "2",
        "q0.label": "Severity",
        "q0.type": "select",
        "q0.options": "SEV 1\r\n\r\n SEV 2 ",
        "q0.required": "true",
        "q1.label": "Ticket",
        "q1.type": "text",
        "q1.placeholder": "INC-1",
    }


async def _saved(house: House, form: dict[str, Any]) -> templates.TemplateView:
    async with house.db.connection() as connection:
        rows = await connection.execute("SELECT id FROM access_request_templates WHERE name = %s", [form["name"]])
        row = await rows.fetchone()
    assert row is not None
    return await templates.get(house.db, row["id"])


async def test_every_value_is_set_and_comes_back_into_the_editor(
    house: House, root: Visitor, filled: dict[str, Any]
) -> None:
    said = shown(await root.follow(await root.post("/admin/templates/new", filled)))
    assert f"“{filled['name']}” can be asked for now." in said
    view = await _saved(house, filled)
    # Nothing of a template is left out of the editor.
    assert {name for name in TemplateValues.model_fields if getattr(view, name) != _default(name)} == set(
        TemplateValues.model_fields
    )
    assert view.allowed_durations == [60, 90, 1440]
    assert view.description == "Two\nlines"
    assert view.escalation_after_mins == 45
    assert not view.require_justification
    assert [field.options for field in view.custom_fields] == [["SEV 1", "SEV 2"], []]
    editor = await root.get(f"/admin/templates/{view.id}")
    for text in ('value="1h, 1h30m, 1d"', 'value="45m"', "SEV 1\nSEV 2", "\nINC-1</textarea>"):
        assert text in editor.text
    # Saved as it stands, it stays what it is.
    again = {**filled, "q0.id": view.custom_fields[0].key, "q1.id": view.custom_fields[1].key}
    assert (await root.post(f"/admin/templates/{view.id}", again)).status_code == 303
    after = await templates.get(house.db, view.id)
    assert after.model_dump(exclude={"updated_at"}) == view.model_dump(exclude={"updated_at"})


def _default(name: str) -> object:
    field = TemplateValues.model_fields[name]
    return None if field.is_required() else field.get_default(call_default_factory=True)


async def test_what_is_wrong_is_told_beside_its_field_and_nothing_is_lost(
    root: Visitor, filled: dict[str, Any]
) -> None:
    wrong = filled | {
        "name": "",
        "allowed_durations": "1h, soon",
        "notification_count": "many",
        "escalation_after_mins": "-1",
        "q0.options": "",
        "description": "<b>kept</b>",
    }
    answer = await root.post("/admin/templates/new", wrong)
    assert answer.status_code == 422
    said = shown(answer)
    assert "is no duration; write 8h" in said
    assert "Must be a whole number." in said
    assert "needs at least one option" in said
    for field in ("name", "allowed_durations", "notification_count", "escalation_after_mins"):
        assert f'id="{field}-error"' in answer.text
    assert "&lt;b&gt;kept&lt;/b&gt;" in answer.text
    assert 'value="1h, soon"' in answer.text
    assert 'value="Ticket"' in answer.text


async def test_an_application_is_chosen_before_what_it_grants(root: Visitor, filled: dict[str, Any]) -> None:
    page = await root.get("/admin/templates/new")
    assert "mapping_ids" not in page.text
    without = await root.post("/admin/templates/new", filled | {"app_id": "", "mapping_ids": []})
    assert "Choose what access is granted to." in shown(without)
    chosen = await root.post("/admin/templates/new", {"do": "mappings", "app_id": filled["app_id"], "questions": "0"})
    assert chosen.status_code == 200
    assert filled["mapping_ids"][0] in chosen.text


@pytest.mark.parametrize(
    ("step", "left"),
    [
        ("add", ["a", "b", "c", ""]),
        ("remove-1", ["a", "c"]),
        ("up-1", ["b", "a", "c"]),
        ("up-0", ["a", "b", "c"]),
        ("down-1", ["a", "c", "b"]),
        ("down-2", ["a", "b", "c"]),
        ("preview", ["a", "b", "c"]),
        ("remove-7", ["a", "b", "c"]),
        ("fly-1", ["a", "b", "c"]),
    ],
)
async def test_questions_are_added_removed_and_moved_without_storing_anything(
    house: House, root: Visitor, step: str, left: list[str]
) -> None:
    answer = await root.post("/admin/templates/new", {"do": step, "name": "not stored", **_questions("a", "b", "c")})
    assert answer.status_code == 200
    values = [part.partition('value="')[2].partition('"')[0] for part in answer.text.split('.label" name="')[1:]]
    assert values == left
    async with house.db.connection() as connection:
        rows = await connection.execute("SELECT FROM access_request_templates WHERE name = 'not stored'")
        assert await rows.fetchone() is None


async def test_the_preview_is_the_form_that_people_will_see(root: Visitor, filled: dict[str, Any]) -> None:
    answer = await root.post("/admin/templates/new", filled | {"do": "preview", "q1.label": "<i>Ticket</i>"})
    preview = answer.text.partition('id="preview"')[2]
    assert '<option value="SEV 2">SEV 2' in preview
    assert "&lt;i&gt;Ticket&lt;/i&gt;" in preview


async def test_a_template_with_open_requests_stays_and_says_how_many(house: House, root: Visitor) -> None:
    person = await house.person(f"asker-{uuid4()}")
    template = await house.template(name="In use")
    await house.request(template, person)
    said = shown(await root.follow(await root.post(f"/admin/templates/{template.id}/delete")))
    assert "1 open request was made from this template." in said
    unused = await house.template(name="Unused")
    assert "The template is deleted." in shown(
        await root.follow(await root.post(f"/admin/templates/{unused.id}/delete"))
    )
    assert (await root.get(f"/admin/templates/{unused.id}")).status_code == 404
    assert (await root.get(f"/admin/templates/{UUID(int=0)}")).status_code == 404


async def test_the_first_page_is_one_that_the_person_may_see(house: House) -> None:
    for permission, path in (
        (Permission.REQUESTS, "/admin/templates"),
        (Permission.DIRECTORY, "/admin/applications"),
        (Permission.TASKS, "/admin/tasks"),
    ):
        person = await visitor(house, await house.person(f"manager-{uuid4().hex}", permission))
        assert (await person.get("/admin")).headers["location"] == path


@pytest.mark.parametrize(
    "odd", [{"questions": "9" * 5000}, {"do": "remove-" + "9" * 5000}, {"do": "up-\u0661"}, {"questions": "\u0661"}]
)
async def test_numbers_that_python_does_not_read_are_none(
    root: Visitor, filled: dict[str, Any], odd: dict[str, str]
) -> None:
    answer = await root.post("/admin/templates/new", {**filled, "do": "add", **odd})
    assert answer.status_code == 200


async def test_a_search_of_a_picker_is_cut_to_what_its_field_takes(root: Visitor, filled: dict[str, Any]) -> None:
    long = "x" * 20_000
    answer = await root.post(
        "/admin/templates/new", {**filled, "do": "find", "find.allowed_group_ids": long, "description": ""}
    )
    assert answer.status_code == 200
    assert f'"{long[:320]}"' in answer.text
    assert long[:321] not in answer.text
