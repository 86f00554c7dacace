"""Those who are told of events, and how they fail: slow, away, or now and then; and a mail server."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from enum import StrEnum
from random import Random
from typing import Any, Final

from aiosmtpd.smtp import SMTP, Envelope, Session
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from cli.dev.program import free_port

_ATTEMPT_SECS: Final = 15.0
"""How long the service waits for an answer."""
_LONGEST_HEAD: Final = 65_536


class Mood(StrEnum):
    """How a receiver answers."""

    WELL = "well"
    SLOW = "slow"
    """A little before or a little after the service gives up waiting."""
    AWAY = "away"
    """Nothing listens."""
    FLAKY = "flaky"
    """500, every other time."""


@dataclass
class Receiver:
    """A webhook's receiver, which checks signatures and remembers what came."""

    name: str
    mood: Mood
    chance: Random
    secret: str = ""
    port: int = field(default_factory=free_port)
    messages: defaultdict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """Ids of what came, by request and event."""
    calls: int = 0
    problems: list[str] = field(default_factory=list)
    """Calls that were not signed, or not what was announced."""
    _server: asyncio.Server | None = None
    _calls_open: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it is told."""
        return f"http://127.0.0.1:{self.port}/events"

    @property
    def received(self) -> Counter[tuple[str, str]]:
        """How many different messages came, by request and event."""
        return Counter({about: len(ids) for about, ids in self.messages.items()})

    async def become(self, mood: Mood) -> None:
        """Answer like this from now on."""
        self.mood = mood
        if mood is Mood.AWAY:
            await self.close()
        elif self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_LONGEST_HEAD)

    async def close(self) -> None:
        """Hang up."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for call in list(self._calls_open):
            call.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._calls_open.add(task)
            task.add_done_callback(self._calls_open.discard)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:] if line)
            }
            body = await reader.readexactly(int(headers["content-length"]))
            self.calls += 1
            status = await self._answer(headers, body)
            writer.write(f"HTTP/1.1 {status} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            # Whoever called is gone, or this is being closed: neither is the service's failure.
            pass
        finally:
            writer.close()

    async def _answer(self, headers: Mapping[str, str], body: bytes) -> int:
        if self.mood is Mood.FLAKY and self.calls % 2:
            return 500
        if self.mood is Mood.SLOW:
            await asyncio.sleep(_ATTEMPT_SECS + self.chance.uniform(-2.5, 1.0))
        self._remember(headers, body)
        return 204

    def _remember(self, headers: Mapping[str, str], body: bytes) -> None:
        try:
            event: dict[str, Any] = Webhook(self.secret).verify(body, dict(headers))
        except (WebhookVerificationError, json.JSONDecodeError) as error:
            self.problems.append(f"{self.name}: {error!r}")
            return
        if event["id"] != headers.get("webhook-id") or event["subject"] != event["data"]["request_id"]:
            self.problems.append(f"{self.name}: {event['id']} is not what its header or its subject says")
        self.messages[event["subject"], event["type"]].add(event["id"])


@dataclass
class Mailbox:
    """A mail server that takes everything."""

    port: int = field(default_factory=free_port)
    received: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each message came, by recipient and `Message-ID`."""
    _server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(self, loop=asyncio.get_running_loop()), "127.0.0.1", self.port
        )

    async def close(self) -> None:
        """Hang up."""
        if self._server is not None:
            self._server.close()

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Take a message."""
        content = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
        message_id = str(message_from_bytes(content)["Message-ID"]).strip("<>")
        for recipient in envelope.rcpt_tos:
            self.received[recipient, message_id] += 1
        return "250 OK"
