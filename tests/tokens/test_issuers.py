"""Bearer tokens of OpenID Connect issuers: who is let in, and who is not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typer.testing import CliRunner

from api import issuers
from api.issuers import Issuers
from cli.dev.program import free_port
from cli.main import app as program
from db import identities
from settings import OidcIssuer, Settings
from tests.api.house import SECRET, House
from tests.api.problem import check_problem
from tests.scim.provider import Provider
from tests.tokens.issuer import AUDIENCE, DISCOVERY, KEYS, Issuer, serve_issuer
from tests.tokens.shop import ACCESS_TOKEN, JWT, Shop, check_oauth_error, encoded, signed, unsigned


@pytest.fixture
async def issuer(standing_shop: Shop) -> AsyncIterator[Issuer]:
    with serve_issuer() as served:
        # The port may have been another test's issuer.
        await standing_shop.execute("DELETE FROM user_identities")
        yield served


@pytest.fixture
async def trusting(standing_shop: Shop, issuer: Issuer) -> AsyncIterator[Shop]:
    """A shop that accepts tokens of `issuer`, to which Dana is `dana-1`."""
    async with _accepting(standing_shop.house, issuer):
        await identities.link(standing_shop.house.db, standing_shop.dana.email, issuer.url, "dana-1")
        yield standing_shop


def _accepting(house: House, issuer: Issuer, **values: Any) -> Issuers:
    accepted = OidcIssuer.model_validate({"issuer": issuer.url, "audience": AUDIENCE, **values})
    accepting = Issuers([accepted], leeway_secs=30)
    house.app.state.issuers = accepting
    return accepting


async def _me(shop: Shop, token: str) -> httpx.Response:
    return await shop.house.client.get("/api/v1/users/me", headers={"Authorization": f"Bearer {token}"})


async def _let_in(shop: Shop, token: str) -> bool:
    answer = await _me(shop, token)
    if answer.status_code == 200:
        return True
    check_problem(answer, 401, "unauthenticated")
    return False


class TestWhoIsLetIn:
    async def test_whom_the_issuer_vouches_for(self, trusting: Shop, issuer: Issuer) -> None:
        answer = await _me(trusting, issuer.token())
        assert answer.json()["email"] == trusting.dana.email
        rs256 = signed(issuer.rsa, {"kid": "two"}, issuer.claims(), "RS256")
        assert (await _me(trusting, rs256)).json()["id"] == str(trusting.dana.id)
        assert issuer.asked == [DISCOVERY, KEYS], "asked once for both"

    @pytest.mark.parametrize(
        "changed",
        [
            {"aud": ["another", AUDIENCE]},
            {"nbf": timedelta(seconds=20)},
            {"iat": timedelta(seconds=20)},
            {"exp": timedelta(seconds=-10)},
            {"iat": ...},
            {"email": "admin@example.com", "email_verified": True, "roles": ["admin"]},
        ],
        ids=str,
    )
    async def test_with_claims_within_the_rules(self, trusting: Shop, issuer: Issuer, changed: dict[str, Any]) -> None:
        assert (await _me(trusting, issuer.token(**changed))).json()["email"] == trusting.dana.email

    async def test_with_headers_that_nobody_reads(self, trusting: Shop, issuer: Issuer) -> None:
        elsewhere = "http://127.0.0.1:1/keys"
        for header in (
            {"typ": "at+jwt"},
            {"typ": ...},
            {"jku": elsewhere, "x5u": elsewhere},
            {"x5c": ["MIIB" * 500]},
            {"nonce": "of theirs"},
        ):
            assert await _let_in(trusting, issuer.token(header))
        assert all(path in {DISCOVERY, KEYS} for path in issuer.asked)

    async def test_may_exchange_the_token(self, trusting: Shop, issuer: Issuer) -> None:
        for kind in (ACCESS_TOKEN, JWT):
            token = await trusting.token(subject_token=issuer.token(), subject_token_type=kind)
            assert (await trusting.verified(token))["sub"] == str(trusting.dana.id)
        answer = await trusting.exchange(
            subject_token=issuer.token(), subject_token_type="urn:ietf:params:oauth:token-type:id_token"
        )
        check_oauth_error(answer, 400, "invalid_request")

    async def test_nobody_who_is_deactivated(self, shop: Shop, issuer: Issuer) -> None:
        await identities.link(shop.house.db, shop.dana.email, issuer.url, "dana-1")
        async with _accepting(shop.house, issuer, link_by_email=True):
            assert await _let_in(shop, issuer.token())
            await shop.execute("UPDATE users SET active = false WHERE id = %s", shop.dana.id)
            assert not await _let_in(shop, issuer.token())
            others: dict[str, Any] = {"email": shop.house.admin.email, "email_verified": True}
            assert not await _let_in(shop, issuer.token(**others)), "the subject is somebody, who is deactivated"

    async def test_nobody_without_an_account(self, trusting: Shop, issuer: Issuer) -> None:
        assert not await _let_in(trusting, issuer.token(sub="somebody else"))

    async def test_nobody_of_an_issuer_that_is_not_configured(self, shop: Shop, issuer: Issuer) -> None:
        assert not await _let_in(shop, issuer.token())
        assert issuer.asked == []


class TestForgeries:
    @pytest.mark.parametrize(
        "changed",
        [
            {"aud": "another"},
            {"aud": [AUDIENCE.upper()]},
            {"aud": []},
            {"aud": ...},
            {"aud": {"justiam": 1}},
            {"aud": [[AUDIENCE]]},
            {"iss": "https://evil.example.com"},
            {"iss": ...},
            {"iss": ["x"]},
            {"sub": ...},
            {"sub": ""},
            {"sub": None},
            {"sub": 1},
            {"sub": ["dana-1"]},
            {"sub": "dana-1\x00"},
            {"sub": "\ud800"},
            {"sub": "d" * 300},
            {"exp": ...},
            {"exp": 0},
            {"exp": timedelta(seconds=-31)},
            {"exp": "2999-01-01"},
            {"exp": True},
            {"exp": None},
            {"exp": float("nan")},
            {"exp": [10**12]},
            {"nbf": timedelta(seconds=120)},
            {"nbf": "soon"},
            {"iat": timedelta(seconds=120)},
            {"iat": "now"},
            {"cnf": {"jkt": "x"}},
        ],
        ids=str,
    )
    async def test_claims_that_do_not_count(self, trusting: Shop, issuer: Issuer, changed: dict[str, Any]) -> None:
        assert not await _let_in(trusting, issuer.token(**changed))

    async def test_signatures_and_headers_that_do_not_count(self, trusting: Shop, issuer: Issuer) -> None:
        claims, mine = issuer.claims(), ec.generate_private_key(ec.SECP256R1())
        good = issuer.token()
        head, body, signature = good.split(".")
        hs256 = f"{encoded({'alg': 'HS256', 'kid': 'two'})}.{encoded(claims)}"
        forged = [
            unsigned({"alg": "none", "kid": "one"}, claims),
            unsigned({"alg": "nOnE", "kid": "one"}, claims),
            unsigned({"alg": None, "kid": "one"}, claims),
            unsigned({"alg": {"a": 1}, "kid": "one"}, claims),
            unsigned({"kid": "one"}, claims),
            f"{hs256}.{encoded(hmac.digest(issuer.public_pem, hs256.encode(), hashlib.sha256))}",
            signed(mine, {"kid": "one"}, claims),
            signed(mine, {"kid": "one", "jwk": issuer.public(None, mine)}, claims),
            signed(mine, {"kid": "mine", "jku": issuer.url + "/mine"}, claims),
            signed(mine, {"kid": "../../keys"}, claims),
            signed(mine, {"kid": 1}, claims),
            signed(issuer.key, {"kid": "two"}, claims),
            signed(issuer.rsa, {"kid": "one"}, claims, "RS256"),
            signed(issuer.rsa, {"kid": "two"}, claims, "PS256"),
            signed(issuer.rsa, {"kid": "two"}, claims, "RS512"),
            issuer.token({"crit": ["exp"], "exp": 1}),
            issuer.token({"crit": []}),
            issuer.token({"crit": 5}),
            issuer.token({"b64": False, "crit": ["b64"]}),
            issuer.token({"typ": "logout+jwt"}),
            issuer.token({"typ": "dpop+jwt"}),
            issuer.token({"typ": "justiam-proof+jwt"}),
            issuer.token({"typ": 5}),
            f"{head}.{encoded({**claims, 'sub': 'admin'})}.{signature}",
            f"{head}.{body}.",
            f"{head}.{body}",
            f"{good}.{good}",
            f"{head}.{body}.{signature}==",
            "e30.e30.e30",
            "..",
            "A" * 60_000,
            "eyJ" + "A" * 70_000 + ".e30.e30",
            unsigned({"alg": "ES256", "kid": "one"}, b"[" * 30_000),
            unsigned({"alg": "ES256", "kid": "one"}, b'{"iss":' * 3_000),
            unsigned({"alg": "ES256", "kid": "one"}, b'{"iss": ' + b"9" * 8_000 + b"}"),
        ]
        assert await _let_in(trusting, good)
        issuer.documents["/mine"] = {"keys": [issuer.public("mine", mine)]}
        for number, forgery in enumerate(forged):
            assert not await _let_in(trusting, forgery), (number, forgery[:80])
        assert "/mine" not in issuer.asked

    async def test_another_issuer_does_not_sign_for_this_one(self, trusting: Shop, issuer: Issuer) -> None:
        with serve_issuer() as evil:
            evil.key = ec.generate_private_key(ec.SECP256R1())
            evil.documents[KEYS] = {"keys": [evil.public("one")]}
            accepted = [OidcIssuer(issuer=each.url, audience=AUDIENCE) for each in (issuer, evil)]
            async with Issuers(accepted, leeway_secs=0) as trusting.house.app.state.issuers:
                assert not await _let_in(trusting, evil.token(iss=issuer.url))
                assert not await _let_in(trusting, evil.token())
                assert await _let_in(trusting, issuer.token())

    async def test_only_what_an_issuer_is_configured_to_sign_with(self, trusting: Shop, issuer: Issuer) -> None:
        async with _accepting(trusting.house, issuer, algorithms=["PS256"]):
            assert not await _let_in(trusting, issuer.token())
            assert not await _let_in(trusting, signed(issuer.rsa, {"kid": "two"}, issuer.claims(), "RS256"))
            assert await _let_in(trusting, signed(issuer.rsa, {"kid": "two"}, issuer.claims(), "PS256"))


class TestTheKeysOfAnIssuer:
    async def test_are_asked_for_again_when_it_rotates(
        self, trusting: Shop, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(issuers, "ASKED_EVERY_SECS", 0.0)
        assert await _let_in(trusting, issuer.token())
        old, issuer.key = issuer.key, ec.generate_private_key(ec.SECP256R1())
        issuer.documents[KEYS] = {"keys": [issuer.public("new")]}
        assert await _let_in(trusting, issuer.token({"kid": "new"}))
        assert not await _let_in(trusting, signed(old, {"kid": "one"}, issuer.claims()))

    async def test_are_not_asked_for_by_every_garbage_kid(self, trusting: Shop, issuer: Issuer) -> None:
        answers = await asyncio.gather(
            *(_let_in(trusting, issuer.token({"kid": f"garbage {number}"})) for number in range(40))
        )
        assert not any(answers)
        assert len(issuer.asked) <= 2
        assert await _let_in(trusting, issuer.token())

    async def test_that_are_new_are_found_also_while_somebody_names_garbage(
        self, trusting: Shop, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert await _let_in(trusting, issuer.token())
        issuer.key = ec.generate_private_key(ec.SECP256R1())
        issuer.documents[KEYS] = {"keys": [issuer.public("new")]}
        # It was asked a moment ago, and nobody has it asked again, whatever they name.
        for kid in ("garbage", "new", "garbage", "new"):
            assert not await _let_in(trusting, issuer.token({"kid": kid}))
        assert issuer.asked == [DISCOVERY, KEYS]
        monkeypatch.setattr(issuers, "ASKED_EVERY_SECS", 0.0)
        assert await _let_in(trusting, issuer.token({"kid": "new"}))

    async def test_are_asked_for_again_for_a_token_that_names_none_when_its_signature_does_not_hold(
        self, trusting: Shop, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old, issuer.key = issuer.key, ec.generate_private_key(ec.SECP256R1())
        issuer.documents[KEYS] = {"keys": [issuer.public(None, old)]}
        nameless, forged = issuer.token({"kid": ...}), ec.generate_private_key(ec.SECP256R1())
        assert await _let_in(trusting, signed(old, {}, issuer.claims()))
        issuer.documents[KEYS] = {"keys": [issuer.public(None)]}
        forgeries = [signed(forged, {}, issuer.claims()) for _ in range(20)]
        assert not any(await asyncio.gather(*(_let_in(trusting, token) for token in [*forgeries, nameless])))
        assert issuer.asked == [DISCOVERY, KEYS], "forgeries do not have it asked all the time"
        monkeypatch.setattr(issuers, "ASKED_EVERY_SECS", 0.0)
        assert all(await asyncio.gather(*(_let_in(trusting, nameless) for _ in range(10))))
        assert issuer.asked == [DISCOVERY, KEYS] * 2
        assert not await _let_in(trusting, signed(old, {}, issuer.claims()))
        asked = len(issuer.asked)
        assert not await _let_in(trusting, signed(forged, {"kid": "one"}, issuer.claims()))
        assert not await _let_in(trusting, signed(forged, {}, issuer.claims()))
        assert len(issuer.asked) == asked + 4, "once for each"

    async def test_are_asked_for_once_by_many_at_once(self, trusting: Shop, issuer: Issuer) -> None:
        assert all(await asyncio.gather(*(_let_in(trusting, issuer.token()) for _ in range(20))))
        assert issuer.asked == [DISCOVERY, KEYS]

    async def test_are_kept_for_a_while_when_it_is_down_and_not_for_ever(
        self, trusting: Shop, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(issuers, "ASKED_EVERY_SECS", 0.0)
        assert await _let_in(trusting, issuer.token())
        issuer.down = True
        monkeypatch.setattr(issuers, "FRESH_SECS", 0.0)
        assert await _let_in(trusting, issuer.token())
        monkeypatch.setattr(issuers, "STALE_SECS", 0.0)
        problem = check_problem(await _me(trusting, issuer.token()), 503, "issuer_unavailable")
        assert issuer.url in problem["detail"]
        answer = await trusting.exchange(subject_token=issuer.token(), subject_token_type=JWT)
        check_oauth_error(answer, 503, "temporarily_unavailable")

    async def test_that_are_known_are_waited_for_by_one_caller_when_it_hangs(
        self, shop: Shop, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await identities.link(shop.house.db, shop.dana.email, issuer.url, "dana-1")
        # As long as each other, as they are.
        monkeypatch.setattr(issuers, "_TIMEOUT", httpx.Timeout(1.0))
        monkeypatch.setattr(issuers, "ASKED_EVERY_SECS", 1.0)
        async with _accepting(shop.house, issuer):
            assert await _let_in(shop, issuer.token())
            monkeypatch.setattr(issuers, "FRESH_SECS", 0.0)
            await asyncio.sleep(1.1)
            issuer.answers_after_secs = 3.0
            asked = len(issuer.asked)
            assert all(await asyncio.gather(*(_let_in(shop, issuer.token()) for _ in range(10))))
            for _ in range(5):
                check_problem(await _me(shop, issuer.token({"kid": "nobody's"})), 401, "unauthenticated")
            # Neither one after the other, nor again at once.
            assert len(issuer.asked) - asked <= 2

    async def test_are_dropped_when_it_withdraws_them(
        self, trusting: Shop, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(issuers, "ASKED_EVERY_SECS", 0.0)
        assert await _let_in(trusting, issuer.token())
        issuer.documents[KEYS] = {"keys": [issuer.public_rsa("two")]}
        monkeypatch.setattr(issuers, "FRESH_SECS", 0.0)
        assert not await _let_in(trusting, issuer.token())

    @pytest.mark.parametrize(
        ("path", "document"),
        [
            (DISCOVERY, b"<html>"),
            (DISCOVERY, []),
            (DISCOVERY, {}),
            (DISCOVERY, {"issuer": "https://evil.example.com", "jwks_uri": "http://127.0.0.1:1/"}),
            (DISCOVERY, b"[" * 100_000),
            (DISCOVERY, b" " * 600_000 + b"{}"),
            (KEYS, None),
            (KEYS, {"keys": None}),
            (KEYS, {"keys": "x"}),
            (KEYS, b"\xff"),
        ],
        ids=lambda value: repr(value)[:50],
    )
    async def test_that_make_no_sense_are_no_reason_to_let_anybody_in(
        self, trusting: Shop, issuer: Issuer, path: str, document: Any
    ) -> None:
        issuer.documents[path] = document
        check_problem(await _me(trusting, issuer.token()), 503, "issuer_unavailable")

    @pytest.mark.parametrize("uri", ["http://keys.example.com/", "file:///etc/passwd", "ftp://127.0.0.1/", 5, "x"])
    async def test_are_fetched_from_safe_places_only(self, trusting: Shop, issuer: Issuer, uri: Any) -> None:
        issuer.documents[DISCOVERY] = {"issuer": issuer.url, "jwks_uri": uri}
        check_problem(await _me(trusting, issuer.token()), 503, "issuer_unavailable")

    async def test_that_are_not_for_this_do_not_spoil_the_others(self, trusting: Shop, issuer: Issuer) -> None:
        weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - on purpose
        odd = [
            {"kty": "oct", "kid": "one", "k": "c2VjcmV0"},
            {"kty": "??", "kid": "one"},
            {"kty": "EC", "kid": "one", "crv": "P-256", "x": "AA", "y": "AA"},
            {"kty": "EC", "kid": "one"},
            "one",
            None,
            issuer.public("one", use="enc"),
            issuer.public("one", key_ops=["sign"]),
            issuer.public("one", alg="ES512"),
            {**_jwk(weak), "kid": "weak"},
        ]
        issuer.documents[KEYS] = {"keys": [*odd, issuer.public("one", use="sig", alg="ES256")]}
        assert await _let_in(trusting, issuer.token())
        assert not await _let_in(trusting, signed(weak, {"kid": "weak"}, issuer.claims(), "RS256"))

    async def test_a_single_one_that_fits_needs_no_name(self, trusting: Shop, issuer: Issuer) -> None:
        assert await _let_in(trusting, issuer.token({"kid": ...})), "the other is an RSA key"
        two = [issuer.public("one"), issuer.public("other", ec.generate_private_key(ec.SECP256R1()))]
        for keys, found in (([issuer.public(None)], True), (two, False)):
            issuer.documents[KEYS] = {"keys": keys}
            async with _accepting(trusting.house, issuer):
                assert await _let_in(trusting, issuer.token({"kid": ...})) is found
        issuer.documents[KEYS] = {"keys": [issuer.public(None)]}
        async with _accepting(trusting.house, issuer):
            assert not await _let_in(trusting, issuer.token({"kid": "one"}))


async def _linked(issuer: Issuer, shop: Shop) -> int:
    return await shop.count("SELECT count(*) AS n FROM user_identities WHERE issuer = %s", issuer.url)


class TestLinkingByEmail:
    async def test_links_a_verified_address_once(self, shop: Shop, issuer: Issuer) -> None:
        async with _accepting(shop.house, issuer, link_by_email=True):
            claims: dict[str, Any] = {"email": shop.dana.email.upper(), "email_verified": True}
            assert (await _me(shop, issuer.token(**claims))).json()["id"] == str(shop.dana.id)
            assert await _let_in(shop, issuer.token()), "from now on the subject is enough"
            assert not await _let_in(shop, issuer.token(sub="dana-2", **claims)), "the address went to somebody else"
            moved: dict[str, Any] = {"email": shop.house.admin.email, "email_verified": True}
            assert (await _me(shop, issuer.token(**moved))).json()["id"] == str(shop.dana.id)
        [identity] = await identities.list_identities(shop.house.db, shop.dana.email)
        assert (identity.issuer, identity.subject) == (issuer.url, "dana-1")

    async def test_links_whom_scim_made_and_whoever_comes_after_them(self, shop: Shop, issuer: Issuer) -> None:
        provider = await Provider.of(shop.house)
        made = await provider.make("scim.person", userName="scim@upn.test")
        claims: dict[str, Any] = {"email": "scim.person@example.com", "email_verified": True}
        async with _accepting(shop.house, issuer, link_by_email=True):
            assert (await _me(shop, issuer.token(sub="scim-1", **claims))).json()["id"] == made["id"]
            await provider.send("DELETE", f"/Users/{made['id']}")
            assert not await _let_in(shop, issuer.token(sub="scim-1", **claims))
            assert (await provider.make("scim.person", userName="scim@upn.test"))["id"] == made["id"]
            # Another person, at the issuer and here, with the address and the name of the first. Not in the same
            # minute: their token could be from before by the issuer's clock.
            ended = "UPDATE users SET deactivated_at = now() - interval '1 minute' WHERE id = %s"
            await shop.execute(ended, made["id"])
            assert (await _me(shop, issuer.token(sub="scim-2", **claims))).json()["id"] == made["id"]
            assert not await _let_in(shop, issuer.token(sub="scim-1"))

    async def test_links_nothing_else(self, shop: Shop, issuer: Issuer) -> None:
        refused: list[dict[str, Any]] = [
            {"email_verified": False},
            {"email_verified": "true"},
            {"email_verified": 1},
            {"email_verified": ...},
            {"email": [shop.dana.email]},
            {"email": shop.dana.email + "\x00"},
            {"email": "%@example.com"},
            {"email": ""},
        ]
        async with _accepting(shop.house, issuer, link_by_email=True):
            for claims in refused:
                sent: dict[str, Any] = {"email": shop.dana.email, "email_verified": True, **claims}
                assert not await _let_in(shop, issuer.token(**sent)), claims
        assert await _linked(issuer, shop) == 0

    async def test_tells_letters_apart_that_are_one_in_lower_case(self, shop: Shop, issuer: Issuer) -> None:
        kim, other = await shop.person("kim"), await shop.person("jürgen")
        async with _accepting(shop.house, issuer, link_by_email=True):
            for imposter in (kim.email.replace("k", "\N{KELVIN SIGN}"), kim.email.replace("i", "İ")):
                assert not await _let_in(shop, issuer.token(email=imposter, email_verified=True)), imposter
            assert await _linked(issuer, shop) == 0
            email = other.email.replace("j", "J").replace("example", "EXAMPLE")
            assert (await _me(shop, issuer.token(email=email, email_verified=True))).json()["id"] == str(other.id)

    async def test_is_for_issuers_that_are_trusted_with_it(self, shop: Shop, issuer: Issuer) -> None:
        async with _accepting(shop.house, issuer):
            assert not await _let_in(shop, issuer.token(email=shop.dana.email, email_verified=True))

    async def test_is_for_active_people(self, shop: Shop, issuer: Issuer) -> None:
        bot = await shop.person("bot", owner=shop.dana)
        erin = await shop.person("erin")
        await shop.execute("UPDATE users SET active = false WHERE id = %s", erin.id)
        async with _accepting(shop.house, issuer, link_by_email=True):
            for account in (bot, erin):
                assert not await _let_in(shop, issuer.token(email=account.email, email_verified=True))
        assert await _linked(issuer, shop) == 0

    async def test_by_many_calls_at_once_is_one(self, shop: Shop, issuer: Issuer) -> None:
        async with _accepting(shop.house, issuer, link_by_email=True):
            claims: dict[str, Any] = {"email": shop.dana.email, "email_verified": True}
            answers = await asyncio.gather(*(_let_in(shop, issuer.token(**claims)) for _ in range(10)))
        assert all(answers)
        assert await _linked(issuer, shop) == 1


class TestTheCommand:
    def test_links_lists_and_unlinks(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JUSTIAM_DATABASE_URL", shop.house.url)
        monkeypatch.setenv("JUSTIAM_SECRET_KEY", SECRET)

        def justiam(*arguments: str) -> str:
            result = CliRunner().invoke(program, ["identity", *arguments])
            return result.output if result.exit_code == 0 else f"{result.exit_code}: {result.output}"

        issuer = "https://login.example.com/"
        assert justiam("link", shop.dana.email, issuer, "d1") == f"Linked d1 of {issuer} to {shop.dana.email}\n"
        assert justiam("link", shop.dana.email, issuer, "d2").startswith("1: in_use")
        assert justiam("link", shop.house.admin.email, issuer, "d1").startswith("1: in_use")
        assert justiam("link", "nobody@example.com", issuer, "d3").startswith("1: not_found")
        assert justiam("list", shop.dana.email).startswith(f"{issuer}  d1  since ")
        assert '"subject":"d1"' in justiam("list", shop.dana.email, "--json")
        assert justiam("unlink", issuer, "d1") == f"Unlinked d1 of {issuer}\n"
        assert justiam("unlink", issuer, "d1").startswith("1: not_found")
        assert justiam("list", shop.dana.email) == ""


class TestSettings:
    @pytest.mark.parametrize(
        ("issuers", "problem"),
        [
            ("[{", "must be a JSON list"),
            ('{"issuer": "x"}', "valid tuple"),
            ([{"issuer": "http://login.example.com", "audience": "x"}], "https"),
            ([{"issuer": "https://login.example.com?x", "audience": "x"}], "without a query"),
            ([{"issuer": "https://u:p@login.example.com", "audience": "x"}], "without a query"),
            ([{"issuer": "login", "audience": "x"}], "must be a URL"),
            ([{"issuer": "https://login.example.com"}], "Field required"),
            ([{"issuer": "https://login.example.com", "audience": ""}], "at least 1"),
            ([{"issuer": "https://login.example.com", "audience": "x", "algorithms": ["HS256"]}], "RS256"),
            ([{"issuer": "https://login.example.com", "audience": "x", "algorithms": ["none"]}], "RS256"),
            ([{"issuer": "https://login.example.com", "audience": "x", "algorithms": []}], "at least 1"),
            ([{"issuer": "https://login.example.com", "audience": "x", "trust": True}], "Extra inputs"),
            ([{"issuer": "https://login.example.com", "audience": "x"}] * 2, "twice"),
            ([{"issuer": "https://access.example.com/", "audience": "x"}], "itself"),
        ],
    )
    def test_that_would_let_others_in_are_refused(self, issuers: Any, problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            Settings.model_validate(
                {
                    "database_url": "postgresql://nowhere/justiam",
                    "secret_key": SECRET,
                    "public_url": "https://access.example.com",
                    "oidc_issuers": issuers,
                }
            )


@contextmanager
def _running(port: int) -> Iterator[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(url + DISCOVERY, trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, "the provider ended"
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """An OpenID provider that nobody here wrote, in a process of its own."""
    with _running(free_port()) as url:
        yield url


async def _sign_in(provider: str, subject: str, client_id: str = AUDIENCE, **claims: Any) -> str:
    """The ID token of somebody who signs in, as a browser and a client do it."""
    back = "http://127.0.0.1/back"
    async with httpx.AsyncClient(base_url=provider, trust_env=False) as browser:
        await browser.put(f"/users/{subject}", json=claims)
        scope = "openid email profile"
        asked = {"client_id": client_id, "redirect_uri": back, "response_type": "code", "scope": scope}
        sent_back = await browser.post("/oauth2/authorize", params=asked, data={"sub": subject})
        assert sent_back.status_code == 302, sent_back.text
        [code] = parse_qs(urlsplit(sent_back.headers["location"]).query)["code"]
        fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": back}
        answer = await browser.post("/oauth2/token", data=fields, auth=(client_id, "any"))
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["id_token"]
    return token


class TestAProviderOfOthers:
    async def test_signs_people_in(self, shop: Shop, provider: str) -> None:
        accepted = OidcIssuer(issuer=provider, audience=AUDIENCE, link_by_email=True)
        async with Issuers([accepted], leeway_secs=30) as shop.house.app.state.issuers:
            token = await _sign_in(provider, "dana-7", email=shop.dana.email, email_verified=True)
            assert (await _me(shop, token)).json()["id"] == str(shop.dana.id)
            issued = await shop.token(subject_token=token, subject_token_type=JWT)
            assert (await shop.verified(issued))["roles"] == ["db_readonly"]
            assert not await _let_in(shop, await _sign_in(provider, "dana-7", "another-client"))
            assert not await _let_in(shop, await _sign_in(provider, "stranger", email="stranger@example.com"))
            assert not await _let_in(shop, token[:-4] + "AAAA")
            header = jwt.get_unverified_header(token)
            assert not await _let_in(shop, unsigned({**header, "alg": "none"}, {"iss": provider, "sub": "dana-7"}))

    async def test_makes_accounts_and_fills_groups(self, shop: Shop, provider: str) -> None:
        accepted = OidcIssuer(
            issuer=provider,
            audience=AUDIENCE,
            create_users=True,
            email_domains=("new.example",),
            groups_claim="roles",
            groups={"dba": shop.team.name},
        )
        async with Issuers([accepted], leeway_secs=30) as shop.house.app.state.issuers:
            said: dict[str, Any] = {"email": "erin@new.example", "email_verified": True, "name": "Erin Vogt"}
            token = await _sign_in(provider, "erin-7", **said, roles=["dba", "others"])
            seen = (await _me(shop, token)).json()
            assert (seen["email"], seen["name"], seen["permissions"]) == ("erin@new.example", "Erin Vogt", [])
            assert [group["name"] for group in seen["groups"]] == [shop.team.name]
            issued = await shop.token(subject_token=token, subject_token_type=JWT)
            assert (await shop.verified(issued))["roles"] == ["db_readonly"]
            for refused in ({"email_verified": False}, {"email": "erin@elsewhere.example"}):
                assert not await _let_in(shop, await _sign_in(provider, "frank-7", **{**said, **refused}))

    async def test_may_change_its_key(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(issuers, "ASKED_EVERY_SECS", 0.0)
        port = free_port()
        with _running(port) as url:
            await identities.link(shop.house.db, shop.dana.email, url, "dana-8")
            accepted = OidcIssuer(issuer=url, audience=AUDIENCE)
            trusted = Issuers([accepted], leeway_secs=30)
            await trusted.__aenter__()
            shop.house.app.state.issuers = trusted
            before = await _sign_in(url, "dana-8")
            assert await _let_in(shop, before)
        try:
            # It makes its key when it starts.
            with _running(port):
                after = await _sign_in(url, "dana-8")
                assert "kid" not in jwt.get_unverified_header(after), "so nothing but the signature tells"
                assert await _let_in(shop, after)
                assert not await _let_in(shop, before)
        finally:
            await trusted.__aexit__()


def _jwk(key: rsa.RSAPrivateKey) -> dict[str, Any]:
    jwk: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    return jwk


class TestSignIns:
    async def test_that_an_issuer_leaves_unanswered_are_few_and_keep_nobody_from_its_keys(self, issuer: Issuer) -> None:
        """Anybody may bring codes that are none: a callback costs them a call."""
        held: list[asyncio.StreamWriter] = []

        async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            held.append(writer)

        async with await asyncio.start_server(hold, "127.0.0.1", 0) as silent:
            port = silent.sockets[0].getsockname()[1]
            issuer.documents[DISCOVERY]["token_endpoint"] = f"http://127.0.0.1:{port}/token"
            configured = OidcIssuer(issuer=issuer.url, audience=AUDIENCE)
            async with Issuers([configured], leeway_secs=0) as trusted:
                await trusted.endpoint(issuer.url, "token_endpoint")
                codes = [asyncio.create_task(trusted.redeem(issuer.url, {"code": "x"}, None)) for _ in range(150)]
                async with asyncio.timeout(60):
                    while len(held) < 20:
                        await asyncio.sleep(0.01)
                # As when what is known of them has grown too old.
                trusted._issuers[issuer.url]._known_at = trusted._issuers[issuer.url]._asked_at = None
                assert (await trusted.verify(issuer.token())).subject == "dana-1"
                assert len(held) == 20
                for code in codes:
                    code.cancel()
                await asyncio.gather(*codes, return_exceptions=True)
            for writer in held:
                writer.transport.abort()
