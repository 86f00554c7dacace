"""How clients speak to the API: to either copy, and again where no answer came. Answers that are defects are kept."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from random import Random
from typing import Any, Final

import httpx

_CALL_SECS: Final = 20.0
_BLOCKING_CALL_SECS: Final = 50.0
"""A task that blocks an approval has 30 seconds."""
_PATIENCE_SECS: Final = 90.0
_LATE_SECS: Final = 60.0
"""An attempt that got no answer may lie in a process that stands still, or wait for a connection (10 s) and statements
(20 s each): longer than this nobody holds it."""
_PAUSE_SECS: Final = 0.3
_AGAIN: Final = frozenset(
    {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
)
_IN_PROGRESS: Final = "decision_in_progress"


@dataclass(frozen=True)
class Reply:
    """An answer, and the time in which it was made."""

    status: int
    body: Any
    first_sent: float
    """When the call was sent for the first time."""
    sent: float
    """When the attempt was sent that was answered."""
    received: float
    late_until: float = 0.0
    """Until then an attempt that got no answer may still be carried out; 0: there was none."""

    @property
    def is_success(self) -> bool:
        """Whether it was done."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def is_first(self) -> bool:
        """Whether it answers the first attempt: what it refuses no attempt before has done, or will do."""
        return self.sent == self.first_sent

    @property
    def code(self) -> str:
        """The stable code of a refusal."""
        return str(self.body.get("code") or self.body.get("error") or "") if isinstance(self.body, dict) else ""


class GaveUp(Exception):
    """No answer came for long; whether it was done is not known."""


@dataclass
class Line:
    """The way to the API, as through a balancer that tries another copy."""

    urls: list[str]
    chance: Random
    http: httpx.AsyncClient
    calls: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    """Why calls were sent again."""
    unexpected: Counter[str] = field(default_factory=Counter)
    """Answers that nothing in the run explains: defects."""

    async def call(
        self,
        token: str,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        allowed: frozenset[str] = frozenset(),
        form: dict[str, str] | None = None,
        blocks: bool = False,
        once: bool = False,
    ) -> Reply:
        """Send it until there is an answer.

        Args:
            token: who calls; empty: nobody.
            method: of HTTP.
            path: from the root.
            body: sent as JSON.
            key: the `Idempotency-Key`.
            allowed: codes of refusals that can happen; any other is a defect.
            form: sent as a form, in place of a body.
            blocks: a task may have to run first.
            once: do not repeat what may have been done.

        Raises:
            GaveUp: there was none for long, or none at once with `once`.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        timeout = _BLOCKING_CALL_SECS if blocks else _CALL_SECS
        first_sent, late_until = time.time(), 0.0
        sent: float | None = None
        while time.time() < first_sent + _PATIENCE_SECS:
            self.calls += 1
            url = self.chance.choice(self.urls)
            sent = first_sent if sent is None else time.time()
            try:
                answer = await self.http.request(
                    method, f"{url}{path}", json=body, data=form, headers=headers, timeout=timeout
                )
            except httpx.TransportError as error:
                self.repeated[type(error).__name__] += 1
                if not isinstance(error, httpx.ConnectError):
                    late_until = time.time() + _LATE_SECS
                    if once:
                        raise GaveUp from error
            else:
                reply = Reply(answer.status_code, _document(answer), first_sent, sent, time.time(), late_until)
                if reply.status not in _AGAIN and reply.code != _IN_PROGRESS:
                    if not reply.is_success and reply.code not in allowed:
                        self._note(method, path, reply)
                    return reply
                self.repeated[reply.code or str(reply.status)] += 1
                if once:
                    raise GaveUp
            await asyncio.sleep(self.chance.uniform(_PAUSE_SECS, 3 * _PAUSE_SECS))
        raise GaveUp

    def _note(self, method: str, path: str, reply: Reply) -> None:
        parts = ["…" if len(part) > 30 else part for part in path.partition("?")[0].split("/")]
        detail = reply.body.get("detail") if isinstance(reply.body, dict) else reply.body
        self.unexpected[f"{method} {'/'.join(parts)} answered {reply.status} {reply.code}: {detail}"] += 1


def _document(answer: httpx.Response) -> Any:  # noqa: ANN401 - what JSON is
    try:
        return answer.json() if answer.content else None
    except ValueError:
        return answer.text
