"""People, as identity providers keep them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from db import acting, identities, tokens, web_sessions
from domain.actors import Permission
from domain.states import Action
from tests.api.house import House, Somebody
from tests.api.problem import check_problem
from tests.scim.provider import ENTERPRISE_USER, LIST, USER, Provider, user

OFF = {"op": "replace", "path": "active", "value": False}
ON = {"op": "replace", "path": "active", "value": True}


async def _account(house: House, user_id: str) -> dict[str, Any]:
    answer = await house.call("GET", f"/users/{user_id}", house.admin)
    assert answer.status_code == 200, answer.text
    account: dict[str, Any] = answer.json()
    return account


async def _somebody(house: House, user_id: str) -> Somebody:
    token = await tokens.create_token(house.db, UUID(user_id), "laptop", timedelta(days=1))
    return Somebody(UUID(user_id), (await _account(house, user_id))["email"], token.token)


class TestCreate:
    async def test_makes_a_person_without_any_right(self, house: House, provider: Provider) -> None:
        answer = await provider.send("POST", "/Users", user("dana", externalId="00u1"))
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert answer.headers["content-type"] == "application/scim+json"
        assert answer.headers["location"] == made["meta"]["location"]
        assert made == {
            **user("dana", externalId="00u1"),
            "id": made["id"],
            "meta": {**made["meta"], "resourceType": "User"},
        }
        assert await provider.get(f"/Users/{made['id']}") == made
        account = await _account(house, made["id"])
        assert (account["email"], account["name"]) == ("dana@example.com", "Dana Fischer")
        assert (account["active"], account["owner_id"]) == (True, None)
        assert (await house.call("GET", f"/users/{made['id']}/groups", house.admin)).json()["items"] == []

    async def test_the_location_leads_there(self, provider: Provider) -> None:
        location = (await provider.make("dana"))["meta"]["location"]
        assert location.startswith("http://service.test/scim/v2/Users/")
        headers = {"Authorization": f"Bearer {provider.account.token}"}
        assert (await provider.house.client.get(location, headers=headers)).status_code == 200

    @pytest.mark.parametrize(
        ("sent", "name"),
        [
            ({"displayName": "Dr. D"}, "Dr. D"),
            ({"displayName": None, "name": {"formatted": "Dana F.", "givenName": "Dana"}}, "Dana F."),
            ({"displayName": "", "name": {"givenName": "Dana", "familyName": "Fischer"}}, "Dana Fischer"),
            ({"displayName": None, "name": {"familyName": "Fischer"}}, "Fischer"),
            ({"displayName": None, "name": None}, "dana@example.com"),
        ],
    )
    async def test_takes_the_name_from_what_there_is(
        self, house: House, provider: Provider, sent: dict[str, Any], name: str
    ) -> None:
        assert (await _account(house, (await provider.make("dana", **sent))["id"]))["name"] == name

    @pytest.mark.parametrize(
        ("emails", "address"),
        [
            ([{"value": "a@example.com"}, {"value": "b@example.com", "primary": True}], "b@example.com"),
            ([{"value": "a@example.com", "type": "home"}, {"value": "b@example.com", "type": "work"}], "b@example.com"),
            ([{"value": "a@example.com"}, {"value": "b@example.com"}], "a@example.com"),
        ],
    )
    async def test_keeps_the_one_address_that_counts(
        self, house: House, provider: Provider, emails: list[dict[str, Any]], address: str
    ) -> None:
        made = await provider.make("upn", emails=emails)
        assert made["userName"] == "upn@example.com"
        assert [email["value"] for email in made["emails"]] == [address]
        assert (await _account(house, made["id"]))["email"] == address

    async def test_takes_a_user_name_that_is_an_address_for_the_address(self, provider: Provider) -> None:
        sent = {"schemas": [USER], "userName": "dana@example.com"}
        made = (await provider.send("POST", "/Users", sent)).json()
        assert made["emails"] == [{"value": "dana@example.com", "type": "work", "primary": True}]
        assert made["active"] is True

    async def test_keeps_a_user_name_that_is_no_address(self, house: House, provider: Provider) -> None:
        made = await provider.make("dana", userName="dfischer")
        assert made["userName"] == "dfischer"
        assert (await _account(house, made["id"]))["email"] == "dana@example.com"
        assert [found["id"] for found in await provider.find("/Users", 'userName eq "DFischer"')] == [made["id"]]
        assert not await provider.find("/Users", 'userName eq "dana@example.com"')

    async def test_ignores_what_nobody_keeps(self, provider: Provider) -> None:
        sent = {
            "title": "Administrator",
            "roles": [{"value": "admin"}],
            "password": "hunter2",
            "groups": [{"value": str(uuid4())}],
            "schemas": [USER, ENTERPRISE_USER],
            ENTERPRISE_USER: {"department": "Sales", "manager": {"value": "7"}},
        }
        made = await provider.make("dana", **sent)
        assert made.keys() == {"schemas", "id", "userName", "name", "displayName", "active", "emails", "meta"}

    @pytest.mark.parametrize(
        "values",
        [
            {"userName": None},
            {"userName": ""},
            {"userName": " "},
            {"userName": "a" * 321},
            {"userName": "dana\n@example.com"},
            {"userName": "nobody", "emails": None},
            {"emails": [{"value": "nobody"}]},
            {"emails": [{"type": "work"}]},
            {"emails": [{"value": "dana@example.com", "type": "x" * 201}]},
            {"displayName": "a\nb"},
            {"displayName": "x" * 201},
            {"name": {"givenName": "x" * 201}},
            {"externalId": "x" * 321},
            {"active": "perhaps"},
            {"schemas": ["urn:example:something"]},
        ],
        ids=str,
    )
    async def test_refuses_what_it_should_not_be(self, standing_provider: Provider, values: dict[str, Any]) -> None:
        check_problem(await standing_provider.send("POST", "/Users", user("nobody", **values)), 400)
        assert not await standing_provider.find("/Users", 'emails eq "nobody@example.com"')

    @pytest.mark.parametrize(
        "values",
        [
            {"userName": "DANA@example.com", "emails": [{"value": "other@example.com"}]},
            {"userName": "other", "emails": [{"value": "Dana@Example.com"}]},
            {"userName": "other@example.com", "emails": None, "externalId": "00u1"},
        ],
        ids=["user name", "address", "external id"],
    )
    async def test_refuses_what_is_taken(self, provider: Provider, values: dict[str, Any]) -> None:
        await provider.make("dana", externalId="00u1")
        answer = await provider.send("POST", "/Users", user("other", **values))
        assert check_problem(answer, 409)["scimType"] == "uniqueness"

    async def test_gives_nobody_the_address_of_another_as_a_name(self, provider: Provider) -> None:
        await provider.make("dana")
        sent = user("other", userName="dana@example.com")
        check_problem(await provider.send("POST", "/Users", sent), 409)

    async def test_makes_one_of_many_at_once(self, provider: Provider) -> None:
        answers = await asyncio.gather(*(provider.send("POST", "/Users", user("dana")) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [201, *[409] * 7]
        for answer in answers:
            if answer.status_code == 409:
                assert check_problem(answer, 409)["scimType"] == "uniqueness"

    async def test_is_in_the_audit_log_by_the_name_of_the_service_account(
        self, house: House, provider: Provider
    ) -> None:
        made = await provider.make("dana")
        log = (await house.call("GET", "/audit-log", house.admin)).json()["items"]
        entry = next(entry for entry in log if entry["object_id"] == made["id"])
        assert (entry["actor"], entry["action"], entry["kind"]) == (provider.account.email, "insert", "users")


class TestList:
    async def test_has_people_alone(self, house: House, provider: Provider) -> None:
        await provider.make("dana")
        await house.person("bot", owner=provider.owner)
        found = await provider.get("/Users")
        assert found["schemas"] == [LIST]
        names = {resource["userName"] for resource in found["Resources"]}
        assert names == {"dana@example.com", "root@example.com", provider.owner.email}
        assert found["totalResults"] == 3

    async def test_goes_by_index_from_one(self, provider: Provider) -> None:
        for number in range(5):
            await provider.make(f"user{number}")
        everybody = [each["id"] for each in (await provider.get("/Users"))["Resources"]]
        assert len(everybody) == 7
        seen: list[str] = []
        for start in (1, 4, 7, 10):
            page = await provider.get("/Users", startIndex=start, count=3)
            assert page["totalResults"] == 7
            assert page["startIndex"] == start
            assert page["itemsPerPage"] == len(page.get("Resources", []))
            seen += [each["id"] for each in page.get("Resources", [])]
        assert seen == everybody

    @pytest.mark.parametrize(("count", "items"), [(0, 0), (-3, 0), (2, 2), (10_000, 3)])
    async def test_bounds_a_page(self, provider: Provider, count: int, items: int) -> None:
        await provider.make("dana")
        page = await provider.get("/Users", count=count, startIndex=-7)
        assert (page["totalResults"], len(page.get("Resources", []))) == (3, items)

    @pytest.mark.parametrize(
        ("filter_", "found"),
        [
            ('userName eq "dana@example.com"', {"dana"}),
            ('USERNAME EQ "DANA@EXAMPLE.COM"', {"dana"}),
            ('userName eq "nobody@example.com"', set()),
            ('externalId eq "00uA"', {"dana"}),
            ('externalId eq "00ua"', set()),
            ('emails eq "erin@example.com"', {"erin"}),
            ('emails.value eq "ERIN@example.com"', {"erin"}),
            ('emails[type eq "work"].value eq "erin@example.com"', {"erin"}),
            ('emails[type eq "home"].value eq "erin@example.com"', set()),
            ('emails[type eq "work" and value co "erin"]', {"erin"}),
            ('displayName eq "dana fischer"', {"dana"}),
            ('name.familyName eq "Fischer" and active eq true', {"dana"}),
            ('name.familyName eq "Fischer" and active eq false', {"erin"}),
            ('externalId pr and not (userName sw "d")', set()),
            ('not (externalId pr) and name.familyName eq "Fischer"', {"erin"}),
            ('userName sw "er" or externalId eq "00uA"', {"dana", "erin"}),
            ('(userName ew "@example.com") and (displayName co "FISCHER")', {"dana", "erin"}),
            ('externalId ne "00uA" and name.givenName pr', {"erin"}),
            ('meta.created gt "2020-01-01T00:00:00Z" and name.givenName pr', {"dana", "erin"}),
            ('meta.created lt "2020-01-01T00:00:00Z"', set()),
            ('id eq "nobody"', set()),
            ('userName eq "%"', set()),
            ('userName co "_ana"', set()),
            ("externalId eq null and name.givenName pr", {"erin"}),
        ],
    )
    async def test_finds_by_filter(self, standing_provider: Provider, filter_: str, found: set[str]) -> None:
        names = {each["userName"] for each in await standing_provider.find("/Users", filter_)}
        assert names == {f"{name}@example.com" for name in found}

    async def test_finds_by_id(self, provider: Provider) -> None:
        made = await provider.make("dana")
        assert await provider.find("/Users", f'id eq "{made["id"]}" and active eq true') == [made]

    @pytest.mark.parametrize(
        "filter_",
        [
            "",
            "userName",
            "userName eq",
            'userName is "x"',
            'nickName eq "x"',
            'password eq "x"',
            "userName eq 7",
            'id gt "x"',
            'meta.lastModified gt "2020-01-01T00:00:00Z"',
            "active gt true",
            'meta.created gt "yesterday"',
            "(" * 900,
            "not (" * 150 + "active eq true" + ")" * 150,
            "active eq true and " * 45 + "x",
            'userName eq "a\x00b"',
            r'userName eq "a\u0000b"',
            r'externalId eq "\u0000"',
            r'displayName co "\ud800"',
            'meta.created co "2026"',
            'meta.created sw "2026-01-01T00:00:00Z"',
            'userName eq "a\' OR 1=1 --" or',
        ],
    )
    async def test_refuses_a_filter_that_it_cannot_follow(self, standing_provider: Provider, filter_: str) -> None:
        answer = await standing_provider.send("GET", "/Users", params={"filter": filter_})
        assert check_problem(answer, 400)["scimType"] in {"invalidFilter", "invalidValue"}

    async def test_follows_one_as_deep_as_can_be_sent(self, standing_provider: Provider) -> None:
        for filter_ in ("not (" * 30 + "active eq true" + ")" * 30, "(" * 490 + "active pr" + ")" * 490):
            await standing_provider.get("/Users", filter=filter_)

    async def test_takes_what_looks_like_sql_as_text(self, provider: Provider) -> None:
        for value in ("' OR 1=1 --", '\\" or userName pr or userName eq \\"', "%", "$1", "{}", ":name"):
            assert await provider.find("/Users", f'userName eq "{value}"') == []


class TestAttributes:
    async def test_are_shown_as_asked(self, provider: Provider) -> None:
        made = await provider.make("dana")
        some = await provider.get(f"/Users/{made['id']}", attributes="displayName,emails.value")
        assert some == {
            "schemas": [USER],
            "id": made["id"],
            "displayName": "Dana Fischer",
            "emails": [{"value": "dana@example.com"}],
        }
        most = await provider.get(f"/Users/{made['id']}", excludedAttributes="name,meta")
        assert most.keys() == made.keys() - {"name", "meta"}
        (found,) = await provider.find("/Users", 'userName eq "dana@example.com"', attributes="userName")
        assert found.keys() == {"schemas", "id", "userName"}

    async def test_that_there_are_not_are_refused_before_anything_is_changed(self, provider: Provider) -> None:
        made = await provider.make("dana")
        for method in ("GET", "PUT"):
            document = user("dana", displayName="Diana") if method == "PUT" else None
            answer = await provider.send(
                method, f"/Users/{made['id']}", document, params={"attributes": "id", "excludedAttributes": "name"}
            )
            check_problem(answer, 400)
        assert await provider.get(f"/Users/{made['id']}") == made


class TestReplace:
    async def test_sets_what_is_sent(self, house: House, provider: Provider) -> None:
        made = await provider.make("dana", externalId="00u1")
        sent = user("diana", externalId="00u2", name={"givenName": "Diana"}, displayName="Diana F.")
        answer = await provider.send("PUT", f"/Users/{made['id']}", sent)
        assert answer.status_code == 200, answer.text
        version = answer.headers["etag"]
        assert version != made["meta"]["version"]
        assert answer.json() == {**sent, "id": made["id"], "meta": {**made["meta"], "version": version}}
        account = await _account(house, made["id"])
        assert (account["email"], account["name"]) == ("diana@example.com", "Diana F.")

    async def test_forgets_what_is_left_out(self, provider: Provider) -> None:
        made = await provider.make("dana", externalId="00u1")
        sent = {"schemas": [USER], "userName": "dana@example.com", "active": True}
        replaced = (await provider.send("PUT", f"/Users/{made['id']}", sent)).json()
        assert replaced.keys() == {"schemas", "id", "userName", "active", "emails", "meta"}

    async def test_never_activates_somebody_by_leaving_it_out(self, provider: Provider) -> None:
        made = await provider.make("dana", active=False)
        sent = {key: value for key, value in user("dana", displayName="Diana").items() if key != "active"}
        replaced = (await provider.send("PUT", f"/Users/{made['id']}", sent)).json()
        assert (replaced["displayName"], replaced["active"]) == ("Diana", False)

    async def test_shows_what_an_administrator_changed(self, house: House, provider: Provider) -> None:
        made = await provider.make("dana")
        values = {"email": "diana@example.com", "name": "Diana"}
        await house.call("PUT", f"/users/{made['id']}", house.admin, json=values)
        seen = await provider.get(f"/Users/{made['id']}")
        assert (seen["userName"], seen["displayName"]) == ("diana@example.com", "Diana")
        assert seen["emails"] == [{"value": "diana@example.com", "type": "work", "primary": True}]


class TestPatch:
    @pytest.mark.parametrize(
        ("operation", "changed"),
        [
            ({"op": "Replace", "path": "displayName", "value": "Diana"}, {"displayName": "Diana"}),
            ({"op": "add", "path": "externalId", "value": "00u9"}, {"externalId": "00u9"}),
            ({"op": "replace", "value": {"displayName": "Diana"}}, {"displayName": "Diana"}),
            ({"op": "remove", "path": "name"}, {"name": None}),
            (
                {"op": "replace", "path": "name.givenName", "value": "Diana"},
                {"name": {"givenName": "Diana", "familyName": "Fischer"}},
            ),
            (
                {"op": "replace", "path": 'emails[type eq "work"].value', "value": "diana@example.com"},
                {"emails": [{"value": "diana@example.com", "type": "work", "primary": True}]},
            ),
            (
                {"op": "add", "path": "emails", "value": [{"value": "d@example.com", "primary": True, "type": "home"}]},
                {"emails": [{"value": "d@example.com", "type": "home", "primary": True}]},
            ),
            ({"op": "add", "path": "emails", "value": [{"value": "d@example.com", "type": "home"}]}, {}),
            ({"op": "replace", "path": "userName", "value": "diana"}, {"userName": "diana"}),
            ({"op": "replace", "path": "title", "value": "Boss"}, {}),
            ({"op": "replace", "path": f"{USER}:displayName", "value": "Diana"}, {"displayName": "Diana"}),
        ],
    )
    async def test_changes_what_it_names(
        self, provider: Provider, operation: dict[str, Any], changed: dict[str, Any]
    ) -> None:
        made = await provider.make("dana")
        answer = await provider.patch(f"/Users/{made['id']}", operation)
        assert answer.status_code == 200, answer.text
        meta = {**made["meta"], "version": answer.headers["etag"]}
        assert (meta == made["meta"]) == (not {key for key in changed if made.get(key) != changed[key]})
        expected = {key: value for key, value in {**made, **changed, "meta": meta}.items() if value is not None}
        assert answer.json() == expected
        assert await provider.get(f"/Users/{made['id']}") == expected

    @pytest.mark.parametrize(
        "operation",
        [
            {"op": "remove", "path": "userName"},
            {"op": "remove", "path": "active"},
            {"op": "remove", "path": "emails"},
            {"op": "remove"},
            {"op": "erase", "path": "displayName"},
            {"op": "replace", "path": "id", "value": "11111111-2222-4333-8444-555555555555"},
            {"op": "replace", "path": "meta.created", "value": "2020-01-01T00:00:00Z"},
            {"op": "replace", "path": "emails[", "value": "x"},
            {"op": "replace", "path": 'emails[type eq "work"].value', "value": "nobody"},
            {"op": "replace", "path": "displayName", "value": ["x"]},
            {"op": "replace", "path": "active", "value": "perhaps"},
            {"op": "replace", "path": "userName", "value": ""},
            {"op": "replace", "path": r'emails[type eq "\u0000" and primary eq true].value', "value": "d@example.com"},
            {"op": "replace", "path": r'emails[type eq "\ud800" and primary eq true].value', "value": "d@example.com"},
            {"op": "replace", "path": f'emails[{"(" * 140}type eq "work"{")" * 140}].value', "value": "d@example.com"},
            {"op": "add", "path": "emails", "value": [{"value": f"d{number}@example.com"} for number in range(101)]},
            {"op": "replace"},
            {},
        ],
        ids=str,
    )
    async def test_refuses_what_cannot_be_and_changes_nothing(
        self, provider: Provider, operation: dict[str, Any]
    ) -> None:
        made = await provider.make("dana")
        first = {"op": "replace", "path": "displayName", "value": "Diana"}
        check_problem(await provider.patch(f"/Users/{made['id']}", first, operation), 400)
        assert await provider.get(f"/Users/{made['id']}") == made

    async def test_says_on_one_line_what_is_wrong_with_a_value(self, provider: Provider) -> None:
        path = f"/Users/{(await provider.make('dana'))['id']}"
        answer = await provider.patch(path, {"op": "replace", "path": "active", "value": "perhaps"})
        assert (
            check_problem(answer, 400)["detail"] == "Input should be a valid boolean, unable to interpret input: active"
        )
        assert answer.json()["scimType"] == "invalidValue"

    async def test_does_a_hundred_things_and_no_more(self, provider: Provider) -> None:
        path = f"/Users/{(await provider.make('dana'))['id']}"
        sent = [{"op": "replace", "path": "displayName", "value": f"Dana {number}"} for number in range(101)]
        check_problem(await provider.patch(path, *sent), 400)
        assert (await provider.patch(path, *sent[:100])).json()["displayName"] == "Dana 99"

    async def test_leaves_no_trace_where_it_changes_nothing(self, house: House, provider: Provider) -> None:
        made = await provider.make("dana")
        before = (await house.call("GET", "/audit-log", house.admin)).json()["items"][0]["id"]
        answer = await provider.patch(
            f"/Users/{made['id']}", {"op": "replace", "path": "displayName", "value": "Dana Fischer"}
        )
        assert answer.json() == made
        assert (await house.call("GET", "/audit-log", house.admin)).json()["items"][0]["id"] == before

    async def test_keeps_both_of_two_at_once(self, provider: Provider) -> None:
        made = await provider.make("dana")
        for round_ in range(5):
            given, family = f"Dana {round_}", f"Fischer {round_}"
            await asyncio.gather(
                provider.patch(f"/Users/{made['id']}", {"op": "replace", "path": "name.givenName", "value": given}),
                provider.patch(f"/Users/{made['id']}", {"op": "replace", "path": "name.familyName", "value": family}),
            )
            name = (await provider.get(f"/Users/{made['id']}"))["name"]
            assert name == {"givenName": given, "familyName": family}


async def _deactivate(provider: Provider, user_id: str) -> None:
    answer = await provider.patch(f"/Users/{user_id}", OFF)
    assert (answer.status_code, answer.json()["active"]) == (200, False), answer.text


async def _put_off(provider: Provider, user_id: str) -> None:
    seen = await provider.get(f"/Users/{user_id}")
    answer = await provider.send("PUT", f"/Users/{user_id}", {**seen, "active": False})
    assert (answer.status_code, answer.json()["active"]) == (200, False), answer.text


async def _delete(provider: Provider, user_id: str) -> None:
    answer = await provider.send("DELETE", f"/Users/{user_id}")
    assert (answer.status_code, answer.content) == (204, b""), answer.text


WAYS = pytest.mark.parametrize("end", [_deactivate, _put_off, _delete], ids=["PATCH", "PUT", "DELETE"])


class TestDeprovisioning:
    @WAYS
    async def test_ends_tokens_sessions_claims_and_groups_at_once(
        self, house: House, provider: Provider, end: Any
    ) -> None:
        dana = await _somebody(house, (await provider.make("dana"))["id"])
        session = await web_sessions.begin(house.db, dana.id, None)
        bot = await house.person("bot", owner=dana)
        app = await house.application()
        mapping = await house.mapping(app.id)
        template = await house.template(app_id=app.id, mapping_ids=[mapping.id])
        request_id = await house.request(template, dana)
        await house.decide(request_id, Action.APPROVE, house.admin)
        claims = f"/users/{dana.id}/mapping-values?app_id={app.id}"
        assert (await house.call("GET", claims, house.admin)).json() == {"roles": ["db_readonly"]}
        await end(provider, str(dana.id))
        assert (await house.call("GET", claims, house.admin)).json() == {}
        assert (await house.call("GET", f"/users/{dana.id}/groups", house.admin)).json()["items"] == []
        for somebody in (dana, bot):
            check_problem(await house.call("GET", "/users/me", somebody), 401)
        assert await web_sessions.holder(house.db, session) is None

    @WAYS
    async def test_marks_what_is_open_and_what_their_groups_may_decide(
        self, house: House, provider: Provider, end: Any
    ) -> None:
        dana = await _somebody(house, (await provider.make("dana"))["id"])
        erin = await house.person("erin")
        team = await house.group("team", dana)
        pending = await house.request(await house.template(), dana)
        granted = await house.request(await house.template(), dana)
        await house.decide(granted, Action.APPROVE, house.admin)
        asked = await house.request(await house.template(approver_group_ids=[team.id]), erin)
        elsewhere = await house.request(await house.template(), erin)
        await house.attended(pending, granted, asked, elsewhere)
        await end(provider, str(dana.id))
        assert await house.marked() == {pending, granted, asked}

    @WAYS
    async def test_brings_no_grant_back_when_somebody_is_active_again_before_a_workflow_looked(
        self, house: House, provider: Provider, end: Any
    ) -> None:
        dana = await _somebody(house, (await provider.make("dana"))["id"])
        app = await house.application()
        mapping = await house.mapping(app.id)
        template = await house.template(app_id=app.id, mapping_ids=[mapping.id])
        await house.decide(await house.request(template, dana), Action.APPROVE, house.admin)
        await end(provider, str(dana.id))
        again = await provider.send("PUT", f"/Users/{dana.id}", user("dana"))
        if again.status_code == 404:
            again = await provider.send("POST", "/Users", user("dana"))
        assert again.json()["id"] == str(dana.id), again.text
        claims = f"/users/{dana.id}/mapping-values?app_id={app.id}"
        assert (await house.call("GET", claims, house.admin)).json() == {}
        assert (await house.call("GET", f"/users/{dana.id}/groups", house.admin)).json()["items"] == []

    async def test_nor_one_that_was_approved_while_the_deactivation_was_on_its_way(
        self, house: House, provider: Provider
    ) -> None:
        dana = await _somebody(house, (await provider.make("dana"))["id"])
        app = await house.application()
        mapping = await house.mapping(app.id)
        request_id = await house.request(await house.template(app_id=app.id, mapping_ids=[mapping.id]), dana)
        async with house.db.transaction() as connection, acting.told(connection):
            await connection.execute(
                "UPDATE users SET active = false, deactivated_at = clock_timestamp() WHERE id = %s", [dana.id]
            )
            # It sees the account as it is until the commit.
            await house.decide(request_id, Action.APPROVE, house.admin)
        assert (await provider.patch(f"/Users/{dana.id}", ON)).json()["active"]
        claims = f"/users/{dana.id}/mapping-values?app_id={app.id}"
        assert (await house.call("GET", claims, house.admin)).json() == {}
        assert (await house.call("GET", f"/users/{dana.id}/groups", house.admin)).json()["items"] == []

    async def test_of_somebody_inactive_can_be_undone(self, provider: Provider) -> None:
        made = await provider.make("dana")
        await _deactivate(provider, made["id"])
        assert [each["id"] for each in await provider.find("/Users", 'userName eq "dana@example.com"')] == [made["id"]]
        answer = await provider.patch(f"/Users/{made['id']}", ON)
        assert answer.json() == made

    async def test_repeated_marks_nothing(self, house: House, provider: Provider) -> None:
        dana = await _somebody(house, (await provider.make("dana"))["id"])
        request_id = await house.request(await house.template(), dana)
        await _deactivate(provider, str(dana.id))
        await house.attended(request_id)
        await _deactivate(provider, str(dana.id))
        assert await house.marked() == set()


class TestDelete:
    async def test_hides_somebody_and_keeps_the_account(self, house: House, provider: Provider) -> None:
        made = await provider.make("dana", externalId="00u1")
        await _delete(provider, made["id"])
        for method, document in (("GET", None), ("PUT", user("dana")), ("DELETE", None)):
            check_problem(await provider.send(method, f"/Users/{made['id']}", document), 404)
        check_problem(await provider.patch(f"/Users/{made['id']}", ON), 404)
        assert not await provider.find("/Users", 'userName eq "dana@example.com"')
        account = await _account(house, made["id"])
        assert (account["email"], account["name"], account["active"]) == ("dana@example.com", "Dana Fischer", False)

    async def test_whoever_is_made_with_the_name_is_the_account_with_nothing_of_what_it_had(
        self, house: House, provider: Provider
    ) -> None:
        made = await provider.make("dana", externalId="00u1")
        dana = await _somebody(house, made["id"])
        session = await web_sessions.begin(house.db, dana.id, None)
        await house.group("team", dana)
        async with house.db.connection() as connection, acting.told(connection):
            await connection.execute(
                "INSERT INTO user_identities (issuer, subject, user_id) VALUES ('https://idp.test', 'd', %s)", [dana.id]
            )
        await _delete(provider, made["id"])
        again = await provider.make("dana", displayName="Dana Again", externalId="00u2")
        assert again["id"] == made["id"]
        assert (again["displayName"], again["externalId"], again["active"]) == ("Dana Again", "00u2", True)
        assert await provider.find("/Users", 'externalId eq "00u1"') == []
        assert (await house.call("GET", f"/users/{dana.id}/groups", house.admin)).json()["items"] == []
        check_problem(await house.call("GET", "/users/me", dana), 401)
        assert await web_sessions.holder(house.db, session) is None
        async with house.db.connection() as connection:
            rows = await connection.execute("SELECT FROM user_identities WHERE user_id = %s", [dana.id])
            assert rows.rowcount == 0

    async def test_nor_with_anything_that_reached_the_account_meanwhile(self, house: House, provider: Provider) -> None:
        made = await provider.make("dana")
        await _delete(provider, made["id"])
        team = await house.group("team", UUID(made["id"]))
        await identities.link(house.db, made["id"], "https://idp.test", "whoever")
        assert await provider.members(str(team.id)) == []
        assert (await provider.make("dana"))["id"] == made["id"]
        assert await provider.members(str(team.id)) == []
        assert await identities.list_identities(house.db, made["id"]) == []

    async def test_nor_where_an_administrator_has_them_back(self, house: House, provider: Provider) -> None:
        made = await provider.make("dana")
        await _delete(provider, made["id"])
        team = await house.group("team", UUID(made["id"]))
        await identities.link(house.db, made["id"], "https://idp.test", "whoever")
        sent = {"email": "dana@example.com", "name": "Dana", "active": True}
        assert (await house.call("PUT", f"/users/{made['id']}", house.admin, json=sent)).status_code == 200
        assert await provider.members(str(team.id)) == []
        assert await identities.list_identities(house.db, made["id"]) == []

    async def test_has_somebody_back_once_of_many_at_once(self, provider: Provider) -> None:
        made = await provider.make("dana")
        await _delete(provider, made["id"])
        answers = await asyncio.gather(*(provider.send("POST", "/Users", user("dana")) for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [201, *[409] * 5]

    async def test_whom_an_administrator_activates_is_seen_again(self, house: House, provider: Provider) -> None:
        made = await provider.make("dana")
        await _delete(provider, made["id"])
        values = {"email": "dana@example.com", "name": "Dana", "active": True}
        await house.call("PUT", f"/users/{made['id']}", house.admin, json=values)
        assert (await provider.get(f"/Users/{made['id']}"))["active"] is True

    async def test_of_nobody_is_not_found(self, provider: Provider) -> None:
        check_problem(await provider.send("DELETE", f"/Users/{uuid4()}"), 404)


class TestAttacks:
    """By whoever has the token of a provider, which may keep the directory and nothing else."""

    @pytest.mark.parametrize(
        "operation",
        [OFF, {"op": "replace", "path": 'emails[type eq "work"].value', "value": "thief@example.com"}],
        ids=["deactivate", "take the address"],
    )
    async def test_an_administrator_cannot_be_touched(
        self, house: House, provider: Provider, operation: dict[str, Any]
    ) -> None:
        before = await _account(house, str(house.admin.id))
        path = f"/Users/{house.admin.id}"
        check_problem(await provider.patch(path, operation), 403, "forbidden")
        check_problem(await provider.send("PUT", path, user("thief")), 403, "forbidden")
        check_problem(await provider.send("DELETE", path), 403, "forbidden")
        assert await _account(house, str(house.admin.id)) == before
        assert (await house.call("GET", "/users/me", house.admin)).status_code == 200

    async def test_nor_can_whose_service_account_holds_more(self, house: House, provider: Provider) -> None:
        made = await provider.make("dana")
        dana = await _somebody(house, made["id"])
        await house.person("bot", Permission.REQUESTS, owner=dana)
        check_problem(await provider.patch(f"/Users/{made['id']}", OFF), 403, "forbidden")
        taken = {"op": "replace", "path": "userName", "value": "thief@example.com"}
        check_problem(await provider.patch(f"/Users/{made['id']}", taken), 403, "forbidden")

    async def test_an_administrator_who_left_comes_back_to_nothing(self, house: House) -> None:
        # Whoever may end an administrator ends what they held: a later User of the name is nobody's heir.
        provider = await Provider.of(house, *Permission)
        boss = await house.person("boss", Permission.REQUESTS)
        await _delete(provider, str(boss.id))
        weaker = await Provider.of(house)
        assert (await weaker.make("boss"))["id"] == str(boss.id)
        again = await _somebody(house, str(boss.id))
        me = (await house.call("GET", "/users/me", again)).json()
        assert (me["permissions"], me["groups"]) == ([], [])

    async def test_who_left_with_a_service_account_that_holds_more_is_not_had_back_by_less(self, house: House) -> None:
        strong, weak = await Provider.of(house, *Permission), await Provider.of(house)
        made = await strong.make("dana")
        await house.person("bot", Permission.REQUESTS, owner=await _somebody(house, made["id"]))
        await _delete(strong, made["id"])
        check_problem(await weak.send("POST", "/Users", user("dana")), 403, "forbidden")

    async def test_nobody_deactivates_themselves(self, house: House) -> None:
        strong = await Provider.of(house, *Permission)
        for path in (f"/Users/{strong.owner.id}", f"/Users/{strong.account.id}"):
            for answer in (await strong.patch(path, OFF), await strong.send("DELETE", path)):
                check_problem(answer, {400, 404})
        assert (await strong.get("/Users"))["totalResults"] >= 1

    async def test_service_accounts_are_nowhere(self, provider: Provider) -> None:
        path = f"/Users/{provider.account.id}"
        check_problem(await provider.send("GET", path), 404)
        check_problem(await provider.send("PUT", path, user("thief")), 404)
        check_problem(await provider.patch(path, OFF), 404)
        check_problem(await provider.send("DELETE", path), 404)
        for found in ('id eq "{0.id}"', 'userName eq "{0.email}"', 'emails.value eq "{0.email}"'):
            assert await provider.find("/Users", found.format(provider.account)) == []
        check_problem(await provider.send("POST", "/Users", user("x", userName=provider.account.email)), 409)

    async def test_nothing_that_is_sent_gives_an_owner_a_permission_or_an_id(
        self, house: House, provider: Provider
    ) -> None:
        sent = {
            "id": str(house.admin.id),
            "owner_id": str(provider.owner.id),
            "permissions": ["access_requests.manage"],
            "left_at": None,
            "meta": {"created": "1999-01-01T00:00:00Z"},
        }
        made = await provider.make("dana", **sent)
        assert made["id"] != str(house.admin.id)
        assert not made["meta"]["created"].startswith("1999")
        assert (await _account(house, made["id"]))["owner_id"] is None

    @pytest.mark.parametrize("permissions", [(), (Permission.REQUESTS,), (Permission.TASKS,)])
    async def test_others_are_told_nothing(self, house: House, permissions: tuple[Permission, ...]) -> None:
        dana = await house.person("dana", *permissions)
        for path in ("/Users", f"/Users/{dana.id}", "/Groups", "/Schemas", "/ServiceProviderConfig"):
            check_problem(await house.call("GET", f"/scim/v2{path}", dana), 403, "forbidden")

    @pytest.mark.parametrize("path", ["/Me", "/Bulk", "/.search", "/Nowhere", "/Users/a/b"])
    async def test_what_is_not_served_says_so(self, house: House, path: str) -> None:
        for method in ("GET", "POST"):
            answer = await house.call(method, f"/scim/v2{path}")
            assert answer.headers["content-type"] == "application/scim+json"
            assert answer.json()["status"] == str(answer.status_code)
            assert answer.status_code in {404, 501}
