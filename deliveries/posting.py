"""POST to an address that somebody else chose (OWASP: server-side request forgery).

A name is resolved once, each of its addresses is judged, and the connection is made to one that was judged: a resolver
that answers differently a moment later changes nothing. No redirect is followed, no proxy of the environment is used,
and of the answer no more is read than is kept.
"""

from __future__ import annotations

import asyncio
import email.utils
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final

import httpcore
import httpx

from deliveries.addresses import Address, Place, Refused, check_address, place_of
from domain.deliveries import RESPONSE_HEAD_BYTES, Attempt, Outbound
from domain.text import made_storable

Resolve = Callable[[str, int], Awaitable[list[Address]]]

_CONNECT_SECS: Final = 5.0
_MOST_ADDRESSES: Final = 4
"""Of one name, that are tried in turn."""
_LONGEST_WAIT_SECS: Final = 86_400
_RETRIED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_AGENT: Final = "JustIAM"


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, in the order in which to try them.

    Raises:
        OSError: it has none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "no name can be this long") from error
    return list(dict.fromkeys(ip_address(str(address[0]).partition("%")[0]) for *_, address in found))


async def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    policy: Outbound,
    *,
    resolve_host: Resolve = resolve,
) -> Attempt:
    """Send `body`, if it may go there, and say what came of it."""
    began = time.monotonic()
    answer = _Answer()
    error: str | None = None
    retryable = False
    try:
        place = place_of(url, policy.allowed_internal_hosts)
        # All of it: a receiver that sends a byte a second must not hold a worker for longer.
        async with asyncio.timeout(policy.timeout_secs):
            await _exchange(place, body, headers, resolve_host, answer)
    except Refused as refused:
        error, retryable = str(refused), False
    except (TimeoutError, httpcore.TimeoutException):
        error, retryable = f"There was no answer within {policy.timeout_secs:g} seconds.", True
    except (OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as raised:
        error, retryable = _explain(raised), True
    if answer.status is not None:
        # What counts is the status. The receiver has the message, even where the body of its answer is cut off or late.
        error, retryable = _judge(answer.status)
    return Attempt(
        delivered=error is None,
        response_status=answer.status,
        response_head=None if answer.status is None else made_storable(answer.head.decode(errors="replace")),
        latency_ms=round((time.monotonic() - began) * 1000),
        error=error,
        retryable=retryable,
        retry_after_secs=answer.retry_after_secs,
    )


@dataclass
class _Answer:
    """Hold the part of an answer that has arrived, also where the rest never does."""

    status: int | None = None
    head: bytes = b""
    """The beginning of its body."""
    retry_after_secs: int | None = None
    """How many seconds the receiver asks to wait before the next attempt."""


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were judged, and to nothing else."""

    def __init__(self, place: Place, resolve_host: Resolve) -> None:
        self._place = place
        self._resolve = resolve_host
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolve(host, port)
        if not self._place.allowed:
            # One that is not public among them is reason enough: an honest name has no such mixture.
            for address in addresses:
                check_address(address)
        failure: Exception = httpcore.ConnectError("its name has no address")
        for address in addresses[:_MOST_ADDRESSES]:
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _exchange(
    place: Place, body: bytes, headers: Mapping[str, str], resolve_host: Resolve, answer: _Answer
) -> None:
    """Send `body`, and write into `answer` what comes back."""
    timeouts = {"connect": _CONNECT_SECS, "read": None, "write": None, "pool": None}
    sent = {
        "Host": place.authority,
        "User-Agent": _AGENT,
        "Accept": "*/*",
        "Connection": "close",
        "Content-Length": str(len(body)),
        **headers,
    }
    target = httpcore.URL(
        scheme=place.scheme.encode(), host=place.host.encode(), port=place.port, target=place.path.encode()
    )
    # A pool for each attempt: a connection that is kept would be one that nobody judges again.
    async with (
        httpcore.AsyncConnectionPool(
            ssl_context=_tls() if place.scheme == "https" else None,
            network_backend=_CheckedBackend(place, resolve_host),
            max_connections=1,
        ) as pool,
        pool.stream("POST", target, headers=list(sent.items()), content=body, extensions={"timeout": timeouts}) as got,
    ):
        answer.status, answer.retry_after_secs = got.status, _retry_after(got.headers)
        async for chunk in got.aiter_stream():
            answer.head += chunk[: RESPONSE_HEAD_BYTES - len(answer.head)]
            if len(answer.head) >= RESPONSE_HEAD_BYTES:
                break


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    # Reading the certificates takes longer than most deliveries.
    return httpx.create_ssl_context()


def _judge(status: int) -> tuple[str | None, bool]:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None, False
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"It answered {status}: redirects are not followed.", False
    return f"It answered {status}.", status in _RETRIED or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _explain(raised: Exception) -> str:
    """Why there was no answer, without what else an exception may carry."""
    cause: BaseException | None = raised
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"Its certificate is not valid: {cause.verify_message}."
        if isinstance(cause, socket.gaierror):
            return "Its name could not be resolved."
        cause = cause.__cause__ or cause.__context__
    if isinstance(raised, httpcore.ProtocolError):
        return "It does not speak HTTP."
    return (
        "The connection failed." if not isinstance(raised, httpcore.ConnectError) else "It could not be connected to."
    )


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The `Retry-After` of an answer in seconds (RFC 9110, 10.2.3); None where it has none that can be read."""
    value = next((value.decode("latin-1") for name, value in headers if name.lower() == b"retry-after"), None)
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(int(value[:9]), _LONGEST_WAIT_SECS)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(round((moment - datetime.now(UTC)).total_seconds()), 0), _LONGEST_WAIT_SECS)
