"""Reading: what is over is over, a list is what the rule says, a page follows another."""

from __future__ import annotations

import base64
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID

import pytest

from db import requests
from db.database import Database
from db.paging import Page, Position
from db.requests import RequestView
from domain.deciding import Standing, may_decide
from domain.errors import Invalid
from domain.states import Action, Status
from tests.record import Account, Cast, Record

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
CHANCE = random.Random(20261123)  # noqa: S311 - the same world each time


async def _deny(record: Record, cast: Cast, request_id: UUID) -> None:
    await record.decide(request_id, Action.DENY, cast.approver)


async def _cancel(record: Record, cast: Cast, request_id: UUID) -> None:
    await record.decide(request_id, Action.REVOKE, cast.admin)


async def _grant(record: Record, cast: Cast, request_id: UUID) -> None:
    await record.decide(request_id, Action.APPROVE, cast.approver)


async def _let_pass(record: Record, cast: Cast, request_id: UUID) -> None:
    """Over, and nobody has written it down."""
    await record.decide(request_id, Action.APPROVE, cast.approver, at=YESTERDAY)


async def _expire(record: Record, cast: Cast, request_id: UUID) -> None:
    await _let_pass(record, cast, request_id)
    await record.take(request_id, Action.EXPIRE, "system:expiry", key="expire")


_ENDS: tuple[Callable[[Record, Cast, UUID], Awaitable[None]], ...] = (_deny, _cancel, _grant, _let_pass, _expire)


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


class TestFilters:
    async def test_show_exactly_what_fits_them(self, module_db: Database) -> None:
        """Every combination, over requests in every state, held to the same words in Python."""
        record = Record(module_db)
        casts = [await record.cast() for _ in range(2)]
        # Two people with hardly any letter in common, asking for two things each.
        people = [await record.user("Zoë"), await record.user("mallory_x%")]
        for cast, requester in product(casts, people):
            for end in _ENDS:
                request_id = await record.submit(cast.template, requester)
                await end(record, cast, request_id)
            await record.submit(cast.template, requester)
        async with module_db.connection() as connection:
            everything = (await requests.list_all(connection, Position(limit=200))).items
            assert {item.status for item in everything} == set(Status)
            some = 0
            for status, cast_, text in product(
                (None, *Status),
                (None, *casts),
                (None, "", "zoë", "ZOË", "example.com", "y_x%", "Y_X", "nobody", "%", "_", people[0].email),
            ):
                template_id = cast_.template.id if cast_ else None
                page = await requests.list_all(
                    connection, Position(limit=200), status=status, template_id=template_id, requester=text
                )
                expected = [
                    item.id
                    for item in everything
                    if (status is None or item.status is status)
                    and (template_id is None or item.template_id == template_id)
                    and (text is None or text.lower() in item.requester.email.lower())
                ]
                assert [item.id for item in page.items] == expected, (status, template_id, text)
                some += bool(expected)
        assert some > 50, "the filters fit something"

    @pytest.mark.parametrize("name", ["Äöß", "ΑΣΟΣ", "İpek", "Ünal", "ОЛЬГА"])
    async def test_find_somebody_by_what_was_typed_whatever_the_letters(self, module_db: Database, name: str) -> None:
        record = Record(module_db)
        template = await record.template()
        email = f"{name}@example.com"
        await record.execute(
            "INSERT INTO users (id, email, name) VALUES (gen_random_uuid(), %s, %s) ON CONFLICT DO NOTHING", email, name
        )
        (user,) = await record.query("SELECT id FROM users WHERE email = %s", email)
        request_id = await record.submit(template, Account(user["id"], email))
        async with module_db.connection() as connection:
            for typed in (email, name, name[1:]):
                page = await requests.list_all(connection, Position(), template_id=template.id, requester=typed)
                assert await _ids(page) == {request_id}, typed


class TestCursors:
    @pytest.mark.parametrize(
        "moment",
        [
            "0001-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59.999999-23:59",
            "2026-11-23T12:00:00+00:00:30.5",
            "1970-01-01",
            "2026-W48-1T12:00:00Z",
        ],
    )
    async def test_that_nobody_was_given_lead_somewhere_or_are_refused(self, db: Database, moment: str) -> None:
        """What a client makes up is never the fault of the server."""
        cursor = base64.urlsafe_b64encode(f"{moment}|{UUID(int=0)}".encode()).decode()
        try:
            position = Position.of(50, cursor)
        except Invalid:
            return
        async with db.connection() as connection:
            assert (await requests.list_all(connection, position)).items == []


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
