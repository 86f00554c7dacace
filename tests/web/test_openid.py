"""Signing in to the pages with OpenID Connect: at a provider that nobody here wrote, and at one that cheats."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
from starlette.responses import Response

from api.issuers import Issuers
from db import identities
from settings import OidcIssuer, Settings, describe_settings
from tests.api.house import House, Somebody
from tests.cli.authority import Authority, serve_authority
from tests.cli.test_sign_in import provider  # noqa: F401 - a fixture
from tests.conftest import Databases
from tests.tokens.issuer import DISCOVERY
from tests.web.conftest import ORIGIN, Visitor, open_pages, shown
from web.app import create_app

CLIENT = "justiam-web"


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with serve_authority() as authority:
        yield authority


@dataclass(frozen=True)
class _Front:
    """The pages with two issuers, and somebody who is known to both."""

    house: House
    alice: Somebody
    provider: str
    authority: Authority

    def stranger(self) -> Visitor:
        """A browser in which nobody is signed in."""
        return Visitor(self.house, "")


@pytest.fixture(scope="module")
async def standing_front(
    new_database: Databases,
    provider: str,  # noqa: F811 - a fixture
    authority: Authority,
) -> AsyncIterator[_Front]:
    issuers = (
        OidcIssuer(issuer=provider, audience="api", web_client_id=CLIENT, link_by_email=True),
        OidcIssuer(issuer=authority.url, audience="api", web_client_id=CLIENT),
        OidcIssuer(issuer="https://api-only.example", audience="api"),
    )
    with new_database() as url:
        async with open_pages(url, oidc_issuers=issuers) as house, Issuers(issuers, leeway_secs=5) as trusted:
            house.app.state.issuers = trusted
            alice = await house.person("alice")
            await identities.link(house.db, alice.email, provider, alice.email)
            yield _Front(house, alice, provider, authority)


@pytest.fixture
async def front(standing_front: _Front) -> _Front:
    """With the authority as new, and alice known there by its subject."""
    standing_front.authority.reset()
    forget(standing_front)
    async with standing_front.house.db.connection() as connection:
        await connection.execute("DELETE FROM user_identities WHERE issuer = %s", [standing_front.authority.url])
    await identities.link(
        standing_front.house.db,
        standing_front.alice.email,
        standing_front.authority.url,
        standing_front.authority.subject,
    )
    return standing_front


def forget(front: _Front) -> None:
    """Have the authority asked again for what it says about itself."""
    known = front.house.app.state.issuers._issuers[front.authority.url]
    known._known_at = known._asked_at = None


async def begun(browser: Visitor, number: int, target: str = "/requests") -> str:
    """Where somebody is led who chooses an issuer."""
    answer = await browser.get(f"/sign-in/with/{number}?next={target}")
    assert answer.status_code == 303, shown(answer)
    return answer.headers["location"]


async def answered(where: str) -> str:
    """What the authority sends the browser back with, as a path of ours."""
    async with httpx.AsyncClient(trust_env=False) as client:
        back = (await client.get(where)).headers["location"]
    assert back.startswith(f"{ORIGIN}/sign-in/callback?")
    return back.removeprefix(ORIGIN)


async def test_somebody_signs_in_at_a_provider_of_others_and_out_again(front: _Front) -> None:
    browser = front.stranger()
    page = await browser.get("/sign-in?next=/requests")
    assert page.text.count("Continue with") == 2
    where = await begun(browser, 0)
    asked = parse_qs(urlsplit(where).query)
    assert where.startswith(f"{front.provider}/oauth2/authorize?")
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [f"{ORIGIN}/sign-in/callback"]
    assert len({*asked["state"], *asked["nonce"], *asked["code_challenge"]}) == 3
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(where)
        back = (await client.post(where, data={"sub": front.alice.email})).headers["location"]
    answer = await browser.get(back.removeprefix(ORIGIN))
    assert (answer.status_code, answer.headers["location"]) == (303, "/requests"), shown(answer)
    assert "My requests" in shown(await browser.get("/requests"))
    # The same answer is good for nothing a second time.
    assert (await browser.get(back.removeprefix(ORIGIN))).status_code == 401


async def test_signing_out_ends_the_session_here_and_leads_to_the_issuer(front: _Front) -> None:
    front.authority.documents[DISCOVERY] |= {"end_session_endpoint": f"{front.authority.url}/end?a=1"}
    forget(front)
    browser = front.stranger()
    answer = await browser.get(await answered(await begun(browser, 1)))
    assert answer.status_code == 303, shown(answer)
    jar = front.house.app.state.cookies
    session = jar.session(browser.cookies)
    assert session is not None
    held = dict(browser.cookies)
    goodbye = await replace(browser, session=session).post("/sign-out")
    assert goodbye.status_code == 200
    assert f'content="0; url={front.authority.url}/end?a=1&amp;client_id={CLIENT}&amp;post_logout' in goodbye.text
    assert (await Visitor(front.house, session, held).get("/requests")).status_code == 303


async def test_a_sign_in_that_began_before_a_deactivation_signs_nobody_in(front: _Front) -> None:
    browser = front.stranger()
    where = await begun(browser, 1)
    for active in (False, True):
        sent = {"email": front.alice.email, "name": "Alice", "active": active}
        path = f"/users/{front.alice.id}"
        assert (await front.house.call("PUT", path, front.house.admin, json=sent)).status_code == 200
    # The ID token is made now.
    await refused(front, browser, await answered(where), 403, "no active account here")
    answer = await browser.get(await answered(await begun(browser, 1)))
    assert answer.status_code == 303, shown(answer)


async def refused(front: _Front, browser: Visitor, path: str, status: int, says: str) -> None:
    answer = await browser.get(path)
    assert answer.status_code == status, shown(answer)
    assert says in shown(answer)
    assert front.house.app.state.cookies.session(browser.cookies) is None


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"nonce": "another"}, "answers another question"),
        ({"nonce": ...}, "answers another question"),
        ({"aud": "api"}, "does not count"),
        ({"aud": [CLIENT, "other"], "azp": "other"}, "for another client"),
        ({"exp": 1}, "does not count"),
        ({"iss": "https://evil.example"}, "not accepted here"),
        ({"sub": ""}, "does not count"),
    ],
)
async def test_an_id_token_that_answers_something_else_signs_nobody_in(
    front: _Front, claims: dict[str, Any], says: str
) -> None:
    front.authority.id_claims = claims
    browser = front.stranger()
    await refused(front, browser, await answered(await begun(browser, 1)), 401, says)


async def test_an_answer_counts_only_in_the_browser_that_asked(front: _Front) -> None:
    attacker, victim = front.stranger(), front.stranger()
    theirs = await answered(await begun(attacker, 1))
    # Nobody is signed in to an account that somebody else chose for them.
    await refused(front, victim, theirs, 401, "begun in another browser")
    await begun(victim, 1)
    await refused(front, victim, theirs, 401, "begun in another browser")
    await refused(front, front.stranger(), "/sign-in/callback", 401, "begun in another browser")


async def test_an_answer_of_another_issuer_than_was_asked_does_not_count(front: _Front) -> None:
    browser = front.stranger()
    path = await answered(await begun(browser, 1))
    await refused(front, browser, f"{path}&iss=https://evil.example", 401, "another issuer")


async def test_an_issuer_that_says_who_it_is_says_so_each_time(front: _Front) -> None:
    front.authority.documents[DISCOVERY] |= {"authorization_response_iss_parameter_supported": True}
    forget(front)
    browser = front.stranger()
    path = await answered(await begun(browser, 1))
    await refused(front, browser, path, 401, "another issuer")
    assert (await browser.get(f"{path}&iss={front.authority.url}")).status_code == 303


async def test_an_answer_without_a_code_is_not_passed_on(front: _Front) -> None:
    browser = front.stranger()
    front.authority.sent_back = {"code": ...}
    await refused(front, browser, await answered(await begun(browser, 1)), 401, "without an answer")
    assert not front.authority.redeemed


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/token", "https://[::1/token", "https://a\0b/token"])
async def test_an_issuer_with_an_impossible_address_is_unavailable(front: _Front, url: str) -> None:
    front.authority.documents[DISCOVERY] |= {"token_endpoint": url}
    forget(front)
    browser = front.stranger()
    await refused(front, browser, await answered(await begun(browser, 1)), 503, "does not")


async def test_an_issuer_that_never_ends_its_answer_is_unavailable(
    front: _Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _each in range(100):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()

    monkeypatch.setattr("api.issuers._LONGEST_ANSWER_SECS", 0.5)
    async with await asyncio.start_server(drip, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        front.authority.documents[DISCOVERY] |= {"token_endpoint": f"http://127.0.0.1:{port}/token"}
        forget(front)
        browser = front.stranger()
        path = await answered(await begun(browser, 1))
        await asyncio.wait_for(refused(front, browser, path, 503, "does not answer"), 3)


async def test_a_note_counts_under_its_own_name_alone(front: _Front) -> None:
    jar = front.house.app.state.cookies
    asking, other = front.stranger(), front.stranger()
    await begun(asking, 1)
    (note,) = asking.cookies.values()
    other.cookies["justiam_flash"] = note
    assert (await other.get("/sign-in")).status_code == 200
    flash = jar.flash(Response(), "said").headers["set-cookie"].split("=", 1)[1].split(";")[0]
    other.cookies["justiam_signing_in"] = flash
    await refused(front, other, "/sign-in/callback?state=x", 401, "begun in another browser")


async def test_who_declines_or_is_refused_is_told(front: _Front) -> None:
    browser = front.stranger()
    for error, says in (("access_denied", "You declined to sign in."), ("server_error", "refused the sign-in")):
        front.authority.sent_back = {"code": ..., "error": error, "error_description": "<b>"}
        await refused(front, browser, await answered(await begun(browser, 1)), 401, says)


async def test_a_code_that_is_none_is_refused(front: _Front) -> None:
    browser = front.stranger()
    front.authority.sent_back = {"code": "made-up"}
    await refused(front, browser, await answered(await begun(browser, 1)), 401, "does not confirm the sign-in")


async def test_who_has_no_account_is_told_as_whom_they_are_known(front: _Front) -> None:
    browser = front.stranger()
    front.authority.subject = uuid4().hex
    front.authority.id_claims = {"email": "mallory@example.com", "email_verified": True}
    says = "as mallory@example.com, and no active account here is linked to that"
    await refused(front, browser, await answered(await begun(browser, 1)), 403, says)


async def test_who_is_deactivated_stays_out(front: _Front) -> None:
    gone = await front.house.person(f"gone-{uuid4()}")
    front.authority.subject = uuid4().hex
    await identities.link(front.house.db, gone.email, front.authority.url, front.authority.subject)
    async with front.house.db.connection() as connection:
        await connection.execute("UPDATE users SET active = false WHERE id = %s", [gone.id])
    browser = front.stranger()
    await refused(front, browser, await answered(await begun(browser, 1)), 403, "no active account")


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example/", "/%5Cevil.example", "javascript:alert(1)"]
)
async def test_nobody_is_led_elsewhere_after_signing_in(front: _Front, target: str) -> None:
    browser = front.stranger()
    answer = await browser.get(await answered(await begun(browser, 1, target)))
    assert answer.headers["location"] == "/"


async def test_each_sign_in_begins_a_session_of_its_own(front: _Front) -> None:
    browser = front.stranger()
    browser.cookies["justiam_session"] = "chosen-by-somebody-else"
    sessions = set()
    former: dict[str, str] = {}
    for _ in range(2):
        former = dict(browser.cookies)
        assert (await browser.get(await answered(await begun(browser, 1)))).status_code == 303
        sessions.add(front.house.app.state.cookies.session(browser.cookies))
    assert len(sessions) == 2
    assert None not in sessions
    # The one before is over: nobody could sign out of it any more.
    assert (await Visitor(front.house, "", former).get("/requests")).status_code == 303


async def test_an_issuer_that_is_not_for_the_pages_is_not_offered(front: _Front) -> None:
    for number, status in ((2, 404), (99, 404), (100, 404)):
        assert (await front.stranger().get(f"/sign-in/with/{number}")).status_code == status


async def test_over_https_cookies_stay_there(new_database: Databases) -> None:
    with new_database() as url:
        async with open_pages(url, public_url="https://access.example") as house:
            answer = house.app.state.pages.back("/")
            house.app.state.cookies.start_session(answer, "token", 60)
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-justiam_session=token.")
            for flag in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
                assert flag in cookie
            assert "Domain" not in cookie
            page = await house.client.get("/sign-in")
            assert "max-age=31536000" in page.headers["strict-transport-security"]


async def test_a_confidential_client_authenticates_itself(front: _Front) -> None:
    secret = {"web_client_secret": "s3cret/&=é"}
    issuer = OidcIssuer.model_validate(
        {"issuer": front.authority.url, "audience": "api", "web_client_id": CLIENT, **secret}
    )
    app = create_app(front.house.app.state.settings.model_copy(update={"oidc_issuers": (issuer,)}))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as browser:
            where = (await browser.get("/sign-in/with/0")).headers["location"]
            seen: list[httpx.Request] = []
            trusted = app.state.issuers._issuers[front.authority.url]
            trusted._sign_ins.event_hooks["request"].append(lambda request: _note(seen, request))
            await browser.get(await answered(where))
    (redeemed,) = [request for request in seen if request.method == "POST"]
    assert redeemed.headers["authorization"].startswith("Basic ")
    assert b"s3cret" not in redeemed.content


async def _note(seen: list[httpx.Request], request: httpx.Request) -> None:
    seen.append(request)


@pytest.mark.parametrize("given", [{"web_client_secret": "s3cret"}, {"web_client_id": "w", "web_client_secret": ""}])
def test_a_client_secret_is_of_a_client(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="web_client_secret"):
        OidcIssuer.model_validate({"issuer": "https://login.example", "audience": "a", **given})


def test_a_client_secret_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = {"issuer": "https://login.example", "audience": "a", "web_client_id": "w", "web_client_secret": "s3cret"}
    monkeypatch.setenv("JUSTIAM_OIDC_ISSUERS", json.dumps([issuer]))
    (told,) = [each.value for each in describe_settings() if each.variable == "JUSTIAM_OIDC_ISSUERS"]
    assert told is not None
    assert "https://login.example" in told
    assert "s3cret" not in told
    monkeypatch.setenv("JUSTIAM_OIDC_ISSUERS", '[{"web_client_secret": "s3cret"')
    assert "s3cret" not in str(describe_settings())
    assert "s3cret" not in repr(OidcIssuer.model_validate(issuer))


async def test_in_development_a_site_that_names_this_machine_signs_nobody_in(new_database: Databases) -> None:
    """DNS rebinding: its own name leads to 127.0.0.1, and its page comes from where it sends its forms."""
    with new_database() as url:
        async with open_pages(url, public_url=None, dev_sign_in=True) as house:
            sent = {"user_id": str(house.admin.id)}
            for name, status in (("evil.example:8000", 403), ("127.0.0.1:8000", 303)):
                headers = {"Host": name, "Origin": f"http://{name}"}
                answer = await house.client.post("/sign-in/as", data=sent, headers=headers)
                assert answer.status_code == status, name
                assert ("set-cookie" in answer.headers) is (status == 303)


async def test_in_development_the_people_of_the_demo_come_first_and_others_are_found(new_database: Databases) -> None:
    with new_database() as url:
        async with open_pages(url, dev_sign_in=True) as house:
            for who in ("found-one", "bob", "alice"):
                await house.person(who)
            async with house.db.connection() as connection:
                await connection.execute(
                    "INSERT INTO users SELECT (jsonb_populate_record(old, jsonb_build_object('id', gen_random_uuid(),"
                    " 'email', 'new-' || n || '-bob@example.com', 'name', 'A' || n, 'created_at', now()))).*"
                    " FROM users old, generate_series(1, 60) n WHERE old.email = 'bob@example.com'"
                )
            said = shown(await Visitor(house, "").get("/sign-in"))
            assert said.index("alice@example.com") < said.index("bob@example.com") < said.index("-bob@example.com")
            assert "found-one@example.com" not in said
            page = await Visitor(house, "").get("/sign-in?q=FOUND-&next=/history")
            assert "found-one@example.com" in shown(page)
            assert "alice@example.com" not in shown(page)
            assert 'value="/history"' in page.text
            assert "No active person has such an address." in shown(await Visitor(house, "").get("/sign-in?q=nobody"))


@pytest.mark.parametrize("elsewhere", [{"api_host": "192.0.2.1"}, {"public_url": "https://access.example"}])
def test_the_sign_in_of_development_is_refused_off_this_machine(elsewhere: dict[str, str]) -> None:
    given = {"database_url": "postgresql://x/y", "secret_key": "k" * 40, "dev_sign_in": True}
    assert Settings.model_validate(given).dev_sign_in
    with pytest.raises(ValueError, match="JUSTIAM_DEV_SIGN_IN"):
        Settings.model_validate({**given, **elsewhere})
