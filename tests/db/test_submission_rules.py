"""What a submission is held to, and what it writes down (specification, Submit a request)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from db import submission, templates
from db.templates import TemplateView
from domain.custom_fields import CustomField, FieldType
from domain.errors import Forbidden, Invalid
from domain.submission import Submission
from domain.templates import Snapshot, TemplateValues
from tests.record import LONGEST_MINS, Cast, Record

TICKET = CustomField(label="Ticket", type=FieldType.TEXT, required=True)
AREA = CustomField(label="Area", type=FieldType.SELECT, options=["staging", "production"])


async def refused(
    record: Record, template: TemplateView, cast: Cast, *, longest: int = LONGEST_MINS, **sent: Any
) -> set[str]:
    values = {"template_id": template.id, "requested_duration_mins": 60, "justification": "an incident", **sent}
    person = await record.person(cast.requester)
    with pytest.raises(Invalid) as raised:
        await submission.submit(record.db, person, Submission.model_validate(values), longest_mins=longest)
    assert await record.query("SELECT id FROM access_requests WHERE requester_id = %s", person.id) == []
    return {field for field, _ in raised.value.errors}


class TestRules:
    async def test_the_template_must_exist(self, shared: Record) -> None:
        cast = await shared.cast()
        assert await refused(shared, cast.template, cast, template_id=uuid4()) == {"template_id"}

    @pytest.mark.parametrize(("allowed", "asked"), [([60, 240], 61), ([], 481), ([600], 480)])
    async def test_the_duration_must_be_allowed(self, shared: Record, allowed: list[int], asked: int) -> None:
        cast = await shared.cast(allowed_durations=allowed)
        fields = await refused(shared, cast.template, cast, longest=480, requested_duration_mins=asked)
        assert fields == {"requested_duration_mins"}

    @pytest.mark.parametrize("blank", ["", "  \n"])
    async def test_a_justification_must_be_given_unless_the_template_says_otherwise(
        self, shared: Record, blank: str
    ) -> None:
        cast = await shared.cast()
        assert await refused(shared, cast.template, cast, justification=blank) == {"justification"}
        free = await shared.template(require_justification=False)
        await shared.submit(free, cast.requester, justification=blank)

    async def test_every_problem_is_named_at_once(self, shared: Record) -> None:
        cast = await shared.cast(custom_fields=[TICKET, AREA], allowed_durations=[60])
        fields = await refused(
            shared,
            cast.template,
            cast,
            requested_duration_mins=5,
            justification="",
            custom_answers={AREA.key: "moon", "unknown": "x"},
        )
        answers = {f"custom_answers.{key}" for key in (TICKET.key, AREA.key, "unknown")}
        assert fields == {"requested_duration_mins", "justification"} | answers

    async def test_who_may_ask_is_judged_by_current_membership(self, shared: Record) -> None:
        cast = await shared.cast()
        club = await shared.group(cast.requester)
        template = await shared.template(allowed_group_ids=[cast.managers.id, club.id])
        await shared.execute("DELETE FROM group_members WHERE group_id = %s", club.id)
        with pytest.raises(Forbidden):
            await shared.submit(template, cast.requester)
        await shared.execute(
            "INSERT INTO group_members (group_id, user_id) VALUES (%s, %s)", club.id, cast.requester.id
        )
        await shared.submit(template, cast.requester)


class TestRow:
    async def test_has_what_was_asked_for_as_it_was(self, shared: Record) -> None:
        cast = await shared.cast(custom_fields=[TICKET, AREA], escalation_after_mins=30)
        answers = {TICKET.key: "INC-1"}
        request_id = await shared.submit(cast.template, cast.requester, minutes=90, custom_answers=answers)
        row = await shared.row(request_id)
        assert (row["status"], row["requester_id"], row["requested_duration_mins"]) == (
            "pending",
            cast.requester.id,
            90,
        )
        assert (row["template_name"], row["app_name"]) == (cast.template.name, cast.application.name)
        assert (row["justification"], row["custom_answers"]) == ("an incident", answers)
        assert row["mapping_ids"] == [cast.mapping.id]
        assert (row["approver_group_ids"], row["escalation_group_id"]) == ([cast.team.id], cast.managers.id)
        assert row["escalates_at"] - row["created_at"] == timedelta(minutes=30)
        assert timedelta() < row["attention_at"] - row["created_at"] < timedelta(minutes=1)
        decided = ("decided_by", "decided_at", "decision_comment", "expires_at", "ended_by", "ended_at", "escalated_at")
        assert {row[column] for column in decided} == {None}
        snapshot = Snapshot.model_validate(row["snapshot"])
        (granted,) = snapshot.mappings
        assert (granted.id, granted.claim, granted.value) == (cast.mapping.id, "roles", "db_readonly")
        values = snapshot.model_dump(exclude={"mappings"})
        assert values == cast.template.model_dump(include=set(TemplateValues.model_fields))

    async def test_comes_with_its_event(self, shared: Record) -> None:
        cast = await shared.cast()
        request_id = await shared.submit(cast.template, cast.requester)
        (entry,) = await shared.timeline(request_id)
        assert (entry["kind"], entry["actor"], entry["verified"]) == ("submitted", cast.requester.email, True)
        assert entry["event"] == "access_request.submitted"
        assert entry["payload"] == {
            "request_id": str(request_id),
            "template_name": cast.template.name,
            "requester_email": cast.requester.email,
            "notified_approvers": [cast.approver.email, cast.second_approver.email],
        }

    async def test_of_an_automatic_approval_names_nobody(self, shared: Record) -> None:
        named: list[dict[str, Any]] = [{}, {"approver_group_ids": []}]
        for values in named:
            cast = await shared.cast(auto_approve=True, **values)
            request_id = await shared.submit(cast.template, cast.requester)
            row = await shared.row(request_id)
            assert (row["notified_ids"], row["admins_decide"], row["escalated_at"]) == ([], False, None)
            (entry,) = await shared.timeline(request_id)
            assert entry["payload"]["notified_approvers"] == []

    @pytest.mark.parametrize(("policy", "count", "told"), [("all", 1, 3), ("first_n", 2, 2), ("random_n", 2, 2)])
    async def test_names_as_many_as_the_policy_says(self, shared: Record, policy: str, count: int, told: int) -> None:
        cast = await shared.cast()
        team = [await shared.user() for _ in range(3)]
        group = await shared.group(*team)
        template = await shared.template(
            approver_group_ids=[group.id], notification_policy=policy, notification_count=count
        )
        notified = (await shared.row(await shared.submit(template, cast.requester)))["notified_ids"]
        in_order = [member.id for member in team]
        assert len(set(notified)) == told
        assert set(notified) <= set(in_order)
        if policy != "random_n":
            assert notified == in_order[:told]

    async def test_is_of_one_version_of_its_template(self, shared: Record) -> None:
        """Edited again and again while many ask for it: no request is half the one and half the other."""
        cast = await shared.cast()
        mapping = await shared.mapping(cast.application, value="db_owner")
        versions = [
            TemplateValues(
                name=f"version of {team.name}",
                app_id=cast.application.id,
                mapping_ids=[granted.id],
                approver_group_ids=[team.id],
                allowed_durations=[60],
            )
            for team, granted in ((cast.team, cast.mapping), (cast.managers, mapping))
        ]
        await templates.replace(shared.db, cast.template.id, versions[0], longest_mins=LONGEST_MINS)
        people = [await shared.user() for _ in range(12)]

        async def edit() -> None:
            for turn in range(8):
                await templates.replace(shared.db, cast.template.id, versions[turn % 2], longest_mins=LONGEST_MINS)

        editing = asyncio.create_task(edit())
        made = await asyncio.gather(*(shared.submit(cast.template, person) for person in people))
        await editing
        one_or_the_other = {
            (versions[0].name, cast.mapping.id, "db_readonly", cast.team.id, cast.approver.id),
            (versions[1].name, mapping.id, "db_owner", cast.managers.id, cast.manager.id),
        }
        for request_id in made:
            row = await shared.row(request_id)
            (granted,) = row["snapshot"]["mappings"]
            first = (row["mapping_ids"][0], granted["value"], row["approver_group_ids"][0], row["notified_ids"][0])
            assert (row["template_name"], *first) in one_or_the_other
