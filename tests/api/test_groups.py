"""Groups and their members over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from db import templates
from domain.actors import Permission
from domain.states import Action
from tests.api.house import House, Somebody
from tests.api.problem import check_problem, fields

ALL = list(Permission)


async def _temporary_group(house: House) -> tuple[UUID, Somebody]:
    dana = await house.person("grantee")
    request_id = await house.request(await house.template(), dana)
    await house.decide(request_id, Action.APPROVE, house.admin)
    [group] = (await house.call("GET", "/users/me", dana)).json()["groups"]
    return UUID(group["id"]), dana


class TestTemporaryGroups:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/groups/{group}"),
            ("PUT", "/groups/{group}"),
            ("DELETE", "/groups/{group}"),
            ("GET", "/groups/{group}/members"),
            ("PUT", "/groups/{group}/members/{user}"),
            ("DELETE", "/groups/{group}/members/{user}"),
            ("PUT", "/app-mappings/{mapping}/groups/{group}"),
            ("DELETE", "/app-mappings/{mapping}/groups/{group}"),
        ],
    )
    async def test_are_out_of_reach_on_every_route(self, house: House, method: str, path: str) -> None:
        group_id, dana = await _temporary_group(house)
        mapping = await house.mapping((await house.application()).id)
        body = {"json": {"name": "mine"}} if (method, path) == ("PUT", "/groups/{group}") else {}
        answer = await house.call(
            method, path.format(group=group_id, user=dana.id, mapping=mapping.id), house.admin, **body
        )
        check_problem(answer, 409, "system_group")
        [group] = (await house.call("GET", "/users/me", dana)).json()["groups"]
        assert group["id"] == str(group_id)

    async def test_are_not_listed(self, house: House) -> None:
        group_id, _ = await _temporary_group(house)
        listed = (await house.call("GET", "/groups?name=__access", house.admin)).json()["items"]
        assert str(group_id) not in {group["id"] for group in listed}

    @pytest.mark.parametrize(
        "name",
        [
            "__access_req_",
            "__access_req_7b4f",
            "__ACCESS_REQ_x",
            "  __access_req_x",
            "__acc\u0435ss_req_x",
            "__ACC\u0415SS_REQ_x",
            " \u0332 \u0332access_req_x",
            "_ _access_req_x",
            "\uff3f\uff3faccess_req_x",
            "__acce\u017fs_req_x",
        ],
        ids=ascii,
    )
    async def test_lend_their_name_to_nobody(self, house: House, name: str) -> None:
        answer = await house.call("POST", "/groups", house.admin, json={"name": name})
        check_problem(answer, 409, "system_group")
        group = await house.group("ordinary")
        answer = await house.call("PUT", f"/groups/{group.id}", house.admin, json={"name": name})
        check_problem(answer, 409, "system_group")

    async def test_an_invisible_character_hides_no_name_behind_another(self, house: House) -> None:
        await house.group("dba_team")
        for name in (
            "dba_team\u200b",
            "\u3164",
            "\u2800",
            "\u202emaet_abd",
            "__access_req_\u200bx",
            "\ufeff__access_req_x",
        ):
            answer = await house.call("POST", "/groups", house.admin, json={"name": name})
            assert check_problem(answer, 422, "validation_error")["errors"][0]["field"] == "name"
        for name in ("dba_team\u00a0", " DBA_team", "dba_team\ufe0f"):
            check_problem(await house.call("POST", "/groups", house.admin, json={"name": name}), 409, "in_use")

    async def test_have_names_that_others_may_contain(self, house: House) -> None:
        answer = await house.call("POST", "/groups", house.admin, json={"name": "about __access_req_"})
        assert answer.status_code == 201, answer.text


class TestCreate:
    async def test_answers_with_every_value_and_where_it_is(self, house: House) -> None:
        sent = {"name": "dba_team", "description": "Runs the databases", "permissions": ["tasks.manage"]}
        answer = await house.call("POST", "/groups", house.admin, json=sent)
        assert answer.status_code == 201, answer.text
        group = answer.json()
        assert {name: group[name] for name in sent} == sent
        assert answer.headers["location"] == f"/api/v1/groups/{group['id']}"
        assert (await house.call("GET", f"/groups/{group['id']}", house.admin)).json() == group

    async def test_needs_the_permission(self, house: House) -> None:
        dana = await house.person("dana", Permission.REQUESTS, Permission.TASKS)
        check_problem(await house.call("POST", "/groups", dana, json={"name": "mine"}), 403, "forbidden")

    @pytest.mark.parametrize("permission", [Permission.REQUESTS, Permission.TASKS])
    async def test_gives_nobody_more_than_they_hold(self, house: House, permission: Permission) -> None:
        manager = await house.person("manager", Permission.DIRECTORY)
        sent = {"name": "mine", "permissions": [Permission.DIRECTORY, permission]}
        problem = check_problem(await house.call("POST", "/groups", manager, json=sent), 403, "forbidden")
        assert permission in problem["detail"]
        sent["permissions"] = [Permission.DIRECTORY]
        assert (await house.call("POST", "/groups", manager, json=sent)).status_code == 201

    async def test_refuses_a_name_that_is_taken_in_any_case(self, house: House) -> None:
        await house.group("dba_team")
        check_problem(await house.call("POST", "/groups", house.admin, json={"name": "DBA_Team"}), 409, "in_use")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""),
            ("name", "a\nb"),
            ("name", 7),
            ("description", None),
            ("description", "a" * 10_001),
            ("permissions", ["root"]),
            ("permissions", "directory.manage"),
            ("system", True),
            ("expires_at", None),
            ("members", []),
        ],
    )
    async def test_refuses_what_does_not_fit(self, standing_house: House, field: str, value: Any) -> None:
        answer = await standing_house.call("POST", "/groups", standing_house.admin, json={"name": "new", field: value})
        assert {named.partition(".")[0] for named in fields(answer)} == {field}


class TestRead:
    async def test_is_for_everybody_but_members_are_not(self, house: House) -> None:
        dana = await house.person("dana")
        group = await house.group("team", dana)
        listed = (await house.call("GET", "/groups?name=TEAM", dana)).json()
        assert [item["id"] for item in listed["items"]] == [str(group.id)]
        assert (await house.call("GET", f"/groups/{group.id}", dana)).status_code == 200
        check_problem(await house.call("GET", f"/groups/{group.id}/members", dana), 403, "forbidden")

    @pytest.mark.parametrize("permission", [Permission.DIRECTORY, Permission.REQUESTS])
    async def test_shows_members_to_whoever_manages_people_or_requests(
        self, house: House, permission: Permission
    ) -> None:
        group = await house.group("team", house.admin)
        manager = await house.person("manager", permission)
        [member] = (await house.call("GET", f"/groups/{group.id}/members", manager)).json()["items"]
        assert member["email"] == house.admin.email


class TestReplace:
    async def test_replaces_every_value(self, house: House) -> None:
        group = await house.group("old", permissions=[Permission.TASKS])
        answer = await house.call("PUT", f"/groups/{group.id}", house.admin, json={"name": "new"})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["name"], answer.json()["permissions"]) == ("new", [])

    @pytest.mark.parametrize("permissions", [[], [Permission.DIRECTORY], ALL])
    async def test_changes_no_group_with_permissions_that_the_caller_does_not_hold(
        self, house: House, permissions: list[Permission]
    ) -> None:
        manager = await house.person("manager", Permission.DIRECTORY)
        group = await house.group("admins", permissions=ALL)
        sent = {"name": "admins", "permissions": permissions}
        check_problem(await house.call("PUT", f"/groups/{group.id}", manager, json=sent), 403, "forbidden")

    async def test_gives_nobody_more_than_they_hold(self, house: House) -> None:
        manager = await house.person("manager", Permission.DIRECTORY)
        group = await house.group("plain", manager)
        sent = {"name": "plain", "permissions": ALL}
        check_problem(await house.call("PUT", f"/groups/{group.id}", manager, json=sent), 403, "forbidden")

    async def test_takes_permissions_from_members_at_once(self, house: House) -> None:
        dana = await house.person("dana")
        group = await house.group("managers", dana, permissions=[Permission.REQUESTS])
        assert (await house.call("GET", "/users", dana)).status_code == 200
        await house.call("PUT", f"/groups/{group.id}", house.admin, json={"name": "managers"})
        check_problem(await house.call("GET", "/users", dana), 403, "forbidden")

    async def test_refuses_a_name_that_is_taken(self, house: House) -> None:
        await house.group("taken")
        group = await house.group("free")
        answer = await house.call("PUT", f"/groups/{group.id}", house.admin, json={"name": "Taken"})
        check_problem(answer, 409, "in_use")

    async def test_knows_no_group_that_is_not_there(self, house: House) -> None:
        answer = await house.call("PUT", f"/groups/{uuid4()}", house.admin, json={"name": "x"})
        check_problem(answer, 404, "not_found")


class TestMembers:
    async def test_are_listed_last_joined_first_with_their_rank(self, house: House) -> None:
        people = [await house.person(name) for name in "abcde"]
        group = await house.group("team", *people)
        path = f"/groups/{group.id}/members?limit=3"
        first = (await house.call("GET", path, house.admin)).json()
        second = (await house.call("GET", f"{path}&cursor={first['next_cursor']}", house.admin)).json()
        members = first["items"] + second["items"]
        assert [member["email"][0] for member in members] == list("edcba")
        ranks = [member["joined"] for member in members]
        assert ranks == sorted(ranks, reverse=True)
        assert second["next_cursor"] is None

    async def test_join_once_and_keep_their_place(self, house: House) -> None:
        group, people = await house.group("team"), [await house.person(name) for name in "ab"]
        for person in (*people, people[0]):
            answer = await house.call("PUT", f"/groups/{group.id}/members/{person.id}", house.admin)
            assert (answer.status_code, answer.content) == (204, b"")
        members = (await house.call("GET", f"/groups/{group.id}/members", house.admin)).json()["items"]
        assert [member["email"][0] for member in members] == ["b", "a"]

    async def test_join_once_under_concurrent_calls(self, house: House) -> None:
        group = await house.group("team")
        path = f"/groups/{group.id}/members/{house.admin.id}"
        answers = await asyncio.gather(*(house.call("PUT", path, house.admin) for _ in range(8)))
        assert {answer.status_code for answer in answers} == {204}

    async def test_leave_and_leave_again(self, house: House) -> None:
        dana = await house.person("dana")
        group = await house.group("team", dana)
        path = f"/groups/{group.id}/members/{dana.id}"
        assert (await house.call("DELETE", path, house.admin)).status_code == 204
        assert (await house.call("DELETE", path, house.admin)).status_code == 204
        assert (await house.call("GET", f"/groups/{group.id}/members", house.admin)).json()["items"] == []

    async def test_must_exist_like_their_group(self, house: House) -> None:
        group = await house.group("team")
        for path in (f"/groups/{group.id}/members/{uuid4()}", f"/groups/{uuid4()}/members/{house.admin.id}"):
            check_problem(await house.call("PUT", path, house.admin), 404, "not_found")

    @pytest.mark.parametrize("method", ["PUT", "DELETE"])
    async def test_change_only_by_the_directory(self, house: House, method: str) -> None:
        dana = await house.person("dana", Permission.REQUESTS)
        group = await house.group("dba_team")
        check_problem(await house.call(method, f"/groups/{group.id}/members/{dana.id}", dana), 403, "forbidden")

    @pytest.mark.parametrize("method", ["PUT", "DELETE"])
    async def test_of_a_group_with_permissions_change_only_by_who_holds_them(self, house: House, method: str) -> None:
        manager = await house.person("manager", Permission.DIRECTORY)
        group = await house.group("admins", permissions=[Permission.REQUESTS])
        answer = await house.call(method, f"/groups/{group.id}/members/{manager.id}", manager)
        check_problem(answer, 403, "forbidden")
        assert (await house.call("GET", "/users/me", manager)).json()["permissions"] == ["directory.manage"]

    async def test_who_leave_mark_the_pending_requests_of_the_group(self, house: House) -> None:
        dana, erin = await house.person("dana"), await house.person("erin")
        team = await house.group("team", dana)
        asked = await house.request(await house.template(approver_group_ids=[team.id]), erin)
        granted = await house.request(await house.template(approver_group_ids=[team.id]), erin)
        await house.decide(granted, Action.APPROVE, dana)
        elsewhere = await house.request(await house.template(), erin)
        await house.attended(asked, granted, elsewhere)
        await house.call("DELETE", f"/groups/{team.id}/members/{erin.id}", house.admin)
        assert await house.marked() == set(), "she was no member"
        await house.call("DELETE", f"/groups/{team.id}/members/{dana.id}", house.admin)
        assert await house.marked() == {asked}

    async def test_who_leave_lose_their_vote_at_once(self, house: House) -> None:
        dana, erin = await house.person("dana"), await house.person("erin")
        team = await house.group("team", dana)
        request_id = await house.request(await house.template(approver_group_ids=[team.id]), erin)
        await house.call("DELETE", f"/groups/{team.id}/members/{dana.id}", house.admin)
        check_problem(await house.call("POST", f"/access-requests/{request_id}/approve", dana), 403, "forbidden")
        assert (await house.call("GET", "/access-requests/pending", dana)).json()["items"] == []


class TestDelete:
    async def test_removes_it_with_its_memberships(self, house: House) -> None:
        dana = await house.person("dana")
        group = await house.group("team", dana)
        answer = await house.call("DELETE", f"/groups/{group.id}", house.admin)
        assert (answer.status_code, answer.content) == (204, b"")
        check_problem(await house.call("GET", f"/groups/{group.id}", house.admin), 404, "not_found")
        check_problem(await house.call("DELETE", f"/groups/{group.id}", house.admin), 404, "not_found")
        assert (await house.call("GET", "/users/me", dana)).json()["groups"] == []

    async def test_needs_the_permission_and_every_one_that_the_group_has(self, house: House) -> None:
        group = await house.group("admins", permissions=ALL)
        for by in (await house.person("dana", Permission.REQUESTS), await house.person("erin", Permission.DIRECTORY)):
            check_problem(await house.call("DELETE", f"/groups/{group.id}", by), 403, "forbidden")

    async def test_is_refused_while_a_template_is_for_its_members_only(self, house: House) -> None:
        group = await house.group("engineers")
        template = await house.template(name="For engineers", allowed_group_ids=[group.id])
        problem = check_problem(await house.call("DELETE", f"/groups/{group.id}", house.admin), 409, "in_use")
        assert "For engineers" in problem["detail"]
        stays = await templates.get(house.db, template.id)
        assert stays.allowed_group_ids == [group.id]

    async def test_takes_it_out_of_the_templates_that_name_it(self, house: House) -> None:
        group, other = await house.group("team"), await house.group("other")
        asking = await house.template(approver_group_ids=[other.id, group.id])
        escalating = await house.template(approver_group_ids=[other.id], escalation_group_id=group.id)
        assert (await house.call("DELETE", f"/groups/{group.id}", house.admin)).status_code == 204
        assert (await templates.get(house.db, asking.id)).approver_group_ids == [other.id]
        after = await templates.get(house.db, escalating.id)
        assert (after.approver_group_ids, after.escalation_group_id) == ([other.id], None)

    async def test_marks_the_pending_requests_that_it_may_decide(self, house: House) -> None:
        erin = await house.person("erin")
        group, other = await house.group("team", house.admin), await house.group("other", house.admin)
        asked = await house.request(await house.template(approver_group_ids=[group.id, other.id]), erin)
        escalating = await house.template(approver_group_ids=[other.id], escalation_group_id=group.id)
        escalated = await house.request(escalating, erin)
        elsewhere = await house.request(await house.template(approver_group_ids=[other.id]), erin)
        await house.attended(asked, escalated, elsewhere)
        await house.call("DELETE", f"/groups/{group.id}", house.admin)
        assert await house.marked() == {asked, escalated}

    @pytest.mark.parametrize("role", ["approver_group_ids", "allowed_group_ids"])
    async def test_and_a_template_that_names_it_at_the_same_moment_exclude_each_other(
        self, house: House, role: str
    ) -> None:
        app = await house.application()
        for number in range(8):
            group = await house.group(f"team {number}")
            sent = {"name": "X", "app_id": str(app.id), role: [str(group.id)]}
            made, deleted = await asyncio.gather(
                house.call("POST", "/access-request-templates", house.admin, json=sent),
                house.call("DELETE", f"/groups/{group.id}", house.admin),
            )
            assert made.status_code in {201, 422}
            if made.status_code == 201:
                named = (await templates.get(house.db, UUID(made.json()["id"]))).model_dump()[role]
                assert named == ([group.id] if deleted.status_code == 409 else [])
                assert (role, deleted.status_code) in {("approver_group_ids", 204), ("allowed_group_ids", 409)}
            else:
                assert deleted.status_code == 204

    async def test_and_a_template_that_is_changed_at_the_same_moment_do_not_wait_for_each_other_for_ever(
        self, house: House
    ) -> None:
        for number in range(8):
            group = await house.group(f"team {number}")
            template = await house.template(approver_group_ids=[group.id])
            sent = {"name": "X", "app_id": str(template.app_id), "approver_group_ids": [str(group.id)]}
            changed, deleted = await asyncio.gather(
                house.call("PUT", f"/access-request-templates/{template.id}", house.admin, json=sent),
                house.call("DELETE", f"/groups/{group.id}", house.admin),
            )
            assert (changed.status_code, deleted.status_code) in {(200, 204), (422, 204)}
            assert (await templates.get(house.db, template.id)).approver_group_ids == []
