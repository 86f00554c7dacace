"""Introspection (RFC 7662) and revocation (RFC 7009): what an application learns, and when a token ends."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote_plus

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import JWKRegistry
from jwt.algorithms import ECAlgorithm

from db import applications, groups
from db.administrators import OPERATOR
from domain.states import Action
from tests.api.house import open_without_database
from tests.tokens.shop import ISSUER, Shop, another_application, check_oauth_error, encoded, parts, signed, unsigned


class TestIntrospection:
    async def test_tells_an_application_about_a_token_that_was_issued_for_it(self, shop: Shop) -> None:
        token = await shop.token(scope="roles")
        body = await shop.introspect(token, headers={"Accept": "application/json"})
        assert body.pop("active") is True
        assert body.pop("token_type") == "Bearer"
        assert body.pop("username") == shop.dana.email
        assert body == await shop.verified(token)
        assert body["roles"] == ["db_readonly"]

    async def test_takes_the_secret_in_the_body_as_well(self, standing_shop: Shop) -> None:
        shop = standing_shop
        fields = {"token": await shop.token(), "token_type_hint": "access_token"}
        fields |= {"client_id": shop.app.client_id, "client_secret": shop.secret}
        assert (await shop.post("introspect", fields)).json()["active"]

    async def test_says_nothing_of_a_token_for_another(self, shop: Shop) -> None:
        other, credentials = await another_application(shop)
        assert await shop.introspect(await shop.token(), auth=credentials) == {"active": False}
        assert not await shop.active(await shop.token(audience=other.client_id))

    async def test_says_nothing_of_other_tokens(self, standing_shop: Shop) -> None:
        shop = standing_shop
        for token in (shop.dana.token, shop.secret, "garbage", "a.b.c", ".." * 300, "é", "x" * 60_000):
            assert await shop.introspect(token) == {"active": False}

    async def test_needs_a_token(self, standing_shop: Shop) -> None:
        answer = await standing_shop.post("introspect", {"x": "y"}, auth=standing_shop.credentials)
        check_oauth_error(answer, 400, "invalid_request")

    async def test_without_a_database_it_says_to_try_again(self) -> None:
        async with open_without_database() as client:
            answer = await client.post("/oauth2/introspect", data={"token": "x"}, auth=("app", "secret"))
            check_oauth_error(answer, 503, "temporarily_unavailable")


async def _grant_is_revoked(shop: Shop) -> None:
    [request] = (await shop.house.call("GET", "/access-requests", shop.dana)).json()["items"]
    await shop.house.decide(request["id"], Action.REVOKE, shop.dana)


async def _grant_runs_out(shop: Shop) -> None:
    await shop.execute("UPDATE groups SET expires_at = now() WHERE system")


async def _holder_leaves_the_team(shop: Shop) -> None:
    await groups.remove_member(shop.house.db, OPERATOR, shop.team.id, shop.dana.id)


async def _holder_is_deactivated(shop: Shop) -> None:
    await shop.execute("UPDATE users SET active = false WHERE id = %s", shop.dana.id)


async def _mapping_is_detached(shop: Shop) -> None:
    await applications.detach(shop.house.db, shop.mapping.id, shop.team.id)


async def _mapping_means_something_else(shop: Shop) -> None:
    await shop.execute("UPDATE app_mappings SET value = 'db_nothing' WHERE id = %s", shop.mapping.id)


async def _token_expires(shop: Shop) -> None:
    await shop.execute("UPDATE access_tokens SET expires_at = now()")


async def _record_is_lost(shop: Shop) -> None:
    await shop.execute("DELETE FROM access_tokens")


class TestATokenEnds:
    @pytest.mark.parametrize(
        "event",
        [
            _grant_is_revoked,
            _grant_runs_out,
            _holder_leaves_the_team,
            _holder_is_deactivated,
            _mapping_is_detached,
            _mapping_means_something_else,
            _token_expires,
            _record_is_lost,
        ],
    )
    async def test_the_moment_that(self, shop: Shop, event: Callable[[Shop], Awaitable[None]]) -> None:
        await shop.granted(shop.dana)
        token = await shop.token()
        assert await shop.active(token)
        await event(shop)
        assert not await shop.active(token)

    async def test_not_when_something_else_ends(self, shop: Shop) -> None:
        token = await shop.token()
        await shop.granted(shop.dana)
        await _grant_is_revoked(shop)
        assert await shop.active(token)

    async def test_that_asked_for_less_outlives_the_grant_it_does_not_draw_on(self, shop: Shop) -> None:
        erin = await shop.person("erin")
        request_id = await shop.granted(erin)
        token = await shop.token(erin)
        await shop.house.decide(request_id, Action.REVOKE, erin)
        assert not await shop.active(token)
        assert await shop.active(await shop.token(erin))


class TestRevocation:
    async def test_ends_a_token_at_once_and_no_other(self, shop: Shop) -> None:
        token, other = await shop.token(), await shop.token()
        for _ in range(2):
            answer = await shop.post("revoke", {"token": token}, auth=shop.credentials)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["cache-control"] == "no-store"
        assert not await shop.active(token)
        assert await shop.active(other)

    @pytest.mark.parametrize("token", ["garbage", "a.b.c", "justiam_x"])
    async def test_of_what_is_no_token_is_done_already(self, standing_shop: Shop, token: str) -> None:
        answer = await standing_shop.post("revoke", {"token": token}, auth=standing_shop.credentials)
        assert (answer.status_code, answer.content) == (200, b"")

    async def test_of_somebody_elses_token_is_refused(self, shop: Shop) -> None:
        _, credentials = await another_application(shop)
        token = await shop.token()
        answer = await shop.post("revoke", {"token": token}, auth=credentials)
        check_oauth_error(answer, 400, "unauthorized_client")
        assert await shop.active(token)

    async def test_needs_a_token(self, standing_shop: Shop) -> None:
        answer = await standing_shop.post("revoke", {}, auth=standing_shop.credentials)
        check_oauth_error(answer, 400, "invalid_request")

    async def test_at_the_same_moment_as_introspection(self, shop: Shop) -> None:
        token = await shop.token()
        await asyncio.gather(
            *(shop.introspect(token) for _ in range(5)),
            *(shop.post("revoke", {"token": token}, auth=shop.credentials) for _ in range(5)),
        )
        assert not await shop.active(token)


class TestForgeries:
    async def test_are_inactive(self, shop: Shop) -> None:
        token = await shop.token()
        header, claims = parts(token)
        jwks = (await shop.house.client.get("/.well-known/jwks.json")).json()["keys"]
        public: Any = JWKRegistry.import_key(jwks[0]).raw_value
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        mine = ec.generate_private_key(ec.SECP256R1())
        own_key: Any = json.loads(ECAlgorithm.to_jwk(mine.public_key()))
        head, body, signature = token.split(".")

        def mines(**more_header: Any) -> str:
            return signed(mine, {**header, **more_header}, claims)

        forged = [
            unsigned({**header, "alg": "none"}, claims),
            unsigned({**header, "alg": "None"}, claims),
            unsigned({**header, "alg": ""}, claims),
            unsigned({**header, "alg": None}, claims),
            unsigned({**header, "alg": ["ES256"]}, claims),
            unsigned(header, claims),
            unsigned({**header, "alg": "HS256"}, claims, pem),
            # Signed with the public key as if it were a secret.
            _hs256(pem, header, claims),
            _hs256(jwks[0]["x"].encode(), header, claims),
            mines(),
            mines(kid=None),
            mines(kid=["x"]),
            mines(kid="../../../../dev/null"),
            mines(kid="' OR 1=1 --"),
            mines(kid="x" * 5000),
            mines(jwk=own_key),
            mines(jwk=own_key, kid=None),
            mines(jku="http://127.0.0.1:1/keys", x5u="http://127.0.0.1:1/cert"),
            mines(typ="JWT"),
            # Ours, with something changed.
            f"{head}.{encoded({**claims, 'roles': ['db_owner']})}.{signature}",
            f"{encoded({**header, 'typ': 'JWT'})}.{body}.{signature}",
            f"{encoded({**header, 'crit': ['exp']})}.{body}.{signature}",
            f"{encoded({**header, 'b64': False})}.{body}.{signature}",
            f"{head}.{body}.",
            f"{head}.{body}.{signature[:-2]}",
            f"{head}.{body}.{signature}.{signature}",
            f"{head}..{signature}",
            f"{token}=",
            f" {token}",
            token + "\n",
            f"{encoded([])}.{body}.{signature}",
            f"{encoded(b'x')}.{body}.{signature}",
            f"{encoded({**header, 'crit': 5})}.{body}.{signature}",
            unsigned(header, []),
            unsigned(header, b"[" * 20_000),
            unsigned(b'{"alg":' * 900, b"{}"),
        ]
        assert await shop.active(token)
        for number, forgery in enumerate(forged):
            assert not await shop.active(forgery), (number, forgery[:100])
        for forgery in forged:
            answer = await shop.post("revoke", {"token": forgery}, auth=shop.credentials)
            assert answer.status_code == 200
        assert await shop.active(token), "no forgery revokes"
        for forgery in forged:
            check_oauth_error(await shop.exchange(subject_token=forgery), 400, "invalid_request")

    async def test_of_an_id_that_is_on_record(self, shop: Shop) -> None:
        """What is recorded alone does not make a token."""
        _, claims = parts(await shop.token())
        forgery = jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256")
        assert claims["iss"] == ISSUER
        assert not await shop.active(forgery)


def _hs256(secret: bytes, header: dict[str, Any], claims: dict[str, Any]) -> str:
    head = f"{encoded({**header, 'alg': 'HS256'})}.{encoded(claims)}"
    return f"{head}.{encoded(hmac.digest(secret, head.encode(), hashlib.sha256))}"


def _header(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


class TestClientAuthentication:
    """The same for both endpoints, and for whoever authenticates at the third."""

    @pytest.mark.parametrize("path", ["introspect", "revoke"])
    async def test_is_required(self, standing_shop: Shop, path: str) -> None:
        answer = await standing_shop.post(path, {"token": await standing_shop.token()})
        check_oauth_error(answer, 401, "invalid_client")

    @pytest.mark.parametrize("path", ["introspect", "revoke"])
    async def test_refuses_alike_whatever_is_wrong(self, shop: Shop, path: str) -> None:
        without, _ = await another_application(shop)
        await shop.execute("UPDATE applications SET client_secret_hash = NULL WHERE id = %s", without.id)
        client_id, secret = shop.credentials
        answers = [
            await shop.post(path, {"token": "x"}, headers={"Authorization": header})
            for header in (
                _header(f"{client_id}:wrong"),
                _header(f"{client_id}:"),
                _header(f"{client_id}"),
                _header(f"nobody:{secret}"),
                _header(f":{secret}"),
                _header(f"{without.client_id}:"),
                _header(f"{without.client_id}:{secret}"),
                _header(f"{client_id}:{secret}x"),
                _header(f"{client_id}:{secret[:-1]}"),
                _header(f"{client_id.upper()}:{secret}"),
                _header(f"{client_id}:\x00"),
                _header("%ff%fe:%00"),
                _header("x" * 5_000 + ":y"),
                "Basic",
                "Basic ###",
                "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
                f"Bearer {shop.dana.token}",
                f"Bearer {await shop.token()}",
                "",
            )
        ]
        answers += [
            await shop.post(path, {"token": "x", "client_id": client_id}),
            await shop.post(path, {"token": "x", "client_secret": secret}),
            await shop.post(path, {"token": "x", "client_id": client_id, "client_secret": "wrong"}),
            await shop.post(path, {"token": "x", "client_id": "nobody", "client_secret": secret}),
        ]
        for answer in answers:
            check_oauth_error(answer, 401, "invalid_client")
        assert len({answer.content for answer in answers}) == 1, "nothing tells a wrong secret from an unknown client"

    async def test_in_two_ways_is_refused(self, standing_shop: Shop) -> None:
        shop = standing_shop
        client_id, secret = shop.credentials
        for fields in (
            {"token": "x", "client_id": client_id, "client_secret": secret},
            {"token": "x", "client_secret": secret},
            {"token": "x", "client_id": "nobody"},
        ):
            check_oauth_error(await shop.post("introspect", fields, auth=shop.credentials), 400, "invalid_request")
        header = (b"Authorization", _header(f"{client_id}:{secret}").encode())
        form = (b"Content-Type", b"application/x-www-form-urlencoded")
        answer = await shop.house.client.post("/oauth2/introspect", content=b"token=x", headers=[header, header, form])
        check_oauth_error(answer, 400, "invalid_request")

    async def test_decodes_credentials_as_the_rfc_encodes_them(self, standing_shop: Shop) -> None:
        client_id, secret = standing_shop.credentials
        header = _header(f"{quote_plus(client_id)}:{quote_plus(secret)}".replace("-", "%2D"))
        answer = await standing_shop.post("introspect", {"token": "x"}, headers={"Authorization": header})
        assert answer.json() == {"active": False}

    async def test_an_unknown_client_is_compared_like_a_known_one(
        self, standing_shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compared = []

        def noting(one: bytes, other: bytes) -> bool:
            compared.append((len(one), len(other)))
            return one == other

        monkeypatch.setattr("db.applications.hmac.compare_digest", noting)
        for client_id in ("nobody", standing_shop.app.client_id):
            answer = await standing_shop.post("introspect", {"token": "x"}, auth=(client_id, "wrong"))
            check_oauth_error(answer, 401, "invalid_client")
        assert compared == [(32, 32), (32, 32)]


class TestClientSecrets:
    async def test_are_shown_once_and_stored_hashed(self, shop: Shop) -> None:
        path = f"/applications/{shop.app.id}"
        made = await shop.house.call("POST", f"{path}/client-secret", shop.house.admin)
        assert made.status_code == 201, made.text
        secret = made.json()["client_secret"]
        assert secret.startswith("justiam_secret_")
        assert made.json()["client_id"] == shop.app.client_id
        shown = await shop.house.call("GET", path, shop.dana)
        assert shown.json()["client_id"] == shop.app.client_id
        assert shown.json()["client_secret_created_at"] == made.json()["created_at"]
        assert "secret_hash" not in shown.text
        assert secret not in shown.text
        async with shop.house.db.connection() as connection:
            rows = await connection.execute("SELECT a::text AS row FROM applications a")
            assert secret not in str(await rows.fetchall())

    async def test_replace_the_one_before_at_once(self, shop: Shop) -> None:
        made = await shop.house.call("POST", f"/applications/{shop.app.id}/client-secret", shop.house.admin)
        token = await shop.token()
        check_oauth_error(await shop.post("introspect", {"token": token}, auth=shop.credentials), 401, "invalid_client")
        credentials = (shop.app.client_id, made.json()["client_secret"])
        assert (await shop.introspect(token, auth=credentials))["active"]

    async def test_are_made_by_the_directory_only(self, shop: Shop) -> None:
        answer = await shop.house.call("POST", f"/applications/{shop.app.id}/client-secret", shop.dana)
        assert answer.status_code == 403
        answer = await shop.house.call("POST", f"/applications/{shop.dana.id}/client-secret", shop.house.admin)
        assert answer.status_code == 404

    async def test_client_ids_are_assigned_and_stay(self, shop: Shop) -> None:
        other, _ = await another_application(shop)
        assert other.client_id != shop.app.client_id
        for sent in ({"name": "X", "client_id": "app-mine"}, {"name": "X", "client_secret_hash": "x"}):
            answer = await shop.house.call("PUT", f"/applications/{other.id}", shop.house.admin, json=sent)
            assert answer.status_code == 422
        answer = await shop.house.call("PUT", f"/applications/{other.id}", shop.house.admin, json={"name": other.name})
        assert answer.json()["client_id"] == other.client_id
