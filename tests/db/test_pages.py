"""Lists, page by page: whole, each row once, in one order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from db import requests
from db.database import Connection
from db.paging import Page, Position
from db.requests import RequestView
from domain.deciding import Person
from domain.states import Action, Status
from tests.record import Cast, Record

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

Read = Callable[[Position], Awaitable[Page[Any]]]


async def through(read: Read, limit: int) -> list[Any]:
    """Everything that a list has, page by page."""
    seen: list[Any] = []
    page = await read(Position(limit))
    while True:
        assert 0 < len(page.items) <= limit or (not seen and page.next_cursor is None)
        seen += page.items
        if page.next_cursor is None:
            return seen
        page = await read(Position.of(limit, page.next_cursor))


async def crowd(record: Record, cast: Cast, count: int) -> list[UUID]:
    """Pending requests of as many people, two of each submitted at the same microsecond; the newest first."""
    for number in range(count):
        await record.submit(cast.template, await record.user(), at=NOON + timedelta(microseconds=number // 2))
    rows = await record.query(
        "SELECT id FROM access_requests WHERE template_id = %s ORDER BY created_at DESC, id DESC", cast.template.id
    )
    return [row["id"] for row in rows]


class TestRequests:
    @pytest.mark.parametrize("limit", [1, 2, 3, 8, 9])
    async def test_of_the_same_moment_are_all_shown_once(self, shared: Record, limit: int) -> None:
        cast = await shared.cast()
        made = await crowd(shared, cast, 8)
        approver = await shared.person(cast.approver)
        async with shared.db.connection() as connection:
            everything = await through(
                lambda position: requests.list_all(connection, position, template_id=cast.template.id), limit
            )
            awaiting = await through(lambda position: requests.list_awaiting(connection, approver, position), limit)
        assert [item.id for item in everything] == made
        assert [item.id for item in awaiting] == made

    async def test_that_are_decided_between_two_pages_shift_nothing(self, shared: Record) -> None:
        cast = await shared.cast()
        made = await crowd(shared, cast, 6)
        approver = await shared.person(cast.approver)
        async with shared.db.connection() as connection:
            first = await requests.list_awaiting(connection, approver, Position(2))
            for item in first.items:
                await shared.decide(item.id, Action.DENY, cast.approver)
            second = await requests.list_awaiting(connection, approver, Position.of(2, first.next_cursor))
        assert [item.id for item in (*first.items, *second.items)] == made[:4]

    async def test_of_one_person_are_nobody_elses(self, shared: Record) -> None:
        cast = await shared.cast()
        own = await shared.submit(cast.template, cast.requester)
        robot = await shared.user("robot", owner=cast.requester)
        of_robot = await shared.submit(cast.template, robot)
        async with shared.db.connection() as connection:
            for account, expected in ((cast.requester, own), (robot, of_robot)):
                page = await requests.list_mine(connection, await shared.person(account), Position())
                assert [item.id for item in page.items] == [expected]

    async def test_fit_every_filter_together(self, shared: Record) -> None:
        cast = await shared.cast()
        for number, action in enumerate((Action.DENY, Action.REVOKE, None)):
            asker = await shared.user(f"asker{number}")
            request_id = await shared.submit(cast.template, asker)
            if action is not None:
                await shared.decide(request_id, action, cast.admin if action is Action.REVOKE else cast.approver)
        async with shared.db.connection() as connection:

            async def found(**filters: Any) -> list[RequestView]:
                return (await requests.list_all(connection, Position(), template_id=cast.template.id, **filters)).items

            assert len(await found()) == len(await found(requester="ASKER")) == 3
            for status, expected in ((Status.DENIED, 1), (Status.REVOKED, 1), (Status.PENDING, 1), (Status.EXPIRED, 0)):
                assert [item.status for item in await found(status=status)] == [status] * expected
            (denied,) = await found(status=Status.DENIED, requester="asker0")
            assert denied.decided_by == cast.approver.email
            assert await found(status=Status.DENIED, requester="asker1") == []

    async def test_have_everything_a_decision_needs(self, shared: Record) -> None:
        cast = await shared.cast(custom_fields=[{"label": "Ticket", "type": "text"}])
        await shared.submit(cast.template, cast.requester)
        async with shared.db.connection() as connection:
            listed = await requests.list_awaiting(connection, await shared.person(cast.approver), Position())
            (item,) = listed.items
            found = await requests.get(connection, item.id)
        assert found is not None
        assert found[0] == item, "a list has what a request by itself has"
        assert [group.name for group in item.approver_groups] == [cast.team.name]
        assert [person.id for person in item.notified_approvers] == [cast.approver.id, cast.second_approver.id]
        assert [(mapping.claim, mapping.value) for mapping in item.mappings] == [("roles", "db_readonly")]
        assert [field.label for field in item.custom_fields] == ["Ticket"]

    async def test_without_anything_to_show_have_no_next_page(self, shared: Record) -> None:
        nobody = await shared.person(await shared.user())
        async with shared.db.connection() as connection:
            for read in (requests.list_mine, requests.list_awaiting):
                assert await read(connection, nobody, Position()) == Page(items=[], next_cursor=None)


class TestThread:
    async def _talk(self, connection: Connection, request_id: UUID, author: Person, count: int) -> list[UUID]:
        said = [await requests.add_message(connection, request_id, author, f"line {n}") for n in range(count)]
        return [message.id for message in reversed(said)]

    async def test_is_its_requests_own_and_newest_first(self, shared: Record) -> None:
        cast = await shared.cast()
        author = await shared.person(cast.approver)
        first = await shared.submit(cast.template, cast.requester)
        second = await shared.submit(cast.template, cast.manager)
        async with shared.db.connection() as connection:
            said = await self._talk(connection, first, author, 5)
            await self._talk(connection, second, author, 2)
            seen = await through(lambda position: requests.list_messages(connection, first, position), 2)
        assert [message.id for message in seen] == said
        assert {message.author.email for message in seen} == {cast.approver.email}

    async def test_shows_lines_of_the_same_moment_once(self, shared: Record) -> None:
        cast = await shared.cast()
        request_id = await shared.submit(cast.template, cast.requester)
        async with shared.db.connection() as connection:
            said = await self._talk(connection, request_id, await shared.person(cast.requester), 5)
            await shared.execute(
                "UPDATE access_request_messages SET created_at = %s WHERE request_id = %s", NOON, request_id
            )
            seen = await through(lambda position: requests.list_messages(connection, request_id, position), 2)
        assert sorted(message.id for message in seen) == sorted(said)


class TestTimeline:
    async def test_is_its_requests_own_and_newest_first(self, shared: Record) -> None:
        cast = await shared.cast()
        request_id = await shared.submit(cast.template, cast.requester)
        await shared.submit(cast.template, cast.manager)
        for _ in range(3):
            await shared.decide(request_id, Action.APPROVE, cast.requester)
        await shared.decide(request_id, Action.DENY, cast.approver)
        async with shared.db.connection() as connection:
            seen = await through(lambda position: requests.list_timeline(connection, request_id, position), 2)
        assert [entry.kind for entry in seen] == ["denied", "refused", "refused", "refused", "submitted"]
        assert [entry.id for entry in seen] == [row["id"] for row in (await shared.timeline(request_id))[::-1]]
