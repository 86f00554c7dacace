"""The audit finds what it is for: a record that is whole passes, each kind of damage is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from temporalio.client import Client

from activities import auditing, processes
from activities.processes import Head
from db import tasks, transitions
from db.auditing import record_invariants
from db.database import Database
from domain.errors import TriggerTaskFailed
from domain.states import Action, Status
from domain.tasks import Ending, Report, RunResult, TaskValues
from domain.transitions import Channel, Transition
from tests.record import PROOFS, Cast, Record

OLD = datetime.now(UTC) - timedelta(minutes=10)


async def _broken(db: Database) -> dict[str, set[str]]:
    found = await record_invariants(db)
    return {
        invariant.name: {violation.request_id for violation in invariant.violations}
        for invariant in found
        if invariant.violations
    }


async def _one_of_each(record: Record) -> tuple[Cast, dict[str, UUID]]:
    """A request in every state, each reached through the rules."""
    cast = await record.cast()
    made: dict[str, UUID] = {}
    for name, steps in {
        "denied": [(Action.DENY, cast.approver)],
        "cancelled": [(Action.REVOKE, cast.requester)],
        "revoked by an admin": [(Action.REVOKE, cast.admin)],
        "revoked": [(Action.APPROVE, cast.approver), (Action.REVOKE, cast.approver)],
        "refused, then approved": [(Action.APPROVE, cast.requester), (Action.APPROVE, cast.approver)],
        "approved": [(Action.APPROVE, cast.approver)],
        "pending": [],
    }.items():
        made[name] = await record.submit(cast.template, cast.requester)
        for action, actor in steps:
            await record.decide(made[name], action, actor)
    return cast, made


class TestRecord:
    async def test_a_record_that_the_service_wrote_holds(self, db: Database, record: Record) -> None:
        await _one_of_each(record)
        assert await _broken(db) == {}

    async def test_an_approval_that_its_task_blocked_holds_whatever_follows(self, db: Database, record: Record) -> None:
        task = await tasks.create(db, TaskValues(name="checks", script="def run(): ..."))
        cast = await record.cast(trigger_task_id=task.id, trigger_task_failure_mode="block")

        async def approved(request_id: UUID, result: RunResult | None) -> None:
            key, at = str(uuid4()), datetime.now(UTC)
            approval = Transition(
                request_id=request_id,
                action=Action.APPROVE,
                channel=Channel.UPDATE,
                at=at,
                key=key,
                proof=record.proof(request_id, Action.APPROVE, cast.approver, jti=key),
            )
            begun = await transitions.begin_block(db, PROOFS, approval, trust_claimed_actors=False)
            assert begun.run is not None
            error = None if result else "It failed."
            report = Report(run_id=begun.run.run_id, holder=begun.holder, at=at, result=result, error=error)
            await transitions.end_block(db, report, request_id)
            outcome = await transitions.apply(db, PROOFS, approval, trust_claimed_actors=False)
            assert outcome.refusal == (None if result else TriggerTaskFailed.code)
            assert (await record.kinds(request_id))[-1] == ("approved" if result else "trigger_failed")

        for ending in (Action.APPROVE, Action.DENY):
            request_id = await record.submit(cast.template, cast.requester)
            await approved(request_id, None)
            if ending is Action.APPROVE:
                await approved(request_id, RunResult(ending=Ending.SUCCEEDED))
            else:
                await record.decide(request_id, ending, cast.approver)
        await approved(await record.submit(cast.template, cast.requester), None)
        assert await _broken(db) == {}

    @pytest.mark.parametrize(
        ("damage", "request_name", "invariants"),
        [
            ("UPDATE groups SET expires_at = now() WHERE request_id = %s", "approved", {"group_for_each_grant"}),
            ("DELETE FROM groups WHERE request_id = %s", "approved", {"group_for_each_grant"}),
            (
                "DELETE FROM app_mapping_groups USING groups g WHERE g.id = group_id AND g.request_id = %s",
                "approved",
                {"group_for_each_grant"},
            ),
            (
                "UPDATE access_requests SET status = 'revoked', ended_at = now() WHERE id = %s",
                "approved",
                {"one_ending", "no_group_without_grant"},
            ),
            ("UPDATE access_requests SET decided_by = 'mallory' WHERE id = %s", "denied", {"one_decision"}),
            (
                """
                INSERT INTO access_request_timeline (request_id, kind, actor, verified, event, payload)
                VALUES (%s, 'denied', 'bob', true, 'access_request.denied', '{}')
                """,
                "denied",
                {"one_ending", "one_decision", "timeline_in_order"},
            ),
            (
                """
                INSERT INTO access_request_timeline (request_id, kind, actor, verified)
                VALUES (%s, 'escalated', 'x', true)
                """,
                "pending",
                {"event_for_each_step"},
            ),
        ],
    )
    async def test_damage_is_found_and_named(
        self, db: Database, record: Record, damage: str, request_name: str, invariants: set[str]
    ) -> None:
        _, made = await _one_of_each(record)
        await record.execute(damage, made[request_name])
        assert await _broken(db) == {name: {str(made[request_name])} for name in invariants}

    async def test_a_grant_that_nobody_ended_is_found(self, db: Database, record: Record) -> None:
        cast = await record.cast()
        request_id = await record.submit(cast.template, cast.requester, minutes=1)
        await record.decide(request_id, Action.APPROVE, cast.approver, at=OLD)
        assert await _broken(db) == {"no_grant_overdue": {str(request_id)}}


class TestBothStores:
    async def test_an_open_request_without_a_workflow_and_a_workflow_without_one_are_found(
        self, db: Database, record: Record, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(auditing, "_SECOND_LOOK_SECS", 1.0)
        cast = await record.cast()
        lonely = await record.submit(cast.template, cast.requester, at=OLD)
        stray = UUID(int=7)
        head = Head(stray, Status.PENDING, "T", "A", "alice@example.com", 60, None)
        await processes.start(temporal_client, head)
        try:
            report = await auditing.audit(db, temporal_client)
        finally:
            await temporal_client.get_workflow_handle(f"access-request-{stray}").terminate()
        found = {invariant.name: invariant.violations for invariant in report.invariants if invariant.violations}
        assert not report.holds
        assert [violation.request_id for violation in found["workflow_for_each_open_request"]] == [str(lonely)]
        strays = [violation.request_id for violation in found["no_workflow_for_closed_requests"]]
        assert f"access-request-{stray}" in strays
