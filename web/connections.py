"""How long one connection is waited for, and how many there are: what uvicorn leaves to whoever runs it.

Without it, a connection that says nothing is kept for ever, and so is one that sends its request byte by byte or never
takes its answer; the head of a request may be as long as memory goes. What a handler waits for is bounded elsewhere:
each look at a store, each call to Temporal (ARCHITECTURE.md, Timeouts).
"""

from __future__ import annotations

import asyncio
import resource
from enum import Enum, auto
from typing import Any, ClassVar, Final

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

_log = structlog.get_logger(__name__)

_OTHER_FILES: Final = 600
"""File descriptors that are no connections of callers: those of the stores, sockets that listen, files."""


class _Part(Enum):
    """What of a request is arriving."""

    HEAD = auto()
    BODY = auto()


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits. They are attributes, so that tests need not wait as long as callers may."""

    head_secs: ClassVar[float] = 10.0
    """From the first byte of a request to the end of its head."""
    body_secs: ClassVar[float] = 30.0
    """From there to the end of its body: 256 KiB at 9 KiB a second."""
    answer_secs: ClassVar[float] = 30.0
    """In which whoever reads an answer slowly takes what was sent so far. A stream of events is quiet for longer, but
    then there is nothing to take."""
    last_secs: ClassVar[float] = 5.0
    """In which what was still written is taken, once a connection is closed."""
    head_bytes: ClassVar[int] = 65_536
    """The largest head of a request that arrives in parts. What comes after a body or between its chunks is kept too,
    and may be as large (RFC 9112, sections 7.1.1 and 7.1.2)."""
    most: ClassVar[int] = 5_000
    """Connections at a time. Beyond that, the one that has waited longest for a request is closed for each new one."""
    _resting: ClassVar[dict[BoundedConnection, None]] = {}
    """Those that wait for a request, the longest first."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(*args, **options)
        self._part: _Part | None = None
        self._around_bodies = 0
        self._waiting: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller has connected."""
        super().connection_made(transport)
        self._rest()
        if len(self.connections) > self.most:
            # The new one, where all others have a request in hand.
            next(iter(self._resting)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """A caller has gone, or was let go."""
        self._resting.pop(self, None)
        self._wait(None)
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        self._around_bodies = len(data) + (0 if self._part is None else self._around_bodies)
        super().data_received(data)
        if self._part is not None and self._around_bodies > self.head_bytes:
            self._refuse(431)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._part = _Part.HEAD
        self._wait(self.head_secs)

    def on_headers_complete(self) -> None:
        """The head of a request is here."""
        self._part = _Part.BODY
        self._resting.pop(self, None)
        self._wait(self.body_secs)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body is here."""
        self._around_bodies = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is here in full."""
        self._part, self._around_bodies = None, 0
        self._wait(None)
        super().on_message_complete()
        if self.cycle.response_complete:
            # It was answered before it was sent.
            self._rest()

    def on_response_complete(self) -> None:
        """A request was answered."""
        super().on_response_complete()
        if self._part is None and self.cycle.response_complete:
            self._rest()

    def pause_writing(self) -> None:
        """More was written than the caller has taken."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.answer_secs, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller has taken most of it."""
        self._stop_waiting_for_reader()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """No further request has come: uvicorn's own clock, which the bytes of none stop for good."""
        self._close()

    def _rest(self) -> None:
        if not self.transport.is_closing():
            self._resting[self] = None
            self._wait(self.timeout_keep_alive)

    def _wait(self, secs: float | None) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = None if secs is None else self.loop.call_later(secs, self._give_up)

    def _stop_waiting_for_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up(self) -> None:
        if self._part is None:
            self._close()
        else:
            self._refuse(408)

    def _refuse(self, status: int) -> None:
        """Answer in place of the application; where that has begun to, or is about to, only close."""
        earlier: RequestResponseCycle | None = self.cycle
        is_free = earlier is None or (
            earlier.response_complete if self._part is _Part.HEAD else not earlier.response_started
        )
        if is_free and not self.pipeline and not self.transport.is_closing():
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        _log.info("connection_refused", status=status, client=(self.client or ("",))[0])
        self._close()

    def _close(self) -> None:
        self.transport.close()
        # Which waits until everything is taken that was written.
        self.loop.call_later(self.last_secs, self.transport.abort)


def make_room_for_connections() -> None:
    """Raise the process's own limit of open files to what its connections need, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = BoundedConnection.most + _OTHER_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    BoundedConnection.most = min(BoundedConnection.most, max(soft - _OTHER_FILES, soft // 2))
