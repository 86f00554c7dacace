"""An application, its credentials, somebody who holds a claim for it, and short ways to ask for tokens."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import httpx
import jwt

from db import applications
from db.applications import ApplicationView, MappingView, NewClientSecret
from db.groups import GroupView
from domain.directory import MappingValues
from domain.states import Action
from tests.api.house import House, Somebody

ISSUER: Final = "http://127.0.0.1:8000"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"

_numbers: Iterator[int] = itertools.count(1)


@dataclass(frozen=True)
class Shop:
    """A house with an application in it."""

    house: House
    app: ApplicationView
    secret: str
    mapping: MappingView
    team: GroupView
    """Whose members hold `roles: db_readonly`, for good."""
    dana: Somebody
    """In the team."""

    @property
    def credentials(self) -> tuple[str, str]:
        return (self.app.client_id, self.secret)

    async def post(self, path: str, fields: Any, **request: Any) -> httpx.Response:
        headers = {"Content-Type": "application/x-www-form-urlencoded", **request.pop("headers", {})}
        content = fields if isinstance(fields, bytes) else urlencode(fields)
        return await self.house.client.post(f"/oauth2/{path}", content=content, headers=headers, **request)

    def asking(self, by: Somebody | None = None, **changed: str | None) -> dict[str, str]:
        fields = {
            "grant_type": EXCHANGE,
            "subject_token": (by or self.dana).token,
            "subject_token_type": ACCESS_TOKEN,
            "audience": self.app.client_id,
            **changed,
        }
        return {name: value for name, value in fields.items() if value is not None}

    async def exchange(self, by: Somebody | None = None, **changed: str | None) -> httpx.Response:
        return await self.post("token", self.asking(by, **changed))

    async def token(self, by: Somebody | None = None, **changed: str | None) -> str:
        answer = await self.exchange(by, **changed)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    async def introspect(self, token: str, **request: Any) -> dict[str, Any]:
        answer = await self.post("introspect", {"token": token}, **{"auth": self.credentials, **request})
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        body: dict[str, Any] = answer.json()
        return body

    async def active(self, token: str) -> bool:
        body = await self.introspect(token)
        if not body["active"]:
            assert body == {"active": False}, "an inactive token says nothing"
        return bool(body["active"])

    async def verified(self, token: str, audience: str | None = None) -> dict[str, Any]:
        """The claims, by a verifier that knows nothing of this service but its published keys."""
        keys = jwt.PyJWKSet.from_dict((await self.house.client.get("/.well-known/jwks.json")).json())
        key = next(key for key in keys.keys if key.key_id == jwt.get_unverified_header(token)["kid"])
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=["ES256", "RS256"],
            audience=audience or self.app.client_id,
            issuer=ISSUER,
            options={"require": ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"]},
        )
        return claims

    async def granted(self, by: Somebody, value: str = "db_owner", *, lasting: str = "1 hour") -> UUID:
        """A temporary grant of one more value, that ends after `lasting`."""
        values = MappingValues(app_id=self.app.id, name=f"mapping {value}", claim="roles", value=value)
        mapping = await applications.create_mapping(self.house.db, values)
        template = await self.house.template(name=f"for {value}", app_id=self.app.id, mapping_ids=[mapping.id])
        request_id = await self.house.request(template, by)
        await self.house.decide(request_id, Action.APPROVE, self.house.admin)
        await self.execute("UPDATE groups SET expires_at = now() + %s WHERE request_id = %s", lasting, request_id)
        return request_id

    async def execute(self, statement: str, *values: Any) -> None:
        async with self.house.db.connection() as connection:
            await connection.execute(statement, list(values))

    async def person(self, name: str, *, owner: Somebody | None = None) -> Somebody:
        """Somebody else."""
        return await self.house.person(f"{name}.{next(_numbers)}", owner=owner)

    async def issued(self) -> int:
        """How many tokens for the application are on record."""
        return await self.count("SELECT count(*) AS n FROM access_tokens WHERE app_id = %s", self.app.id)

    async def count(self, query: str, *values: Any) -> int:
        async with self.house.db.connection() as connection:
            row = await (await connection.execute(query, list(values))).fetchone()
        assert row is not None
        return int(row["n"])


async def open_shop(house: House) -> Shop:
    number = next(_numbers)
    app = await house.application(f"Internal DB {number}")
    made: NewClientSecret = await applications.rotate_client_secret(house.db, app.id)
    mapping = await house.mapping(app.id)
    dana = await house.person(f"dana.{number}")
    team = await house.group(f"team {number}", dana)
    await applications.attach(house.db, mapping.id, team.id)
    return Shop(house, app, made.client_secret, mapping, team, dana)


def check_oauth_error(answer: httpx.Response, status: int, error: str) -> str:
    """Hold an answer to RFC 6749, section 5.2."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert set(body) == {"error", "error_description"}
    assert body["error"] == error, body
    description: str = body["error_description"]
    assert description.isascii()
    assert not set(description) & set('"\\')
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Basic ")
    return description


def encoded(part: Any) -> str:
    """A part of a compact JWS."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(header: Any, claims: Any, signature: bytes = b"") -> str:
    """A token as an attacker writes it."""
    return ".".join(map(encoded, (header, claims, signature)))


def signed(key: Any, header: dict[str, Any], claims: Any, algorithm: str = "ES256") -> str:
    """A token with any header at all, and a signature that holds for `key`."""
    head = f"{encoded({'alg': algorithm, **header})}.{encoded(claims)}"
    return f"{head}.{encoded(jwt.get_algorithm_by_name(algorithm).sign(head.encode(), key))}"


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token, unverified."""
    return jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})


async def another_application(shop: Shop) -> tuple[ApplicationView, tuple[str, str]]:
    """An application with a secret."""
    app = await shop.house.application(f"Other {next(_numbers)}")
    made = await applications.rotate_client_secret(shop.house.db, app.id)
    return app, (made.client_id, made.client_secret)
