"""Word of changes, from PostgreSQL to the browsers that look at them.

One connection listens for each API process while anybody looks. What changed is judged by the rule of who may read it,
and only its id is told: the browser then asks for its page again, and gets what it may see.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from uuid import UUID

import psycopg
import structlog
from psycopg import sql

from db import requests, web_sessions
from db.database import Connection, Database
from domain import deciding
from domain.deciding import Person, Standing

_log = structlog.get_logger(__name__)

CHANNEL: Final = "justiam_requests"
"""Where the record's triggers tell the ids of requests that have changed."""
_AGAIN_AFTER_SECS: Final = 2.0
"""Before listening again, where the database went away."""
_SILENCE_SECS: Final = 20.0
"""After which the database is asked whether it is still there."""
_ANSWER_SECS: Final = 5.0
_MOST_LOOKERS: Final = 2_000
_MOST_OF_A_PERSON: Final = 20
"""Open pages of one person that are told, in each process. Some browsers open six of them at most."""
_MOST_UNTOLD: Final = 1_000


class TooManyLook(Exception):
    """As many browsers are told as one process can tell."""


class Word(Enum):
    """What is told beside the ids of requests."""

    LOOK = "Something may have been missed: look at everything again."
    NOTHING = "Nothing has changed."
    ENOUGH = "The same person has opened too many pages since. Nothing follows."


@dataclass(eq=False)
class _Looker:
    """One open page."""

    session: str
    """The token of the session that the page was opened in."""
    person: Person
    """The person as last read."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the session does not count any more: nothing further is told."""
    made_room: bool = False
    """Ended because the same person opened too many others since."""
    untold: set[UUID | Word] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, word: UUID | Word) -> None:
        self.untold.add(word if len(self.untold) < _MOST_UNTOLD else Word.LOOK)
        self.woken.set()

    def end(self) -> None:
        """Tell nothing any more."""
        self.ended.set()
        self.untold.clear()
        self.woken.set()


class Changes:
    """Tells open pages of changes to what they may see. Listens while there are any."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._lookers: dict[_Looker, None] = {}
        """The open pages, in the order in which they were opened."""
        self._listening: asyncio.Task[None] | None = None
        self._hears = False
        self._closing = False

    def close(self) -> None:
        """Let go of all pages: the process is about to end. May be called by a signal handler."""
        self._closing = True
        for looker in self._lookers:
            looker.woken.set()

    async def seen_by(
        self, db: Database, session: str, person: Person, patience: float, lifetime: float
    ) -> AsyncIterator[UUID | Word]:
        """The ids of requests that change from now on, as far as this person may read them.

        Begins with LOOK once nothing is missed any more. Ends soon after the session does, by a deactivation for one;
        from then on nothing is told. Ends with ENOUGH where the same person opens too many others.

        Args:
            db: the record.
            session: the token of the session in which they look.
            person: who looks.
            patience: seconds after which NOTHING is told.
            lifetime: seconds after which it ends, so that whoever looks on has to show again who they are.

        Raises:
            TooManyLook: this process has its hands full.
        """
        self._make_room(person)
        if len(self._lookers) >= _MOST_LOOKERS:
            raise TooManyLook
        looker = _Looker(session, person)
        if self._hears:
            looker.tell(Word.LOOK)
        self._lookers[looker] = None
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen(db))
        ends = asyncio.get_running_loop().time() + lifetime
        try:
            while not (self._closing or looker.ended.is_set()) and asyncio.get_running_loop().time() < ends:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await looker.woken.wait()
                looker.woken.clear()
                changed, looker.untold = looker.untold, set()
                for word in changed or {Word.NOTHING}:
                    if looker.ended.is_set():
                        break
                    yield word
            if looker.made_room:
                yield Word.ENOUGH
        finally:
            self._lookers.pop(looker, None)
            if not self._lookers and self._listening is not None:
                self._listening.cancel()
                self._listening, self._hears = None, False

    def _make_room(self, person: Person) -> None:
        """End the oldest pages of a person, so that one more can be opened."""
        own = [looker for looker in self._lookers if looker.person.id == person.id]
        for looker in own[: max(0, len(own) - _MOST_OF_A_PERSON + 1)]:
            looker.made_room = True
            looker.end()
            del self._lookers[looker]

    async def _listen(self, db: Database) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, application_name="justiam live"
                ) as connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    self._hears = True
                    for looker in self._lookers:
                        looker.tell(Word.LOOK)
                    while True:
                        async for notice in connection.notifies(timeout=_SILENCE_SECS):
                            await self._tell(db, UUID(notice.payload))
                        # A server that went silent, or behind a network that was cut, looks like one with no news.
                        async with asyncio.timeout(_ANSWER_SECS):
                            await connection.execute("SELECT 1")
                        async with db.connection() as reading:
                            await _read_again(reading, self._lookers)
            except (psycopg.Error, OSError) as error:
                self._hears = False
                _log.warning("pages are not told of changes", error=str(error))
            await asyncio.sleep(_AGAIN_AFTER_SECS)

    async def _tell(self, db: Database, request_id: UUID) -> None:
        async with db.connection() as connection:
            found = await requests.get(connection, request_id)
            if found is None:
                return
            _, asked = found
            told = [looker for looker in self._lookers if deciding.may_read(Standing.of(looker.person, asked))]
            # `told` was chosen by the people as last read. Since then, one may have been signed out or deactivated, or
            # have left a group.
            await _read_again(connection, told)
        for looker in told:
            if not looker.ended.is_set() and deciding.may_read(Standing.of(looker.person, asked)):
                looker.tell(request_id)


async def _read_again(connection: Connection, lookers: Collection[_Looker]) -> None:
    """Read the people behind open pages as they are now, in one statement. Ends pages whose sessions do not count."""
    lookers = list(lookers)
    if not lookers:
        return
    people = await web_sessions.holders(connection, {looker.session for looker in lookers})
    for looker in lookers:
        person = people.get(looker.session)
        if person is None:
            looker.end()
        else:
            looker.person = person
