"""Tokens of OpenID Connect issuers: found out about through discovery, verified through their published keys.

An issuer is asked when its keys are needed and not known: at the first token, when what is known grows old, and when a
token names a key that is not there, or names none and does not hold, as after a rotation. The last two are limited,
because anybody can make such a token.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import warnings
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Self

import httpx
import structlog
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import JWKRegistry, Key, OctKey, RSAKey

import api.claims
from db.identities import Identity
from domain import jose
from domain.addresses import with_ascii_host
from domain.errors import IssuerUnavailable, Unauthenticated
from domain.jose import InvalidToken, Unverified
from settings import OidcIssuer, safe_to_fetch

_log = structlog.get_logger(__name__)

FRESH_SECS: Final = 600.0
"""Keys are asked for again when they are older."""
STALE_SECS: Final = 3_600.0
"""How long an issuer that does not answer is taken at its last word: a key that it withdrew must not last for ever."""
ASKED_EVERY_SECS: Final = 5.0
"""An issuer is asked at most this often, whatever tokens come in."""

_TIMEOUT: Final = httpx.Timeout(5.0)
_LONGEST_ANSWER_SECS: Final = 10.0
"""For all of an answer: the timeout above is for each of its parts."""
_LARGEST_ANSWER: Final = 524_288
_MOST_SIGN_INS: Final = 20
"""Codes that are being exchanged at a time. Anybody may bring any number of them, and none that is good."""
_MOST_KEYS: Final = 100
_RSA_MIN_BITS: Final = 2048
_KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""The keys that a family of algorithms is used with."""
_TYPES: Final = frozenset({None, "jwt", "at+jwt"})
"""What a token for an API may call itself. Logout tokens, proofs of possession and the like do not pass for one."""


@dataclass(frozen=True)
class SignIn:
    """Somebody who has signed in at an issuer."""

    identity: Identity
    email: str | None
    """As the issuer has it, verified or not: for messages alone."""


class _Unusable(Exception):
    """The issuer's answer is not what the specifications say."""


class _Issuer:
    """One issuer and its keys."""

    def __init__(self, configured: OidcIssuer, client: httpx.AsyncClient, sign_ins: httpx.AsyncClient) -> None:
        self.configured = configured
        self._client = client
        self._sign_ins = sign_ins
        self._keys: list[Key] = []
        self._about: dict[str, Any] = {}
        self._known_at: float | None = None
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()

    async def key(self, token: Unverified, algorithm: str) -> Key:
        """The key that has signed `token`, if its issuer did.

        Raises:
            InvalidToken: the issuer has no such key.
            IssuerUnavailable: it does not say which keys it has.
        """
        found = self._find(token, algorithm)
        stale = self._age(self._known_at) > FRESH_SECS
        # One caller waits for fresher keys, the others have one that is good: an issuer can take long to say nothing.
        if found is None or (stale and not (self._asking.locked() and self._age(self._known_at) < STALE_SECS)):
            async with self._asking:
                # Whoever waited here finds what the one before has learnt.
                found = self._find(token, algorithm)
                stale = self._age(self._known_at) > FRESH_SECS
                if (found is None or stale) and self._age(self._asked_at) > ASKED_EVERY_SECS:
                    await self._ask()
                    found = self._find(token, algorithm)
        if self._age(self._known_at) > STALE_SECS:
            raise IssuerUnavailable(f"The issuer {self.configured.issuer} does not publish its keys. Try again.")
        if found is None:
            raise InvalidToken("The token is signed with a key that its issuer does not publish.")
        return found

    async def newer_key(self, token: Unverified, algorithm: str, than: Key) -> Key | None:
        """The key that is published by now in the place of `than`; None where there is no other.

        A token that names no key does not show that its issuer has another one: only its signature does not hold.
        """
        if token.key_id is not None:
            return None
        async with self._asking:
            if self._find(token, algorithm) is than and self._age(self._asked_at) > ASKED_EVERY_SECS:
                await self._ask()
            found = self._find(token, algorithm)
        return None if found is than else found

    async def endpoint(self, name: str) -> str | None:
        """An address that its discovery document names; None where it names none that is safe.

        Raises:
            IssuerUnavailable: it does not answer.
        """
        await self._current()
        url = self._about.get(name)
        return url if isinstance(url, str) and safe_to_fetch(url) else None

    async def _current(self) -> None:
        if self._age(self._known_at) > FRESH_SECS:
            async with self._asking:
                if self._age(self._known_at) > FRESH_SECS and self._age(self._asked_at) > ASKED_EVERY_SECS:
                    await self._ask()
        if self._age(self._known_at) > STALE_SECS:
            raise IssuerUnavailable(f"{self.configured.issuer} does not answer. Try again.")

    async def names_itself(self) -> bool:
        """Whether its answers to browsers always say whose they are (RFC 9207).

        Raises:
            IssuerUnavailable: it does not answer.
        """
        await self._current()
        return self._about.get("authorization_response_iss_parameter_supported") is True

    def _find(self, token: Unverified, algorithm: str) -> Key | None:
        fitting = [
            key
            for key in self._keys
            # RFC 7517, section 4.4: a key that names its algorithm is for no other.
            if key.key_type == _KEY_TYPES[algorithm[:2]]
            and key.get("alg") in {None, algorithm}
            and (token.key_id is None or key.kid == token.key_id)
        ]
        # One without a name is found only where there is no choice.
        return fitting[0] if fitting and (token.key_id is not None or len(fitting) == 1) else None

    async def _ask(self) -> None:
        self._asked_at = time.monotonic()
        try:
            self._keys = await self._published()
            self._known_at = time.monotonic()
        except (httpx.HTTPError, httpx.InvalidURL, _Unusable, ValueError, RecursionError) as error:
            # From now on: whoever waited meanwhile would ask, and wait as long, one after the other.
            self._asked_at = time.monotonic()
            _log.warning("oidc_issuer_unavailable", issuer=self.configured.issuer, error=str(error) or repr(error))

    async def _published(self) -> list[Key]:
        issuer = self.configured.issuer
        about = await self._get(issuer.rstrip("/") + "/.well-known/openid-configuration")
        if about.get("issuer") != issuer:
            # OpenID Connect Discovery, section 4.3: else one issuer could stand in for another.
            raise _Unusable(f"its discovery document is of the issuer {str(about.get('issuer'))[:200]!r}")
        jwks_uri = about.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not safe_to_fetch(jwks_uri):
            raise _Unusable("its jwks_uri is not https")
        self._about = about
        listed = (await self._get(jwks_uri)).get("keys")
        if not isinstance(listed, list):
            raise _Unusable("its key set has no keys")
        return [key for jwk in listed[:_MOST_KEYS] if (key := _usable(jwk)) is not None]

    async def redeem(self, url: str, code: dict[str, str], auth: httpx.Auth | None) -> str:
        """The ID token for an authorization code."""
        try:
            answer = await self._get(url, data=code, auth=auth)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise IssuerUnavailable(f"{self.configured.issuer} does not answer. Try again.") from error
        except (_Unusable, ValueError, RecursionError) as error:
            _log.warning("sign_in_refused", issuer=self.configured.issuer, error=str(error))
            raise Unauthenticated(f"{self.configured.issuer} does not confirm the sign-in. Start again.") from error
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise Unauthenticated(f"{self.configured.issuer} confirms the sign-in without saying whose it is.")
        return token

    async def _get(
        self, url: str, data: dict[str, str] | None = None, auth: httpx.Auth | None = None
    ) -> dict[str, Any]:
        """A JSON object from the issuer; with `data`, the answer to a form."""
        try:
            async with asyncio.timeout(_LONGEST_ANSWER_SECS):
                return await self._read(url, data, auth)
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"{url} does not end its answer") from error

    async def _read(self, url: str, data: dict[str, str] | None, auth: httpx.Auth | None) -> dict[str, Any]:
        client, method = (self._client, "GET") if data is None else (self._sign_ins, "POST")
        try:
            called = with_ascii_host(url)
        except ValueError as error:
            raise httpx.InvalidURL(f"{url} names no host: it {error}") from None
        asked = client.stream(method, called, headers={"Accept": "application/json"}, data=data, auth=auth)
        async with asked as answer:
            if answer.status_code != httpx.codes.OK:
                raise _Unusable(f"{url} answers {answer.status_code}")
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > _LARGEST_ANSWER:
                    raise _Unusable(f"{url} answers too much")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise _Unusable(f"{url} answers no JSON object")
        return document

    @staticmethod
    def _age(since: float | None) -> float:
        return float("inf") if since is None else time.monotonic() - since


class Issuers:
    """The issuers whose tokens callers may use; open it with `async with`."""

    def __init__(self, configured: Sequence[OidcIssuer], *, leeway_secs: int) -> None:
        self._configured = configured
        self._leeway_secs = leeway_secs
        self._issuers: dict[str, _Issuer] = {}
        self._connections = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self._configured:
            # A redirect would let whoever answers name another server. Apart, so that keys never wait for sign-ins.
            client, sign_ins = [
                await self._connections.enter_async_context(
                    httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False, limits=limits)
                )
                for limits in (httpx.Limits(), httpx.Limits(max_connections=_MOST_SIGN_INS))
            ]
            self._issuers = {each.issuer: _Issuer(each, client, sign_ins) for each in self._configured}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.aclose()

    async def verify(self, token: str) -> Identity:
        """Who a token says its bearer is.

        Raises:
            Unauthenticated: it is not a valid token of a configured issuer for this API.
            IssuerUnavailable: its issuer does not say which keys it signs with.
        """
        try:
            _, identity = await self._verified(token)
        except InvalidToken as error:
            raise Unauthenticated(str(error)) from error
        return identity

    async def endpoint(self, issuer: str, name: str) -> str | None:
        """An address that an issuer's discovery document names; None where it names none that is safe.

        Raises:
            IssuerUnavailable: it does not answer.
        """
        return await self._issuers[issuer].endpoint(name)

    async def names_itself(self, issuer: str) -> bool:
        """Whether what an issuer sends browsers back with always says whose it is (RFC 9207).

        Raises:
            IssuerUnavailable: it does not answer.
        """
        return await self._issuers[issuer].names_itself()

    async def redeem(self, issuer: str, code: dict[str, str], auth: httpx.Auth | None) -> str:
        """Exchange an authorization code for an ID token (RFC 6749, section 4.1.3).

        Args:
            issuer: whose code it is.
            code: what to send.
            auth: how the client authenticates; None: it is a public one.

        Raises:
            IssuerUnavailable: it does not answer.
            Unauthenticated: it refuses, or answers without an ID token.
        """
        url = await self.endpoint(issuer, "token_endpoint")
        if url is None:
            raise IssuerUnavailable(f"{issuer} does not say where codes are exchanged.")
        return await self._issuers[issuer].redeem(url, code, auth)

    async def verify_sign_in(self, token: str, *, issuer: str, client_id: str, nonce: str) -> SignIn:
        """Who an ID token says has signed in (OpenID Connect Core, section 3.1.3.7).

        Args:
            token: the ID token.
            issuer: who was asked for it.
            client_id: for which of its clients.
            nonce: what was sent along with the question.

        Raises:
            Unauthenticated: it is not a valid answer to that question.
            IssuerUnavailable: its issuer does not say which keys it signs with.
        """
        try:
            claims, identity = await self._verified(token, client_id)
            _refuse_another_answer(claims, issuer=issuer, client_id=client_id, nonce=nonce)
        except InvalidToken as error:
            raise Unauthenticated(str(error)) from error
        email = claims.get(self._issuers[issuer].configured.email_claim)
        return SignIn(identity, email if isinstance(email, str) else None)

    async def _verified(self, token: str, audience: str | None = None) -> tuple[dict[str, Any], Identity]:
        unverified = jose.parse(token)
        named = unverified.claims.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            raise InvalidToken("The token is of an issuer that is not accepted here.")
        algorithm = unverified.header.get("alg")
        if algorithm not in issuer.configured.algorithms:
            raise InvalidToken("The token is signed in a way that is not accepted of its issuer.")
        if unverified.type not in _TYPES:
            raise InvalidToken("The token is of another type than tokens for an API.")
        key = await issuer.key(unverified, algorithm)
        try:
            claims = jose.verify(token, key, algorithm)
        except InvalidToken:
            newer = await issuer.newer_key(unverified, algorithm, than=key)
            if newer is None:
                raise
            claims = jose.verify(token, newer, algorithm)
        expected = audience or issuer.configured.audience
        api.claims.check(claims, issuer.configured, expected, leeway_secs=self._leeway_secs)
        return claims, api.claims.read(claims, issuer.configured, leeway_secs=self._leeway_secs)


def _refuse_another_answer(claims: dict[str, Any], *, issuer: str, client_id: str, nonce: str) -> None:
    if claims["iss"] != issuer:
        raise InvalidToken("The sign-in is of another issuer than was asked.")
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise InvalidToken("The sign-in answers another question.")
    if claims.get("azp", client_id) != client_id:
        raise InvalidToken("The sign-in is for another client.")


def _usable(jwk: object) -> Key | None:
    """A public key that verifies signatures; None where it is something else. Others of the set still count."""
    try:
        if (
            not isinstance(jwk, dict)
            or jwk.get("use", "sig") != "sig"
            or "verify" not in jwk.get("key_ops", ["verify"])
        ):
            return None
        with warnings.catch_warnings():
            # Of weak keys, which are left out below.
            warnings.simplefilter("ignore", SecurityWarning)
            key = JWKRegistry.import_key(jwk)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    # A secret key verifies what anybody who reads the set can make.
    if isinstance(key, OctKey) or (isinstance(key, RSAKey) and key.raw_value.key_size < _RSA_MIN_BITS):
        return None
    return key
