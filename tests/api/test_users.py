"""People and service accounts over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from db import applications
from domain.actors import Permission
from domain.states import Action
from tests.api.house import House, Somebody
from tests.api.problem import check_problem, fields


def _values(somebody: Somebody, **changed: Any) -> dict[str, Any]:
    return {"email": somebody.email, "name": "Somebody", "active": True, "owner_id": None, **changed}


class TestMe:
    async def test_shows_everybody_themselves(self, house: House) -> None:
        dana = await house.person("dana", Permission.REQUESTS)
        team = await house.group("team", dana)
        me = (await house.call("GET", "/users/me", dana)).json()
        assert (me["id"], me["email"], me["active"], me["owner_id"]) == (str(dana.id), dana.email, True, None)
        assert me["permissions"] == ["access_requests.manage"]
        assert {"id": str(team.id), "name": "team", "system": False, "expires_at": None} in me["groups"]

    async def test_shows_a_temporary_group_while_it_lasts(self, house: House) -> None:
        dana = await house.person("dana")
        request_id = await house.request(await house.template(), dana)
        await house.decide(request_id, Action.APPROVE, house.admin)
        [group] = (await house.call("GET", "/users/me", dana)).json()["groups"]
        assert group["system"]
        assert group["name"] == f"__access_req_{request_id}"
        assert group["expires_at"]

    async def test_hides_a_temporary_group_whose_time_is_up(self, house: House) -> None:
        dana = await house.person("dana")
        request_id = await house.request(await house.template(), dana)
        await house.approve_long_ago(request_id, house.admin)
        assert (await house.call("GET", "/users/me", dana)).json()["groups"] == []


class TestList:
    @pytest.mark.parametrize("permission", [Permission.DIRECTORY, Permission.REQUESTS])
    async def test_is_for_whoever_manages_people_or_requests(self, house: House, permission: Permission) -> None:
        answer = await house.call("GET", "/users", await house.person("dana", permission))
        assert {user["email"] for user in answer.json()["items"]} == {"dana@example.com", "root@example.com"}

    @pytest.mark.parametrize("permissions", [(), (Permission.TASKS,)])
    async def test_is_for_nobody_else(self, house: House, permissions: tuple[Permission, ...]) -> None:
        dana = await house.person("dana", *permissions)
        check_problem(await house.call("GET", "/users", dana), 403, "forbidden")
        check_problem(await house.call("GET", f"/users/{dana.id}", dana), 403, "forbidden")

    @pytest.mark.parametrize(
        ("part", "found"),
        [("DANA", {"dana@example.com"}), ("ana@ex", {"dana@example.com"}), ("%", set()), ("_ana", set()), ("/", set())],
    )
    async def test_finds_part_of_an_email_in_any_case_and_takes_wildcards_as_themselves(
        self, house: House, part: str, found: set[str]
    ) -> None:
        await house.person("dana")
        answer = await house.call("GET", "/users", house.admin, params={"email": part})
        assert {user["email"] for user in answer.json()["items"]} == found

    async def test_goes_on_where_the_page_before_ended(self, house: House) -> None:
        for name in "abc":
            await house.person(name)
        first = (await house.call("GET", "/users?limit=3", house.admin)).json()
        second = (await house.call("GET", f"/users?limit=3&cursor={first['next_cursor']}", house.admin)).json()
        emails = [user["email"] for user in first["items"] + second["items"]]
        assert emails == ["c@example.com", "b@example.com", "a@example.com", "root@example.com"]
        assert second["next_cursor"] is None


class TestCreate:
    async def test_makes_a_person_without_any_right(self, house: House) -> None:
        answer = await house.call("POST", "/users", house.admin, json={"email": "new@example.com", "name": "New"})
        assert answer.status_code == 201, answer.text
        user = answer.json()
        assert {name: user[name] for name in ("email", "name", "active", "owner_id")} == {
            "email": "new@example.com",
            "name": "New",
            "active": True,
            "owner_id": None,
        }
        assert answer.headers["location"] == f"/api/v1/users/{user['id']}"
        assert (await house.call("GET", f"/users/{user['id']}", house.admin)).json() == user

    async def test_needs_the_permission(self, house: House) -> None:
        dana = await house.person("dana", Permission.REQUESTS)
        answer = await house.call("POST", "/users", dana, json={"email": "new@example.com", "name": "New"})
        check_problem(answer, 403, "forbidden")

    async def test_refuses_an_email_that_is_taken_in_any_case(self, house: House) -> None:
        answer = await house.call("POST", "/users", house.admin, json={"email": "ROOT@example.com", "name": "New"})
        check_problem(answer, 409, "in_use")

    async def test_gives_an_email_once_under_concurrent_calls(self, house: House) -> None:
        calls = [
            house.call("POST", "/users", house.admin, json={"email": "new@example.com", "name": "New"})
            for _ in range(8)
        ]
        statuses = [answer.status_code for answer in await asyncio.gather(*calls)]
        assert sorted(statuses) == [201, *[409] * 7]

    @pytest.mark.parametrize("email", ["deploy@corp.local", "a.b+c@sub.example.com", "o'hara@example.test"])
    async def test_takes_addresses_that_only_name_an_account(self, house: House, email: str) -> None:
        answer = await house.call("POST", "/users", house.admin, json={"email": email, "name": "New"})
        assert answer.status_code == 201, answer.text

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("email", "nobody"),
            ("email", ""),
            ("email", "a@b@c.com"),
            ("email", "Dana <dana@example.com>"),
            ("email", "<dana@example.com>"),
            ("email", "a\u202ea@example.com"),
            ("email", "a@example.com\nBcc: b@example.com"),
            ("email", "a" * 300 + "@example.com"),
            ("name", ""),
            ("name", " \t"),
            ("active", "yes"),
            ("active", 1),
            ("owner_id", "me"),
            ("owner_id", str(UUID(int=1))),
            ("id", str(UUID(int=1))),
            ("permissions", ["directory.manage"]),
        ],
    )
    async def test_refuses_what_does_not_fit(self, standing_house: House, field: str, value: Any) -> None:
        sent = {"email": "new@example.com", "name": "New", field: value}
        assert fields(await standing_house.call("POST", "/users", standing_house.admin, json=sent)) == {field}

    async def test_makes_a_service_account_of_a_person(self, house: House) -> None:
        dana = await house.person("dana")
        sent = {"email": "bot@example.com", "name": "Bot", "owner_id": str(dana.id)}
        assert (await house.call("POST", "/users", house.admin, json=sent)).json()["owner_id"] == str(dana.id)

    async def test_refuses_a_service_account_of_a_service_account(self, house: House) -> None:
        bot = await house.person("bot", owner=await house.person("dana"))
        sent = {"email": "botbot@example.com", "name": "Bot", "owner_id": str(bot.id)}
        assert fields(await house.call("POST", "/users", house.admin, json=sent)) == {"owner_id"}

    async def test_refuses_a_service_account_of_somebody_deactivated(self, house: House) -> None:
        dana = await house.person("dana")
        await house.call("PUT", f"/users/{dana.id}", house.admin, json=_values(dana, active=False))
        sent = {"email": "bot@example.com", "name": "Bot", "owner_id": str(dana.id)}
        assert fields(await house.call("POST", "/users", house.admin, json=sent)) == {"owner_id"}


class TestReplace:
    async def test_replaces_every_value(self, house: House) -> None:
        dana = await house.person("dana")
        sent = {"email": "Diana@example.com", "name": "Diana", "active": True, "owner_id": None}
        answer = await house.call("PUT", f"/users/{dana.id}", house.admin, json=sent)
        assert answer.status_code == 200, answer.text
        assert {name: answer.json()[name] for name in sent} == sent

    async def test_needs_the_permission(self, house: House) -> None:
        dana = await house.person("dana", Permission.REQUESTS)
        check_problem(await house.call("PUT", f"/users/{dana.id}", dana, json=_values(dana)), 403, "forbidden")

    async def test_needs_every_permission_that_the_account_has(self, house: House) -> None:
        manager = await house.person("manager", Permission.DIRECTORY)
        # Whoever controls an address can become its account's owner where people are matched by it.
        taken_over = _values(house.admin, email="manager2@example.com")
        answer = await house.call("PUT", f"/users/{house.admin.id}", manager, json=taken_over)
        check_problem(answer, 403, "forbidden")
        assert (await house.call("GET", "/users/me", house.admin)).json()["email"] == house.admin.email

    @pytest.mark.parametrize("changed", [{"email": "manager2@example.com"}, {"active": False}], ids=str)
    async def test_needs_every_permission_that_the_service_accounts_have(
        self, house: House, changed: dict[str, Any]
    ) -> None:
        manager = await house.person("manager", Permission.DIRECTORY)
        dana = await house.person("dana")
        bot = await house.person("bot", Permission.REQUESTS, owner=dana)
        # Whoever becomes the owner makes the tokens of the account, and it is deactivated with the owner.
        answer = await house.call("PUT", f"/users/{dana.id}", manager, json=_values(dana, **changed))
        check_problem(answer, 403, "forbidden")
        assert (await house.call("GET", "/users/me", bot)).status_code == 200
        answer = await house.call("PUT", f"/users/{dana.id}", house.admin, json=_values(dana, **changed))
        assert answer.status_code == 200, answer.text

    async def test_refuses_an_email_that_is_taken(self, house: House) -> None:
        dana = await house.person("dana")
        sent = _values(dana, email=house.admin.email.upper())
        check_problem(await house.call("PUT", f"/users/{dana.id}", house.admin, json=sent), 409, "in_use")

    async def test_refuses_another_owner(self, house: House) -> None:
        dana, erin = await house.person("dana"), await house.person("erin")
        bot = await house.person("bot", owner=dana)
        for owner_id in (str(erin.id), None):
            sent = _values(bot, owner_id=owner_id)
            assert fields(await house.call("PUT", f"/users/{bot.id}", house.admin, json=sent)) == {"owner_id"}
        sent = _values(erin, owner_id=str(dana.id))
        assert fields(await house.call("PUT", f"/users/{erin.id}", house.admin, json=sent)) == {"owner_id"}

    async def test_knows_no_user_that_is_not_there(self, house: House) -> None:
        answer = await house.call("PUT", f"/users/{uuid4()}", house.admin, json=_values(house.admin))
        check_problem(answer, 404, "not_found")


class TestDeactivate:
    async def _deactivate(self, house: House, somebody: Somebody, **changed: Any) -> None:
        sent = _values(somebody, active=False, **changed)
        answer = await house.call("PUT", f"/users/{somebody.id}", house.admin, json=sent)
        assert answer.status_code == 200, answer.text

    async def test_ends_tokens_at_once(self, house: House) -> None:
        dana = await house.person("dana")
        await self._deactivate(house, dana)
        check_problem(await house.call("GET", "/users/me", dana), 401, "unauthenticated")

    async def test_takes_claims_and_groups_at_once(self, house: House) -> None:
        dana = await house.person("dana")
        app = await house.application()
        mapping = await house.mapping(app.id)
        await applications.attach(house.db, mapping.id, (await house.group("team", dana)).id)
        await self._deactivate(house, dana)
        claims = await house.call("GET", f"/users/{dana.id}/mapping-values?app_id={app.id}", house.admin)
        assert claims.json() == {}
        assert (await house.call("GET", f"/users/{dana.id}/groups", house.admin)).json()["items"] == []

    async def test_deactivates_service_accounts_too_and_activating_leaves_them(self, house: House) -> None:
        dana = await house.person("dana")
        bot = await house.person("bot", owner=dana)
        await self._deactivate(house, dana)
        check_problem(await house.call("GET", "/users/me", bot), 401, "unauthenticated")
        sent = _values(dana, active=True)
        assert (await house.call("PUT", f"/users/{dana.id}", house.admin, json=sent)).json()["active"]
        assert not (await house.call("GET", f"/users/{bot.id}", house.admin)).json()["active"]

    async def test_an_account_cannot_be_active_while_its_owner_is_not(self, house: House) -> None:
        dana = await house.person("dana")
        bot = await house.person("bot", owner=dana)
        await self._deactivate(house, dana)
        sent = _values(bot, owner_id=str(dana.id))
        assert fields(await house.call("PUT", f"/users/{bot.id}", house.admin, json=sent)) == {"active"}

    async def test_is_nothing_that_people_do_to_themselves(self, house: House) -> None:
        sent = _values(house.admin, active=False)
        assert fields(await house.call("PUT", f"/users/{house.admin.id}", house.admin, json=sent)) == {"active"}

    async def test_marks_their_open_requests_and_those_of_their_service_accounts(self, house: House) -> None:
        dana, erin = await house.person("dana"), await house.person("erin")
        bot = await house.person("bot", owner=dana)
        template = await house.template()
        pending, bots, others = [await house.request(template, by) for by in (dana, bot, erin)]
        granted = await house.request(await house.template(), dana)
        await house.decide(granted, Action.APPROVE, house.admin)
        closed = await house.request(await house.template(), dana)
        await house.decide(closed, Action.DENY, house.admin)
        await house.attended(pending, bots, others, granted, closed)
        await self._deactivate(house, dana)
        assert await house.marked() == {pending, bots, granted}

    async def test_marks_pending_requests_that_their_groups_may_decide(self, house: House) -> None:
        dana, erin = await house.person("dana"), await house.person("erin")
        team = await house.group("team", dana)
        asked = await house.request(await house.template(approver_group_ids=[team.id]), erin)
        managers = await house.group("managers", dana)
        escalating = await house.template(
            approver_group_ids=[(await house.group("others")).id], escalation_group_id=managers.id
        )
        escalated = await house.request(escalating, erin)
        elsewhere = await house.request(await house.template(), erin)
        await house.attended(asked, escalated, elsewhere)
        await self._deactivate(house, dana)
        assert await house.marked() == {asked, escalated}

    async def test_changing_a_name_marks_nothing(self, house: House) -> None:
        dana = await house.person("dana")
        request_id = await house.request(await house.template(), dana)
        await house.attended(request_id)
        await house.call("PUT", f"/users/{dana.id}", house.admin, json=_values(dana, name="Diana"))
        assert await house.marked() == set()

    async def test_of_owner_and_account_at_the_same_moment_ends_with_both_inactive(self, house: House) -> None:
        for number in range(5):
            dana = await house.person(f"dana{number}")
            bot = await house.person(f"bot{number}", owner=dana)
            await asyncio.gather(self._deactivate(house, dana), self._deactivate(house, bot, owner_id=str(dana.id)))
            for somebody in (dana, bot):
                check_problem(await house.call("GET", "/users/me", somebody), 401)


def _of(path: str, app_id: UUID) -> str:
    """The query of a list of holdings: that of groups takes none."""
    return f"?app_id={app_id}" if path == "mapping-values" else ""


class TestHoldings:
    """`users/{id}/groups` and `users/{id}/mapping-values`."""

    @pytest.mark.parametrize("path", ["groups", "mapping-values"])
    async def test_are_shown_to_the_user_the_owner_and_the_directory(self, house: House, path: str) -> None:
        dana = await house.person("dana")
        bot = await house.person("bot", owner=dana)
        app = await house.application()
        for by in (bot, dana, await house.person("manager", Permission.DIRECTORY)):
            answer = await house.call("GET", f"/users/{bot.id}/{path}{_of(path, app.id)}", by)
            assert answer.status_code == 200, answer.text

    @pytest.mark.parametrize("path", ["groups", "mapping-values"])
    async def test_are_shown_to_nobody_else_not_even_whether_there_is_somebody(self, house: House, path: str) -> None:
        dana = await house.person("dana")
        bot = await house.person("bot", owner=dana)
        app = await house.application()
        manager = await house.person("manager", Permission.REQUESTS)
        for by, of in ((manager, dana.id), (bot, dana.id), (manager, uuid4())):
            answer = await house.call("GET", f"/users/{of}/{path}{_of(path, app.id)}", by)
            check_problem(answer, 403, "forbidden")

    async def test_have_the_values_of_a_grant_while_it_lasts(self, house: House) -> None:
        dana = await house.person("dana")
        app = await house.application()
        template = await house.template(app_id=app.id, mapping_ids=[(await house.mapping(app.id)).id])
        path = f"/users/{dana.id}/mapping-values?app_id={app.id}"
        assert (await house.call("GET", path, dana)).json() == {}
        request_id = await house.request(template, dana)
        await house.decide(request_id, Action.APPROVE, house.admin)
        assert (await house.call("GET", path, dana)).json() == {"roles": ["db_readonly"]}
        assert (await house.call("GET", f"/users/{dana.id}/mapping-values?app_id={uuid4()}", dana)).status_code == 404
        await house.decide(request_id, Action.REVOKE, dana)
        assert (await house.call("GET", path, dana)).json() == {}

    async def test_need_an_application(self, house: House) -> None:
        answer = await house.call("GET", f"/users/{house.admin.id}/mapping-values", house.admin)
        assert fields(answer) == {"app_id"}
