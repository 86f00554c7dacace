"""API tokens over HTTP."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from db.tokens import digest
from domain.actors import Permission
from tests.api.house import House, Somebody
from tests.api.problem import check_problem, fields


async def _make(house: House, by: Somebody, **values: Any) -> Any:
    return await house.call("POST", "/api-tokens", by, json={"name": "laptop", **values})


def _holder(answer: Any, email: str = "") -> Somebody:
    return Somebody(UUID(int=0), email, answer.json()["token"])


async def _sql(house: House, statement: str, *parameters: object) -> list[dict[str, Any]]:
    async with house.db.connection() as connection:
        rows = await connection.execute(statement, parameters)
        return await rows.fetchall() if rows.description else []


class TestCreate:
    async def test_shows_the_token_once_and_stores_only_its_hash(self, house: House) -> None:
        dana = await house.person("dana")
        answer = await _make(house, dana)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert re.fullmatch(r"justiam_[A-Za-z0-9_-]{43}", made["token"])
        assert made["token"].startswith(made["hint"])
        assert len(made["hint"]) == 12
        assert made["user"]["email"] == dana.email
        assert answer.headers["cache-control"] == "no-store"
        assert (await house.call("GET", "/users/me", _holder(answer))).json()["email"] == dana.email
        listed = await house.call("GET", "/api-tokens", dana)
        assert made["token"] not in listed.text
        [row] = await _sql(house, "SELECT * FROM api_tokens WHERE id = %s", made["id"])
        assert row["token_hash"] == digest(made["token"])
        assert made["token"] not in str(row)

    async def test_lasts_90_days_unless_said_otherwise(self, house: House) -> None:
        for sent, days in (({}, 90), ({"expires_in_days": 1}, 1), ({"expires_in_days": 365}, 365)):
            made = (await _make(house, house.admin, **sent)).json()
            left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
            assert timedelta(days=days, minutes=-1) < left <= timedelta(days=days)

    async def test_is_possible_for_a_service_account_that_one_owns(self, house: House) -> None:
        dana = await house.person("dana")
        bot = await house.person("bot", owner=dana)
        answer = await _make(house, dana, user_id=str(bot.id))
        assert (await house.call("GET", "/users/me", _holder(answer))).json()["email"] == bot.email

    async def test_is_possible_for_nobody_else_and_tells_nobody_who_there_is(self, house: House) -> None:
        dana, erin = await house.person("dana"), await house.person("erin")
        bot = await house.person("bot", owner=dana)
        for by, of in ((erin, dana.id), (erin, bot.id), (house.admin, dana.id), (bot, dana.id), (erin, uuid4())):
            answer = await _make(house, by, user_id=str(of))
            problem = check_problem(answer, 403, "forbidden")
            assert problem["detail"] == "A token can be made for oneself and for a service account that one owns."

    async def test_is_not_possible_for_an_account_that_is_deactivated(self, house: House) -> None:
        dana = await house.person("dana")
        bot = await house.person("bot", owner=dana)
        sent = {"email": bot.email, "name": "Bot", "active": False, "owner_id": str(dana.id)}
        await house.call("PUT", f"/users/{bot.id}", house.admin, json=sent)
        assert fields(await _make(house, dana, user_id=str(bot.id))) == {"user_id"}

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""),
            ("name", None),
            ("expires_in_days", 0),
            ("expires_in_days", 366),
            ("expires_in_days", "30"),
            ("expires_in_days", None),
            ("expires_in_days", 1.5),
            ("user_id", "me"),
            ("token", "justiam_x"),
            ("expires_at", "2999-01-01T00:00:00Z"),
        ],
    )
    async def test_refuses_what_does_not_fit(self, standing_house: House, field: str, value: Any) -> None:
        assert fields(await _make(standing_house, standing_house.admin, **{field: value})) == {field}


class TestUse:
    async def test_ends_when_its_time_is_up(self, house: House) -> None:
        answer = await _make(house, house.admin)
        await _sql(house, "UPDATE api_tokens SET expires_at = now() WHERE id = %s", answer.json()["id"])
        check_problem(await house.call("GET", "/users/me", _holder(answer)), 401, "unauthenticated")

    async def test_is_noted_once_a_minute(self, house: House) -> None:
        answer = await _make(house, house.admin)
        token_id = answer.json()["id"]

        async def last_used() -> Any:
            return (await _sql(house, "SELECT last_used_at FROM api_tokens WHERE id = %s", token_id))[0]["last_used_at"]

        assert await last_used() is None
        await house.call("GET", "/users/me", _holder(answer))
        first = await last_used()
        await house.call("GET", "/users/me", _holder(answer))
        assert await last_used() == first
        await _sql(house, "UPDATE api_tokens SET last_used_at = now() - interval '61 s' WHERE id = %s", token_id)
        await house.call("GET", "/users/me", _holder(answer))
        assert await last_used() >= first

    async def test_is_exact(self, house: House) -> None:
        token = house.admin.token
        for wrong in (token[:-1], token + "A", token.swapcase(), token.removeprefix("justiam_"), f"{token} {token}"):
            check_problem(await house.call("GET", "/users/me", Somebody(house.admin.id, "", wrong)), 401)


class TestList:
    async def test_shows_ones_own_and_those_of_ones_service_accounts(self, house: House) -> None:
        dana = await house.person("dana")
        bot = await house.person("bot", owner=dana)
        for by, seen in ((dana, {dana.email, bot.email}), (bot, {bot.email}), (house.admin, {house.admin.email})):
            listed = (await house.call("GET", "/api-tokens", by)).json()["items"]
            assert {token["user"]["email"] for token in listed} == seen

    async def test_shows_everybodys_to_the_directory(self, house: House) -> None:
        dana = await house.person("dana", Permission.REQUESTS)
        check_problem(await house.call("GET", "/api-tokens?all=true", dana), 403, "forbidden")
        listed = (await house.call("GET", "/api-tokens?all=true", house.admin)).json()["items"]
        assert {token["user"]["email"] for token in listed} == {dana.email, house.admin.email}

    async def test_goes_on_where_the_page_before_ended(self, house: House) -> None:
        dana = await house.person("dana")
        for number in range(3):
            await _make(house, dana, name=f"token {number}")
        first = (await house.call("GET", "/api-tokens?limit=2", dana)).json()
        second = (await house.call("GET", f"/api-tokens?limit=2&cursor={first['next_cursor']}", dana)).json()
        names = [token["name"] for token in first["items"] + second["items"]]
        assert names == ["token 2", "token 1", "token 0", "test"]


class TestRevoke:
    async def test_ends_it_at_once_and_again_changes_nothing(self, house: House) -> None:
        answer = await _make(house, house.admin)
        path = f"/api-tokens/{answer.json()['id']}"
        revoked = await house.call("DELETE", path, house.admin)
        assert (revoked.status_code, revoked.content) == (204, b"")
        check_problem(await house.call("GET", "/users/me", _holder(answer)), 401, "unauthenticated")
        [before] = await _sql(house, "SELECT revoked_at FROM api_tokens WHERE id = %s", answer.json()["id"])
        assert (await house.call("DELETE", path, house.admin)).status_code == 204
        [after] = await _sql(house, "SELECT revoked_at FROM api_tokens WHERE id = %s", answer.json()["id"])
        assert after == before
        assert after["revoked_at"] is not None

    async def test_is_for_its_holder_the_owner_and_the_directory(self, house: House) -> None:
        dana = await house.person("dana")
        bot = await house.person("bot", owner=dana)
        manager = await house.person("manager", Permission.DIRECTORY)
        for by in (dana, bot, manager):
            token_id = (await _make(house, dana, user_id=str(bot.id))).json()["id"]
            assert (await house.call("DELETE", f"/api-tokens/{token_id}", by)).status_code == 204

    async def test_of_somebody_elses_is_not_found(self, house: House) -> None:
        dana, erin = await house.person("dana"), await house.person("erin", Permission.REQUESTS)
        bot = await house.person("bot", owner=dana)
        token_id = (await _make(house, dana)).json()["id"]
        for by in (erin, bot):
            check_problem(await house.call("DELETE", f"/api-tokens/{token_id}", by), 404, "not_found")
        assert (await house.call("GET", "/users/me", dana)).status_code == 200
