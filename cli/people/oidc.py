"""Signing in at an OpenID Connect issuer, staying signed in, and signing out: authorization code flow with PKCE.

A public client, as RFC 8252 describes it for native apps: no secret, the browser comes back to this machine. The ID
token is read to make sure that the issuer answers us; whether a token counts is for the service to say.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from cli.people import credentials
from cli.people.callback import Answer, Callback
from cli.people.client import trusted, unreachable
from cli.people.credentials import Credentials, SignIn, is_loopback
from cli.people.errors import CommandError, Declined, Misused, NotSignedIn, Unavailable
from domain import jose
from domain.addresses import with_ascii_host
from domain.jose import InvalidToken
from settings import safe_to_fetch

_TIMEOUT: Final = httpx.Timeout(10.0)
_PATIENCE_SECS: Final = 300.0
"""How long somebody may take to sign in."""
_LONGEST_EXCERPT: Final = 200
_OPENID: Final = "openid"
_OFFLINE: Final = "offline_access"
_USUAL_SCOPE: Final = f"{_OPENID} email"
"""The address, because it is what links an account where the service allows that."""
_DENIED: Final = frozenset({"access_denied", "interaction_required", "login_required", "consent_required"})

METADATA_PATH: Final = "/.well-known/oauth-authorization-server"
METADATA_MEMBER: Final = "justiam_sign_in"
"""Where the service says at which issuers its people sign in."""


@dataclass(frozen=True)
class Way:
    """At which issuer to sign in, and as which of its clients."""

    issuer: str
    client_id: str
    audience: str
    scope: str | None = None


@dataclass(frozen=True)
class _Tokens:
    """What an issuer gave."""

    answer: dict[str, Any]

    def text(self, name: str) -> str | None:
        value = self.answer.get(name)
        return value if isinstance(value, str) and value else None

    def claims(self) -> dict[str, Any]:
        """Those of the ID token; none where none came.

        Unverified: it came from the issuer itself, over TLS (OpenID Connect Core, section 3.1.3.7).
        """
        token = self.text("id_token")
        try:
            return jose.parse(token).claims if token else {}
        except InvalidToken:
            return {}


class _Issuer:
    """One issuer, as its discovery document describes it."""

    def __init__(self, issuer: str, timeout: httpx.Timeout = _TIMEOUT) -> None:
        """Read the document.

        Raises:
            Misused: it is not that of this issuer, or nothing that can be used.
            Unavailable: the issuer does not answer.
        """
        if not safe_to_fetch(issuer):
            raise Misused(f"The issuer {issuer!r} has to be an address that begins with https://.")
        self.name = issuer
        self._timeout = timeout
        url = issuer.rstrip("/") + "/.well-known/openid-configuration"
        answer = _send("GET", url, timeout=timeout)
        if answer.status_code in range(500, 600):
            raise Unavailable(f"{issuer} answers {answer.status_code}. Try again later.")
        about = _json(answer)
        if answer.status_code != httpx.codes.OK or about is None:
            raise Misused(f"{url} is no discovery document. Check the address of the issuer.")
        if about.get("issuer") != issuer:
            # OpenID Connect Discovery, section 4.3: else one issuer could stand in for another.
            raise Misused(
                f"The discovery document of {issuer} is of {str(about.get('issuer'))[:_LONGEST_EXCERPT]}. "
                "The issuer has to be given exactly as it names itself."
            )
        self._about = about

    def endpoint(self, name: str) -> str | None:
        """The address of one of its endpoints; None where it has none.

        Raises:
            Misused: what is sent there could be read on the way.
        """
        url = self._about.get(f"{name}_endpoint")
        if url is None:
            return None
        if not isinstance(url, str) or not safe_to_fetch(url):
            raise Misused(f"{self.name} has a {name}_endpoint that does not begin with https://.")
        try:
            return with_ascii_host(url)
        except ValueError:
            raise Misused(f"{self.name} has a {name}_endpoint that cannot be called.") from None

    def needed(self, name: str) -> str:
        """The address of an endpoint that every issuer has.

        Raises:
            Misused: this one has none.
        """
        url = self.endpoint(name)
        if url is None:
            raise Misused(f"The discovery document of {self.name} has no {name}_endpoint.")
        return url

    def scope(self, asked: str | None) -> str:
        """What to ask for: the usual, and to stay signed in where the issuer knows that by its standard name."""
        known = self._about.get("scopes_supported")
        usual = f"{_USUAL_SCOPE} {_OFFLINE}" if isinstance(known, list) and _OFFLINE in known else _USUAL_SCOPE
        names = (asked or usual).split()
        return " ".join(names if _OPENID in names else [_OPENID, *names])

    def check_sender(self, answer: Answer) -> None:
        """Hold an answer to RFC 9207.

        Raises:
            NotSignedIn: another issuer sent it.
        """
        says_so = self._about.get("authorization_response_iss_parameter_supported") is True
        if answer.issuer != self.name and (says_so or answer.issuer is not None):
            raise NotSignedIn(f"The answer was not from {self.name}, so it was refused. Try again, run: justiam login")

    def tokens(self, **fields: str) -> _Tokens:
        """What it gives for a code or a refresh token.

        Raises:
            NotSignedIn: nothing.
            Unavailable: it does not answer.
        """
        answer = _send("POST", self.needed("token"), fields, timeout=self._timeout)
        content = _json(answer)
        if answer.status_code in range(500, 600):
            raise Unavailable(f"{self.name} answers {answer.status_code}. Try again later.")
        if answer.status_code != httpx.codes.OK or content is None:
            raise NotSignedIn(f"{self.name} gave no token{_reason(content or {})}.")
        return _Tokens(content)


def offered(endpoint: str, issuer: str | None) -> Way | None:
    """How the service says that its people sign in; None where it says nothing, or nothing of this issuer.

    Raises:
        Unavailable: it cannot be reached.
    """
    answer = _send("GET", endpoint + METADATA_PATH)
    if answer.status_code in range(500, 600):
        raise Unavailable(f"{endpoint} answers {answer.status_code}. Try again later.")
    listed = (_json(answer) or {}).get(METADATA_MEMBER)
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, dict) or (issuer is not None and each.get("issuer") != issuer):
            continue
        with contextlib.suppress(KeyError):
            scope = each.get("scope")
            return Way(
                str(each["issuer"]),
                str(each["client_id"]),
                str(each["audience"]),
                None if scope is None else str(scope),
            )
    return None


def sign_in(way: Way, endpoint: str, *, port: int, show: Callable[[str], None]) -> Credentials:
    """Have somebody sign in with their browser.

    Args:
        way: where.
        endpoint: the service that the token is for.
        port: where on this machine the browser comes back to; 0 for any port that is free.
        show: brings the address to a browser; must not wait for it.

    Raises:
        CommandError: they did not.
    """
    issuer = _Issuer(way.issuer)
    authorization = issuer.needed("authorization")
    state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
    with Callback(state, port=port) as callback:
        asked = {
            "response_type": "code",
            "client_id": way.client_id,
            "redirect_uri": callback.url,
            "scope": issuer.scope(way.scope),
            "state": state,
            "nonce": nonce,
            "code_challenge": urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        if way.audience != way.client_id:
            # No standard has it, several issuers need it, the others ignore what they do not know (RFC 6749).
            asked["audience"] = way.audience
        show(str(httpx.URL(authorization).copy_merge_params(asked)))
        answer = callback.wait(_PATIENCE_SECS)
    issuer.check_sender(answer)
    if answer.code is None:
        raise _refusal(issuer.name, answer)
    try:
        given = issuer.tokens(
            grant_type="authorization_code",
            code=answer.code,
            redirect_uri=callback.url,
            client_id=way.client_id,
            code_verifier=verifier,
        )
        started = SignIn(way.issuer, way.client_id, way.audience, _subject(given, way, nonce), None, None)
        return _with(Credentials(endpoint, "", way.issuer, started), given)
    except NotSignedIn as error:
        raise NotSignedIn(f"{error} To try again, run: justiam login") from None


def renewed(ended: Credentials, *, timeout: httpx.Timeout = _TIMEOUT) -> Credentials:
    """Credentials with a token that is good again, kept in place of those that `ended`.

    Raises:
        NotSignedIn: the issuer gives no more, or they were forgotten meanwhile.
        Unavailable: the issuer cannot be reached.
    """
    with credentials.alone():
        kept = credentials.stored()
        if kept is None or kept.sign_in is None or not _same(kept, ended):
            raise NotSignedIn("You signed out, or in as somebody else, meanwhile. To sign in, run: justiam login")
        if not kept.has_ended:
            # Another command did it.
            return kept
        try:
            fresh = _renewed(kept, kept.sign_in, timeout)
        except Unavailable as error:
            raise Unavailable(f"Your sign-in has to be renewed. {error} If it stays away, run: justiam login") from None
        except CommandError as error:
            raise NotSignedIn(f"Your sign-in has ended. {error} To sign in again, run: justiam login") from None
        # Before it is used: the issuer may already count the refresh token of before as used up.
        credentials.store(fresh)
        return fresh


def _renewed(kept: Credentials, was: SignIn, timeout: httpx.Timeout) -> Credentials:
    if was.refresh_token is None:
        raise NotSignedIn(f"{was.issuer} lets nobody stay signed in for longer.")
    given = _Issuer(was.issuer, timeout).tokens(
        grant_type="refresh_token", refresh_token=was.refresh_token, client_id=was.client_id
    )
    # OpenID Connect Core, section 12.2: an ID token need not come, but cannot be of another.
    if given.text("id_token") and _subject(given, Way(was.issuer, was.client_id, was.audience)) != was.subject:
        raise NotSignedIn(f"{was.issuer} answered for somebody else.")
    return _with(kept, given)


def end(forgotten: Credentials) -> str | None:
    """Have the issuer end what is forgotten here (RFC 7009).

    Returns:
        Why it was not ended, in words; None where it was, or where the issuer does not do that.
    """
    was = forgotten.sign_in
    if was is None:
        return None
    fields = {"client_id": was.client_id}
    if was.refresh_token is not None:
        fields |= {"token": was.refresh_token, "token_type_hint": "refresh_token"}
    elif was.audience != was.client_id:
        fields |= {"token": forgotten.token, "token_type_hint": "access_token"}
    else:
        # An ID token ends by itself.
        return None
    try:
        url = _Issuer(was.issuer).endpoint("revocation")
        if url is None:
            return None
        answer = _send("POST", url, fields)
    except CommandError as error:
        return str(error)
    return None if answer.is_success else f"{was.issuer} answers {answer.status_code}{_reason(_json(answer) or {})}"


def open_browser(url: str) -> None:
    """Bring an address to the browser of this machine, if it has one, without waiting for it."""
    import subprocess
    import sys

    def bring() -> None:
        # In a process of its own: what browsers print is no result, and Ctrl-C here is not meant for them. With -I, no
        # webbrowser.py of the directory that the command is called in runs.
        subprocess.run(  # noqa: S603 - no shell; the address is that of an issuer, checked to be https
            [sys.executable, "-I", "-m", "webbrowser", url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
        )

    threading.Thread(target=bring, daemon=True).start()


def _same(one: Credentials, other: Credentials) -> bool:
    """Whether both come from the sign-in of one person at one issuer, for one service."""

    def who(each: Credentials) -> tuple[str, ...] | None:
        was = each.sign_in
        return (each.endpoint, was.issuer, was.client_id, was.audience, was.subject) if was else None

    return who(one) == who(other)


def _with(kept: Credentials, given: _Tokens) -> Credentials:
    """Credentials with the token that is for the service, of those that were given.

    Where the audience is the client, that is the ID token: its `aud` is the client's id by definition, while what the
    access token is for, and whether it can be read at all, is the issuer's business.

    Raises:
        NotSignedIn: it is not among them.
    """
    was = kept.sign_in
    assert was is not None  # noqa: S101 - what is renewed was signed in
    by_id = was.audience == was.client_id
    token = given.text("id_token" if by_id else "access_token")
    if token is None or not (by_id or str(given.answer.get("token_type")).lower() == "bearer"):
        kind = "ID token" if by_id else "bearer token"
        raise NotSignedIn(f"{was.issuer} gave no {kind}.")
    if by_id:
        claims = given.claims()
        # Its length rather than its end: the clock of this machine may be off.
        lifetime = _seconds(claims.get("exp"), less=claims.get("iat"))
    else:
        lifetime = _seconds(given.answer.get("expires_in"))
    return replace(
        kept,
        token=credentials.checked_token(token),
        sign_in=replace(
            was,
            expires_at=None if lifetime is None else time.time() + lifetime,
            # One that is not replaced stays good (RFC 6749, section 6).
            refresh_token=given.text("refresh_token") or was.refresh_token,
        ),
    )


def _subject(given: _Tokens, way: Way, nonce: str | None = None) -> str:
    """Whom an ID token is about, if it is the issuer's for this client (OpenID Connect Core, section 3.1.3.7).

    Raises:
        NotSignedIn: it is not, or answers another sign-in than that of the `nonce`.
    """
    claims = given.claims()
    audience, subject = claims.get("aud"), claims.get("sub")
    if (
        claims.get("iss") != way.issuer
        or way.client_id not in (audience if isinstance(audience, list) else [audience])
        or claims.get("azp", way.client_id) != way.client_id
        or (nonce is not None and claims.get("nonce") != nonce)
        or not isinstance(subject, str)
    ):
        raise NotSignedIn(f"{way.issuer} answered with no ID token for this sign-in.")
    return subject


def _refusal(issuer: str, answer: Answer) -> CommandError:
    why = _reason({"error": answer.error, "error_description": answer.description})
    if answer.error in _DENIED:
        return Declined(f"The sign-in was declined at {issuer}{why}. To try again, run: justiam login")
    return NotSignedIn(f"{issuer} could not sign you in{why}. To try again, run: justiam login")


def _reason(content: dict[str, Any]) -> str:
    """What an issuer says about an error, as the rest of a sentence; it is cleaned where it is printed."""
    told = ": ".join(str(content[name]) for name in ("error", "error_description") if content.get(name))
    return f" ({told[:_LONGEST_EXCERPT].rstrip('. ')})" if told else ""


def _seconds(value: object, *, less: object = 0) -> float | None:
    """A number of seconds in an answer; None where it is none."""
    try:
        seconds = float(str(value)) - float(str(less))
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _send(
    method: str, url: str, fields: dict[str, str] | None = None, *, timeout: httpx.Timeout = _TIMEOUT
) -> httpx.Response:
    try:
        url = with_ascii_host(url)
        parts = urlsplit(url)
    except ValueError:
        raise Misused(f"{url!r} is no address that can be called.") from None
    try:
        return httpx.request(
            method,
            url,
            data=fields,
            headers={"Accept": "application/json"},
            timeout=timeout,
            verify=trusted(url),
            # A proxy is for other machines. A redirect would let whoever answers name another server.
            trust_env=not is_loopback(parts.hostname or ""),
            follow_redirects=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        where = f"{parts.scheme}://{parts.netloc}"
        if isinstance(error, httpx.InvalidURL):
            raise Misused(f"{url!r} is no address that can be called.") from None
        raise Unavailable(unreachable(where, error)) from None


def _json(answer: httpx.Response) -> dict[str, Any] | None:
    """The JSON object of an answer; None where it is something else."""
    try:
        content = answer.json()
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
