"""Requests over HTTP, on the whole stack: API, worker, a Temporal server, PostgreSQL (specification, Requests)."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4, uuid5

import httpx
import pytest
from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.exceptions import ApplicationError, TerminatedError
from temporalio.service import RPCError, RPCStatusCode

from activities import setup
from api.orchestrator import Orchestrator
from db.templates import TemplateView
from domain.actors import Permission
from domain.states import Action
from tests.api.house import House, Somebody
from tests.api.problem import check_problem, fields
from tests.servers import TestingTemporal

PATIENCE_SECS = 60.0


@pytest.fixture
async def stage(stack: House) -> Stage:
    return await Stage.set(stack)


class Stage:
    """People and a template of a test's own."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.alice: Somebody
        self.bob: Somebody
        self.carol: Somebody
        self.erin: Somebody
        self.template: TemplateView

    @classmethod
    async def set(cls, house: House, **values: Any) -> Stage:
        stage, mark = cls(house), uuid4().hex[:8]
        stage.alice, stage.bob, stage.carol, stage.erin = [
            await house.person(f"{name}-{mark}") for name in ("alice", "bob", "carol", "erin")
        ]
        dba_team = await house.group(f"dba_team {mark}", stage.bob, stage.carol)
        managers = await house.group(f"managers {mark}", stage.erin)
        app = await house.application(f"Internal DB {mark}")
        mapping = await house.mapping(app.id)
        stage.template = await house.template(
            **{
                "app_id": app.id,
                "mapping_ids": [mapping.id],
                "allowed_durations": [60, 480],
                "approver_group_ids": [dba_team.id],
                "escalation_group_id": managers.id,
            }
            | values
        )
        return stage

    async def submit(self, by: Somebody | None = None, **values: Any) -> httpx.Response:
        sent = {
            "template_id": str(self.template.id),
            "requested_duration_mins": 60,
            "justification": "Need access to debug the production incident.",
        }
        return await self.house.call("POST", "/access-requests", by or self.alice, json=sent | values)

    async def submitted(self) -> dict[str, Any]:
        answer = await self.submit()
        assert answer.status_code == 201, answer.text
        request: dict[str, Any] = answer.json()
        return request

    async def act(self, request: dict[str, Any], action: str, by: Somebody, **call: Any) -> httpx.Response:
        return await self.house.call("POST", f"/access-requests/{request['id']}/{action}", by, **call)

    async def get(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = await self.house.call("GET", f"/access-requests/{request['id']}", self.alice)
        now: dict[str, Any] = answer.json()
        return now

    async def timeline(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        answer = await self.house.call("GET", f"/access-requests/{request['id']}/timeline", self.alice)
        items: list[dict[str, Any]] = answer.json()["items"]
        return items[::-1]

    async def claims(self) -> dict[str, list[str]]:
        path = f"/users/{self.alice.id}/mapping-values?app_id={self.template.app_id}"
        answer = await self.house.call("GET", path, self.alice)
        values: dict[str, list[str]] = answer.json()
        return values

    async def until(self, request: dict[str, Any], status: str) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_SECS):
            while (now := await self.get(request))["status"] != status:
                await asyncio.sleep(0.05)
        return now


class TestLife:
    async def test_a_grant_gives_its_claims_from_the_decision_to_the_revocation(self, stage: Stage) -> None:
        answer = await stage.submit()
        assert answer.status_code == 201
        request = answer.json()
        assert answer.headers["location"] == f"/api/v1/access-requests/{request['id']}"
        assert request["status"] == "pending"
        assert request["requester"]["email"] == stage.alice.email
        assert [person["email"] for person in request["notified_approvers"]] == [stage.bob.email, stage.carol.email]
        assert (request["decided_by"], request["expires_at"], request["temporary_group"]) == (None, None, None)
        assert request["workflow_id"] == f"access-request-{request['id']}"
        assert await stage.claims() == {}

        answer = await stage.act(request, "approve", stage.bob, json={"comment": "Approved for the incident window."})
        assert answer.status_code == 200, answer.text
        granted = answer.json()
        assert (granted["status"], granted["decided_by"]) == ("approved", stage.bob.email)
        assert granted["decision_comment"] == "Approved for the incident window."
        assert _time(granted["expires_at"]) - _time(granted["decided_at"]) == timedelta(minutes=60)
        assert granted["temporary_group"] == f"__access_req_{request['id']}"
        assert await stage.claims() == {"roles": ["db_readonly"]}

        answer = await stage.act(request, "revoke", stage.alice)
        assert answer.status_code == 200, answer.text
        revoked = answer.json()
        assert (revoked["status"], revoked["ended_by"]) == ("revoked", stage.alice.email)
        assert revoked["decided_by"] == stage.bob.email, "an approved-then-revoked request retains its decision"
        assert revoked["temporary_group"] is None
        assert await stage.claims() == {}

    async def test_its_timeline_holds_the_lifecycle_events_with_exactly_the_payload_of_the_specification(
        self, stage: Stage
    ) -> None:
        request = await stage.submitted()
        await stage.act(request, "approve", stage.bob)
        await stage.act(request, "revoke", stage.alice)
        common = {
            "request_id": request["id"],
            "template_name": stage.template.name,
            "requester_email": stage.alice.email,
        }
        assert [(entry["event"], entry["payload"]) for entry in await stage.timeline(request)] == [
            ("access_request.submitted", common | {"notified_approvers": [stage.bob.email, stage.carol.email]}),
            ("access_request.approved", common | {"decided_by": stage.bob.email}),
            ("access_request.revoked", common),
        ]

    async def test_a_denial_says_who_and_why(self, stage: Stage) -> None:
        request = await stage.submitted()
        answer = await stage.act(request, "deny", stage.carol, json={"comment": "Use the replica."})
        denied = answer.json()
        assert (denied["status"], denied["decided_by"]) == ("denied", stage.carol.email)
        assert denied["decision_comment"] == "Use the replica."
        assert (denied["expires_at"], await stage.claims()) == (None, {})

    async def test_a_cancelled_request_has_no_decider(self, stage: Stage) -> None:
        request = await stage.submitted()
        cancelled = (await stage.act(request, "revoke", stage.alice)).json()
        assert (cancelled["status"], cancelled["decided_by"], cancelled["decided_at"]) == ("revoked", None, None)
        assert cancelled["ended_by"] == stage.alice.email
        assert (await stage.submit()).status_code == 201, "the way is free for another"

    async def test_an_admin_who_revokes_a_pending_request_is_its_decider(self, stage: Stage) -> None:
        request = await stage.submitted()
        revoked = (await stage.act(request, "revoke", stage.house.admin)).json()
        assert (revoked["status"], revoked["decided_by"]) == ("revoked", stage.house.admin.email)

    async def test_an_auto_approved_request_is_granted_by_the_system(self, stack: House) -> None:
        stage = await Stage.set(stack, auto_approve=True)
        request = await stage.submitted()
        assert request["notified_approvers"] == []
        granted = await stage.until(request, "approved")
        assert granted["decided_by"] == "system:auto"
        assert await stage.claims() == {"roles": ["db_readonly"]}

    async def test_two_grants_on_the_same_mapping_end_independently(self, stage: Stage) -> None:
        first = await stage.submitted()
        await stage.act(first, "approve", stage.bob)
        second = await stage.submitted()
        await stage.act(second, "approve", stage.bob)
        await stage.act(first, "revoke", stage.alice)
        assert await stage.claims() == {"roles": ["db_readonly"]}
        await stage.act(second, "revoke", stage.alice)
        assert await stage.claims() == {}

    async def test_the_thread_is_for_requester_and_approvers(self, stage: Stage) -> None:
        request = await stage.submitted()
        path = f"/access-requests/{request['id']}/messages"
        asked = await stage.house.call("POST", path, stage.bob, json={"body": "Which tables?"})
        assert asked.status_code == 201
        await stage.house.call("POST", path, stage.alice, json={"body": "orders, for an hour"})
        thread = (await stage.house.call("GET", path, stage.alice)).json()["items"]
        assert [(message["author"]["email"], message["body"]) for message in thread] == [
            (stage.alice.email, "orders, for an hour"),
            (stage.bob.email, "Which tables?"),
        ]
        for method, body in (("GET", None), ("POST", {"body": "me too"})):
            refused = await stage.house.call(method, path, stage.erin, json=body)
            check_problem(refused, 403, "forbidden")


class TestWhoMay:
    @pytest.mark.parametrize("action", ["approve", "deny"])
    @pytest.mark.parametrize("who", ["alice", "erin", "admin"])
    async def test_only_approvers_decide(self, stage: Stage, action: str, who: str) -> None:
        request = await stage.submitted()
        by = stage.house.admin if who == "admin" else getattr(stage, who)
        check_problem(await stage.act(request, action, by), 403, "forbidden")
        assert (await stage.get(request))["status"] == "pending"

    async def test_a_refused_decision_is_in_the_timeline(self, stage: Stage) -> None:
        request = await stage.submitted()
        await stage.act(request, "approve", stage.alice)
        refused = (await stage.timeline(request))[-1]
        assert (refused["kind"], refused["actor"]) == ("refused", stage.alice.email)
        assert refused["detail"]["code"] == "forbidden"

    async def test_a_stranger_leaves_no_trace_in_the_timeline(self, stage: Stage) -> None:
        request = await stage.submitted()
        await stage.act(request, "approve", stage.erin)
        assert [entry["kind"] for entry in await stage.timeline(request)] == ["submitted"]

    async def test_an_approver_may_end_a_grant_but_not_cancel_a_request(self, stage: Stage) -> None:
        request = await stage.submitted()
        check_problem(await stage.act(request, "revoke", stage.bob), 403, "forbidden")
        await stage.act(request, "approve", stage.bob)
        assert (await stage.act(request, "revoke", stage.carol)).json()["ended_by"] == stage.carol.email

    async def test_ones_own_service_account_cannot_approve(self, stage: Stage) -> None:
        robot = await stage.house.person(f"robot-{uuid4().hex[:8]}", owner=stage.alice)
        await stage.house.call(
            "PUT", f"/groups/{stage.template.approver_group_ids[0]}/members/{robot.id}", stage.house.admin
        )
        request = await stage.submitted()
        assert robot.email not in [person["email"] for person in request["notified_approvers"]]
        check_problem(await stage.act(request, "approve", robot), 403, "forbidden")

    async def test_who_left_the_approvers_after_being_notified_cannot_decide(self, stage: Stage) -> None:
        request = await stage.submitted()
        path = f"/groups/{stage.template.approver_group_ids[0]}/members/{stage.bob.id}"
        assert (await stage.house.call("DELETE", path, stage.house.admin)).status_code == 204
        check_problem(await stage.act(request, "approve", stage.bob), 403, "forbidden")

    async def test_who_becomes_an_approver_later_can(self, stage: Stage) -> None:
        request = await stage.submitted()
        path = f"/groups/{stage.template.approver_group_ids[0]}/members/{stage.erin.id}"
        assert (await stage.house.call("PUT", path, stage.house.admin)).status_code == 204
        assert (await stage.act(request, "approve", stage.erin)).status_code == 200

    async def test_a_template_without_approvers_is_decided_by_administrators_but_not_their_own(
        self, stack: House
    ) -> None:
        stage = await Stage.set(stack, approver_group_ids=[])
        second = await stack.person(f"second-admin-{uuid4().hex[:8]}", Permission.REQUESTS)
        request = (await stage.submit(by=second)).json()
        assert request["admins_decide"]
        check_problem(await stage.act(request, "approve", second), 403, "forbidden")
        check_problem(await stage.act(request, "approve", stage.bob), 403, "forbidden")
        assert (await stage.act(request, "approve", stack.admin)).status_code == 200

    async def test_when_the_last_approver_goes_the_escalation_group_is_asked(self, stage: Stage) -> None:
        request = await stage.submitted()
        group_id = stage.template.approver_group_ids[0]
        assert (await stage.house.call("DELETE", f"/groups/{group_id}", stage.house.admin)).status_code == 204
        async with asyncio.timeout(PATIENCE_SECS):
            while (await stage.get(request))["escalated_at"] is None:
                await asyncio.sleep(0.05)
        now = await stage.get(request)
        assert stage.erin.email in [person["email"] for person in now["notified_approvers"]]
        assert (await stage.timeline(request))[-1]["event"] == "access_request.escalated"
        assert (await stage.act(request, "approve", stage.erin)).status_code == 200

    async def test_a_deactivated_requester_loses_grant_and_pending_request(self, stage: Stage) -> None:
        granted = await stage.submitted()
        await stage.act(granted, "approve", stage.bob)
        pending = await stage.submitted()
        values = {"email": stage.alice.email, "name": "Alice", "active": False}
        await stage.house.call("PUT", f"/users/{stage.alice.id}", stage.house.admin, json=values)
        path = f"/users/{stage.alice.id}/mapping-values?app_id={stage.template.app_id}"
        assert (await stage.house.call("GET", path, stage.house.admin)).json() == {}, "at once"
        async with asyncio.timeout(PATIENCE_SECS):
            for request, ended_by in ((granted, "ended_by"), (pending, "decided_by")):
                while True:
                    path = f"/access-requests/{request['id']}"
                    now = (await stage.house.call("GET", path, stage.house.admin)).json()
                    if now["status"] == "revoked":
                        break
                    await asyncio.sleep(0.05)
                assert now[ended_by] == "system:deactivated"


class TestSubmission:
    async def test_of_fifty_at_once_one_is_accepted(self, stage: Stage) -> None:
        answers = await asyncio.gather(*(stage.submit() for _ in range(50)))
        assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 49}
        refused = next(answer for answer in answers if answer.status_code == 409)
        check_problem(refused, 409, "pending_request_exists")

    async def test_of_fifty_with_one_idempotency_key_all_are_answered_with_the_same_request(self, stage: Stage) -> None:
        send = {"Idempotency-Key": uuid4().hex}
        sent = {"template_id": str(stage.template.id), "requested_duration_mins": 60, "justification": "incident"}
        answers = await asyncio.gather(
            *(stage.house.call("POST", "/access-requests", stage.alice, json=sent, headers=send) for _ in range(50))
        )
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["id"] for answer in answers}) == 1
        other = await stage.house.call(
            "POST", "/access-requests", stage.alice, json=sent | {"justification": "another"}, headers=send
        )
        assert fields(other) == {"Idempotency-Key"}

    @pytest.mark.parametrize(
        "field", ["status", "decided_by", "requester", "requester_id", "expires_at", "temporary_group", "id"]
    )
    async def test_clients_cannot_set(self, stage: Stage, field: str) -> None:
        assert fields(await stage.submit(None, **{field: "approved"})) == {field}

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"requested_duration_mins": 61}, "requested_duration_mins"),
            ({"requested_duration_mins": 0}, "requested_duration_mins"),
            ({"requested_duration_mins": "60"}, "requested_duration_mins"),
            ({"requested_duration_mins": 60.5}, "requested_duration_mins"),
            ({"requested_duration_mins": 10**30}, "requested_duration_mins"),
            ({"justification": "  "}, "justification"),
            ({"justification": "a\x00b"}, "justification"),
            ({"template_id": "no uuid"}, "template_id"),
            ({"template_id": "00000000-0000-0000-0000-000000000000"}, "template_id"),
            ({"custom_answers": {"x": "y"}}, "custom_answers.x"),
            ({"custom_answers": {"x": {"deep": 1}}}, "custom_answers"),
            ({"custom_answers": {"x": "a\x00b"}}, "custom_answers.x"),
        ],
    )
    async def test_names_the_field_that_does_not_fit(self, stage: Stage, values: dict[str, Any], field: str) -> None:
        assert fields(await stage.submit(**values)) == {field}

    async def test_is_for_members_of_the_allowed_groups(self, stack: House) -> None:
        group = await stack.group(f"engineers {uuid4().hex}")
        stage = await Stage.set(stack, allowed_group_ids=[group.id])
        check_problem(await stage.submit(), 403, "forbidden")
        await stack.call("PUT", f"/groups/{group.id}/members/{stage.alice.id}", stack.admin)
        assert (await stage.submit()).status_code == 201

    async def test_custom_fields_of_all_types_are_answered_by_id(self, stack: House) -> None:
        stage = await Stage.set(
            stack,
            custom_fields=[
                {"label": "Ticket", "type": "text", "required": True},
                {"label": "Plan", "type": "textarea"},
                {"label": "Environment", "type": "select", "options": ["staging", "production"]},
                {"label": "Tables", "type": "multi_select", "options": ["orders", "people"]},
                {"label": "I read the policy", "type": "checkbox", "required": True},
            ],
        )
        ticket, plan, environment, tables, policy = (str(field.id) for field in stage.template.custom_fields)
        refused = await stage.submit(custom_answers={environment: "moon", tables: ["orders", "cats"], policy: False})
        assert fields(refused) == {f"custom_answers.{key}" for key in (ticket, environment, tables, policy)}
        answers = {ticket: "INC-1", plan: "look", environment: "production", tables: ["orders"], policy: True}
        answer = await stage.submit(custom_answers=answers)
        assert answer.status_code == 201, answer.text
        assert answer.json()["custom_answers"] == answers
        assert answer.json()["custom_fields"][0]["label"] == "Ticket"

    async def test_an_edited_template_changes_nothing_of_what_was_asked_for(self, stage: Stage) -> None:
        request = await stage.submitted()
        values = {
            "name": "Everything",
            "app_id": str(stage.template.app_id),
            "mapping_ids": [],
            "approver_group_ids": [],
            "auto_approve": True,
        }
        path = f"/access-request-templates/{stage.template.id}"
        assert (await stage.house.call("PUT", path, stage.house.admin, json=values)).status_code == 200
        check_problem(await stage.act(request, "approve", stage.house.admin), 403, "forbidden")
        granted = (await stage.act(request, "approve", stage.bob)).json()
        assert (granted["status"], granted["template_name"]) == ("approved", stage.template.name)
        assert await stage.claims() == {"roles": ["db_readonly"]}


class TestAtTheSameTime:
    async def test_of_two_approvers_one_wins_and_the_other_is_told(self, stage: Stage) -> None:
        request = await stage.submitted()
        answers = await asyncio.gather(
            stage.act(request, "approve", stage.bob), stage.act(request, "approve", stage.carol)
        )
        won, lost = sorted(answers, key=lambda answer: answer.status_code)
        check_problem(lost, 409, "request_not_pending")
        assert won.json()["status"] == "approved"
        assert [entry["kind"] for entry in await stage.timeline(request)].count("approved") == 1

    @pytest.mark.parametrize(("other", "by"), [("revoke", "alice"), ("deny", "carol")])
    async def test_approve_and_another_step_end_in_one_order(self, stage: Stage, other: str, by: str) -> None:
        request = await stage.submitted()
        approval, step = await asyncio.gather(
            stage.act(request, "approve", stage.bob), stage.act(request, other, getattr(stage, by))
        )
        now = await stage.get(request)
        groups = (await stage.house.call("GET", f"/users/{stage.alice.id}/groups", stage.alice)).json()["items"]
        if step.status_code == 200 and approval.status_code == 200:
            assert other == "revoke", "the grant came first and was ended"
            assert (now["status"], now["decided_by"]) == ("revoked", stage.bob.email)
        elif approval.status_code == 200:
            check_problem(step, 409)
            assert now["status"] == "approved"
        else:
            check_problem(approval, 409, "request_not_pending")
            assert now["status"] == {"revoke": "revoked", "deny": "denied"}[other]
        assert len(groups) == (now["status"] == "approved")

    async def test_a_decision_on_a_closed_request_is_refused(self, stage: Stage) -> None:
        request = await stage.submitted()
        await stage.act(request, "deny", stage.bob)
        check_problem(await stage.act(request, "approve", stage.carol), 409, "request_not_pending")
        check_problem(await stage.act(request, "revoke", stage.alice), 409, "request_not_active")

    async def test_a_decision_sent_twice_with_its_key_is_carried_out_once(self, stage: Stage) -> None:
        request = await stage.submitted()
        key = {"Idempotency-Key": "retry-1"}
        first = await stage.act(request, "approve", stage.bob, headers=key)
        again = await stage.act(request, "approve", stage.bob, headers=key)
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json() == first.json()
        loser = await stage.act(request, "approve", stage.carol, headers=key)
        check_problem(loser, 409, "request_not_pending")


class TestSignals:
    async def test_respond_async_hands_the_decision_over(self, stage: Stage) -> None:
        request = await stage.submitted()
        answer = await stage.act(
            request, "approve", stage.bob, headers={"Prefer": "respond-async"}, json={"comment": "later"}
        )
        assert answer.status_code == 202
        assert answer.headers["preference-applied"] == "respond-async"
        granted = await stage.until(request, "approved")
        assert (granted["decided_by"], granted["decision_comment"]) == (stage.bob.email, "later")

    async def test_a_proof_is_for_readers_and_names_the_caller(self, stage: Stage) -> None:
        request = await stage.submitted()
        path = f"/access-requests/{request['id']}/signal-proofs"
        answer = await stage.house.call("POST", path, stage.bob, json={"action": "approve"})
        assert answer.status_code == 201
        assert answer.json()["actor"] == stage.bob.email
        stranger = await stage.house.call("POST", path, stage.erin, json={"action": "approve"})
        check_problem(stranger, 403, "forbidden")

    @pytest.mark.parametrize("action", ["expire", "escalate", "delete", None])
    async def test_a_proof_is_for_what_people_do(self, stage: Stage, action: str | None) -> None:
        request = await stage.submitted()
        path = f"/access-requests/{request['id']}/signal-proofs"
        assert fields(await stage.house.call("POST", path, stage.bob, json={"action": action})) == {"action"}


class TestReading:
    @pytest.mark.parametrize("path", ["", "/timeline", "/messages"])
    async def test_is_for_requester_approvers_and_administrators(self, stage: Stage, path: str) -> None:
        request = await stage.submitted()
        for who, status in ((stage.alice, 200), (stage.bob, 200), (stage.house.admin, 200), (stage.erin, 403)):
            answer = await stage.house.call("GET", f"/access-requests/{request['id']}{path}", who)
            assert answer.status_code == status

    async def test_pending_lists_what_the_caller_may_decide(self, stage: Stage) -> None:
        request = await stage.submitted()
        for who, awaited in ((stage.bob, True), (stage.alice, False), (stage.erin, False)):
            answer = await stage.house.call("GET", "/access-requests/pending", who)
            assert (request["id"] in [item["id"] for item in answer.json()["items"]]) is awaited

    async def test_all_is_for_administrators_and_filters(self, stage: Stage) -> None:
        denied = await stage.submitted()
        await stage.act(denied, "deny", stage.bob)
        pending = await stage.submitted()
        check_problem(await stage.house.call("GET", "/access-requests/all", stage.bob), 403, "forbidden")

        async def ids(query: str) -> list[str]:
            answer = await stage.house.call("GET", f"/access-requests/all?{query}", stage.house.admin)
            assert answer.status_code == 200, answer.text
            return [item["id"] for item in answer.json()["items"]]

        template = f"template_id={stage.template.id}"
        assert await ids(template) == [pending["id"], denied["id"]]
        assert await ids(f"{template}&status=denied") == [denied["id"]]
        name = stage.alice.email.partition("@")[0].upper()
        assert await ids(f"requester={name}") == [pending["id"], denied["id"]]
        assert await ids(f"requester={name}&status=pending&{template}") == [pending["id"]]
        assert await ids("requester=%25nobody_") == []
        wrong = await stage.house.call("GET", "/access-requests/all?status=open", stage.house.admin)
        assert fields(wrong) == {"status"}

    async def test_pages_follow_each_other_without_gap_or_repetition(self, stack: House) -> None:
        stage = await Stage.set(stack)
        made = []
        for _ in range(5):
            request = await stage.submitted()
            await stage.act(request, "revoke", stage.alice)
            made.append(request["id"])
        seen: list[str] = []
        cursor = ""
        while True:
            page = (await stack.call("GET", f"/access-requests?limit=2{cursor}", stage.alice)).json()
            seen += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert seen == made[::-1]

    async def test_a_deleted_template_leaves_its_history(self, stage: Stage) -> None:
        request = await stage.submitted()
        path = f"/access-request-templates/{stage.template.id}"
        check_problem(await stage.house.call("DELETE", path, stage.house.admin), 409, "template_in_use")
        await stage.act(request, "deny", stage.bob)
        assert (await stage.house.call("DELETE", path, stage.house.admin)).status_code == 204
        now = await stage.get(request)
        assert (now["template_id"], now["template_name"]) == (None, stage.template.name)


class TestWithoutTemporal:
    async def test_a_request_is_accepted_and_waits_for_a_worker(self, house: House) -> None:
        stage = await Stage.set(house)
        request = await stage.submitted()
        assert await house.marked() == {UUID(request["id"])}

    async def test_a_decision_is_refused_and_may_be_repeated(self, house: House) -> None:
        stage = await Stage.set(house)
        request = await stage.submitted()
        house.app.state.orchestrator._timeout = timedelta(seconds=1)
        answer = await stage.act(request, "approve", stage.bob)
        check_problem(answer, 503, "orchestrator_unavailable")
        assert "retry-after" in answer.headers
        assert (await stage.get(request))["status"] == "pending"

    async def test_a_decision_that_a_dying_worker_carried_out_is_answered_as_done(self, house: House) -> None:
        stage = await Stage.set(house)
        request = await stage.submitted()
        request_id = UUID(request["id"])
        decision_id = str(uuid5(request_id, f"approve:{stage.bob.id}:a-click"))

        async def carry_out_and_say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # Whoever calls Temporal has looked at the record already.
            await house.decide(request_id, Action.APPROVE, stage.bob, key=decision_id)
            writer.close()

        async with await asyncio.start_server(carry_out_and_say_nothing, "127.0.0.1", 0) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            chosen = house.app.state.settings.model_copy(update={"temporal_address": address})
            async with Orchestrator(chosen) as house.app.state.orchestrator:
                answer = await stage.act(request, "approve", stage.bob, headers={"Idempotency-Key": "a-click"})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["status"], answer.json()["decided_by"]) == ("approved", stage.bob.email)

    @pytest.mark.parametrize(
        "said",
        [
            *(
                RPCError("workflow execution already completed", status, b"")
                for status in (
                    RPCStatusCode.NOT_FOUND,
                    RPCStatusCode.FAILED_PRECONDITION,
                    RPCStatusCode.ABORTED,
                    RPCStatusCode.RESOURCE_EXHAUSTED,
                    RPCStatusCode.DEADLINE_EXCEEDED,
                )
            ),
            WorkflowUpdateRPCTimeoutOrCancelledError(),
            WorkflowUpdateFailedError(TerminatedError("terminated")),
            WorkflowUpdateFailedError(
                ApplicationError("The workflow completed.", type="AcceptedUpdateCompletedWorkflow")
            ),
        ],
        ids=lambda said: said.status.name if isinstance(said, RPCError) else repr(said.__cause__ or said),
    )
    async def test_a_decision_that_temporal_loses_is_answered_by_the_record(
        self, house: House, monkeypatch: pytest.MonkeyPatch, said: Exception
    ) -> None:
        stage = await Stage.set(house)
        request = await stage.submitted()
        request_id = UUID(request["id"])
        meanwhile: list[Action] = []

        async def lose(*_: Any, **options: Any) -> None:
            if "start_workflow_operation" in options:
                options["start_workflow_operation"]._workflow_handle.set_exception(RuntimeError("nothing was started"))
            for action in meanwhile:
                await house.decide(request_id, action, stage.alice)
            meanwhile.clear()
            raise said

        monkeypatch.setattr(
            house.app.state.orchestrator,
            "_client",
            SimpleNamespace(
                execute_update_with_start_workflow=lose,
                get_workflow_handle=lambda _: SimpleNamespace(execute_update=lose),
            ),
        )
        # The request is still pending: the decision may be repeated, and the workflow is looked after.
        await house.attended(request_id)
        check_problem(await stage.act(request, "approve", stage.bob), 503, "orchestrator_unavailable")
        assert await house.marked() == {request_id}
        # It is cancelled while the decision is on its way.
        meanwhile.append(Action.REVOKE)
        check_problem(await stage.act(request, "approve", stage.bob), 409, "request_not_pending")
        check_problem(await stage.act(request, "revoke", stage.alice), 409, "request_not_active")

    async def test_nobody_waits_for_one_that_went_away(
        self, house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        # With a connection that was there, and of which Temporal's client hopes that it comes back.
        stage = await Stage.set(house)
        with TestingTemporal(log_file=tmp_path / "temporal.log", ui_port=None) as server:
            chosen = house.app.state.settings.model_copy(
                update={"temporal_address": server.address, "temporal_rpc_timeout_secs": 1.0}
            )
            async with Orchestrator(chosen) as house.app.state.orchestrator:
                await setup._search_attributes(house.app.state.orchestrator._connected)
                await stage.submitted()
                server.stop()
                began = time.monotonic()
                other = await Stage.set(house)
                request = await other.submitted()
                check_problem(await other.act(request, "approve", other.bob), 503, "orchestrator_unavailable")
                values = {"email": other.alice.email, "name": "Alice", "active": False}
                answer = await house.call("PUT", f"/users/{other.alice.id}", house.admin, json=values)
                assert answer.status_code == 200, answer.text
                assert time.monotonic() - began < 25, (
                    "2 s, 1 s and 2 s; without bounds, Temporal's client takes 10 s for each"
                )
        gc.collect()
        await asyncio.sleep(0)
        assert "never retrieved" not in caplog.text

    async def test_reading_and_talking_go_on(self, house: House) -> None:
        stage = await Stage.set(house)
        request = await stage.submitted()
        path = f"/access-requests/{request['id']}/messages"
        assert (await house.call("POST", path, stage.bob, json={"body": "soon"})).status_code == 201
        assert (await house.call("GET", path, stage.alice)).status_code == 200


def _time(text: str) -> datetime:
    assert text.endswith("Z"), "times are RFC 3339 in UTC"
    return datetime.fromisoformat(text)
