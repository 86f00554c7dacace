"""The HTTP API as the commands call it: bounded in time, repeated where that is safe, errors in words."""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx

from cli.people.credentials import Credentials, is_loopback
from cli.people.documents import Me, Page, T
from cli.people.errors import NotSignedIn, Refused, Unavailable

_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
_PATIENCE_SECS: Final = 20.0
"""How long a call that may be repeated is repeated, all attempts together."""
_USUAL_WAIT_SECS: Final = 1.0
_LARGEST_PAGE: Final = 200
_PROBLEM: Final = "application/problem+json"
_JSON: Final = "application/json"

_BUSY: Final = frozenset({429, 502, 503, 504})
"""Statuses that pass: of the service, or of a proxy before it."""
_UNAUTHENTICATED: Final = 401
_REDIRECTS: Final = range(300, 400)
_SERVER_ERRORS: Final = range(500, 600)


class Service:
    """One service, called as one person. Not thread-safe."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        patience_secs: float = _PATIENCE_SECS,
        timeout: httpx.Timeout = _TIMEOUT,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare to call; nothing is sent yet.

        Args:
            credentials: the service and the token.
            patience_secs: how long a call that may be repeated is repeated.
            timeout: of a single attempt.
            notice: told, for the person who waits, that a call is being repeated.
        """
        self.credentials = credentials
        self._patience_secs = patience_secs
        self._notice = notice
        local = is_loopback(urlsplit(credentials.endpoint).hostname or "")
        self._client = httpx.Client(
            base_url=f"{credentials.endpoint}/api/v1",
            headers={"Authorization": f"Bearer {credentials.token}", "Accept": f"{_JSON}, {_PROBLEM}"},
            timeout=timeout,
            verify=trusted(credentials.endpoint),
            # A proxy is for other machines.
            trust_env=not local,
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def me(self) -> Me:
        """Who calls."""
        me: Me = self.get("/users/me")
        return me

    def get(self, path: str, **parameters: str | int | None) -> Any:  # noqa: ANN401 - JSON
        """Read. Parameters that are None are left out.

        Raises:
            CommandError: there is no answer that could be used.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._call("GET", path, repeatable=True, params=given)

    def post(self, path: str, body: dict[str, Any], *, key: str | None = None) -> Any:  # noqa: ANN401 - JSON
        """Change something; repeated only with an idempotency `key`, under which the service acts once.

        Raises:
            CommandError: there is no answer that could be used.
        """
        headers = {"Idempotency-Key": key} if key else {}
        return self._call("POST", path, repeatable=key is not None, json=body, headers=headers)

    def gather(
        self,
        path: str,
        limit: int,
        keep: Callable[[T], bool] | None = None,
        **parameters: str | int | None,
    ) -> Page[T]:
        """The newest `limit` items of a list that `keep` lets through; the cursor says whether more follow."""
        items: list[T] = []
        cursor: str | None = None
        while True:
            left = limit - len(items)
            size = _LARGEST_PAGE if keep else min(left, _LARGEST_PAGE)
            page: Page[T] = self.get(path, **parameters, limit=size, cursor=cursor)
            kept = [index for index, item in enumerate(page["items"]) if keep is None or keep(item)]
            if len(kept) > left:
                # Ask again up to the last one that is shown: the cursor then stands behind it.
                page = self.get(path, **parameters, limit=kept[left - 1] + 1, cursor=cursor)
                kept = kept[:left]
            items += [page["items"][index] for index in kept if index < len(page["items"])]
            cursor = page["next_cursor"]
            if cursor is None or len(items) >= limit:
                return {"items": items, "next_cursor": cursor}

    def every(self, path: str, **parameters: str | int | None) -> Iterator[Any]:
        """Each item of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **parameters, limit=_LARGEST_PAGE, cursor=cursor)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _call(self, method: str, path: str, *, repeatable: bool, **request: Any) -> Any:  # noqa: ANN401 - httpx's own
        self._stay_signed_in()
        deadline = time.monotonic() + self._patience_secs
        while True:
            try:
                answer = self._client.request(method, path, **request)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
                raise Unavailable(unreachable(self.credentials.endpoint, error)) from None
            except httpx.TimeoutException:
                failure = f"{self.credentials.endpoint} did not answer in time."
                raise Unavailable(failure + _after_all(repeatable=repeatable, method=method)) from None
            except httpx.HTTPError as error:
                # The connection ended in the middle: the service was restarted, for example.
                failure = f"{self.credentials.endpoint} broke the connection off: {error}."
                wait = _USUAL_WAIT_SECS
            else:
                if answer.status_code not in _BUSY:
                    return self._understood(answer)
                code, detail = _words(answer) or (str(answer.status_code), answer.reason_phrase)
                failure = f"{code}: {detail}"
                wait = _retry_after(answer)
            if not repeatable or time.monotonic() + wait > deadline:
                raise Unavailable(failure + _after_all(repeatable=repeatable, method=method))
            self._notice(f"{failure} Trying again.")
            time.sleep(wait)

    def _stay_signed_in(self) -> None:
        if self.credentials.has_ended:
            # Not before it is needed: most commands find a token that is good.
            from cli.people import oidc

            self.credentials = oidc.renewed(self.credentials, timeout=self._client.timeout)
            self._client.headers["Authorization"] = f"Bearer {self.credentials.token}"

    def _understood(self, answer: httpx.Response) -> Any:  # noqa: ANN401 - JSON
        """The JSON of an answer.

        Raises:
            CommandError: it is a refusal, a failure, or not from a service like ours.
        """
        endpoint = self.credentials.endpoint
        if answer.is_success:
            if answer.headers.get("content-type", "").partition(";")[0].strip() == _JSON:
                try:
                    return answer.json()
                except ValueError:
                    pass
            raise Unavailable(f"{endpoint} does not answer like JustIAM. Is the address right?")
        if answer.status_code in _REDIRECTS:
            raise Unavailable(f"{endpoint} sends us on to {answer.headers.get('location')}. Sign in to that address.")
        said = _words(answer)
        if said is None:
            raise Unavailable(f"{endpoint} answered {answer.status_code}, and not like JustIAM. Is the address right?")
        code, detail = said
        if answer.status_code == _UNAUTHENTICATED:
            raise NotSignedIn(
                f"{code}: {detail} The token came from {self.credentials.source}. Get a new one with `justiam login`."
            )
        if answer.status_code in _SERVER_ERRORS:
            raise Unavailable(f"{code}: {detail}")
        errors = [(str(each["field"]), str(each["message"])) for each in answer.json().get("errors", [])]
        raise Refused(code, detail, errors)


def trusted(endpoint: str) -> ssl.SSLContext:
    """Whose certificates count: the system's, with SSL_CERT_FILE as OpenSSL knows it; a company's own are there."""
    if endpoint.startswith("https://"):
        return ssl.create_default_context()
    # Nobody's, then: to load them takes a fifth of the time of a whole command.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def unreachable(where: str, error: httpx.HTTPError) -> str:
    """Why there is no connection to the server at `where`, in words that say what to look at."""
    cause = _root_cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"The certificate of {where} cannot be trusted: {cause.verify_message}. "
            "Where your company has its own authority, name its certificate file in SSL_CERT_FILE."
        )
    if isinstance(error, httpx.TimeoutException):
        reason = "no answer"
    else:
        reason = (isinstance(cause, OSError) and cause.strerror) or str(error) or type(error).__name__
    hint = "is the service running?" if "127.0.0.1" in where else "are the address and your network right?"
    return f"Cannot reach {where}: {reason}; {hint}"


def _words(answer: httpx.Response) -> tuple[str, str] | None:
    """Code and detail of a problem document; None where it is none."""
    if answer.headers.get("content-type", "").partition(";")[0].strip() != _PROBLEM:
        return None
    try:
        problem = answer.json()
        return str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return None


def _retry_after(answer: httpx.Response) -> float:
    """How long the service asks us to wait: seconds or a date, as RFC 9110 has it."""
    value = answer.headers.get("retry-after", "")
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return _USUAL_WAIT_SECS
    return max(wait, 0.1) if math.isfinite(wait) else _USUAL_WAIT_SECS


def _after_all(*, repeatable: bool, method: str) -> str:
    """What to do when a call remained without an answer."""
    if method == "GET":
        return " Try again later."
    if repeatable:
        return " It may have been carried out all the same: look with `justiam request show` before you repeat it."
    return " It may have been carried out all the same: look before you repeat it."


def _root_cause(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
