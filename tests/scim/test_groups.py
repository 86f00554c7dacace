"""Groups and who is in them, as identity providers keep them."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db import groups
from db.administrators import OPERATOR
from domain.actors import Permission
from domain.states import Action
from tests.api.house import House
from tests.api.problem import check_problem
from tests.scim.provider import GROUP, Provider, group


def _add(*ids: str) -> dict[str, Any]:
    return {"op": "Add", "path": "members", "value": [{"value": each} for each in ids]}


def _remove(user_id: str) -> dict[str, Any]:
    return {"op": "Remove", "path": f'members[value eq "{user_id}"]'}


def _remove_as_entra(*ids: str) -> dict[str, Any]:
    return {"op": "Remove", "path": "members", "value": [{"value": each} for each in ids]}


def _operation(kind: str, named: list[str]) -> dict[str, Any]:
    match kind:
        case "remove":
            return _remove(*named)
        case "entra":
            return _remove_as_entra(*named)
        case "replace":
            return {**_add(*named), "op": "replace"}
        case "clear":
            return {"op": "remove", "path": "members"}
        case "object":
            return {"op": "add", "value": {"members": [{"value": each} for each in named], "displayName": "team"}}
    return _add(*named)


async def _people(provider: Provider, count: int) -> list[str]:
    return [(await provider.make(f"user{number}"))["id"] for number in range(count)]


class TestCreate:
    async def test_makes_a_group_without_permissions_in_the_order_of_its_members(
        self, house: House, provider: Provider
    ) -> None:
        a, b, c = await _people(provider, 3)
        made = await provider.make_group("dba_team", c, a, b, externalId="g1")
        url = "http://service.test/scim/v2"
        assert made == {
            "schemas": [GROUP],
            "id": made["id"],
            "externalId": "g1",
            "displayName": "dba_team",
            "members": [{"value": each, "$ref": f"{url}/Users/{each}", "type": "User"} for each in (c, a, b)],
            "meta": {**made["meta"], "resourceType": "Group", "location": f"{url}/Groups/{made['id']}"},
        }
        assert await provider.get(f"/Groups/{made['id']}") == made
        seen = (await house.call("GET", f"/groups/{made['id']}", house.admin)).json()
        assert (seen["name"], seen["permissions"]) == ("dba_team", [])
        members = (await house.call("GET", f"/groups/{made['id']}/members", house.admin)).json()["items"]
        assert [member["id"] for member in reversed(members)] == [c, a, b]

    async def test_counts_who_is_named_twice_once(self, provider: Provider) -> None:
        (a,) = await _people(provider, 1)
        assert [each["value"] for each in (await provider.make_group("team", a, a.upper(), a))["members"]] == [a]

    async def test_refuses_what_is_taken(self, provider: Provider) -> None:
        await provider.make_group("dba_team", externalId="g1")
        for sent in (group("DBA_Team"), group("other", externalId="g1")):
            assert check_problem(await provider.send("POST", "/Groups", sent), 409)["scimType"] == "uniqueness"

    async def test_makes_nothing_where_a_member_is_nobody(self, house: House, provider: Provider) -> None:
        (a,) = await _people(provider, 1)
        inner = await provider.make_group("inner")
        for nobody in (str(uuid4()), "x", str(provider.account.id), inner["id"], ""):
            check_problem(await provider.send("POST", "/Groups", group("team", a, nobody)), 400)
        assert await provider.find("/Groups", 'displayName eq "team"') == []
        assert (await house.call("GET", "/groups?name=team", house.admin)).json()["items"] == []

    @pytest.mark.parametrize("name", ["__access_req_", "__Access_Req_1", "_ _access_req_x", "", " ", "a\nb", "x" * 201])
    async def test_refuses_a_name_that_is_none(self, standing_provider: Provider, name: str) -> None:
        check_problem(await standing_provider.send("POST", "/Groups", group(name)), 400)


class TestList:
    @pytest.mark.parametrize(
        ("filter_", "found"),
        [
            ('displayName eq "DBA_team"', {"dba_team"}),
            ('displayName sw "dba"', {"dba_team", "dba_leads"}),
            ('externalId eq "g1"', {"dba_team"}),
            ('members.value eq "{a}"', {"dba_team", "others"}),
            ('members[value eq "{b}"]', {"dba_team"}),
            ('members eq "{b}" or displayName eq "others"', {"dba_team", "others"}),
            ('id eq "{id}" and members[value eq "{b}"]', {"dba_team"}),
            ('id eq "{id}" and members eq "{nobody}"', set()),
            ('members eq "nobody"', set()),
            ("members pr and externalId pr", {"dba_team"}),
        ],
    )
    async def test_finds_by_filter(self, provider: Provider, filter_: str, found: set[str]) -> None:
        a, b = await _people(provider, 2)
        made = await provider.make_group("dba_team", a, b, externalId="g1")
        await provider.make_group("dba_leads")
        await provider.make_group("others", a)
        asked = filter_.format(a=a, b=b, id=made["id"], nobody=uuid4())
        assert {each["displayName"] for each in await provider.find("/Groups", asked)} == found

    async def test_names_members_unless_they_are_left_out(self, provider: Provider) -> None:
        (a,) = await _people(provider, 1)
        made = await provider.make_group("team", a)
        for asked, named in (({}, True), ({"excludedAttributes": "members"}, False), ({"attributes": "id"}, False)):
            (found,) = await provider.find("/Groups", 'displayName eq "team"', **asked)
            assert ("members" in found) is named
            assert ("members" in await provider.get(f"/Groups/{made['id']}", **asked)) is named
        only = await provider.get(f"/Groups/{made['id']}", attributes="members.value")
        assert only["members"] == [{"value": a}]

    async def test_shows_the_parts_of_members_that_are_asked_for(self, provider: Provider) -> None:
        (a,) = await _people(provider, 1)
        made = await provider.make_group("team", a)
        (whole,) = made["members"]
        assert whole["$ref"].endswith(f"/scim/v2/Users/{a}")
        for asked, parts in (
            ({"attributes": "members"}, {"value", "$ref", "type"}),
            ({"attributes": "displayName, Members.Value"}, {"value"}),
            ({"attributes": f"{GROUP}:members.$ref"}, {"$ref"}),
            ({"excludedAttributes": "members.type,displayName"}, {"value", "$ref"}),
        ):
            expected = [{part: whole[part] for part in parts}]
            assert (await provider.get(f"/Groups/{made['id']}", **asked))["members"] == expected, asked
            (found,) = await provider.find("/Groups", f'id eq "{made["id"]}"', **asked)
            assert found["members"] == expected, asked

    async def test_names_all_of_a_large_group(self, house: House, provider: Provider) -> None:
        made = await provider.make_group("everybody")
        async with house.db.connection() as connection:
            await connection.execute(
                """
                INSERT INTO users (id, email, name)
                SELECT gen_random_uuid(), 'person' || n || '@example.com', 'Person' FROM generate_series(1, 3000) n
                """
            )
            await connection.execute(
                "INSERT INTO group_members (group_id, user_id) SELECT %s, id FROM users WHERE name = 'Person'",
                [made["id"]],
            )
        assert len(set(await provider.members(made["id"]))) == 3000

    async def test_ends_a_page_before_it_has_too_many_members(
        self, provider: Provider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("db.scim._MOST_MEMBERS", 3)
        ids = await _people(provider, 4)
        for name, size in (("small", 2), ("one", 1), ("large", 4), ("none", 0)):
            await provider.make_group(name, *ids[:size], externalId=name)
        pages, start = [], 1
        while (found := await provider.get("/Groups", startIndex=start, filter="externalId pr"))["itemsPerPage"]:
            pages.append([(each["displayName"], len(each.get("members", []))) for each in found["Resources"]])
            start += found["itemsPerPage"]
        assert pages == [[("small", 2), ("one", 1)], [("large", 4)], [("none", 0)]]
        found = await provider.get("/Groups", excludedAttributes="members")
        assert found["itemsPerPage"] == found["totalResults"]

    async def test_has_no_temporary_group(self, house: House, provider: Provider) -> None:
        dana = await house.person("dana")
        request_id = await house.request(await house.template(), dana)
        await house.decide(request_id, Action.APPROVE, house.admin)
        name = f"__access_req_{request_id}"
        (held,) = (await house.call("GET", f"/users/{dana.id}/groups", house.admin)).json()["items"]
        assert held["name"] == name
        assert name not in str(await provider.get("/Groups"))
        assert await provider.find("/Groups", f'displayName eq "{name}"') == []
        assert await provider.find("/Groups", f'members eq "{dana.id}"') == []
        path = f"/Groups/{held['id']}"
        check_problem(await provider.send("GET", path), 404)
        check_problem(await provider.send("PUT", path, group("mine", str(dana.id))), 404)
        check_problem(await provider.patch(path, _add(str(dana.id))), 404)
        check_problem(await provider.send("DELETE", path), 404)


class TestReplace:
    async def test_keeps_the_place_of_who_stays_and_what_scim_does_not_know(
        self, house: House, provider: Provider
    ) -> None:
        a, b, c, d = await _people(provider, 4)
        made = await provider.make_group("team", a, b, c)
        values = {"name": "team", "description": "Runs the databases", "permissions": []}
        await house.call("PUT", f"/groups/{made['id']}", house.admin, json=values)
        await groups.add_member(house.db, OPERATOR, UUID(made["id"]), provider.account.id)
        answer = await provider.send("PUT", f"/Groups/{made['id']}", group("renamed", d, c, a, externalId="g2"))
        assert answer.status_code == 200, answer.text
        assert [each["value"] for each in answer.json()["members"]] == [a, c, d]
        assert (answer.json()["displayName"], answer.json()["externalId"]) == ("renamed", "g2")
        seen = (await house.call("GET", f"/groups/{made['id']}", house.admin)).json()
        assert seen["description"] == "Runs the databases"
        # SCIM does not see service accounts, and so does not remove them.
        members = (await house.call("GET", f"/groups/{made['id']}/members", house.admin)).json()["items"]
        assert str(provider.account.id) in {member["id"] for member in members}

    async def test_marks_what_waits_for_the_group_when_somebody_leaves(self, house: House, provider: Provider) -> None:
        a, b = await _people(provider, 2)
        made = await provider.make_group("team", a)
        template = await house.template(approver_group_ids=[UUID(made["id"])])
        request_id = await house.request(template, await house.person("erin"))
        await house.attended(request_id)
        await provider.send("PUT", f"/Groups/{made['id']}", group("team", a, b))
        assert await house.marked() == set()
        await provider.send("PUT", f"/Groups/{made['id']}", group("team", b))
        assert await house.marked() == {request_id}


class TestPatch:
    async def test_answers_nothing_unless_it_is_asked_to(self, provider: Provider) -> None:
        a, b = await _people(provider, 2)
        made = await provider.make_group("team", a)
        answer = await provider.patch(f"/Groups/{made['id']}", _add(b))
        assert (answer.status_code, answer.content) == (204, b"")
        document = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [_add(b)]}
        answer = await provider.send("PATCH", f"/Groups/{made['id']}?attributes=members.value", document)
        assert answer.json()["members"] == [{"value": a}, {"value": b}]

    @pytest.mark.parametrize(
        ("operations", "left"),
        [
            ([("add", "c")], "abc"),
            ([("add", "ca")], "abc"),
            ([("remove", "a")], "b"),
            ([("remove", "c")], "ab"),
            ([("entra", "ab")], ""),
            ([("remove", "a"), ("add", "a")], "ab"),
            ([("add", "c"), ("remove", "c")], "ab"),
            ([("replace", "cb")], "bc"),
            ([("clear", "")], ""),
            ([("clear", ""), ("add", "c")], "c"),
            ([("object", "c")], "abc"),
        ],
        ids=str,
    )
    async def test_changes_who_is_in_it(self, provider: Provider, operations: list[tuple[str, str]], left: str) -> None:
        ids = dict(zip("abc", await _people(provider, 3), strict=True))
        made = await provider.make_group("team", ids["a"], ids["b"])
        sent = [_operation(kind, [ids[name] for name in names]) for kind, names in operations]
        answer = await provider.patch(f"/Groups/{made['id']}", *sent)
        assert answer.status_code == 204, answer.text
        assert await provider.members(made["id"]) == [ids[name] for name in left]

    @pytest.mark.parametrize(
        "named",
        [
            lambda shown: [shown],
            lambda shown: shown,
            lambda shown: [{"$ref": None, "value": shown["value"]}],
            lambda shown: [{"value": shown["value"], "display": "Dana", "$ref": f"../Users/{shown['value']}"}],
            lambda shown: [{"VALUE": shown["value"].upper()}],
        ],
    )
    async def test_removes_whom_it_names_whatever_else_it_says_of_them(self, provider: Provider, named: Any) -> None:
        a, b = await _people(provider, 2)
        made = await provider.make_group("team", a, b)
        operation = {"op": "remove", "path": "members", "value": named(made["members"][0])}
        assert (await provider.patch(f"/Groups/{made['id']}", operation)).status_code == 204
        assert await provider.members(made["id"]) == [b]

    @pytest.mark.parametrize(
        "operation",
        [
            {"path": GROUP, "value": {"members": "named"}},
            {"path": f"{GROUP}:members", "value": "named"},
            {"value": {"members": "named"}},
            {"value": {GROUP: {"members": "named"}}},
            {"value": {f"{GROUP}:members": "named"}},
            {"path": "MEMBERS", "value": "named"},
        ],
        ids=str,
    )
    async def test_replaces_all_whatever_it_calls_the_attribute(
        self, provider: Provider, operation: dict[str, Any]
    ) -> None:
        a, b = await _people(provider, 2)
        made = await provider.make_group("team", a)
        sent = json.loads(json.dumps({"op": "replace", **operation}).replace('"named"', json.dumps([{"value": b}])))
        assert (await provider.patch(f"/Groups/{made['id']}", sent)).status_code == 204
        assert await provider.members(made["id"]) == [b]

    @pytest.mark.parametrize(
        "operation",
        [
            {"op": "remove", "path": 'members[not (value ne "{a}")]'},
            {"op": "remove", "path": 'members[value co "{a}"]'},
            {"op": "remove", "path": 'members[type eq "User"]'},
            {"op": "remove", "path": 'members[$ref eq "../Users/{a}"]'},
            {"op": "remove", "path": "members.value"},
            {"op": "remove", "path": 'members[value eq "{a}"].value'},
            {"op": "remove", "path": "members", "value": [{"$ref": "../Users/{a}"}]},
            {"op": "remove", "path": "members", "value": ["{a}"]},
            {"op": "remove", "path": "members", "value": ""},
            {"op": "add", "path": "members"},
            {"op": "add", "path": "members", "value": [None]},
            {"op": "add", "path": 'members[value eq "{a}"]', "value": {"type": "User"}},
            {"op": "replace", "path": 'members[value eq "{a}"].type', "value": "User"},
        ],
        ids=str,
    )
    async def test_refuses_to_choose_members_by_anything_but_their_value(
        self, provider: Provider, operation: dict[str, Any]
    ) -> None:
        a, b = await _people(provider, 2)
        made = await provider.make_group("team", a, b)
        sent = json.loads(json.dumps(operation).replace("{a}", a))
        rename = {"op": "replace", "path": "displayName", "value": "renamed"}
        check_problem(await provider.patch(f"/Groups/{made['id']}", rename, sent), 400)
        assert await provider.get(f"/Groups/{made['id']}") == made

    async def test_holds_the_envelope_to_what_it_is_where_it_is_about_members_alone(self, provider: Provider) -> None:
        made = await provider.make_group("team")
        (a,) = await _people(provider, 1)
        for schemas in ([GROUP], "x", [5]):
            sent = {"schemas": schemas, "Operations": [_add(a)]}
            check_problem(await provider.send("PATCH", f"/Groups/{made['id']}", sent), 400)
        assert await provider.members(made["id"]) == []

    async def test_takes_hundreds_of_operations_on_members_and_a_hundred_others(self, provider: Provider) -> None:
        a, b = await _people(provider, 2)
        made = await provider.make_group("team", a)
        path = f"/Groups/{made['id']}"
        renames = [{"op": "replace", "path": "displayName", "value": f"team {number}"} for number in range(101)]
        check_problem(await provider.patch(path, *renames), 400)
        answer = await provider.patch(path, *renames[:100], *[_remove(a), _add(b), _remove(b), _add(b)] * 75)
        assert answer.status_code == 204, answer.text
        assert await provider.members(made["id"]) == [b]
        assert (await provider.get(path))["displayName"] == "team 99"

    async def test_renames(self, provider: Provider) -> None:
        (a,) = await _people(provider, 1)
        made = await provider.make_group("team", a)
        path = f"/Groups/{made['id']}"
        # With the id, as Okta does.
        await provider.patch(path, {"op": "replace", "value": {"id": made["id"], "displayName": "renamed"}})
        await provider.patch(path, {"op": "Add", "path": "externalId", "value": "g1"})
        seen = await provider.get(path)
        assert (seen["displayName"], seen["externalId"]) == ("renamed", "g1")
        assert seen["members"] == made["members"]

    async def test_refuses_nobody_and_changes_nothing(self, provider: Provider) -> None:
        a, b = await _people(provider, 2)
        made = await provider.make_group("team", a)
        path = f"/Groups/{made['id']}"
        for operations in (
            [_add(b), _add(str(uuid4()))],
            [_add(b), {"op": "remove", "path": "displayName"}],
            [_add(b), {"op": "replace", "path": "displayName", "value": "__access_req_x"}],
            [_add(b), {"op": "replace", "path": f'members[value eq "{a}"].value', "value": b}],
        ):
            check_problem(await provider.patch(path, *operations), 400)
        assert await provider.get(path) == made

    async def test_of_many_at_once_keeps_everybody(self, provider: Provider) -> None:
        ids = await _people(provider, 8)
        made = await provider.make_group("team")
        answers = await asyncio.gather(*(provider.patch(f"/Groups/{made['id']}", _add(each)) for each in ids))
        assert {answer.status_code for answer in answers} == {204}
        assert sorted(await provider.members(made["id"])) == sorted(ids)

    async def test_by_name_outlasts_the_claims_of_an_issuer(self, house: House, provider: Provider) -> None:
        a, b = await _people(provider, 2)
        made = await provider.make_group("team", a, b)
        async with house.db.connection() as connection:
            await connection.execute("UPDATE group_members SET issuer = 'https://idp.test'")
        await provider.patch(f"/Groups/{made['id']}", _add(a))
        members = (await house.call("GET", f"/groups/{made['id']}/members", house.admin)).json()["items"]
        assert {member["id"]: member["issuer"] for member in members} == {a: None, b: "https://idp.test"}
        assert await provider.members(made["id"]) == [a, b]


_OPERATION = st.tuples(st.sampled_from(["add", "remove", "entra"]), st.lists(st.integers(0, 4), min_size=1, max_size=3))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patches=st.lists(st.lists(_OPERATION, min_size=1, max_size=3), max_size=4))
async def test_patches_of_members_are_those_of_a_set_that_keeps_its_order(
    members_of: tuple[Provider, list[str]], patches: list[list[tuple[str, list[int]]]]
) -> None:
    provider, ids = members_of
    made = await provider.make_group(f"team {uuid4()}", ids[0], ids[1])
    expected = [ids[0], ids[1]]
    for patch in patches:
        before = list(expected)
        sent = []
        for kind, numbers in patch:
            named = [ids[number] for number in numbers]
            if kind == "add":
                sent.append(_add(*named))
                expected += [each for each in dict.fromkeys(named) if each not in expected]
            else:
                named = named if kind == "entra" else named[:1]
                sent.append(_remove_as_entra(*named) if kind == "entra" else _remove(*named))
                expected = [each for each in expected if each not in named]
        # Within one PATCH nobody is seen to leave: who is in it before and after keeps their place.
        expected = [each for each in before if each in expected] + [each for each in expected if each not in before]
        answer = await provider.patch(f"/Groups/{made['id']}", *sent)
        assert answer.status_code == 204, answer.text
        assert await provider.members(made["id"]) == expected


@pytest.fixture(scope="module")
async def members_of(standing_provider: Provider) -> tuple[Provider, list[str]]:
    return standing_provider, await _people(standing_provider, 5)


class TestDelete:
    async def test_is_as_over_the_api(self, house: House, provider: Provider) -> None:
        (a,) = await _people(provider, 1)
        made = await provider.make_group("team", a)
        template = await house.template(approver_group_ids=[UUID(made["id"])])
        request_id = await house.request(template, await house.person("erin"))
        await house.attended(request_id)
        assert (await provider.send("DELETE", f"/Groups/{made['id']}")).status_code == 204
        check_problem(await provider.send("GET", f"/Groups/{made['id']}"), 404)
        assert await house.marked() == {request_id}

    async def test_is_refused_where_a_template_would_be_for_anyone(self, house: House, provider: Provider) -> None:
        made = await provider.make_group("team")
        await house.template(allowed_group_ids=[UUID(made["id"])])
        check_problem(await provider.send("DELETE", f"/Groups/{made['id']}"), 409)


class TestAttacks:
    """By whoever has the token of a provider, which may keep the directory and nothing else."""

    async def test_nobody_comes_by_permissions_through_a_group_that_has_them(
        self, house: House, provider: Provider
    ) -> None:
        (a,) = await _people(provider, 1)
        boss = await house.person("boss")
        powerful = await house.group("bosses", boss, permissions=[Permission.REQUESTS])
        path = f"/Groups/{powerful.id}"
        before = await provider.get(path)
        attempts = (
            await provider.patch(path, _add(a)),
            await provider.patch(path, _remove(str(boss.id))),
            await provider.patch(path, {"op": "replace", "path": "displayName", "value": "mine"}),
            await provider.send("PUT", path, group("bosses", str(boss.id), a)),
            await provider.send("PUT", path, group("bosses")),
            await provider.send("DELETE", path),
        )
        for answer in attempts:
            check_problem(answer, 403, "forbidden")
        assert await provider.get(path) == before

    async def test_no_group_is_made_with_permissions(self, house: House, provider: Provider) -> None:
        sent = {"permissions": ["access_requests.manage"], "system": True, "request_id": str(uuid4())}
        made = await provider.make_group("team", **sent)
        assert (await house.call("GET", f"/groups/{made['id']}", house.admin)).json()["permissions"] == []

    async def test_whoever_may_give_the_permissions_may_fill_the_group(self, house: House) -> None:
        strong = await Provider.of(house, *Permission)
        (a,) = await _people(strong, 1)
        powerful = await house.group("bosses", permissions=[Permission.REQUESTS])
        assert (await strong.patch(f"/Groups/{powerful.id}", _add(a))).status_code == 204
        assert await strong.members(str(powerful.id)) == [a]

    async def test_service_accounts_are_never_members(self, house: House, provider: Provider) -> None:
        team = await house.group("team", provider.account, provider.owner)
        path = f"/Groups/{team.id}"
        assert await provider.members(str(team.id)) == [str(provider.owner.id)]
        assert await provider.find("/Groups", f'members eq "{provider.account.id}" and displayName eq "team"') == []
        check_problem(await provider.patch(path, _add(str(provider.account.id))), 400)
        assert (await provider.patch(path, _remove(str(provider.account.id)))).status_code == 204
        assert (await provider.patch(path, {"op": "remove", "path": "members"})).status_code == 204
        members = (await house.call("GET", f"/groups/{team.id}/members", house.admin)).json()["items"]
        assert [member["id"] for member in members] == [str(provider.account.id)]
