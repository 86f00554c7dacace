"""Applications and their mappings over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from db.applications import ApplicationView, MappingView
from domain.actors import Permission
from domain.claims import REGISTERED
from domain.states import Action
from tests.api.house import House
from tests.api.problem import check_problem, fields


def _values(mapping: MappingView, **changed: Any) -> dict[str, Any]:
    values = {"app_id": str(mapping.app_id), "name": mapping.name, "claim": mapping.claim, "value": mapping.value}
    return {**values, **changed}


async def _mapped(house: House) -> tuple[ApplicationView, MappingView]:
    app = await house.application()
    return app, await house.mapping(app.id)


async def _requested(house: House, state: str) -> tuple[ApplicationView, MappingView]:
    """A mapping that a request in this state names, and no template any more."""
    app, mapping = await _mapped(house)
    template = await house.template(app_id=app.id, mapping_ids=[mapping.id])
    request_id = await house.request(template, await house.person("dana"))
    match state:
        case "granted":
            await house.decide(request_id, Action.APPROVE, house.admin)
        case "over":
            await house.approve_long_ago(request_id, house.admin)
        case "denied":
            await house.decide(request_id, Action.DENY, house.admin)
    other = await house.mapping(app.id, "another")
    await house.call(
        "PUT",
        f"/access-request-templates/{template.id}",
        house.admin,
        json={"name": "X", "app_id": str(app.id), "mapping_ids": [str(other.id)]},
    )
    return app, mapping


OPEN = pytest.mark.parametrize("state", ["pending", "granted"])
CLOSED = pytest.mark.parametrize("state", ["over", "denied"])


class TestApplications:
    async def test_are_created_read_replaced_and_deleted(self, house: House) -> None:
        sent = {"name": "Internal DB", "description": "The database"}
        made = await house.call("POST", "/applications", house.admin, json=sent)
        assert made.status_code == 201, made.text
        path = f"/applications/{made.json()['id']}"
        assert made.headers["location"] == f"/api/v1{path}"
        dana = await house.person("dana")
        assert (await house.call("GET", path, dana)).json() == made.json()
        assert (await house.call("GET", "/applications", dana)).json()["items"] == [made.json()]
        replaced = await house.call("PUT", path, house.admin, json={"name": "DB"})
        assert replaced.json() == {**made.json(), "name": "DB", "description": ""}
        assert (await house.call("DELETE", path, house.admin)).status_code == 204
        check_problem(await house.call("GET", path, dana), 404, "not_found")
        for method in ("PUT", "DELETE"):
            check_problem(await house.call(method, path, house.admin, json={"name": "DB"}), 404, "not_found")

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    async def test_are_written_by_the_directory_only(self, house: House, method: str) -> None:
        dana = await house.person("dana", Permission.REQUESTS)
        path = "/applications" if method == "POST" else f"/applications/{(await house.application()).id}"
        check_problem(await house.call(method, path, dana, json={"name": "Mine"}), 403, "forbidden")

    async def test_have_a_name_of_their_own_in_any_case(self, house: House) -> None:
        await house.application("Internal DB")
        other = await house.application("Other")
        sent = {"name": "INTERNAL db"}
        check_problem(await house.call("POST", "/applications", house.admin, json=sent), 409, "in_use")
        check_problem(await house.call("PUT", f"/applications/{other.id}", house.admin, json=sent), 409, "in_use")

    async def test_stay_while_a_template_is_for_them(self, house: House) -> None:
        app = await house.application()
        await house.template(name="Read it", app_id=app.id)
        problem = check_problem(await house.call("DELETE", f"/applications/{app.id}", house.admin), 409, "in_use")
        assert "Read it" in problem["detail"]

    async def test_stay_while_they_have_mappings(self, house: House) -> None:
        app, mapping = await _mapped(house)
        problem = check_problem(await house.call("DELETE", f"/applications/{app.id}", house.admin), 409, "in_use")
        assert mapping.name in problem["detail"]

    @OPEN
    async def test_stay_while_a_request_is_open(self, house: House, state: str) -> None:
        app, _ = await _requested(house, state)
        problem = check_problem(await house.call("DELETE", f"/applications/{app.id}", house.admin), 409, "in_use")
        assert "open request" in problem["detail"]

    async def test_can_be_renamed_while_requests_keep_the_name_they_were_made_with(self, house: House) -> None:
        app, _ = await _requested(house, "pending")
        answer = await house.call("PUT", f"/applications/{app.id}", house.admin, json={"name": "Renamed"})
        assert answer.status_code == 200, answer.text
        [request] = (await house.call("GET", "/access-requests/all", house.admin)).json()["items"]
        assert request["app_name"] == app.name

    async def test_are_gone_from_closed_requests_by_id_and_stay_by_name(self, house: House) -> None:
        app = await house.application()
        template = await house.template(app_id=app.id)
        request_id = await house.request(template, await house.person("dana"))
        await house.decide(request_id, Action.DENY, house.admin)
        for path in (f"/access-request-templates/{template.id}", f"/applications/{app.id}"):
            assert (await house.call("DELETE", path, house.admin)).status_code == 204
        request = (await house.call("GET", f"/access-requests/{request_id}", house.admin)).json()
        assert (request["app_id"], request["app_name"]) == (None, app.name)

    async def test_and_templates_made_at_the_same_moment_exclude_each_other(self, house: House) -> None:
        for number in range(8):
            app = await house.application(f"app {number}")
            made, deleted = await asyncio.gather(
                house.call("POST", "/access-request-templates", house.admin, json={"name": "X", "app_id": str(app.id)}),
                house.call("DELETE", f"/applications/{app.id}", house.admin),
            )
            assert (made.status_code, deleted.status_code) in {(201, 409), (422, 204)}


class TestMappings:
    async def test_are_created_read_replaced_and_deleted(self, house: House) -> None:
        app = await house.application()
        sent = {"app_id": str(app.id), "name": "DB read-only role", "claim": "roles", "value": "db_readonly"}
        made = await house.call("POST", "/app-mappings", house.admin, json=sent)
        assert made.status_code == 201, made.text
        assert {name: made.json()[name] for name in sent} == sent
        assert made.json()["group_ids"] == []
        path = f"/app-mappings/{made.json()['id']}"
        assert made.headers["location"] == f"/api/v1{path}"
        dana = await house.person("dana")
        assert (await house.call("GET", path, dana)).json() == made.json()
        changed = {**sent, "name": "Other", "claim": "https://example.com/roles", "value": "reader"}
        replaced = await house.call("PUT", path, house.admin, json=changed)
        assert replaced.json() == {**made.json(), **changed}
        assert (await house.call("DELETE", path, house.admin)).status_code == 204
        check_problem(await house.call("GET", path, dana), 404, "not_found")
        for method in ("PUT", "DELETE"):
            check_problem(await house.call(method, path, house.admin, json=sent), 404, "not_found")

    async def test_are_listed_by_application(self, house: House) -> None:
        one, other = await house.application("one"), await house.application("other")
        mapping = await house.mapping(one.id)
        await house.mapping(other.id)
        listed = (await house.call("GET", f"/app-mappings?app_id={one.id}", house.admin)).json()["items"]
        assert [item["id"] for item in listed] == [str(mapping.id)]
        assert len((await house.call("GET", "/app-mappings", house.admin)).json()["items"]) == 2
        assert (await house.call("GET", f"/app-mappings?app_id={uuid4()}", house.admin)).json()["items"] == []

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    async def test_are_written_by_the_directory_only(self, house: House, method: str) -> None:
        dana = await house.person("dana", Permission.REQUESTS)
        _, mapping = await _mapped(house)
        path = "/app-mappings" if method == "POST" else f"/app-mappings/{mapping.id}"
        check_problem(await house.call(method, path, dana, json=_values(mapping)), 403, "forbidden")

    async def test_have_a_name_of_their_own_within_the_application(self, house: House) -> None:
        _, mapping = await _mapped(house)
        sent = _values(mapping, name=mapping.name.upper())
        check_problem(await house.call("POST", "/app-mappings", house.admin, json=sent), 409, "in_use")
        other = await house.application("other")
        answer = await house.call("POST", "/app-mappings", house.admin, json={**sent, "app_id": str(other.id)})
        assert answer.status_code == 201, answer.text

    @pytest.mark.parametrize("claim", [*sorted(REGISTERED), "SUB", "Email"])
    async def test_never_set_claims_that_mean_something_of_their_own(self, standing_house: House, claim: str) -> None:
        sent = {"app_id": str(uuid4()), "name": "X", "claim": claim, "value": "root"}
        answer = await standing_house.call("POST", "/app-mappings", standing_house.admin, json=sent)
        assert fields(answer) == {"claim"}

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("claim", ""),
            ("claim", "a b"),
            ("claim", "roles\n"),
            ("claim", "$roles"),
            ("claim", "rôles"),
            ("claim", "a" * 129),
            ("claim", ["roles"]),
            ("value", ""),
            ("value", "a\nb"),
            ("value", "a" * 1001),
            ("value", True),
            ("name", ""),
            ("app_id", None),
            ("group_ids", []),
        ],
    )
    async def test_refuse_what_does_not_fit(self, standing_house: House, field: str, value: Any) -> None:
        sent = {"app_id": str(uuid4()), "name": "X", "claim": "roles", "value": "x", field: value}
        assert fields(await standing_house.call("POST", "/app-mappings", standing_house.admin, json=sent)) == {field}

    async def test_belong_to_an_application_that_is_there_and_stay_with_it(self, house: House) -> None:
        _, mapping = await _mapped(house)
        sent = _values(mapping, app_id=str(uuid4()))
        assert fields(await house.call("POST", "/app-mappings", house.admin, json=sent)) == {"app_id"}
        sent = _values(mapping, app_id=str((await house.application("other")).id))
        assert fields(await house.call("PUT", f"/app-mappings/{mapping.id}", house.admin, json=sent)) == {"app_id"}

    @OPEN
    @pytest.mark.parametrize("changed", [{"claim": "role"}, {"value": "db_owner"}, {"app_id": str(uuid4())}])
    async def test_keep_what_an_open_request_asks_for(self, house: House, state: str, changed: dict[str, str]) -> None:
        _, mapping = await _requested(house, state)
        path = f"/app-mappings/{mapping.id}"
        problem = check_problem(
            await house.call("PUT", path, house.admin, json=_values(mapping, **changed)), 409, "in_use"
        )
        assert "open request" in problem["detail"]
        answer = await house.call("PUT", path, house.admin, json=_values(mapping, name="Renamed"))
        assert answer.status_code == 200, answer.text

    @OPEN
    async def test_stay_while_an_open_request_names_them(self, house: House, state: str) -> None:
        _, mapping = await _requested(house, state)
        check_problem(await house.call("DELETE", f"/app-mappings/{mapping.id}", house.admin), 409, "in_use")

    @CLOSED
    async def test_are_free_again_when_the_request_is_over(self, house: House, state: str) -> None:
        _, mapping = await _requested(house, state)
        path = f"/app-mappings/{mapping.id}"
        answer = await house.call("PUT", path, house.admin, json=_values(mapping, value="db_owner"))
        assert answer.status_code == 200, answer.text
        assert (await house.call("DELETE", path, house.admin)).status_code == 204

    async def test_stay_while_a_template_names_them(self, house: House) -> None:
        app, mapping = await _mapped(house)
        await house.template(name="Read it", app_id=app.id, mapping_ids=[mapping.id])
        path = f"/app-mappings/{mapping.id}"
        problem = check_problem(await house.call("DELETE", path, house.admin), 409, "in_use")
        assert "Read it" in problem["detail"]
        assert (await house.call("PUT", path, house.admin, json=_values(mapping, value="x"))).status_code == 200

    async def test_and_a_submission_at_the_same_moment_take_turns(self, house: House) -> None:
        dana = await house.person("dana")
        app = await house.application()
        for number in range(10):
            mapping = await house.mapping(app.id, f"mapping {number}")
            template = await house.template(app_id=app.id, mapping_ids=[mapping.id])
            sent = {"template_id": str(template.id), "requested_duration_mins": 60, "justification": "now"}
            submitted, changed = await asyncio.gather(
                house.call("POST", "/access-requests", dana, json=sent),
                house.call("PUT", f"/app-mappings/{mapping.id}", house.admin, json=_values(mapping, value="db_owner")),
            )
            assert submitted.status_code == 201, submitted.text
            [asked_for] = submitted.json()["mappings"]
            now = (await house.call("GET", f"/app-mappings/{mapping.id}", house.admin)).json()
            assert changed.status_code in {200, 409}
            assert asked_for["value"] == now["value"], "what was asked for is what would be granted"


class TestAttachments:
    async def test_give_and_take_the_claim_at_once(self, house: House) -> None:
        app, mapping = await _mapped(house)
        dana = await house.person("dana")
        group = await house.group("team", dana)
        path = f"/app-mappings/{mapping.id}/groups/{group.id}"
        claims = f"/users/{dana.id}/mapping-values?app_id={app.id}"
        for _ in range(2):
            answer = await house.call("PUT", path, house.admin)
            assert (answer.status_code, answer.content) == (204, b"")
        assert (await house.call("GET", claims, dana)).json() == {"roles": ["db_readonly"]}
        shown = (await house.call("GET", f"/app-mappings/{mapping.id}", dana)).json()
        assert shown["group_ids"] == [str(group.id)]
        for _ in range(2):
            assert (await house.call("DELETE", path, house.admin)).status_code == 204
        assert (await house.call("GET", claims, dana)).json() == {}

    async def test_survive_a_change_of_the_mapping(self, house: House) -> None:
        _, mapping = await _mapped(house)
        group = await house.group("team")
        await house.call("PUT", f"/app-mappings/{mapping.id}/groups/{group.id}", house.admin)
        answer = await house.call("PUT", f"/app-mappings/{mapping.id}", house.admin, json=_values(mapping, value="x"))
        assert answer.json()["group_ids"] == [str(group.id)]

    async def test_of_temporary_groups_are_not_shown(self, house: House) -> None:
        app, mapping = await _mapped(house)
        template = await house.template(app_id=app.id, mapping_ids=[mapping.id])
        request_id = await house.request(template, await house.person("dana"))
        await house.decide(request_id, Action.APPROVE, house.admin)
        assert (await house.call("GET", f"/app-mappings/{mapping.id}", house.admin)).json()["group_ids"] == []

    @pytest.mark.parametrize("method", ["PUT", "DELETE"])
    async def test_need_a_mapping_and_a_group(self, house: House, method: str) -> None:
        _, mapping = await _mapped(house)
        group = await house.group("team")
        for mapping_id, group_id in ((uuid4(), group.id), (mapping.id, uuid4())):
            answer = await house.call(method, f"/app-mappings/{mapping_id}/groups/{group_id}", house.admin)
            check_problem(answer, 404, "not_found")

    @pytest.mark.parametrize("method", ["PUT", "DELETE"])
    async def test_are_changed_by_the_directory_only(self, house: House, method: str) -> None:
        _, mapping = await _mapped(house)
        dana = await house.person("dana", Permission.REQUESTS)
        group = await house.group("team", dana)
        answer = await house.call(method, f"/app-mappings/{mapping.id}/groups/{group.id}", dana)
        check_problem(answer, 403, "forbidden")

    async def test_and_deletions_at_the_same_moment_are_answered(self, house: House) -> None:
        app = await house.application()
        for number in range(8):
            mapping = await house.mapping(app.id, f"mapping {number}")
            group = await house.group(f"team {number}")
            attached, *deleted = await asyncio.gather(
                house.call("PUT", f"/app-mappings/{mapping.id}/groups/{group.id}", house.admin),
                house.call("DELETE", f"/app-mappings/{mapping.id}", house.admin),
                house.call("DELETE", f"/groups/{group.id}", house.admin),
            )
            assert attached.status_code in {204, 404}
            assert [answer.status_code for answer in deleted] == [204, 204]
