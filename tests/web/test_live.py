"""Who is told of what, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from db import web_sessions
from domain.deciding import Person
from domain.states import Action
from tests.api.house import House, Somebody
from tests.web.conftest import Visitor, visitor
from web.live import Changes, TooManyLook, Word
from web.routes import live as live_route

PATIENCE_SECS = 60.0


class Told:
    """What one open page was told."""

    def __init__(self) -> None:
        self.words: list[UUID | Word] = []
        self.ended = asyncio.Event()

    async def waits_for(self, word: UUID | Word) -> None:
        async with asyncio.timeout(PATIENCE_SECS):
            while word not in self.words:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def looking(house: House, changes: Changes, *people: Somebody) -> AsyncIterator[list[Told]]:
    """Pages that these people have open; they are told from the moment on at which the block begins."""
    told = [Told() for _ in people]

    async def look(who: Somebody, each: Told) -> None:
        session, person = await _signed_in(house, who)
        async for word in changes.seen_by(house.db, session, person, 0.05, 60):
            each.words.append(word)
        each.ended.set()

    tasks = [asyncio.create_task(look(who, each)) for who, each in zip(people, told, strict=True)]
    try:
        for each in told:
            await each.waits_for(Word.LOOK)
        yield told
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _signed_in(house: House, who: Somebody) -> tuple[str, Person]:
    """Return a new session and its person."""
    session = await web_sessions.begin(house.db, who.id, None)
    person = await web_sessions.holder(house.db, session)
    assert person is not None
    return session, person


@pytest.fixture
def changes(house: House) -> Changes:
    return Changes(house.url)


async def test_only_who_may_read_a_request_is_told_of_it(house: House, changes: Changes) -> None:
    mark = uuid4().hex
    asker, approver, stranger = [await house.person(f"{who}-{mark}") for who in ("asker", "approver", "stranger")]
    team = await house.group(f"team-{mark}", approver)
    template = await house.template(approver_group_ids=[team.id])
    async with looking(house, changes, asker, approver, house.admin, stranger) as told:
        request_id = await house.request(template, asker)
        other = await house.request(await house.template(), stranger)
        for each in told[:3]:
            await each.waits_for(request_id)
        await told[3].waits_for(other)
    assert request_id not in told[3].words
    assert other not in told[0].words
    assert other not in told[1].words


async def test_decisions_messages_and_runs_are_told(house: House, changes: Changes) -> None:
    mark = uuid4().hex
    asker, approver = await house.person(f"asker-{mark}"), await house.person(f"approver-{mark}")
    team = await house.group(f"team-{mark}", approver)
    task = await house.task()
    template = await house.template(approver_group_ids=[team.id], trigger_task_id=task.id)
    request_id = await house.request(template, asker)
    async with looking(house, changes, asker) as (told,):
        for happens in (
            lambda: house.call("POST", f"/access-requests/{request_id}/messages", approver, json={"body": "Why?"}),
            lambda: house.decide(request_id, Action.APPROVE, approver),
            lambda: _a_run_begins(house, request_id),
        ):
            told.words.clear()
            await happens()
            await told.waits_for(request_id)


async def _a_run_begins(house: House, request_id: UUID) -> None:
    async with house.db.connection() as connection:
        await connection.execute("UPDATE task_runs SET attempt = 1 WHERE request_id = %s", [request_id])


async def test_a_change_that_is_rolled_back_is_not_told(house: House, changes: Changes) -> None:
    asker = await house.person(f"asker-{uuid4()}")
    first, second = [await house.request(await house.template(), asker) for _ in range(2)]
    say = (
        "INSERT INTO access_request_messages (id, request_id, author_id, body) VALUES (gen_random_uuid(), %s, %s, 'x')"
    )
    async with looking(house, changes, asker) as (told,):
        async with house.db.transaction() as connection, connection.transaction(force_rollback=True):
            await connection.execute(say, [first, asker.id])
        async with house.db.connection() as connection:
            await connection.execute(say, [second, asker.id])
        await told.waits_for(second)
    assert first not in told.words


async def test_after_the_database_was_away_everybody_looks_again(house: House, changes: Changes) -> None:
    asker = await house.person(f"asker-{uuid4()}")
    async with looking(house, changes, asker) as (told,):
        told.words.clear()
        async with house.db.connection() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'justiam live' AND datname = current_database()"
            )
        await told.waits_for(Word.LOOK)
        request_id = await house.request(await house.template(), asker)
        await told.waits_for(request_id)


async def test_nobody_listens_where_nobody_looks(house: House, changes: Changes) -> None:
    async with looking(house, changes, house.admin):
        assert await _listeners(house) == 1
    async with asyncio.timeout(PATIENCE_SECS):
        while await _listeners(house):
            await asyncio.sleep(0.01)


async def _listeners(house: House) -> int:
    async with house.db.connection() as connection:
        rows = await connection.execute(
            "SELECT count(*) AS count FROM pg_stat_activity"
            " WHERE application_name = 'justiam live' AND datname = current_database()"
        )
        return int((await rows.fetchone() or {})["count"])


async def test_open_pages_let_go_when_the_process_is_told_to_stop(house: House, changes: Changes) -> None:
    words = changes.seen_by(house.db, *await _signed_in(house, house.admin), 60, 600)
    assert await anext(words) is Word.LOOK
    changes.close()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(words), PATIENCE_SECS)


async def test_a_connection_does_not_last_longer_than_its_session_is_worth(house: House, changes: Changes) -> None:
    signed_in = await _signed_in(house, house.admin)
    async with asyncio.timeout(PATIENCE_SECS):
        assert [word async for word in changes.seen_by(house.db, *signed_in, 0.01, 0.05)]


async def test_one_process_tells_a_bounded_number(
    house: House, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.live._MOST_LOOKERS", 1)
    async with looking(house, changes, house.admin):
        signed_in = await _signed_in(house, house.admin)
        with pytest.raises(TooManyLook):
            await anext(changes.seen_by(house.db, *signed_in, 1, 1))


async def test_the_oldest_page_of_a_person_makes_room_for_a_new_one(
    house: House, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.live._MOST_OF_A_PERSON", 2)
    monkeypatch.setattr("web.live._MOST_LOOKERS", 3)
    asker, other = await house.person(f"asker-{uuid4()}"), await house.person(f"other-{uuid4()}")
    async with (
        looking(house, changes, other, asker) as (others, oldest),
        looking(house, changes, asker) as (second,),
        looking(house, changes, asker) as (newest,),
    ):
        await oldest.waits_for(Word.ENOUGH)
        async with asyncio.timeout(PATIENCE_SECS):
            await oldest.ended.wait()
        assert oldest.words[-1] is Word.ENOUGH
        request_id = await house.request(await house.template(), asker)
        for told in (second, newest):
            await told.waits_for(request_id)
        assert request_id not in oldest.words
        for told in (others, second, newest):
            assert not told.ended.is_set()
            assert Word.ENOUGH not in told.words


async def test_a_page_that_made_room_is_told_not_to_come_back_at_once(house: House, changes: Changes) -> None:
    signed_in = await _signed_in(house, house.admin)
    events = live_route._events(changes, house.db, *signed_in)
    assert await anext(events) == "retry: 2000\n\n"
    assert await anext(events) == "event: look\ndata:\n\n"
    (looker,) = changes._lookers
    looker.made_room = True
    looker.end()
    assert [event async for event in events] == ["retry: 60000\nevent: enough\ndata:\n\n"]


async def test_who_is_signed_out_is_not_told(house: House) -> None:
    assert (await Visitor(house, "").get("/live", **{"Sec-Fetch-Dest": "empty"})).status_code == 401
    leaver = await visitor(house, await house.person(f"leaver-{uuid4()}"))
    assert (await leaver.post("/sign-out")).status_code == 303
    assert (await leaver.get("/live", **{"Sec-Fetch-Dest": "empty"})).status_code == 401


async def test_nothing_is_missed_while_the_database_is_asked_whether_it_is_there(
    house: House, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.live._SILENCE_SECS", 0.001)
    asker = await house.person(f"asker-{uuid4()}")
    async with looking(house, changes, asker) as (told,):
        for _ in range(30):
            await told.waits_for(await house.request(await house.template(), asker))


@pytest.mark.parametrize("begins_again", [False, True])
async def test_a_page_that_is_open_is_told_nothing_after_a_deactivation(
    house: House, changes: Changes, begins_again: bool
) -> None:
    asker = await house.person(f"asker-{uuid4()}")
    request_id = await house.request(await house.template(), asker)
    account = {"email": asker.email, "name": "Asker"}
    async with looking(house, changes, asker, house.admin) as (told, told_root):
        for active in (False, True) if begins_again else (False,):
            answer = await house.call("PUT", f"/users/{asker.id}", house.admin, json={**account, "active": active})
            assert answer.status_code == 200, answer.text
        told.words.clear()
        told_root.words.clear()
        message = {"body": "Why?"}
        answer = await house.call("POST", f"/access-requests/{request_id}/messages", house.admin, json=message)
        assert answer.status_code == 201, answer.text
        await told_root.waits_for(request_id)
        async with asyncio.timeout(PATIENCE_SECS):
            await told.ended.wait()
    assert request_id not in told.words


async def test_a_quiet_page_ends_with_its_session(
    house: House, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.live._SILENCE_SECS", 0.01)
    asker = await house.person(f"asker-{uuid4()}")
    async with looking(house, changes, asker) as (told,):
        answer = await house.call(
            "PUT", f"/users/{asker.id}", house.admin, json={"email": asker.email, "name": "A", "active": False}
        )
        assert answer.status_code == 200, answer.text
        async with asyncio.timeout(PATIENCE_SECS):
            await told.ended.wait()


async def test_who_has_left_a_group_is_not_told_of_what_it_decides(house: House, changes: Changes) -> None:
    asker, approver = [await house.person(f"{who}-{uuid4()}") for who in ("asker", "approver")]
    team = await house.group(f"team-{uuid4()}", approver)
    template = await house.template(approver_group_ids=[team.id])
    async with looking(house, changes, asker, approver) as told:
        path = f"/groups/{team.id}/members/{approver.id}"
        assert (await house.call("DELETE", path, house.admin)).status_code == 204
        request_id = await house.request(template, asker)
        await told[0].waits_for(request_id)
        own = await house.request(await house.template(), approver)
        await told[1].waits_for(own)
    assert request_id not in told[1].words
