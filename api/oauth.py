"""What the OAuth endpoints have in common: forms, client authentication, errors (RFC 6749, sections 2.3, 3.2, 5.2).

They speak to OAuth libraries, which know nothing of problem documents: whatever goes wrong is answered as RFC 6749 has
it, and no cache keeps it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

import psycopg
import structlog
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from db import applications
from db.applications import Client
from db.database import Database
from db.signing_keys import KeyUnreadable
from domain.errors import IssuerUnavailable, TooManyCalls
from domain.text import storable

_log = structlog.get_logger(__name__)

NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}

_REALM: Final = 'Basic realm="oauth2", charset="UTF-8"'
_MOST_FIELDS: Final = 32
_LONGEST_CREDENTIAL: Final = 1_000
_FORM: Final = "application/x-www-form-urlencoded"
_RETRY_AFTER_SECS: Final = 2


class OAuthError(Exception):
    """A refusal as RFC 6749, section 5.2, and the specifications that extend it define it."""

    def __init__(self, error: str, description: str, *, status: int = 400, **headers: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(self) -> Response:
        """The error as a response."""
        # ASCII without quotes and backslashes is what the RFC allows in a description.
        description = "".join(char for char in self.description if " " <= char <= "~" and char not in '"\\')
        return JSONResponse(
            {"error": self.error, "error_description": description},
            status_code=self.status,
            headers={**NO_STORE, **self.headers},
        )


class Form(Mapping[str, str]):
    """The parameters of a request, each of them once. One without a value is left out (RFC 6749, section 3.2)."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def required(self, name: str) -> str:
        """The value of a parameter.

        Raises:
            OAuthError: it is missing.
        """
        if name not in self:
            raise OAuthError("invalid_request", f"The parameter {name} is missing.")
        return self[name]

    def single(self, *, but: str = "") -> None:
        """Refuse parameters that are given more than once.

        Raises:
            OAuthError: there are some, other than `but`.
        """
        for name, values in self._fields.items():
            if len(values) > 1 and name != but:
                raise OAuthError("invalid_request", "A parameter is given more than once.")

    def given(self, name: str) -> list[str]:
        """All values of a parameter."""
        return list(self._fields.get(name, []))


async def form(request: Request) -> Form:
    """The parameters in the body. Those in the URL, which logs keep, are not read.

    Raises:
        OAuthError: the body is not a form.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise OAuthError("invalid_request", f"Send the parameters in the body as {_FORM}.")
    body = await request.body()
    try:
        pairs = parse_qsl(body.decode("ascii"), max_num_fields=_MOST_FIELDS, errors="strict")
        for text in (text for pair in pairs for text in pair):
            storable(text)
    except ValueError:
        raise OAuthError("invalid_request", "The body is not a form that can be read.") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return Form(fields)


async def client(request: Request, database: Database, sent: Form) -> Client | None:
    """The application that authenticates itself, by HTTP Basic or by `client_id` and `client_secret` in the body.

    Returns:
        None where the request has no credentials of a client at all.

    Raises:
        OAuthError: `invalid_client`, the same for every reason; or the request authenticates in two ways.
    """
    headers = request.headers.getlist("authorization")
    in_body = [name for name in ("client_id", "client_secret") if name in sent]
    if len(headers) > 1 or (headers and "client_secret" in sent):
        # Which one counts would depend on who reads them.
        raise OAuthError("invalid_request", "Authenticate in one way only.")
    if headers:
        client_id, secret = _basic(headers[0])
        if "client_id" in sent and sent["client_id"] != client_id:
            raise OAuthError("invalid_request", "client_id names another client than the Authorization header.")
    elif in_body:
        # Without a secret too: every client that is registered here has one to show.
        client_id, secret = sent.get("client_id", ""), sent.get("client_secret", "")
    else:
        return None
    if len(client_id) > _LONGEST_CREDENTIAL or len(secret) > _LONGEST_CREDENTIAL:
        raise _invalid_client()
    known = await applications.authenticate_client(database, client_id, secret)
    if known is None:
        _log.warning("client_authentication_failed", client_id=client_id)
        raise _invalid_client()
    return known


async def authenticated_client(request: Request, database: Database, sent: Form) -> Client:
    """The application that authenticates itself.

    Raises:
        OAuthError: it does not.
    """
    known = await client(request, database, sent)
    if known is None:
        raise _invalid_client()
    return known


class Endpoint:
    """An ASGI application around a function that answers POST, for `Route`. Nothing leaves it but OAuth's answers."""

    def __init__(self, function: Callable[[Request], Awaitable[Response]]) -> None:
        self._function = function

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except OAuthError as error:
            response = error.answer()
        except IssuerUnavailable as error:
            response = _unavailable(error.detail)
        except TooManyCalls as error:
            # No specification has a code for it; clients go by the status (RFC 6585, section 4).
            response = _unavailable(error.detail, status=429, wait_secs=error.retry_after_secs)
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            _log.warning("the database is unavailable", path=scope["path"], error=str(error))
            response = _unavailable("The database did not answer in time. Try again.")
        except KeyUnreadable as error:
            _log.error("signing_key_unreadable", error=str(error))
            response = _unavailable("The service cannot sign tokens. Its operator has been told.")
        except Exception:  # noqa: BLE001 - logged; no library of OAuth could read what would become of it otherwise
            _log.exception("failed", path=scope["path"])
            response = OAuthError(
                "server_error", "Something went wrong here. The failure was logged.", status=500
            ).answer()
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            raise OAuthError("invalid_request", "This endpoint answers to POST.", status=405, Allow="POST")
        try:
            return await self._function(request)
        except HTTPException as error:
            # From the middleware that limits bodies.
            raise OAuthError("invalid_request", error.detail, status=error.status_code, Connection="close") from error


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise _invalid_client()
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        # RFC 6749, section 2.3.1: both are form-encoded before they are put together.
        client_id, secret = (storable(unquote_plus(text, errors="strict")) for text in (client_id, secret))
    except (binascii.Error, ValueError) as error:
        raise _invalid_client() from error
    if not colon:
        raise _invalid_client()
    return client_id, secret


def _invalid_client() -> OAuthError:
    return OAuthError(
        "invalid_client", "The client is unknown, or did not authenticate.", status=401, WWW_Authenticate=_REALM
    )


def _unavailable(description: str, *, status: int = 503, wait_secs: int = _RETRY_AFTER_SECS) -> Response:
    headers = {"Retry_After": str(wait_secs)}
    return OAuthError("temporarily_unavailable", description, status=status, **headers).answer()
