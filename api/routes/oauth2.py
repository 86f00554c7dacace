"""OAuth: token exchange (RFC 8693), introspection (RFC 7662), revocation (RFC 7009), keys and metadata (RFC 8414).

Not in the OpenAPI document: OAuth libraries read the metadata instead, and `docs/tokens.md` explains.
"""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import structlog
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from api import oauth
from api.authentication import take_call
from api.bearers import bearer_of
from api.oauth import NO_STORE, Endpoint, Form, OAuthError
from api.signing import KeyRing
from db import access_tokens, tokens
from db.access_tokens import NoSuchAudience, NothingInScope, SubjectEnded
from db.applications import Client
from db.database import Database
from db.tokens import Bearer
from domain import jose
from domain.access_tokens import Grant, Issued, mint, read
from domain.errors import Unauthenticated
from domain.jose import LONGEST_TOKEN, InvalidToken
from settings import Settings

_log = structlog.get_logger(__name__)

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
API_TOKEN: Final = "urn:justiam:token-type:api-token"  # noqa: S105 - a name
"""An API token of ours, for callers that want to be sure what they send; `ACCESS_TOKEN` covers it as well."""

_ISSUED_TYPES: Final = (ACCESS_TOKEN, JWT)
_AUTHENTICATION: Final = ["client_secret_basic", "client_secret_post"]
_KEYS_KEPT_SECS: Final = 300
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
"""RFC 6749, section 3.3."""
_MOST_NAMES: Final = 64
_LONGEST_SCOPE: Final = 4_096
_CLEAN_EVERY_SECS: Final = 10.0


def routes() -> list[BaseRoute]:
    """Everything in this module, by path."""
    return [
        Route("/oauth2/token", Endpoint(exchange)),
        Route("/oauth2/introspect", Endpoint(introspect)),
        Route("/oauth2/revoke", Endpoint(revoke)),
        Route("/.well-known/jwks.json", key_set),
        Route("/.well-known/oauth-authorization-server", metadata),
    ]


async def exchange(request: Request) -> Response:
    """Turn a person's token into one for an application (RFC 8693).

    The person's own token is what authorises; no client has to authenticate. One that does gets tokens for itself only,
    so that an application which was handed a token for itself cannot be used to reach another.
    """
    state = request.app.state
    settings: Settings = state.settings
    sent = await oauth.form(request)
    client_id, names, issued_type = _asked_for(sent)
    by = await oauth.client(request, state.database, sent)
    if by is not None and by.client_id != client_id:
        raise OAuthError("invalid_target", "A client that authenticates gets tokens for itself only.")
    bearer = await _subject(request, sent)
    jti, user_id = uuid4(), bearer.person.id
    lifetime = timedelta(seconds=settings.access_token_lifetime_secs)
    try:
        recorded = await access_tokens.record(
            state.database, jti, user_id, client_id, lifetime, names, until=bearer.expires_at
        )
    except SubjectEnded:
        raise OAuthError("invalid_request", "The subject token is refused. It ends at this moment.") from None
    except NoSuchAudience:
        raise OAuthError("invalid_target", "No application has this client id.") from None
    except NothingInScope:
        raise OAuthError("invalid_scope", "You hold none of these claims at this moment.") from None
    keys: KeyRing = state.signing_keys
    grant = Grant(
        jti=jti,
        user_id=user_id,
        client_id=client_id,
        claims=recorded.claims,
        issued_at=recorded.issued_at,
        expires_at=recorded.expires_at,
        scope=None if names is None else " ".join(sorted(recorded.claims)),
    )
    token = mint(grant, settings.token_issuer, await keys.signing(recorded.kid))
    _log.info("access_token_issued", jti=str(jti), user_id=str(user_id), client_id=client_id)
    await _clean(state)
    answer: dict[str, Any] = {
        "access_token": token,
        "issued_token_type": issued_type,
        "token_type": "Bearer",
        "expires_in": int((grant.expires_at - grant.issued_at).total_seconds()),
    }
    if grant.scope is not None:
        answer["scope"] = grant.scope
    return JSONResponse(answer, headers=NO_STORE)


async def introspect(request: Request) -> Response:
    """Tell an application whether a token that was issued for it still counts (RFC 7662).

    Whatever is not such a token is answered alike, so that nothing is learnt about those of others.
    """
    state = request.app.state
    sent = await oauth.form(request)
    sent.single()
    by = await oauth.authenticated_client(request, state.database, sent)
    issued = await _issued(state, sent.required("token"))
    holder = None
    if issued is not None and issued.client_id == by.client_id:
        holder = await access_tokens.holder(state.database, issued.jti, by.app_id)
    if issued is None or holder is None or not _still_held(issued, holder.values):
        return JSONResponse({"active": False}, headers=NO_STORE)
    return JSONResponse(
        {**issued.claims, "active": True, "token_type": "Bearer", "username": holder.email}, headers=NO_STORE
    )


async def revoke(request: Request) -> Response:
    """End a token that was issued for the application that asks (RFC 7009). An unknown one is as good as ended."""
    state = request.app.state
    sent = await oauth.form(request)
    sent.single()
    by: Client = await oauth.authenticated_client(request, state.database, sent)
    issued = await _issued(state, sent.required("token"))
    if issued is not None:
        if issued.client_id != by.client_id:
            raise OAuthError("unauthorized_client", "The token was issued for another application.")
        if await access_tokens.revoke(state.database, issued.jti, by.app_id):
            _log.info("access_token_revoked", jti=str(issued.jti), client_id=by.client_id)
    return Response(headers=NO_STORE)


async def key_set(request: Request) -> Response:
    """The public keys that verify our tokens (RFC 7517)."""
    keys: KeyRing = request.app.state.signing_keys
    headers = {"Cache-Control": f"public, max-age={_KEYS_KEPT_SECS}"}
    return JSONResponse({"keys": await keys.published()}, headers=headers, media_type="application/jwk-set+json")


async def metadata(request: Request) -> Response:
    """What OAuth libraries need to know (RFC 8414), and at which issuers `justiam login` signs people in."""
    settings: Settings = request.app.state.settings
    issuer = settings.token_issuer
    sign_in = [
        each.model_dump(include={"issuer", "client_id", "audience", "scope"}, exclude_none=True)
        for each in settings.oidc_issuers
        if each.client_id is not None
    ]
    return JSONResponse(
        {
            "issuer": issuer,
            "token_endpoint": f"{issuer}/oauth2/token",
            "introspection_endpoint": f"{issuer}/oauth2/introspect",
            "revocation_endpoint": f"{issuer}/oauth2/revoke",
            "jwks_uri": f"{issuer}/.well-known/jwks.json",
            "grant_types_supported": [GRANT_TYPE],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": ["none", *_AUTHENTICATION],
            "introspection_endpoint_auth_methods_supported": _AUTHENTICATION,
            "revocation_endpoint_auth_methods_supported": _AUTHENTICATION,
            **({"justiam_sign_in": sign_in} if sign_in else {}),
        },
        headers={"Cache-Control": f"public, max-age={_KEYS_KEPT_SECS}"},
    )


def _asked_for(sent: Form) -> tuple[str, list[str] | None, str]:
    """The audience, the names of the claims where some are named, and the type of token that is wanted."""
    sent.single(but="audience")
    if sent.required("grant_type") != GRANT_TYPE:
        raise OAuthError("unsupported_grant_type", f"The grant type that is supported is {GRANT_TYPE}.")
    for name in ("actor_token", "actor_token_type"):
        if name in sent:
            raise OAuthError("invalid_request", "Acting on behalf of another is not supported.")
    audiences = sent.given("audience")
    if "resource" in sent or len(audiences) > 1:
        raise OAuthError("invalid_target", "A token is for one application, named by its client id as audience.")
    issued_type = sent.get("requested_token_type", ACCESS_TOKEN)
    if issued_type not in _ISSUED_TYPES:
        raise OAuthError("invalid_request", f"The types that can be requested are {' and '.join(_ISSUED_TYPES)}.")
    names = None
    if "scope" in sent:
        scope = sent["scope"]
        if len(scope) > _LONGEST_SCOPE or not _SCOPE.fullmatch(scope) or len(names := scope.split(" ")) > _MOST_NAMES:
            raise OAuthError("invalid_scope", "The scope is not a list of names of claims.")
    return sent.required("audience"), names, issued_type


async def _subject(request: Request, sent: Form) -> Bearer:
    token, kind = sent.required("subject_token"), sent.required("subject_token_type")
    if kind not in {ACCESS_TOKEN, JWT, API_TOKEN}:
        raise OAuthError("invalid_request", "The subject token type is not supported.")
    ours = token.startswith(tokens.PREFIX)
    if len(token) > LONGEST_TOKEN or (kind == JWT and ours) or (kind == API_TOKEN and not ours):
        raise OAuthError("invalid_request", "The subject token is not of the type that is said.")
    database: Database = request.app.state.database
    try:
        bearer = await bearer_of(request, database, token)
    except Unauthenticated as error:
        # RFC 8693, section 2.2.2: invalid_request, whatever is wrong with it.
        raise OAuthError("invalid_request", f"The subject token is refused. {error.detail}") from error
    # As any other call of theirs: each is signed, and a row until it expires.
    take_call(request, bearer.person)
    return bearer


async def _issued(state: State, token: str) -> Issued | None:
    keys: KeyRing = state.signing_keys
    settings: Settings = state.settings
    try:
        return read(token, settings.token_issuer, await keys.verifying(jose.parse(token).key_id))
    except InvalidToken:
        return None


def _still_held(issued: Issued, values: dict[str, list[str]]) -> bool:
    """Whether its holder would get every claim of a token again: a mapping may have been changed or detached."""
    carried = issued.mapped_claims
    return all(set(carried[claim]) <= set(values.get(claim, ())) for claim in carried)


async def _clean(state: State) -> None:
    """Forget expired tokens now and then, so that the table holds little more than those that are valid."""
    now = time.monotonic()
    if now - getattr(state, "cleaned_at", 0.0) > _CLEAN_EVERY_SECS:
        state.cleaned_at = now
        await access_tokens.forget_expired(state.database)
