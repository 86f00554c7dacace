"""What was issued to an account before its deactivation does not count again, whoever has the account afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from api.issuers import Issuers
from api.lifecycle import Step
from db import access_tokens, groups, identities, submission, tokens, web_sessions
from db.administrators import OPERATOR
from domain.actors import Permission
from domain.deciding import deactivated_since
from domain.errors import AccessError
from domain.states import Action
from domain.submission import Submission
from settings import OidcIssuer
from tests.api.house import House, Somebody
from tests.api.problem import check_problem
from tests.scim.provider import GROUP, Provider, user
from tests.tokens.issuer import AUDIENCE, Issuer, serve_issuer
from tests.tokens.shop import Shop, check_oauth_error


@pytest.fixture
async def provider(standing_house: House) -> Provider:
    return await Provider.of(standing_house)


async def _off_and_on(house: House, _: Provider, who: Somebody) -> None:
    await _set(house, who, active=False)
    await _set(house, who, active=True)


async def _set(house: House, who: Somebody, *, active: bool) -> None:
    sent = {"email": who.email, "name": "Dana", "active": active}
    answer = await house.call("PUT", f"/users/{who.id}", house.admin, json=sent)
    assert answer.status_code == 200, answer.text


async def _scim_off_and_on(_: House, provider: Provider, who: Somebody) -> None:
    for active in (False, True):
        answer = await provider.patch(f"/Users/{who.id}", {"op": "replace", "path": "active", "value": active})
        assert answer.json()["active"] is active, answer.text


async def _deleted_and_made(_: House, provider: Provider, who: Somebody) -> None:
    assert (await provider.send("DELETE", f"/Users/{who.id}")).status_code == 204
    made = await provider.send("POST", "/Users", user(who.email.partition("@")[0]))
    assert made.json()["id"] == str(who.id), made.text


Again = Callable[[House, Provider, Somebody], Awaitable[None]]
AGAIN = pytest.mark.parametrize("again", [_off_and_on, _scim_off_and_on, _deleted_and_made])


class TestTokensAndSessions:
    @AGAIN
    async def test_of_before_do_not_count_and_new_ones_do(self, shop: Shop, provider: Provider, again: Again) -> None:
        house, dana = shop.house, shop.dana
        session = await web_sessions.begin(house.db, dana.id, None)
        bought = await shop.token()
        assert await shop.active(bought)
        await again(house, provider, dana)
        # The same memberships as before: what is refused is the token, not what its holder has.
        await groups.add_member(house.db, OPERATOR, shop.team.id, dana.id)
        check_problem(await house.call("GET", "/users/me", dana), 401, "unauthenticated")
        check_oauth_error(await shop.exchange(), 400, "invalid_request")
        assert await web_sessions.holder(house.db, session) is None
        assert not await shop.active(bought)
        answer = await shop.post("revoke", {"token": bought}, auth=shop.credentials)
        assert answer.status_code == 200
        listed = (await house.call("GET", "/api-tokens?all=true", house.admin)).json()["items"]
        (old,) = [each for each in listed if each["user"]["id"] == str(dana.id)]
        assert old["revoked_at"] is not None
        new = Somebody(dana.id, dana.email, (await tokens.create_token(house.db, dana.id, "new", None)).token)
        assert (await house.call("GET", "/users/me", new)).status_code == 200
        listed = (await house.call("GET", "/api-tokens", new)).json()["items"]
        assert [each["revoked_at"] is None for each in listed] == [True, False]
        assert await shop.active(await shop.token(new))
        assert await web_sessions.holder(house.db, await web_sessions.begin(house.db, dana.id, None)) is not None

    async def test_of_a_service_account_do_not_count_after_its_owner_was_deactivated(
        self, shop: Shop, provider: Provider
    ) -> None:
        bot = await shop.person("bot", owner=shop.dana)
        await _off_and_on(shop.house, provider, shop.dana)
        sent = {"email": bot.email, "name": "Bot", "owner_id": str(shop.dana.id), "active": True}
        assert (await shop.house.call("PUT", f"/users/{bot.id}", shop.house.admin, json=sent)).status_code == 200
        check_problem(await shop.house.call("GET", "/users/me", bot), 401, "unauthenticated")

    async def test_of_an_account_that_a_version_before_deactivated_do_not_count_again(self, shop: Shop) -> None:
        await shop.execute("UPDATE users SET active = false, deactivated_at = NULL WHERE id = %s", shop.dana.id)
        await _set(shop.house, shop.dana, active=True)
        check_problem(await shop.house.call("GET", "/users/me", shop.dana), 401, "unauthenticated")

    @pytest.mark.parametrize(("microseconds", "counts"), [(-1, False), (0, False), (1, True)])
    async def test_issued_at_the_instant_of_the_deactivation_do_not_count(
        self, shop: Shop, microseconds: int, counts: bool
    ) -> None:
        db, dana = shop.house.db, shop.dana
        session, bought = await web_sessions.begin(db, dana.id, None), await shop.token()
        moment = datetime.now(UTC)
        await shop.execute("UPDATE users SET deactivated_at = %s WHERE id = %s", moment, dana.id)
        issued = moment + timedelta(microseconds=microseconds)
        await shop.execute("UPDATE api_tokens SET created_at = %s WHERE user_id = %s", issued, dana.id)
        await shop.execute("UPDATE web_sessions SET created_at = %s WHERE user_id = %s", issued, dana.id)
        await shop.execute("UPDATE access_tokens SET issued_at = %s WHERE user_id = %s", issued, dana.id)
        assert (await tokens.authenticate(db, dana.token) is not None) is counts
        assert (await web_sessions.holder(db, session) is not None) is counts
        assert await shop.active(bought) is counts
        # The same rule, in Python.
        assert deactivated_since(moment, issued) is not counts

    async def test_that_drew_on_a_group_do_not_count_again_when_it_is_joined_again(self, shop: Shop) -> None:
        bought = await shop.token()
        path = f"/groups/{shop.team.id}/members/{shop.dana.id}"
        for method in ("DELETE", "PUT"):
            assert (await shop.house.call(method, path, shop.house.admin)).status_code == 204
        assert not await shop.active(bought)
        assert await shop.active(await shop.token())


class TestExchangedTokens:
    async def test_do_not_outlast_the_api_token_they_were_exchanged_for(self, shop: Shop) -> None:
        short = await tokens.create_token(shop.house.db, shop.dana.id, "short", timedelta(seconds=90))
        answer = await shop.exchange(subject_token=short.token)
        assert 0 < answer.json()["expires_in"] <= 90

    async def test_are_not_issued_for_a_token_that_ends_at_this_moment(self, shop: Shop) -> None:
        recording = access_tokens.record(
            shop.house.db,
            shop.dana.id,
            shop.dana.id,
            shop.app.client_id,
            timedelta(minutes=5),
            None,
            until=datetime.now(UTC),
        )
        with pytest.raises(access_tokens.SubjectEnded):
            await recording
        assert await shop.issued() == 0


@pytest.fixture
async def issuer(shop: Shop) -> AsyncIterator[Issuer]:
    """An issuer whose word links accounts, and whose clock may be off by 30 seconds."""
    with serve_issuer() as served:
        accepted = OidcIssuer.model_validate({"issuer": served.url, "audience": AUDIENCE, "link_by_email": True})
        async with Issuers([accepted], leeway_secs=30) as shop.house.app.state.issuers:
            yield served


async def _let_in(shop: Shop, token: str) -> bool:
    answer = await shop.house.client.get("/api/v1/users/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code in {200, 401}, answer.text
    return answer.status_code == 200


class TestTokensOfIssuers:
    @pytest.mark.parametrize(
        ("iat", "counts"),
        # By the leeway later, and not at the same instant.
        [(-60, False), (0, False), (30, False), (31, True), (..., False)],
    )
    async def test_count_where_they_were_surely_issued_after_the_deactivation(
        self, shop: Shop, issuer: Issuer, iat: Any, counts: bool
    ) -> None:
        await identities.link(shop.house.db, shop.dana.email, issuer.url, "dana-1")
        ended = int(datetime.now(UTC).timestamp()) - 100
        token = issuer.token(iat=iat if iat is ... else ended + iat)
        assert await _let_in(shop, token)
        await shop.execute("UPDATE users SET deactivated_at = to_timestamp(%s) WHERE id = %s", ended, shop.dana.id)
        assert await _let_in(shop, token) is counts
        answer = await shop.exchange(subject_token=token)
        assert answer.status_code == (200 if counts else 400), answer.text

    async def test_of_the_leaver_link_nothing_to_the_account_of_the_newcomer(
        self, shop: Shop, issuer: Issuer, provider: Provider
    ) -> None:
        vouched: dict[str, Any] = {"email": shop.dana.email, "email_verified": True}
        old = issuer.token(sub="leaver", **vouched)
        assert await _let_in(shop, old)
        await _deleted_and_made(shop.house, provider, shop.dana)
        assert not await _let_in(shop, old)
        assert await identities.list_identities(shop.house.db, shop.dana.email) == []
        # Some time later, the newcomer comes.
        await shop.execute("UPDATE users SET deactivated_at = now() - interval '1 minute' WHERE id = %s", shop.dana.id)
        assert await _let_in(shop, issuer.token(sub="newcomer", **vouched))

    async def test_bound_what_they_are_exchanged_for(self, shop: Shop, issuer: Issuer) -> None:
        await identities.link(shop.house.db, shop.dana.email, issuer.url, "dana-1")
        answer = await shop.exchange(subject_token=issuer.token(exp=timedelta(seconds=60)))
        assert 0 < answer.json()["expires_in"] <= 60
        within_leeway = issuer.token(exp=timedelta(seconds=-10))
        check_oauth_error(await shop.exchange(subject_token=within_leeway), 400, "invalid_request")


class TestIdempotencyKeys:
    @AGAIN
    async def test_of_before_are_not_answered_with_what_they_did(
        self, shop: Shop, provider: Provider, again: Again
    ) -> None:
        house, dana, headers = shop.house, shop.dana, {"Idempotency-Key": "once"}
        template = await house.template()
        sent = {"template_id": str(template.id), "requested_duration_mins": 60, "justification": "an incident"}
        first = await house.call("POST", "/access-requests", dana, json=sent, headers=headers)
        assert (await house.call("POST", "/access-requests", dana, json=sent, headers=headers)).json() == first.json()
        await again(house, provider, dana)
        await shop.execute(
            "UPDATE access_requests SET status = 'revoked', ended_at = now() WHERE requester_id = %s", dana.id
        )
        new = Somebody(dana.id, dana.email, (await tokens.create_token(house.db, dana.id, "new", None)).token)
        second = await house.call("POST", "/access-requests", new, json=sent, headers=headers)
        assert second.status_code == 201, second.text
        assert second.json()["id"] != first.json()["id"]

    async def test_name_another_decision_than_before(self, standing_shop: Shop) -> None:
        bearer = await tokens.authenticate(standing_shop.house.db, standing_shop.dana.token)
        assert bearer is not None
        since = [None, datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=1)]
        steps = [
            Step(standing_shop.app.id, Action.APPROVE, replace(bearer.person, deactivated_at=at), "", "once")
            for at in (*since, *since)
        ]
        assert len({step.id for step in steps}) == len(since)


class TestBodiesThatAreUnderWay:
    """The call began before the deactivation, and its body arrives afterwards."""

    @pytest.mark.parametrize(
        ("method", "path", "sent"),
        [
            ("POST", "/api/v1/api-tokens", {"name": "late"}),
            ("POST", "/scim/v2/Groups", {"schemas": [GROUP], "displayName": "late"}),
            ("POST", "/api/v1/scheduled-tasks/{id}/run", {}),
        ],
    )
    async def test_do_nothing(
        self, shop: Shop, provider: Provider, method: str, path: str, sent: dict[str, Any]
    ) -> None:
        manager = await shop.house.person(f"manager-{uuid4().hex[:8]}", *Permission)

        async def late() -> AsyncIterator[bytes]:
            await _off_and_on(shop.house, provider, manager)
            yield json.dumps(sent).encode()

        headers = {"Authorization": f"Bearer {manager.token}", "Content-Type": "application/json"}
        url = path.format(id=manager.id)
        answer = await shop.house.client.request(method, url, content=late(), headers=headers)
        assert answer.status_code == 401, answer.text


async def _session(shop: Shop) -> object:
    return await web_sessions.begin(shop.house.db, shop.dana.id, None)


async def _api_token(shop: Shop) -> object:
    return await tokens.create_token(shop.house.db, shop.dana.id, "in between", None)


async def _access_token(shop: Shop) -> object:
    lifetime = timedelta(minutes=5)
    return await access_tokens.record(
        shop.house.db, shop.dana.id, shop.dana.id, shop.app.client_id, lifetime, None, until=None
    )


async def _request(shop: Shop) -> object:
    bearer = await tokens.authenticate(shop.house.db, shop.dana.token)
    assert bearer is not None
    template = await shop.house.template()
    sent = Submission(template_id=template.id, requested_duration_mins=60, justification="an incident")
    return await submission.submit(shop.house.db, bearer.person, sent, longest_mins=600)


async def _waits(shop: Shop, task: asyncio.Future[Any]) -> None:
    """Return once a statement waits for a lock."""
    waiting = (
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(60):
        while not await shop.count(waiting):
            assert not task.done()
            await asyncio.sleep(0.005)


class TestWhatIsIssuedDuringADeactivation:
    """The moment of the deactivation is past, and its transaction has not ended."""

    @pytest.mark.parametrize("issue", [_session, _api_token, _access_token, _request])
    async def test_waits_for_it_and_is_refused(self, shop: Shop, issue: Callable[[Shop], Awaitable[object]]) -> None:
        with psycopg.connect(shop.house.url) as deactivating:
            deactivating.execute(
                "UPDATE users SET active = false, deactivated_at = clock_timestamp() WHERE id = %s", [shop.dana.id]
            )
            issuing = asyncio.ensure_future(issue(shop))
            await _waits(shop, issuing)
            deactivating.commit()
        with pytest.raises((AccessError, access_tokens.SubjectEnded)):
            await issuing
        await _set(shop.house, shop.dana, active=True)
        dana = shop.dana.id
        assert await shop.count("SELECT count(*) AS n FROM web_sessions WHERE user_id = %s", dana) == 0
        assert await shop.count("SELECT count(*) AS n FROM access_tokens WHERE user_id = %s", dana) == 0
        assert await shop.count("SELECT count(*) AS n FROM api_tokens WHERE name = 'in between'") == 0
        assert await shop.count("SELECT count(*) AS n FROM access_requests WHERE requester_id = %s", dana) == 0

    async def test_a_deactivation_waits_for_a_submission_and_marks_it(self, shop: Shop) -> None:
        bearer = await tokens.authenticate(shop.house.db, shop.dana.token)
        template = await shop.house.template()
        assert bearer is not None
        with psycopg.connect(shop.house.url) as submitting:
            # Where a submission is before its last statements.
            submitting.execute("SELECT FROM users WHERE id = %s FOR SHARE", [shop.dana.id])
            ending = asyncio.create_task(_set(shop.house, shop.dana, active=False))
            await _waits(shop, ending)
            request_id = await shop.house.request(template, shop.dana)
            await shop.house.attended(request_id)
        await ending
        assert request_id in await shop.house.marked()
