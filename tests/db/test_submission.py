"""Submitting: one transaction that decides what is asked for, by whom, and who hears of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import pytest

from db import submission
from db.submission import Submitted
from db.templates import TemplateView
from domain.errors import Forbidden, Invalid, PendingRequestExists
from domain.states import Action
from domain.submission import Submission
from tests.record import LONGEST_MINS, Account, Cast, Record


async def send(
    record: Record, template: TemplateView, requester: Account, *, key: str | None = None, why: str = "an incident"
) -> Submitted:
    sent = Submission(template_id=template.id, requested_duration_mins=60, justification=why)
    person = await record.person(requester)
    return await submission.submit(record.db, person, sent, longest_mins=LONGEST_MINS, idempotency_key=key)


async def told(record: Record, request_id: UUID) -> list[UUID]:
    notified: list[UUID] = (await record.row(request_id))["notified_ids"]
    return notified


class TestOncePending:
    async def test_of_fifty_at_once_one_is_written(self, shared: Record) -> None:
        cast = await shared.cast()
        answers = await asyncio.gather(
            *(send(shared, cast.template, cast.requester) for _ in range(50)), return_exceptions=True
        )
        assert Counter(type(answer) for answer in answers) == {Submitted: 1, PendingRequestExists: 49}
        rows = await shared.query("SELECT id FROM access_requests WHERE template_id = %s", cast.template.id)
        assert [await shared.kinds(row["id"]) for row in rows] == [["submitted"]]

    async def test_neither_others_nor_other_templates_are_in_the_way(self, shared: Record) -> None:
        cast = await shared.cast()
        another = await shared.template(approver_group_ids=[cast.team.id])
        for template, requester in (
            (cast.template, cast.requester),
            (cast.template, cast.manager),
            (another, cast.requester),
        ):
            assert (await send(shared, template, requester)).created

    async def test_a_decision_clears_the_way(self, shared: Record) -> None:
        cast = await shared.cast()
        first = await shared.submit(cast.template, cast.requester)
        await shared.decide(first, Action.APPROVE, cast.approver)
        assert (await send(shared, cast.template, cast.requester)).created


class TestIdempotencyKey:
    async def test_of_fifty_at_once_all_are_answered_with_one_request(self, shared: Record) -> None:
        cast = await shared.cast()
        answers = await asyncio.gather(*(send(shared, cast.template, cast.requester, key="k") for _ in range(50)))
        assert len({answer.request_id for answer in answers}) == 1
        assert sum(answer.created for answer in answers) == 1
        assert await shared.kinds(answers[0].request_id) == ["submitted"]

    async def test_answers_after_the_decision_too(self, shared: Record) -> None:
        cast = await shared.cast()
        first = await send(shared, cast.template, cast.requester, key="k")
        await shared.decide(first.request_id, Action.DENY, cast.approver)
        again = await send(shared, cast.template, cast.requester, key="k")
        assert again == Submitted(first.request_id, created=False)

    async def test_with_another_submission_is_refused(self, shared: Record) -> None:
        cast = await shared.cast()
        await send(shared, cast.template, cast.requester, key="k")
        with pytest.raises(Invalid) as raised:
            await send(shared, cast.template, cast.requester, key="k", why="another")
        assert [field for field, _ in raised.value.errors] == ["Idempotency-Key"]

    async def test_is_the_requesters_own(self, shared: Record) -> None:
        cast = await shared.cast()
        assert (await send(shared, cast.template, cast.requester, key="k")).created
        assert (await send(shared, cast.template, cast.manager, key="k")).created

    async def test_is_not_used_up_by_a_submission_that_was_refused(self, shared: Record) -> None:
        cast = await shared.cast()
        first = await send(shared, cast.template, cast.requester)
        with pytest.raises(PendingRequestExists):
            await send(shared, cast.template, cast.requester, key="k")
        await shared.decide(first.request_id, Action.REVOKE, cast.requester)
        assert (await send(shared, cast.template, cast.requester, key="k")).created


class TestWhoIsTold:
    async def test_a_round_robin_serves_evenly_under_concurrent_submissions(self, shared: Record) -> None:
        approvers = [await shared.user() for _ in range(3)]
        team = await shared.group(*approvers)
        template = await shared.template(approver_group_ids=[team.id], notification_policy="round_robin")
        requesters = [await shared.user() for _ in range(12)]
        made = await asyncio.gather(*(send(shared, template, requester) for requester in requesters))
        served = [user_id for one in made for user_id in await told(shared, one.request_id)]
        assert Counter(served) == dict.fromkeys([approver.id for approver in approvers], 4)

    async def test_a_refused_submission_does_not_move_the_round_robin(self, shared: Record) -> None:
        cast = await shared.cast(notification_policy="round_robin")
        first = await send(shared, cast.template, cast.requester)
        for _ in range(2):
            with pytest.raises(PendingRequestExists):
                await send(shared, cast.template, cast.requester)
        second = await send(shared, cast.template, cast.manager)
        assert await told(shared, first.request_id) == [cast.approver.id]
        assert await told(shared, second.request_id) == [cast.second_approver.id]

    async def test_neither_the_requester_nor_an_account_of_theirs_nor_somebody_deactivated(
        self, shared: Record
    ) -> None:
        cast = await shared.cast()
        robot = await shared.user("robot", owner=cast.requester)
        gone = await shared.user("gone", active=False)
        team = await shared.group(cast.requester, robot, gone, cast.approver)
        template = await shared.template(approver_group_ids=[team.id])
        assert await told(shared, await shared.submit(template, cast.requester)) == [cast.approver.id]
        assert await told(shared, await shared.submit(template, robot)) == [cast.approver.id]

    async def test_first_those_who_share_a_group_of_their_own_with_the_requester(self, shared: Record) -> None:
        cast = await shared.cast(notification_policy="first_n", prefer_requester_groups=True)
        # A group that a grant made is nothing that two people have in common.
        granted = await shared.submit(await shared.template(approver_group_ids=[cast.team.id]), cast.requester)
        await shared.decide(granted, Action.APPROVE, cast.approver)
        await shared.execute(
            "INSERT INTO group_members (group_id, user_id) SELECT id, %s FROM groups WHERE request_id = %s",
            cast.approver.id,
            granted,
        )
        await shared.group(cast.requester, cast.second_approver)
        request_id = await shared.submit(cast.template, cast.requester)
        assert await told(shared, request_id) == [cast.second_approver.id]


class TestNobodyToAsk:
    """No approver besides the requester: the escalation group is asked at once; with none, administrators are."""

    async def _asked(self, record: Record, cast: Cast, **values: Any) -> dict[str, Any]:
        own = await record.group(cast.requester)
        template = await record.template(**{"approver_group_ids": [own.id]} | values)
        row = await record.row(await record.submit(template, cast.requester))
        kinds = await record.kinds(row["id"])
        assert kinds == (["submitted", "escalated"] if row["escalated_at"] else ["submitted"])
        assert cast.requester.id not in row["notified_ids"]
        return row

    async def test_the_escalation_group_is(self, record: Record) -> None:
        cast = await record.cast()
        row = await self._asked(record, cast, escalation_group_id=cast.managers.id)
        assert row["escalated_at"] == row["created_at"]
        assert (row["admins_decide"], row["notified_ids"]) == (False, [cast.manager.id])
        _, escalated = await record.timeline(row["id"])
        assert (escalated["event"], escalated["actor"]) == ("access_request.escalated", "system:escalation")
        assert set(escalated["payload"]) == {"request_id", "template_name", "requester_email"}

    async def test_administrators_are_where_there_is_none(self, record: Record) -> None:
        cast = await record.cast()
        row = await self._asked(record, cast)
        assert row["escalated_at"] is not None
        assert (row["admins_decide"], row["notified_ids"]) == (True, [cast.admin.id])

    async def test_administrators_are_where_it_has_only_the_requester(self, record: Record) -> None:
        cast = await record.cast()
        robot = await record.user("robot", owner=cast.requester)
        alone = await record.group(cast.requester, robot)
        row = await self._asked(record, cast, escalation_group_id=alone.id)
        assert (row["admins_decide"], row["notified_ids"]) == (True, [cast.admin.id])

    async def test_administrators_decide_what_names_nobody_and_nothing_is_escalated(self, record: Record) -> None:
        cast = await record.cast()
        values = {"approver_group_ids": [], "escalation_group_id": cast.managers.id}
        row = await self._asked(record, cast, **values)
        assert (row["admins_decide"], row["escalated_at"]) == (True, None)

    async def test_it_waits_where_there_is_nobody_at_all(self, record: Record) -> None:
        requester = await record.user()
        template = await record.template(approver_group_ids=[(await record.group(requester)).id])
        state = await record.state(await record.submit(template, requester))
        assert (state.status, state.admins_decide) == ("pending", True)


class TestAllowedGroups:
    async def test_a_temporary_group_opens_nothing(self, shared: Record) -> None:
        cast = await shared.cast()
        granted = await shared.submit(cast.template, cast.requester)
        await shared.decide(granted, Action.APPROVE, cast.approver)
        (group,) = await shared.temporary_groups(granted)
        template = await shared.template(allowed_group_ids=[cast.managers.id])
        # No administrator can do this; the rule holds whatever the row says.
        await shared.execute(
            "UPDATE access_request_templates SET allowed_group_ids = ARRAY[%s::uuid] WHERE id = %s",
            group["id"],
            template.id,
        )
        with pytest.raises(Forbidden):
            await shared.submit(template, cast.requester)
