"""Following a request: every entry of its timeline as it comes, until it is decided or over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.status import Status

from cli.people.client import Service
from cli.people.documents import Page, Request, TimelineEntry
from cli.people.errors import NotGranted, Unavailable
from cli.people.rendering import seconds_until, waiting_for
from domain import durations

_FIRST_PAUSE_SECS: Final = 0.5
_LONGEST_PAUSE_SECS: Final = 10.0
_GROWTH: Final = 1.5
_OUTAGE_SECS: Final = 300.0
"""How long the service may be away before we stop looking."""
_LAST_ENTRY_SECS: Final = 10.0
"""How long the entry of an end may come after the end itself: reads judge by the clock, the entry is written later."""
_GLANCE_SECS: Final = 1.0
_AFTER_DEADLINE_SECS: Final = 0.2


class Pauses:
    """How long to wait between two looks: longer and longer while nothing happens."""

    def __init__(self, first: float = _FIRST_PAUSE_SECS, longest: float = _LONGEST_PAUSE_SECS) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def restart(self) -> None:
        """Something happened: look again soon."""
        self._next = self._first

    def take(self, deadline: float | None = None) -> float:
        """The next pause; it ends at the `deadline`, in seconds from now, where something is due then."""
        pause = self._next
        self._next = min(self._next * _GROWTH, self._longest)
        if deadline is not None and deadline >= 0:
            pause = min(pause, deadline + _AFTER_DEADLINE_SECS)
        return pause


def watch(
    service: Service,
    request_id: str,
    tell: Callable[[TimelineEntry], None],
    *,
    decision_suffices: bool,
    live: Console | None,
) -> Request:
    """Tell of each entry of a request's timeline, past ones included, until it is decided or over.

    Args:
        service: where the request is.
        request_id: which request.
        tell: takes each entry, oldest first.
        decision_suffices: do not wait for the end of a grant.
        live: a terminal on which to say, meanwhile, what is waited for.

    Returns:
        The request as it is then.

    Raises:
        CommandError: the request cannot be read, or the service stays away.
    """
    seen, told, pauses = 0, set[str](), Pauses()
    reached_since: float | None = None
    away_since: float | None = None
    with _status(live) as status:
        while True:
            try:
                # In this order: what the request says has its entries already.
                request: Request = service.get(f"/access-requests/{request_id}")
                news = _news(service, request_id, seen)
            except Unavailable:
                now = time.monotonic()
                away_since = away_since or now
                if now - away_since > _OUTAGE_SECS:
                    raise
                _sleep(pauses.take(), status, lambda: "The service does not answer; trying again")
                continue
            away_since = None
            for entry in news:
                tell(entry)
                seen = entry["id"]
                told.add(entry["kind"])
                pauses.restart()
            if _is_over(request) or (decision_suffices and request["status"] != "pending"):
                reached_since = reached_since or time.monotonic()
                if request["status"] in told or time.monotonic() - reached_since > _LAST_ENTRY_SECS:
                    return request
            _sleep(pauses.take(_deadline(request)), status, lambda: outlook(request))  # noqa: B023 - called at once


def refuse_without_grant(request: Request) -> None:
    """Tell scripts apart what was granted and what was not.

    Raises:
        NotGranted: the request was denied or cancelled.
    """
    if request["expires_at"] is None:
        raise NotGranted(
            f"Nothing was granted: the request was {'denied' if request['status'] == 'denied' else 'cancelled'}."
        )


def outlook(request: Request) -> str:
    """What is waited for now."""
    if request["status"] == "approved" and request["expires_at"]:
        return f"Granted, {durations.spell_seconds(seconds_until(request['expires_at']))} left"
    if request["status"] == "pending":
        waiting = f"Waiting for {waiting_for(request)}"
        if request["escalates_at"] and (left := seconds_until(request["escalates_at"])) > 0:
            waiting += f"; escalates in {durations.spell_seconds(left)}"
        return waiting
    return "Ending"


def _is_over(request: Request) -> bool:
    return request["status"] not in {"pending", "approved"}


def _deadline(request: Request) -> float | None:
    """Seconds until something is due."""
    due = request["expires_at"] if request["status"] == "approved" else request["escalates_at"]
    return seconds_until(due) if due else None


def _news(service: Service, request_id: str, seen: int) -> list[TimelineEntry]:
    """The entries after `seen`, oldest first."""
    news: list[TimelineEntry] = []
    cursor: str | None = None
    while True:
        page: Page[TimelineEntry] = service.get(f"/access-requests/{request_id}/timeline", cursor=cursor)
        fresh = [entry for entry in page["items"] if entry["id"] > seen]
        news += fresh
        cursor = page["next_cursor"]
        if cursor is None or len(fresh) < len(page["items"]):
            return news[::-1]


@contextlib.contextmanager
def _status(live: Console | None) -> Iterator[Status | None]:
    if live is None:
        yield None
        return
    with Status("", console=live) as status:
        yield status


def _sleep(seconds: float, status: Status | None, text: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if status is not None:
            status.update(text())
        time.sleep(min(left, _GLANCE_SECS))
