"""Reading: what is over is over, a list is what the rule says, a page follows another."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

from db import requests
from db.database import Database
from db.paging import Page, Position
from db.requests import RequestView
from domain.deciding import Standing, may_decide
from domain.states import Action, Status
from tests.record import Account, Record

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
CHANCE = random.Random(20261123)  # noqa: S311 - the same world each time


async def _ids(page: Page[RequestView]) -> set[UUID]:
    return {item.id for item in page.items}


class TestWhatIsOver:
    async def test_reads_as_expired_everywhere_however_late_its_workflow_is(self, db: Database, record: Record) -> None:
        cast = await record.cast()
        request_id = await record.submit(cast.template, cast.requester)
        await record.decide(request_id, Action.APPROVE, cast.approver, at=YESTERDAY)
        assert (await record.row(request_id))["status"] == "approved", "nobody has written it down yet"
        requester = await record.person(cast.requester)
        async with db.connection() as connection:
            found = await requests.get(connection, request_id)
            assert found is not None
            view = found[0]
            assert (view.status, view.temporary_group, view.ended_by) == (Status.EXPIRED, None, "system:expiry")
            assert view.ended_at == view.expires_at
            mine = await requests.list_mine(connection, requester, Position())
            assert [item.status for item in mine.items] == [Status.EXPIRED]
            approved = await requests.list_all(connection, Position(), status=Status.APPROVED)
            assert request_id not in await _ids(approved)
            expired = await requests.list_all(connection, Position(), status=Status.EXPIRED)
            assert request_id in await _ids(expired)
        assert await record.claims(cast.requester, cast.application) == {}

    async def test_somebody_deactivated_holds_nothing(self, record: Record) -> None:
        cast = await record.cast()
        request_id = await record.submit(cast.template, cast.requester)
        await record.decide(request_id, Action.APPROVE, cast.approver)
        assert await record.claims(cast.requester, cast.application) == {"roles": ["db_readonly"]}
        await record.execute("UPDATE users SET active = false WHERE id = %s", cast.requester.id)
        assert await record.claims(cast.requester, cast.application) == {}


class TestAwaiting:
    async def test_lists_exactly_what_the_rule_lets_each_person_decide(self, db: Database, record: Record) -> None:
        people = [await record.user() for _ in range(8)]
        people += [await record.user(owner=owner) for owner in people[:3]]
        people += [await record.admin(), await record.admin()]
        groups = [await record.group(*CHANCE.sample(people, CHANCE.randint(0, 4))) for _ in range(5)]
        for _ in range(12):
            approving = CHANCE.sample(groups, CHANCE.randint(0, 3))
            others = [group for group in groups if group not in approving]
            template = await record.template(
                approver_group_ids=[group.id for group in approving],
                escalation_group_id=CHANCE.choice([None, *(group.id for group in others)]),
            )
            for requester in CHANCE.sample(people, 3):
                request_id = await record.submit(template, requester)
                if CHANCE.random() < 0.4:
                    await record.take(request_id, Action.ESCALATE, "system:escalation", key="escalate")
                if CHANCE.random() < 0.2:
                    await record.decide(request_id, Action.REVOKE, requester)
        await record.execute("UPDATE users SET active = false WHERE id = %s", people[5].id)
        seen = 0
        for account in people:
            seen += await self._agrees(db, record, account)
        assert seen > 20, "the world is rich enough to tell"

    async def _agrees(self, db: Database, record: Record, account: Account) -> int:
        person = await record.person(account)
        async with db.connection() as connection:
            everything = await requests.list_all(connection, Position(limit=200))
            expected = set()
            for item in everything.items:
                found = await requests.get(connection, item.id)
                assert found is not None
                if item.status is Status.PENDING and may_decide(Standing.of(person, found[1])):
                    expected.add(item.id)
            listed = await _ids(await requests.list_awaiting(connection, person, Position(limit=200)))
        if person.active:
            # Somebody deactivated cannot call, so the list need not ask.
            assert listed == expected
        return len(listed)


class TestPages:
    async def test_follow_each_other_while_requests_come_in(self, db: Database, record: Record) -> None:
        cast = await record.cast()
        made = []
        for _ in range(7):
            made.append(await record.submit(cast.template, cast.requester))
            await record.decide(made[-1], Action.REVOKE, cast.requester)
        seen: list[UUID] = []
        position = Position(limit=3)
        async with db.connection() as connection:
            while True:
                page = await requests.list_all(connection, position)
                seen += [item.id for item in page.items]
                if page.next_cursor is None:
                    break
                position = Position.of(3, page.next_cursor)
                another = await record.submit(cast.template, cast.requester)
                await record.decide(another, Action.REVOKE, cast.requester)
        assert seen == made[::-1]

    async def test_wildcards_in_the_filter_are_letters(self, db: Database, record: Record) -> None:
        cast = await record.cast()
        await record.submit(cast.template, cast.requester)
        async with db.connection() as connection:
            for literal in ("%", "_", "\\", "a%e"):
                page = await requests.list_all(connection, Position(), requester=literal)
                assert page.items == []
            page = await requests.list_all(connection, Position(), requester=cast.requester.email[2:9].upper())
            assert len(page.items) == 1
