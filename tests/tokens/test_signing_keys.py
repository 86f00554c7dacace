"""Signing keys: encrypted, published before they sign, kept until their last token has expired, rotated at run time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from api.app import create_app
from api.signing import KeyRing
from cli.main import app
from db import signing_keys
from db.database import Database
from db.signing_keys import KeyUnreadable, SigningKeyView, Vault
from domain.access_tokens import Algorithm, SigningKey
from tests.api.house import SECRET, open_house, settings
from tests.conftest import Databases
from tests.tokens.shop import ISSUER, Shop, check_oauth_error, open_shop, parts

VAULT = Vault(SECRET)


async def _published(shop: Shop) -> list[dict[str, Any]]:
    answer = await shop.house.client.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=300"
    keys: list[dict[str, Any]] = answer.json()["keys"]
    return keys


async def _kids(shop: Shop) -> set[str]:
    # As another process sees it, that has not looked before.
    shop.house.app.state.signing_keys = KeyRing(shop.house.db, VAULT)
    return {key["kid"] for key in await _published(shop)}


async def _signer(shop: Shop) -> str:
    return str(parts(await shop.token())[0]["kid"])


async def _later(shop: Shop, by: timedelta) -> None:
    await shop.execute("UPDATE signing_keys SET signs_from = signs_from - %s, created_at = created_at - %s", by, by)


class TestTheKeySet:
    async def test_has_public_keys_alone(self, lone_shop: Shop) -> None:
        [key] = await _published(lone_shop)
        assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
        assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("EC", "P-256", "ES256", "sig")
        await signing_keys.rotate(lone_shop.house.db, VAULT, Algorithm.RS256)
        assert len(await _kids(lone_shop)) == 2
        assert not {"d", "p", "q", "dp", "dq", "qi", "k", "oth"} & {
            name for key in await _published(lone_shop) for name in key
        }

    async def test_and_metadata_need_no_token(self, standing_shop: Shop) -> None:
        answer = await standing_shop.house.client.get(
            "/.well-known/oauth-authorization-server", headers={"Host": "evil.example.com"}
        )
        about = answer.json()
        assert about["issuer"] == ISSUER
        assert about["token_endpoint"] == f"{ISSUER}/oauth2/token"
        assert "evil" not in answer.text
        for name in ("jwks_uri", "introspection_endpoint", "revocation_endpoint", "token_endpoint"):
            path = about[name].removeprefix(ISSUER)
            assert (await standing_shop.house.client.get(path)).status_code in {200, 405}

    async def test_is_made_once_by_many_who_ask_first(self, lone_shop: Shop) -> None:
        rings = [KeyRing(lone_shop.house.db, Vault(SECRET)) for _ in range(8)]
        seen = await asyncio.gather(*(ring.published() for ring in rings))
        assert len({json.dumps(keys) for keys in seen}) == 1
        assert await lone_shop.count("SELECT count(*) AS n FROM signing_keys") == 1


class TestRotation:
    async def test_publishes_a_key_before_it_signs_and_after(self, lone_shop: Shop) -> None:
        old = await _signer(lone_shop)
        token = await lone_shop.token()
        new = await signing_keys.rotate(lone_shop.house.db, VAULT, Algorithm.ES256)
        assert await _kids(lone_shop) == {old, new}
        assert await _signer(lone_shop) == old
        await _later(lone_shop, signing_keys.PUBLISHED_AHEAD)
        assert await _signer(lone_shop) == new
        assert await lone_shop.active(token), "what the old key signed still counts"
        await lone_shop.verified(token)
        await _later(lone_shop, timedelta(minutes=59))
        assert await _kids(lone_shop) == {old, new}
        await _later(lone_shop, timedelta(minutes=2))
        assert await _kids(lone_shop) == {new}
        assert not await lone_shop.active(token)
        await signing_keys.rotate(lone_shop.house.db, VAULT, Algorithm.ES256)
        assert old not in {key.kid for key in await signing_keys.list_keys(lone_shop.house.db)}

    async def test_reaches_processes_that_run(self, lone_shop: Shop) -> None:
        old = await _signer(lone_shop)
        for algorithm in (Algorithm.RS256, Algorithm.ES256):
            new = await signing_keys.rotate(lone_shop.house.db, VAULT, algorithm, now=True)
            token = await lone_shop.token()
            assert parts(token)[0] == {"alg": algorithm, "typ": "at+jwt", "kid": new}
            await lone_shop.verified(token)
            assert await lone_shop.active(token)
        assert old in {key["kid"] for key in await _published(lone_shop)}

    async def test_after_a_leak_voids_everything_at_once(self, lone_shop: Shop) -> None:
        token = await lone_shop.token()
        new = await signing_keys.rotate(lone_shop.house.db, VAULT, Algorithm.ES256, compromised=True)
        assert not await lone_shop.active(token)
        assert await _signer(lone_shop) == new
        assert await _kids(lone_shop) == {new}

    async def test_by_many_at_once_leaves_one_that_signs(self, lone_shop: Shop) -> None:
        await asyncio.gather(
            *(signing_keys.rotate(lone_shop.house.db, VAULT, Algorithm.ES256, now=True) for _ in range(6)),
            *(lone_shop.token() for _ in range(6)),
        )
        keys = await signing_keys.list_keys(lone_shop.house.db)
        assert [key.kid for key in keys if key.signs] == [await _signer(lone_shop)]

    async def test_an_unknown_key_is_looked_for_once_a_second_at_most(
        self, lone_shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ring = KeyRing(lone_shop.house.db, VAULT)
        await ring.published()
        reads = 0
        published = signing_keys.published

        async def counting(db: Database) -> Any:
            nonlocal reads
            reads += 1
            return await published(db)

        monkeypatch.setattr("db.signing_keys.published", counting)
        for number in range(50):
            await ring.verifying(f"garbage {number}")
        assert reads <= 1


class TestAtRest:
    async def test_the_private_half_is_nowhere_in_clear(self, lone_shop: Shop) -> None:
        key = await lone_shop.house.app.state.signing_keys.signing(await _signer(lone_shop))
        private = key.key.as_dict(private=True)["d"]
        async with lone_shop.house.db.connection() as connection:
            rows = await connection.execute("SELECT s::text AS row, s.private_key FROM signing_keys s")
            stored = await rows.fetchall()
        assert private not in str(stored)
        assert private.encode() not in stored[0]["private_key"]

    def test_a_key_opens_with_its_secret_name_and_algorithm_only(self) -> None:
        key = SigningKey.generate(Algorithm.ES256)
        sealed = VAULT.seal(key)
        assert VAULT.open(key.kid, key.algorithm, sealed).key.as_dict(private=True) == key.key.as_dict(private=True)
        for vault, kid, algorithm, changed in (
            (Vault(SECRET + "x"), key.kid, key.algorithm, sealed),
            (VAULT, "another", key.algorithm, sealed),
            (VAULT, key.kid, Algorithm.RS256, sealed),
            (VAULT, key.kid, key.algorithm, sealed[:-1] + bytes([sealed[-1] ^ 1])),
            (VAULT, key.kid, key.algorithm, b""),
            (VAULT, key.kid, key.algorithm, sealed[:12]),
        ):
            with pytest.raises(KeyUnreadable):
                vault.open(kid, algorithm, changed)

    def test_no_two_sealings_are_alike(self) -> None:
        key = SigningKey.generate(Algorithm.ES256)
        assert VAULT.seal(key) != VAULT.seal(key)

    async def test_another_secret_key_stops_signing_until_a_key_is_made_with_it(self, lone_shop: Shop) -> None:
        token = await lone_shop.token()
        vault = Vault("another secret that is long enough for a test")
        lone_shop.house.app.state.signing_keys = KeyRing(lone_shop.house.db, vault)
        check_oauth_error(await lone_shop.exchange(), 503, "temporarily_unavailable")
        assert await lone_shop.active(token), "what was signed before is verified with the public half"
        await signing_keys.rotate(lone_shop.house.db, vault, Algorithm.ES256, now=True)
        assert await lone_shop.active(await lone_shop.token())


class TestTheIssuer:
    async def test_is_the_public_url(self, new_database: Databases) -> None:
        with new_database() as url:
            application = create_app(_settings(url, public_url="https://access.example.com"))
            async with application.router.lifespan_context(application):
                transport = httpx.ASGITransport(application)
                async with httpx.AsyncClient(transport=transport, base_url="http://evil.example.com") as client:
                    about = (await client.get("/.well-known/oauth-authorization-server")).json()
        assert about["issuer"] == "https://access.example.com"
        assert about["jwks_uri"] == "https://access.example.com/.well-known/jwks.json"


def _settings(url: str, **values: Any) -> Any:
    return settings(url).model_copy(update={**values, "database_url": SecretStr(url)})


@pytest.fixture
def operator_database(new_database: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with new_database() as url:
        monkeypatch.setenv("JUSTIAM_DATABASE_URL", url)
        monkeypatch.setenv("JUSTIAM_SECRET_KEY", SECRET)
        yield url


def _justiam(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["signing-key", *arguments])


@pytest.mark.usefixtures("operator_database")
class TestTheCommand:
    def test_rotates_and_lists(self) -> None:
        assert _justiam("list").output == ""
        first, second, third = (
            _justiam("rotate", *options).output.strip() for options in ([], ["--now"], ["--algorithm", "RS256"])
        )
        listed = [SigningKeyView.model_validate_json(line) for line in _justiam("list", "--json").output.splitlines()]
        assert {key.kid for key in listed} == {first, second, third}
        assert [key.kid for key in listed if key.signs] == [second]
        lines = {line.split("  ")[0]: line for line in _justiam("list").output.splitlines()}
        assert lines[second].endswith("ES256  signs")
        assert "RS256  signs from " in lines[third]
        only = _justiam("rotate", "--compromised").output.strip()
        assert _justiam("list").output == f"{only}  ES256  signs\n"

    def test_refuses_an_algorithm_that_is_not_offered(self) -> None:
        for algorithm in ("HS256", "none", "es256"):
            assert _justiam("rotate", "--algorithm", algorithm).exit_code == 2


async def test_two_houses_on_one_record_verify_each_others_tokens(
    new_database: Databases,
) -> None:
    with new_database() as url:
        async with open_house(url) as one:
            shop = await open_shop(one)
            token = await shop.token()
            second = create_app(_settings(url))
            async with second.router.lifespan_context(second):
                transport = httpx.ASGITransport(second)
                async with httpx.AsyncClient(transport=transport, base_url="http://two.test") as client:
                    answer = await client.post("/oauth2/introspect", data={"token": token}, auth=shop.credentials)
                    assert answer.json()["active"]
                    new = await signing_keys.rotate(one.db, VAULT, Algorithm.ES256, now=True)
                    token = await shop.token()
                    assert parts(token)[0]["kid"] == new
                    await asyncio.sleep(1.1)
                    answer = await client.post("/oauth2/introspect", data={"token": token}, auth=shop.credentials)
                    assert answer.json()["active"]
