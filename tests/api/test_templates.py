"""Templates over HTTP (specification, Templates and Template Deletion)."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from db import templates
from db.templates import TemplateView
from domain.actors import Permission
from domain.states import Action
from tests.api.house import LONGEST_MINS, House, Somebody
from tests.api.problem import check_problem, fields

DEFAULTS = {
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
    "custom_fields": [],
    "trigger_task_id": None,
    "trigger_task_failure_mode": "ignore",
}


async def _all_values(house: House) -> dict[str, Any]:
    """A template with every value set, the specification's example as far as it goes."""
    app = await house.application()
    return {
        "name": "Database read-only access",
        "description": "Grants read-only database credentials for up to 8 hours.",
        "app_id": str(app.id),
        "mapping_ids": [str((await house.mapping(app.id)).id)],
        "allowed_durations": [60, 240, 480],
        "approver_group_ids": [str((await house.group("dba_team")).id)],
        "allowed_group_ids": [str((await house.group("engineers")).id)],
        "prefer_requester_groups": True,
        "require_justification": False,
        "auto_approve": False,
        "notification_policy": "round_robin",
        "notification_count": 2,
        "escalation_after_mins": 30,
        "escalation_group_id": str((await house.group("engineering_managers")).id),
        "custom_fields": [
            {
                "id": str(uuid4()),
                "label": "Environment",
                "type": "select",
                "required": True,
                "placeholder": "which one",
                "options": ["staging", "production"],
            }
        ],
        "trigger_task_id": None,
        "trigger_task_failure_mode": "retry",
    }


async def _send(house: House, values: dict[str, Any], by: Somebody | None = None) -> Any:
    return await house.call("POST", "/access-request-templates", by or house.admin, json=values)


class TestCreate:
    async def test_answers_with_every_value_and_where_it_is(self, house: House) -> None:
        values = await _all_values(house)
        answer = await _send(house, values)
        assert answer.status_code == 201, answer.text
        template = answer.json()
        assert {name: template[name] for name in values} == values
        assert template["app_name"] == "Internal DB"
        assert template["created_at"].endswith("Z")
        assert template["updated_at"] == template["created_at"]
        located = await house.client.get(
            answer.headers["location"], headers={"Authorization": f"Bearer {house.admin.token}"}
        )
        assert located.json() == template

    async def test_gives_what_is_left_out_the_default_of_the_specification(self, house: House) -> None:
        app = await house.application()
        template = (await _send(house, {"name": "Plain", "app_id": str(app.id)})).json()
        assert {name: template[name] for name in DEFAULTS} == DEFAULTS

    async def test_keeps_the_ids_of_custom_fields_when_the_same_is_sent_again(self, house: House) -> None:
        app = await house.application()
        values = {"name": "Asks", "app_id": str(app.id), "custom_fields": [{"label": "Ticket", "type": "text"}]}
        first, second = (await _send(house, values)).json(), (await _send(house, values)).json()
        assert str(UUID(first["custom_fields"][0]["id"])) == first["custom_fields"][0]["id"]
        assert first["custom_fields"] == second["custom_fields"]

    @pytest.mark.parametrize("permissions", [(), (Permission.DIRECTORY, Permission.TASKS)])
    async def test_needs_the_permission(self, house: House, permissions: tuple[Permission, ...]) -> None:
        dana = await house.person("dana", *permissions)
        app = await house.application()
        check_problem(await _send(house, {"name": "Mine", "app_id": str(app.id)}, dana), 403, "forbidden")

    async def test_names_everything_that_does_not_exist(self, house: House) -> None:
        unknown = str(uuid4())
        app = await house.application()
        answer = await _send(
            house,
            {
                "name": "Lost",
                "app_id": str(app.id),
                "mapping_ids": [unknown],
                "approver_group_ids": [unknown],
                "allowed_group_ids": [unknown],
                "escalation_group_id": str(uuid4()),
                "trigger_task_id": unknown,
            },
        )
        assert fields(answer) == {
            "mapping_ids.0",
            "approver_group_ids.0",
            "allowed_group_ids.0",
            "escalation_group_id",
            "trigger_task_id",
        }
        assert fields(await _send(house, {"name": "Lost", "app_id": unknown})) == {"app_id"}

    async def test_refuses_a_mapping_of_another_application(self, house: House) -> None:
        app, other = await house.application("one"), await house.application("other")
        mapping = await house.mapping(other.id)
        answer = await _send(house, {"name": "X", "app_id": str(app.id), "mapping_ids": [str(mapping.id)]})
        assert fields(answer) == {"mapping_ids.0"}

    @pytest.mark.parametrize("role", ["approver_group_ids", "allowed_group_ids", "escalation_group_id"])
    async def test_refuses_a_temporary_group_in_any_role(self, house: House, role: str) -> None:
        template, group_id = await _granted(house)
        value = str(group_id) if role == "escalation_group_id" else [str(group_id)]
        answer = await _send(house, {"name": "X", "app_id": str(template.app_id), role: value})
        assert {field.partition(".")[0] for field in fields(answer)} == {role}

    async def test_refuses_durations_beyond_the_servers_maximum(self, house: House) -> None:
        app = await house.application()
        values = {"name": "X", "app_id": str(app.id), "allowed_durations": [LONGEST_MINS, LONGEST_MINS + 1]}
        assert fields(await _send(house, values)) == {"allowed_durations.1"}

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""),
            ("name", "   "),
            ("name", "a" * 201),
            ("name", "two\nlines"),
            ("name", None),
            ("allowed_durations", [0]),
            ("allowed_durations", [-60]),
            ("allowed_durations", [60, 60]),
            ("allowed_durations", [1.5]),
            ("allowed_durations", ["60"]),
            ("allowed_durations", [True]),
            ("notification_policy", "everybody"),
            ("notification_count", 0),
            ("notification_count", "1"),
            ("escalation_after_mins", 0),
            ("auto_approve", "sometimes"),
            ("trigger_task_failure_mode", "explode"),
            ("custom_fields", [{"label": "x", "type": "date"}]),
            ("custom_fields", [{"label": "x", "type": "select"}]),
            ("custom_fields", [{"label": "x", "type": "text", "options": ["a"]}]),
            ("custom_fields", [{"label": "x", "type": "text"}, {"label": "x", "type": "checkbox"}]),
            ("custom_fields", [{"label": "x", "type": "text", "surprise": 1}]),
            ("custom_fields", "[]"),
            ("approver_group_ids", ["dba_team"]),
            ("id", str(UUID(int=1))),
            ("created_at", "2020-01-01T00:00:00Z"),
            ("app_name", "x"),
        ],
    )
    async def test_refuses_what_does_not_fit(self, standing_house: House, field: str, value: Any) -> None:
        answer = await _send(standing_house, {"name": "X", "app_id": str(uuid4()), field: value})
        assert all(named.partition(".")[0] == field for named in fields(answer))

    async def test_refuses_an_escalation_to_those_who_were_asked_already(self, house: House) -> None:
        app, group = await house.application(), await house.group("dba_team")
        named = {"approver_group_ids": [str(group.id)], "escalation_group_id": str(group.id)}
        check_problem(await _send(house, {"name": "X", "app_id": str(app.id), **named}), 422)


class TestGet:
    async def test_shows_a_template_to_everybody(self, house: House) -> None:
        template = await house.template()
        dana = await house.person("dana")
        answer = await house.call("GET", f"/access-request-templates/{template.id}", dana)
        assert answer.status_code == 200
        assert answer.json()["id"] == str(template.id)


class TestList:
    async def test_goes_through_all_of_them_once_newest_first(self, house: House) -> None:
        app = await house.application()
        names = [f"template {number}" for number in range(5)]
        for name in names:
            await house.template(name=name, app_id=app.id)
        dana = await house.person("dana")
        seen: list[str] = []
        cursor, page = "", {}
        for _ in range(3):
            page = (await house.call("GET", f"/access-request-templates?limit=2{cursor}", dana)).json()
            seen += [template["name"] for template in page["items"]]
            cursor = f"&cursor={page['next_cursor']}"
        assert page["next_cursor"] is None
        assert seen == names[::-1]

    async def test_does_not_move_when_something_new_comes_first(self, house: House) -> None:
        app = await house.application()
        for number in range(3):
            await house.template(name=f"template {number}", app_id=app.id)
        first = (await house.call("GET", "/access-request-templates?limit=2", house.admin)).json()
        await house.template(name="new", app_id=app.id)
        path = f"/access-request-templates?limit=2&cursor={first['next_cursor']}"
        second = (await house.call("GET", path, house.admin)).json()
        assert [template["name"] for template in second["items"]] == ["template 0"]


class TestReplace:
    async def test_replaces_every_value(self, house: House) -> None:
        values = await _all_values(house)
        before = (await _send(house, values)).json()
        plain = {"name": "Plain", "app_id": values["app_id"]}
        answer = await house.call("PUT", f"/access-request-templates/{before['id']}", house.admin, json=plain)
        assert answer.status_code == 200, answer.text
        after = answer.json()
        assert {name: after[name] for name in DEFAULTS} == DEFAULTS
        assert after["name"] == "Plain"
        assert after["created_at"] == before["created_at"]
        assert after["updated_at"] > before["updated_at"]

    async def test_refuses_another_application(self, house: House) -> None:
        template, other = await house.template(), await house.application("other")
        answer = await house.call(
            "PUT",
            f"/access-request-templates/{template.id}",
            house.admin,
            json={"name": "X", "app_id": str(other.id)},
        )
        assert fields(answer) == {"app_id"}

    async def test_needs_the_permission(self, house: House) -> None:
        template, dana = await house.template(), await house.person("dana")
        values = {"name": "X", "app_id": str(template.app_id)}
        answer = await house.call("PUT", f"/access-request-templates/{template.id}", dana, json=values)
        check_problem(answer, 403, "forbidden")

    async def test_knows_no_template_that_is_not_there(self, house: House) -> None:
        values = {"name": "X", "app_id": str((await house.application()).id)}
        answer = await house.call("PUT", f"/access-request-templates/{uuid4()}", house.admin, json=values)
        check_problem(answer, 404, "not_found")

    async def test_leaves_requests_as_they_were_made(self, house: House) -> None:
        app = await house.application()
        mapping = await house.mapping(app.id)
        template = await house.template(app_id=app.id, mapping_ids=[mapping.id], allowed_durations=[60])
        dana = await house.person("dana")
        request_id = await house.request(template, dana)
        loose = {"name": "Loose", "app_id": str(app.id), "auto_approve": True}
        await house.call("PUT", f"/access-request-templates/{template.id}", house.admin, json=loose)
        request = (await house.call("GET", f"/access-requests/{request_id}", dana)).json()
        assert request["template_name"] == "Database read-only access"
        assert [granted["id"] for granted in request["mappings"]] == [str(mapping.id)]
        assert request["status"] == "pending"


class TestDelete:
    async def test_removes_it(self, house: House) -> None:
        template = await house.template()
        path = f"/access-request-templates/{template.id}"
        answer = await house.call("DELETE", path, house.admin)
        assert (answer.status_code, answer.content) == (204, b"")
        check_problem(await house.call("GET", path, house.admin), 404, "not_found")
        check_problem(await house.call("DELETE", path, house.admin), 404, "not_found")

    async def test_needs_the_permission(self, house: House) -> None:
        template, dana = await house.template(), await house.person("dana", Permission.DIRECTORY)
        answer = await house.call("DELETE", f"/access-request-templates/{template.id}", dana)
        check_problem(answer, 403, "forbidden")

    async def test_is_refused_while_a_request_is_pending(self, house: House) -> None:
        template, dana = await house.template(), await house.person("dana")
        await house.request(template, dana)
        answer = await house.call("DELETE", f"/access-request-templates/{template.id}", house.admin)
        assert "1 open request was" in check_problem(answer, 409, "template_in_use")["detail"]

    async def test_is_refused_while_a_grant_lasts(self, house: House) -> None:
        template, _ = await _granted(house)
        answer = await house.call("DELETE", f"/access-request-templates/{template.id}", house.admin)
        check_problem(answer, 409, "template_in_use")

    async def test_does_not_wait_for_a_grant_whose_time_is_up(self, house: House) -> None:
        template, dana = await house.template(), await house.person("dana")
        request_id = await house.request(template, dana)
        await house.approve_long_ago(request_id, house.admin)
        answer = await house.call("DELETE", f"/access-request-templates/{template.id}", house.admin)
        assert answer.status_code == 204, answer.text

    @pytest.mark.parametrize("action", [Action.DENY, Action.REVOKE])
    async def test_keeps_closed_requests_with_its_name_and_without_its_id(self, house: House, action: Action) -> None:
        template, dana = await house.template(), await house.person("dana")
        request_id = await house.request(template, dana)
        await house.decide(request_id, action, house.admin)
        answer = await house.call("DELETE", f"/access-request-templates/{template.id}", house.admin)
        assert answer.status_code == 204, answer.text
        request = (await house.call("GET", f"/access-requests/{request_id}", dana)).json()
        assert request["template_id"] is None
        assert request["template_name"] == "Database read-only access"

    async def test_and_submissions_at_the_same_moment_exclude_each_other(self, house: House) -> None:
        dana = await house.person("dana")
        for _ in range(10):
            template = await house.template()
            sent = {"template_id": str(template.id), "requested_duration_mins": 60, "justification": "now"}
            submitted, deleted = await asyncio.gather(
                house.call("POST", "/access-requests", dana, json=sent),
                house.call("DELETE", f"/access-request-templates/{template.id}", house.admin),
            )
            assert (submitted.status_code, deleted.status_code) in {(201, 409), (422, 204)}

    async def test_and_replacements_at_the_same_moment_leave_one_answer_each(self, house: House) -> None:
        for _ in range(5):
            template = await house.template()
            values = {"name": "X", "app_id": str(template.app_id)}
            path = f"/access-request-templates/{template.id}"
            replaced, deleted = await asyncio.gather(
                house.call("PUT", path, house.admin, json=values), house.call("DELETE", path, house.admin)
            )
            assert (replaced.status_code, deleted.status_code) in {(200, 204), (404, 204)}


async def _granted(house: House) -> tuple[TemplateView, UUID]:
    """A template with a grant that lasts, and the temporary group of that grant."""
    template = await house.template()
    request_id = await house.request(template, await house.person("grantee"))
    await house.decide(request_id, Action.APPROVE, house.admin)
    async with house.db.connection() as connection:
        row = await (await connection.execute("SELECT id FROM groups WHERE system")).fetchone()
    assert row is not None
    return await templates.get(house.db, template.id), row["id"]
