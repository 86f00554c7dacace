"""The HTTP API as the provider calls it: bounded in time, repeated where that is safe, errors in words.

The token is sent and never said: no message here has it.
"""

from __future__ import annotations

import ipaddress
import math
import random
import re
import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import idna

API_PATH: Final = "/api/v1"
TIMEOUT_SECS: Final = 30.0
RETRY_SECS: Final = 30.0

_CONNECT_SECS: Final = 5.0
_FIRST_WAIT_SECS: Final = 0.5
_LONGEST_WAIT_SECS: Final = 8.0
_LARGEST_PAGE: Final = 200
_PROBLEM: Final = "application/problem+json"
_JSON: Final = "application/json"
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

_NO_CONTENT: Final = 204
_REDIRECTS: Final = range(300, 400)
_UNAUTHENTICATED: Final = 401
_NOT_CARRIED_OUT: Final = frozenset({429, 503})
"""Said before anything was changed, so that every call may be repeated, but for the one code below."""
_SILENT_RECORD: Final = "record_unavailable"
"""The database fell silent, perhaps while it committed."""
_PERHAPS_CARRIED_OUT: Final = frozenset({502, 504})
"""Said by a proxy that knows nothing of what became of the call."""


CHANGED: Final = "changed_meanwhile"
"""The code of a refusal because the object is not in the version that was expected."""


class ApiObject(dict[str, Any]):
    """An object of the API, with the version in which it was answered; without one, `tag` is empty."""

    tag: str = ""


class Misconfigured(Exception):
    """The provider's configuration cannot be used; the message says why."""


class Failure(Exception):
    """A call came to nothing.

    Attributes:
        code: the stable code of a problem document; empty where there was none.
        errors: with `validation_error`, each field and what would be accepted.
        changed: with `CHANGED`, the arguments that are not as they were read, as far as they can be read.
    """

    def __init__(
        self,
        detail: str,
        code: str = "",
        errors: tuple[tuple[str, str], ...] = (),
        changed: tuple[str, ...] = (),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.errors = errors
        self.changed = changed


def checked_endpoint(text: str) -> str:
    """A service's address in one form. A token is a password: over plain HTTP only this machine gets it.

    Raises:
        Misconfigured: it is no address of a service, or one to which a token cannot be sent safely.
    """
    candidate = text.strip()
    if "://" not in candidate:
        candidate = f"https://{candidate}"
    try:
        parts = urlsplit(_with_ascii_host(candidate))
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in {"https", "http"} or not host or parts.query or parts.fragment:
        raise Misconfigured("It is not the URL of a service; write it as in https://access.example.com.")
    if parts.username or parts.password:
        raise Misconfigured("It must not hold a user or a password; the token is given apart.")
    if parts.scheme == "http" and not _is_loopback(host):
        raise Misconfigured(
            f"{host} is another machine, and over http everybody on the way could read the token: use https://."
        )
    shown = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/").removesuffix(API_PATH).rstrip("/")
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{path}"


def _with_ascii_host(url: str) -> str:
    """Return `url` with its host in ASCII by IDNA 2008: what is not ASCII, `urlsplit` and Python's codec map otherwise.

    Raises:
        ValueError: IDNA 2008 does not allow the host.
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?)([^/?#@:\[\]]+)", url)
    if found is None or found[2].isascii():
        return url
    return f"{found[1]}{idna.encode(found[2], uts46=True).decode('ascii')}{url[found.end() :]}"


def checked_token(text: str) -> str:
    """A token without the white space around it.

    Raises:
        Misconfigured: it cannot be a token. The message does not repeat it.
    """
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise Misconfigured("It is no token: a token is one word, as `justiam token create` prints it.")
    return token


class Service:
    """One service, called with one token. Terraform walks its graph in several threads, which share it."""

    def __init__(self, endpoint: str, token: str, *, timeout_secs: float, retry_secs: float) -> None:
        """Prepare to call; nothing is sent yet.

        Args:
            endpoint: the address, as `checked_endpoint` returns it.
            token: the API token.
            timeout_secs: of a single attempt.
            retry_secs: how long a call is repeated, all attempts together.
        """
        self._endpoint = endpoint
        self._retry_secs = retry_secs
        self._stopping = threading.Event()
        secure = endpoint.startswith("https://")
        self._client = httpx.Client(
            base_url=f"{endpoint}{API_PATH}",
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": f"{_JSON}, {_PROBLEM}",
                # A proxy that compresses an answer makes a weak tag of its strong one, which If-Match never matches.
                "Accept-Encoding": "identity",
            },
            timeout=httpx.Timeout(timeout_secs, connect=min(_CONNECT_SECS, timeout_secs)),
            # The system's authorities, with SSL_CERT_FILE as OpenSSL knows it: a company's own are there.
            verify=ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            # A proxy is for other machines.
            trust_env=not _is_loopback(urlsplit(endpoint).hostname or ""),
            follow_redirects=False,
        )

    def stop(self) -> None:
        """Repeat nothing any more: somebody wants to go."""
        self._stopping.set()

    def check(self) -> None:
        """Make sure that there is a JustIAM which knows the token.

        Raises:
            Failure: there is not.
        """
        me = self.get("/users/me")
        if not isinstance(me, dict) or "permissions" not in me:
            raise Failure(f"{self._endpoint} does not answer like JustIAM. Is the address right?")

    def get(self, path: str, **parameters: str | int | None) -> Any:  # noqa: ANN401 - JSON
        """Read. Parameters that are None are left out.

        Raises:
            Failure: there is no answer that could be used.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._call("GET", path, params=given)

    def find(self, path: str) -> Any | None:  # noqa: ANN401 - JSON
        """Read what may have gone: None where it has.

        Raises:
            Failure: there is no answer that could be used.
        """
        try:
            return self.get(path)
        except Failure as failure:
            if failure.code == "not_found":
                return None
            raise

    def every(self, path: str, **parameters: str | None) -> Iterator[Any]:
        """Each item of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **parameters, limit=_LARGEST_PAGE, cursor=cursor)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def post(self, path: str, body: dict[str, Any], *, once: bool) -> Any:  # noqa: ANN401 - JSON
        """Make something.

        Args:
            path: where.
            body: what.
            once: nothing would keep a second one from being made, so that a doubtful call is not repeated.

        Raises:
            Failure: there is no answer that could be used.
        """
        return self._call("POST", path, once=once, json=body)

    def put(self, path: str, body: dict[str, Any] | None = None, *, tag: str = "") -> Any:  # noqa: ANN401 - JSON
        """Set something.

        Args:
            path: where.
            body: what.
            tag: the only version that may be replaced; empty: any.

        Raises:
            Failure: there is no answer that could be used; with the code `CHANGED`, it is in another version.
        """
        headers = _condition(tag)
        if body is None:
            return self._call("PUT", path, headers=headers)
        return self._call("PUT", path, headers=headers, json=body)

    def delete(self, path: str, *, tag: str = "") -> None:
        """Delete something; what is not there any more is as good as deleted.

        Args:
            path: where.
            tag: the only version that may be deleted; empty: any.

        Raises:
            Failure: the service refuses, or there is no answer that could be used.
        """
        try:
            self._call("DELETE", path, headers=_condition(tag))
        except Failure as failure:
            if failure.code != "not_found":
                raise

    def _call(self, method: str, path: str, *, once: bool = False, **request: Any) -> Any:  # noqa: ANN401 - httpx's own, and JSON
        deadline = time.monotonic() + self._retry_secs
        wait = _FIRST_WAIT_SECS
        may_repeat = method != "POST"
        while True:
            asked: float | None = None
            try:
                answer = self._client.request(method, path, **request)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
                raise Failure(_unreachable(self._endpoint, error)) from None
            except httpx.TimeoutException:
                raise Failure(f"{self._endpoint} did not answer in time.{_after_all(method)}") from None
            except httpx.HTTPError as error:
                # The connection ended in the middle: the service was restarted, for example.
                failure = Failure(f"{self._endpoint} broke the connection off: {error}.{_after_all(method)}")
                again = may_repeat
            else:
                status = answer.status_code
                if status not in _NOT_CARRIED_OUT | _PERHAPS_CARRIED_OUT:
                    return self._understood(answer)
                failure = self._failure(answer)
                doubtful = failure.code == _SILENT_RECORD
                again = may_repeat or (status in _NOT_CARRIED_OUT and not (once and doubtful))
                if doubtful and not again:
                    failure = Failure(failure.detail + _after_all(method), failure.code)
                asked = _retry_after(answer)
            # A little apart from the others that were refused at the same moment.
            pause = asked if asked is not None else wait * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
            if not again or time.monotonic() + pause > deadline or self._stopping.wait(pause):
                raise failure
            wait = min(wait * 2, _LONGEST_WAIT_SECS)

    def _understood(self, answer: httpx.Response) -> Any:  # noqa: ANN401 - JSON
        if answer.status_code == _NO_CONTENT:
            return None
        if answer.is_success:
            if _media_type(answer) == _JSON:
                try:
                    read = answer.json()
                except ValueError:
                    pass
                else:
                    if not isinstance(read, dict):
                        return read
                    thing = ApiObject(read)
                    thing.tag = answer.headers.get("etag", "")
                    return thing
            raise Failure(f"{self._endpoint} does not answer like JustIAM. Is the address right?")
        raise self._failure(answer)

    def _failure(self, answer: httpx.Response) -> Failure:
        status = answer.status_code
        if status in _REDIRECTS:
            where = answer.headers.get("location", "another address")
            return Failure(f"{self._endpoint} sends us on to {where}. Configure the address that it leads to.")
        try:
            problem: Any = answer.json() if _media_type(answer) == _PROBLEM else None
            code, detail = str(problem["code"]), str(problem["detail"])
            errors = tuple((str(each["field"]), str(each["message"])) for each in problem.get("errors") or ())
        except (ValueError, KeyError, TypeError):
            if status == _UNAUTHENTICATED or status in _NOT_CARRIED_OUT | _PERHAPS_CARRIED_OUT:
                return Failure(f"{self._endpoint} answered {status} {answer.reason_phrase}.")
            return Failure(f"{self._endpoint} answered {status}, and not like JustIAM. Is the address right?")
        if status == _UNAUTHENTICATED:
            detail += " Make a new token with `justiam token create`."
        return Failure(detail, code, errors)


def _condition(tag: str) -> dict[str, str]:
    return {"If-Match": tag} if tag else {}


def _media_type(answer: httpx.Response) -> str:
    return str(answer.headers.get("content-type", "")).partition(";")[0].strip()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _unreachable(where: str, error: httpx.HTTPError) -> str:
    """Why there is no connection, in words that say what to look at."""
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"The certificate of {where} cannot be trusted: {cause.verify_message}. "
            "Where your company has its own authority, name its certificate file in SSL_CERT_FILE."
        )
    if isinstance(error, httpx.TimeoutException):
        reason = "no answer"
    else:
        reason = (isinstance(cause, OSError) and cause.strerror) or str(error) or type(error).__name__
    return f"Cannot reach {where}: {reason}. Is the address right, and is the service running?"


def _retry_after(answer: httpx.Response) -> float | None:
    """How long the service asks us to wait: seconds or a date, as RFC 9110 has it; None where it does not say."""
    value = answer.headers.get("retry-after", "")
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError, OSError):
            return None
    return max(wait, 0.1) if math.isfinite(wait) else None


def _after_all(method: str) -> str:
    if method == "GET":
        return " Try again later."
    return " The change may have been carried out all the same: look before you repeat it."
