"""Token exchange (RFC 8693): what is issued, for whom, for how long, and what is refused."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from api.app import create_app
from db import access_tokens, applications, groups
from db.administrators import OPERATOR
from db.database import Database
from domain.directory import MappingValues
from tests.api.house import MAX_BODY_BYTES, open_house, open_without_database, settings
from tests.conftest import Databases
from tests.tokens.shop import (
    ACCESS_TOKEN,
    EXCHANGE,
    ISSUER,
    JWT,
    Shop,
    another_application,
    check_oauth_error,
    open_shop,
    parts,
)

API_TOKEN = "urn:justiam:token-type:api-token"


class TestWhatIsIssued:
    async def test_is_a_token_that_a_stranger_verifies_with_the_published_keys(self, shop: Shop) -> None:
        answer = await shop.exchange()
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["pragma"] == "no-cache"
        body = answer.json()
        token = body.pop("access_token")
        assert body == {"issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 300}
        claims = await shop.verified(token)
        UUID(claims.pop("jti"))
        assert claims.pop("exp") == claims["iat"] + 300
        assert abs(claims.pop("iat") - time.time()) < 10
        assert claims == {
            "iss": ISSUER,
            "sub": str(shop.dana.id),
            "aud": shop.app.client_id,
            "client_id": shop.app.client_id,
            "roles": ["db_readonly"],
        }
        header, _ = parts(token)
        assert header == {"alg": "ES256", "typ": "at+jwt", "kid": header["kid"]}

    async def test_has_no_claims_for_who_holds_none(self, shop: Shop) -> None:
        erin = await shop.person("erin")
        assert "roles" not in await shop.verified(await shop.token(erin))

    async def test_is_as_the_api_shows_it(self, shop: Shop) -> None:
        await shop.granted(shop.dana)
        shown = await shop.house.call("GET", f"/users/{shop.dana.id}/mapping-values?app_id={shop.app.id}", shop.dana)
        claims = await shop.verified(await shop.token())
        assert shown.json() == {"roles": claims["roles"]} == {"roles": ["db_owner", "db_readonly"]}

    async def test_has_nothing_of_another_application(self, shop: Shop) -> None:
        other, _ = await another_application(shop)
        values = MappingValues(app_id=other.id, name="root", claim="roles", value="root")
        mapping = await applications.create_mapping(shop.house.db, values)
        await applications.attach(shop.house.db, mapping.id, shop.team.id)
        assert (await shop.verified(await shop.token()))["roles"] == ["db_readonly"]
        token = await shop.token(audience=other.client_id)
        assert (await shop.verified(token, other.client_id))["roles"] == ["root"]

    @pytest.mark.parametrize("kind", [ACCESS_TOKEN, API_TOKEN])
    async def test_is_had_for_an_api_token_under_both_its_types(self, standing_shop: Shop, kind: str) -> None:
        assert await standing_shop.token(subject_token_type=kind)

    async def test_can_be_asked_for_as_a_jwt(self, standing_shop: Shop) -> None:
        answer = await standing_shop.exchange(requested_token_type=JWT)
        assert answer.json()["issued_token_type"] == JWT

    async def test_is_of_the_account_of_a_service(self, shop: Shop) -> None:
        bot = await shop.person("bot", owner=shop.dana)
        assert (await shop.verified(await shop.token(bot)))["sub"] == str(bot.id)


class TestLifetime:
    @pytest.mark.parametrize(("lasting", "most"), [("1 hour", 300), ("90 seconds", 90), ("5 seconds", 5)])
    async def test_never_passes_the_end_of_a_grant(self, shop: Shop, lasting: str, most: int) -> None:
        await shop.granted(shop.dana, lasting=lasting)
        answer = (await shop.exchange()).json()
        assert most - 3 <= answer["expires_in"] <= most
        claims = await shop.verified(answer["access_token"])
        async with shop.house.db.connection() as connection:
            row = await (
                await connection.execute("SELECT expires_at FROM groups WHERE system AND expires_at >= now()")
            ).fetchone()
        assert row is not None
        assert claims["exp"] <= row["expires_at"].timestamp()

    async def test_is_that_of_the_grant_that_ends_first(self, shop: Shop) -> None:
        await shop.granted(shop.dana, "one", lasting="200 seconds")
        await shop.granted(shop.dana, "two", lasting="100 seconds")
        answer = (await shop.exchange()).json()
        assert 95 <= answer["expires_in"] <= 100

    async def test_is_not_shortened_by_what_does_not_contribute(self, shop: Shop) -> None:
        other, _ = await another_application(shop)
        await shop.granted(shop.dana, lasting="20 seconds")
        answer = (await shop.exchange(audience=other.client_id)).json()
        assert answer["expires_in"] == 300

    async def test_a_grant_that_is_over_gives_nothing_and_shortens_nothing(self, shop: Shop) -> None:
        await shop.granted(shop.dana, lasting="-1 seconds")
        answer = (await shop.exchange()).json()
        assert answer["expires_in"] == 300
        assert (await shop.verified(answer["access_token"]))["roles"] == ["db_readonly"]

    async def test_a_token_never_outlasts_a_grant_by_the_rest_of_a_second(self, shop: Shop) -> None:
        await shop.granted(shop.dana)
        for tenth in range(1, 14):
            async with shop.house.db.connection() as connection:
                rows = await connection.execute(
                    "UPDATE groups SET expires_at = now() + %s WHERE system RETURNING expires_at",
                    [timedelta(milliseconds=100 * tenth)],
                )
                row = await rows.fetchone()
            assert row is not None
            answer = (await shop.exchange()).json()
            _, claims = parts(answer["access_token"])
            assert answer["expires_in"] == claims["exp"] - claims["iat"] >= 1
            assert "db_owner" not in claims["roles"] or claims["exp"] <= row["expires_at"].timestamp()


class TestScope:
    async def test_asks_for_less(self, shop: Shop) -> None:
        values = MappingValues(app_id=shop.app.id, name="region", claim="region", value="eu")
        region = await applications.create_mapping(shop.house.db, values)
        await applications.attach(shop.house.db, region.id, shop.team.id)
        answer = (await shop.exchange(scope="region")).json()
        assert answer["scope"] == "region"
        claims = await shop.verified(answer["access_token"])
        assert (claims["region"], claims["scope"]) == (["eu"], "region")
        assert "roles" not in claims

    async def test_is_answered_as_what_was_had(self, shop: Shop) -> None:
        answer = (await shop.exchange(scope="roles admin")).json()
        assert answer["scope"] == "roles"
        assert (await shop.verified(answer["access_token"]))["scope"] == "roles"

    async def test_decides_which_grants_shorten(self, shop: Shop) -> None:
        values = MappingValues(app_id=shop.app.id, name="region", claim="region", value="eu")
        region = await applications.create_mapping(shop.house.db, values)
        await applications.attach(shop.house.db, region.id, shop.team.id)
        await shop.granted(shop.dana, lasting="20 seconds")
        assert (await shop.exchange(scope="region")).json()["expires_in"] == 300

    @pytest.mark.parametrize(
        "scope", ["admin", "sub exp", 'a"b', "a  b", " a", "a\\b", "é", "x" * 5000, "a " * 99 + "a"]
    )
    async def test_with_nothing_in_it_is_refused(self, standing_shop: Shop, scope: str) -> None:
        before = await standing_shop.issued()
        check_oauth_error(await standing_shop.exchange(scope=scope), 400, "invalid_scope")
        assert await standing_shop.issued() == before


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("changed", "error"),
        [
            ({"grant_type": None}, "invalid_request"),
            ({"grant_type": "password"}, "unsupported_grant_type"),
            ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
            ({"grant_type": EXCHANGE.upper()}, "unsupported_grant_type"),
            ({"audience": None}, "invalid_request"),
            ({"audience": ""}, "invalid_request"),
            ({"audience": str(UUID(int=1))}, "invalid_target"),
            ({"audience": "app-' OR true --"}, "invalid_target"),
            ({"audience": ISSUER}, "invalid_target"),
            ({"audience": "x" * 20_000}, "invalid_target"),
            ({"resource": "https://db.example.com"}, "invalid_target"),
            ({"subject_token": None}, "invalid_request"),
            ({"subject_token": "justiam_nobodys"}, "invalid_request"),
            ({"subject_token": "garbage"}, "invalid_request"),
            ({"subject_token": "a.b.c"}, "invalid_request"),
            ({"subject_token": "justiam_\x00"}, "invalid_request"),
            ({"subject_token": "é.ü.ö"}, "invalid_request"),
            ({"subject_token_type": None}, "invalid_request"),
            ({"subject_token_type": JWT}, "invalid_request"),
            ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
            ({"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
            ({"subject_token": "a.b.c", "subject_token_type": API_TOKEN}, "invalid_request"),
            ({"actor_token": "justiam_x", "actor_token_type": ACCESS_TOKEN}, "invalid_request"),
            ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
            ({"requested_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
        ],
        ids=str,
    )
    async def test_is_answered_as_the_rfc_says(self, standing_shop: Shop, changed: dict[str, Any], error: str) -> None:
        check_oauth_error(await standing_shop.exchange(**changed), 400, error)

    @pytest.mark.parametrize(
        "name", ["grant_type", "subject_token", "subject_token_type", "scope", "requested_token_type", "client_id"]
    )
    async def test_a_parameter_that_is_given_twice(self, standing_shop: Shop, name: str) -> None:
        fields = [*standing_shop.asking().items(), (name, "roles"), (name, "roles")]
        check_oauth_error(await standing_shop.post("token", fields), 400, "invalid_request")

    async def test_two_audiences(self, shop: Shop) -> None:
        other, _ = await another_application(shop)
        fields = [*shop.asking().items(), ("audience", other.client_id)]
        check_oauth_error(await shop.post("token", fields), 400, "invalid_target")

    @pytest.mark.parametrize(
        ("content", "content_type"),
        [
            (b"{}", "application/json"),
            (b"", "application/x-www-form-urlencoded"),
            (b"", ""),
            (b"grant_type=x", "multipart/form-data; boundary=x"),
            (b"\xff\xfe=\x00", "application/x-www-form-urlencoded"),
            (b"grant_type=%FF%FE", "application/x-www-form-urlencoded"),
            (b"grant_type=%00", "application/x-www-form-urlencoded"),
            (b"&".join(b"a%d=1" % number for number in range(40)), "application/x-www-form-urlencoded"),
            (b"=" * 1000, "application/x-www-form-urlencoded"),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("path", ["token", "introspect", "revoke"])
    async def test_a_body_that_is_no_form(
        self, standing_shop: Shop, path: str, content: bytes, content_type: str
    ) -> None:
        credentials = standing_shop.credentials if path != "token" else None
        answer = await standing_shop.post(path, content, headers={"Content-Type": content_type}, auth=credentials)
        check_oauth_error(answer, 400, "invalid_request")

    @pytest.mark.parametrize("path", ["token", "introspect", "revoke"])
    async def test_a_body_that_is_too_large(self, standing_shop: Shop, path: str) -> None:
        content = b"token=" + b"a" * MAX_BODY_BYTES
        check_oauth_error(await standing_shop.post(path, content), 413, "invalid_request")

    @pytest.mark.parametrize("path", ["token", "introspect", "revoke"])
    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "BREW"])
    async def test_other_methods(self, standing_shop: Shop, path: str, method: str) -> None:
        answer = await standing_shop.house.client.request(method, f"/oauth2/{path}?token=x")
        assert answer.headers["allow"] == "POST"
        if method != "HEAD":
            check_oauth_error(answer, 405, "invalid_request")

    async def test_parameters_in_the_url_are_not_read(self, standing_shop: Shop) -> None:
        answer = await standing_shop.house.client.post(
            "/oauth2/token",
            params=standing_shop.asking(),
            content=b"",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        check_oauth_error(answer, 400, "invalid_request")

    async def test_a_token_of_somebody_deactivated(self, shop: Shop) -> None:
        await shop.execute("UPDATE users SET active = false WHERE id = %s", shop.dana.id)
        check_oauth_error(await shop.exchange(), 400, "invalid_request")

    async def test_a_token_that_was_revoked_or_has_expired(self, shop: Shop) -> None:
        await shop.execute("UPDATE api_tokens SET expires_at = now() WHERE user_id = %s", shop.dana.id)
        check_oauth_error(await shop.exchange(), 400, "invalid_request")

    async def test_an_issued_token_buys_no_other_and_opens_no_route(self, shop: Shop) -> None:
        other, _ = await another_application(shop)
        token = await shop.token()
        for kind in (ACCESS_TOKEN, JWT):
            for audience in (shop.app.client_id, other.client_id):
                answer = await shop.exchange(subject_token=token, subject_token_type=kind, audience=audience)
                check_oauth_error(answer, 400, "invalid_request")
        answer = await shop.house.client.get("/api/v1/users/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401

    async def test_a_client_secret_is_no_token(self, shop: Shop) -> None:
        check_oauth_error(await shop.exchange(subject_token=shop.secret), 400, "invalid_request")


class TestClients:
    async def test_may_authenticate_and_get_tokens_for_themselves(self, standing_shop: Shop) -> None:
        shop = standing_shop
        assert (await shop.post("token", shop.asking(), auth=shop.credentials)).status_code == 200
        client_id, secret = shop.credentials
        assert (await shop.exchange(client_id=client_id, client_secret=secret)).status_code == 200

    async def test_get_no_tokens_for_others(self, shop: Shop) -> None:
        _, credentials = await another_application(shop)
        check_oauth_error(await shop.post("token", shop.asking(), auth=credentials), 400, "invalid_target")

    async def test_do_not_just_say_who_they_are(self, standing_shop: Shop) -> None:
        answer = await standing_shop.exchange(client_id=standing_shop.app.client_id)
        check_oauth_error(answer, 401, "invalid_client")

    async def test_with_a_wrong_secret_get_nothing_although_they_would_not_need_one(self, standing_shop: Shop) -> None:
        answer = await standing_shop.post("token", standing_shop.asking(), auth=(standing_shop.app.client_id, "x"))
        check_oauth_error(answer, 401, "invalid_client")


class TestUnderLoad:
    async def test_tokens_have_ids_of_their_own(self, shop: Shop) -> None:
        tokens = await asyncio.gather(*(shop.token() for _ in range(20)))
        assert len({parts(token)[1]["jti"] for token in tokens}) == 20
        assert await shop.issued() == 20

    async def test_an_application_deleted_meanwhile_is_no_target(self, shop: Shop) -> None:
        for number in range(5):
            other = await shop.house.application(f"short-lived {number}")
            answers = await asyncio.gather(
                *(shop.exchange(audience=other.client_id) for _ in range(4)),
                shop.house.call("DELETE", f"/applications/{other.id}", shop.house.admin),
            )
            assert answers[-1].status_code == 204
            for answer in answers[:-1]:
                if answer.status_code != 200:
                    check_oauth_error(answer, 400, "invalid_target")
        assert await shop.issued() == 0

    async def test_expired_rows_are_forgotten(self, shop: Shop) -> None:
        await shop.token()
        await shop.execute("UPDATE access_tokens SET expires_at = now() - interval '1 second'")
        await shop.token()
        await access_tokens.forget_expired(shop.house.db)
        assert await shop.issued() == 1

    async def test_holds_no_connection_while_it_waits_for_another(
        self, lone_shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with Database(lone_shop.house.url, max_connections=1) as narrow:
            monkeypatch.setattr(lone_shop.house.app.state, "database", narrow)
            answers = await asyncio.gather(*(lone_shop.exchange() for _ in range(12)))
        assert {answer.status_code for answer in answers} == {200}

    async def test_a_member_who_leaves_gets_no_claim(self, shop: Shop) -> None:
        await groups.remove_member(shop.house.db, OPERATOR, shop.team.id, shop.dana.id)
        assert "roles" not in await shop.verified(await shop.token())


class TestFailures:
    async def test_without_a_database_it_says_to_try_again(self) -> None:
        async with open_without_database() as client:
            fields = {
                "grant_type": EXCHANGE,
                "subject_token": "justiam_x",
                "subject_token_type": ACCESS_TOKEN,
                "audience": "app",
            }
            answer = await client.post("/oauth2/token", data=fields)
            check_oauth_error(answer, 503, "temporarily_unavailable")
            assert answer.headers["retry-after"]

    async def test_a_bug_is_answered_in_the_same_form_and_gives_nothing_away(
        self, standing_shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("the password is hunter2")

        monkeypatch.setattr("db.access_tokens.record", broken)
        answer = await standing_shop.exchange()
        check_oauth_error(answer, 500, "server_error")
        assert "hunter2" not in answer.text


class TestHowMany:
    async def test_are_bounded_for_each_person_with_their_other_calls(self, new_database: Databases) -> None:
        with new_database() as url:
            app = create_app(settings(url).model_copy(update={"calls_per_minute": 60}))
            async with app.router.lifespan_context(app), open_house(url, app) as house:
                shop = await open_shop(house)
                other = await shop.person("erin")
                answers = [await shop.exchange() for _ in range(9)]
                assert {answer.status_code for answer in answers} == {200}
                assert (await house.call("GET", "/users/me", shop.dana)).status_code == 200
                refused = [await shop.exchange() for _ in range(4)][-1]
                assert "Try again in 1 second." in check_oauth_error(refused, 429, "temporarily_unavailable")
                assert refused.headers["retry-after"] == "1"
                assert (await house.call("GET", "/users/me", shop.dana)).status_code == 429
                assert await shop.token(other)
                # What cannot be counted for anybody costs one look, and what an application asks is not counted.
                assert not await shop.active("nobody's")
