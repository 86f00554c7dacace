"""Runs of tasks on the record: made with the change, begun once, repeated or given up as the failure mode says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from db import runs
from db.database import Database
from db.tables import ScheduledTask
from domain.errors import NotFound, Unauthenticated
from domain.states import Action
from domain.tasks import Attempt, Ending, Report, RunCause, RunResult, RunStatus
from tests.record import Record

FAILED = RunResult(ending=Ending.FAILED, exit_code=1, error="it broke")
SUCCEEDED = RunResult(ending=Ending.SUCCEEDED, exit_code=0, output="done")


async def a_task(db: Database, **values: Any) -> UUID:
    given = {"name": f"task {uuid4()}", "language": "python", "script": "def run(): ...", "max_retries": 2}
    task = ScheduledTask(**{**given, **values})
    async with db.session() as session:
        session.add(task)
    return task.id


async def runs_of(record: Record, request_id: UUID) -> list[dict[str, Any]]:
    return await record.query("SELECT * FROM task_runs WHERE request_id = %s ORDER BY created_at, event", request_id)


def attempt(run_id: UUID, holder: str = "one") -> Attempt:
    return Attempt(run_id=run_id, holder=holder, at=datetime.now(UTC))


def report(run_id: UUID, result: RunResult | None, holder: str = "one", **values: Any) -> Report:
    return Report(run_id=run_id, holder=holder, at=datetime.now(UTC), result=result, **values)


class TestMaking:
    async def test_every_status_change_fires_the_trigger_with_the_keys_of_the_specification(
        self, db: Database, record: Record
    ) -> None:
        task_id = await a_task(db)
        cast = await record.cast(trigger_task_id=task_id)
        request_id = await record.submit(cast.template, cast.requester)
        await record.decide(request_id, Action.APPROVE, cast.approver)
        await record.decide(request_id, Action.REVOKE, cast.requester)
        made = {row["event"]: row for row in await runs_of(record, request_id)}
        assert set(made) == {"created", "approved", "revoked"}
        row = await record.row(request_id)
        for event, run in made.items():
            assert run["config"] == {
                "trigger_event": event,
                "request_id": str(request_id),
                "request_status": event,
                "previous_status": {"created": "", "approved": "pending", "revoked": "approved"}[event],
                "template_id": str(cast.template.id),
                "template_name": cast.template.name,
                "app_id": str(cast.template.app_id),
                "app_name": row["app_name"],
                "requester_id": str(cast.requester.id),
                "requester_email": cast.requester.email,
                "requester_name": (await record.query("SELECT name FROM users WHERE id = %s", cast.requester.id))[0][
                    "name"
                ],
                "justification": "an incident",
            }
            assert (run["cause"], run["failure_mode"], run["status"]) == ("trigger", "ignore", "queued")
        entries = {entry["id"]: entry["kind"] for entry in await record.timeline(request_id)}
        assert {entries[run["timeline_id"]] for run in made.values()} == {"submitted", "approved", "revoked"}

    async def test_a_cancel_fires_it_as_revoked(self, db: Database, record: Record) -> None:
        cast = await record.cast(trigger_task_id=await a_task(db))
        request_id = await record.submit(cast.template, cast.requester)
        await record.decide(request_id, Action.REVOKE, cast.requester)
        _, cancelled = await runs_of(record, request_id)
        assert (cancelled["event"], cancelled["config"]["previous_status"]) == ("revoked", "pending")

    async def test_an_escalation_changes_no_status_and_fires_nothing(self, db: Database, record: Record) -> None:
        cast = await record.cast(trigger_task_id=await a_task(db), escalation_after_mins=30)
        request_id = await record.submit(cast.template, cast.requester)
        await record.take(request_id, Action.ESCALATE, "system:escalation", key="escalate")
        assert [run["event"] for run in await runs_of(record, request_id)] == ["created"]

    async def test_a_refused_decision_fires_nothing(self, db: Database, record: Record) -> None:
        cast = await record.cast(trigger_task_id=await a_task(db))
        request_id = await record.submit(cast.template, cast.requester)
        await record.decide(request_id, Action.APPROVE, cast.requester)
        assert [run["event"] for run in await runs_of(record, request_id)] == ["created"]

    async def test_an_integration_fires_its_task_for_its_events_its_template_and_its_application(
        self, db: Database, record: Record
    ) -> None:
        cast, other = await record.cast(), await record.cast()
        bindings: list[dict[str, Any]] = [
            {"events": ["access_request.submitted"]},
            {"events": ["access_request.denied"]},
            {"events": ["access_request.submitted"], "template_id": cast.template.id},
            {"events": ["access_request.submitted"], "template_id": other.template.id},
            {"events": ["access_request.submitted"], "app_id": cast.template.app_id},
            {"events": ["access_request.submitted"], "app_id": other.template.app_id},
            {"events": ["access_request.submitted"], "enabled": False},
        ]
        ids = [await an_integration(record, await a_task(db), **binding) for binding in bindings]
        request_id = await record.submit(cast.template, cast.requester)
        made = await runs_of(record, request_id)
        assert {run["integration_id"] for run in made} == {ids[0], ids[2], ids[4]}
        config = made[0]["config"]
        assert config["request_id"] == config["event.request_id"] == str(request_id)
        assert config["notified_approvers"] == f"{cast.approver.email},{cast.second_approver.email}"
        assert {run["failure_mode"] for run in made} == {"retry"}

    async def test_a_schedule_makes_one_run_however_often_it_asks(self, db: Database, record: Record) -> None:
        task_id, run_id = await a_task(db), uuid4()
        async with db.connection() as connection:
            for _ in range(2):
                assert await runs.make_on_its_own(connection, task_id, RunCause.SCHEDULE, run_id=run_id) == run_id
            with pytest.raises(NotFound):
                await runs.make_on_its_own(connection, uuid4(), RunCause.MANUAL)
        assert len(await record.query("SELECT FROM task_runs")) == 1


async def an_integration(record: Record, task_id: UUID, **values: Any) -> UUID:
    integration_id = uuid4()
    given: dict[str, Any] = {"template_id": None, "app_id": None, "enabled": True, **values}
    await record.execute(
        """
        INSERT INTO integrations (id, name, target, enabled, events, template_id, app_id, task_id)
        VALUES (%(id)s, %(name)s, 'task', %(enabled)s, %(events)s, %(template_id)s, %(app_id)s, %(task_id)s)
        """,
        id=integration_id,
        name=str(integration_id),
        task_id=task_id,
        **given,
    )
    return integration_id


class TestAttempts:
    async def a_run(self, db: Database, record: Record, *, mode: str = "retry", **task: Any) -> UUID:
        task_id = await a_task(db, **task)
        async with db.connection() as connection:
            run_id = await runs.make_on_its_own(connection, task_id, RunCause.MANUAL)
        await record.execute("UPDATE task_runs SET failure_mode = %s WHERE id = %s", mode, run_id)
        return run_id

    async def status(self, record: Record, run_id: UUID) -> dict[str, Any]:
        (row,) = await record.query("SELECT * FROM task_runs WHERE id = %s", run_id)
        return row

    async def test_a_failure_is_retried_as_often_as_the_task_says_with_growing_pauses(
        self, db: Database, record: Record
    ) -> None:
        run_id = await self.a_run(db, record)
        pauses = []
        for number in range(3):
            assert await runs.begin(db, attempt(run_id, str(number))) is not None
            following = await runs.finish(db, report(run_id, FAILED, str(number)))
            pauses.append(following.pause_seconds)
        assert pauses == [5.0, 10.0, None]
        row = await self.status(record, run_id)
        assert (row["status"], row["attempt"], row["error"], row["dispatch_at"]) == ("failed", 3, "it broke", None)
        assert await runs.begin(db, attempt(run_id, "once more")) is None

    async def test_ignore_never_retries(self, db: Database, record: Record) -> None:
        run_id = await self.a_run(db, record, mode="ignore")
        await runs.begin(db, attempt(run_id))
        assert (await runs.finish(db, report(run_id, FAILED))).pause_seconds is None

    @pytest.mark.parametrize(
        ("mode", "becomes"), [("retry", RunStatus.RUNNING), ("ignore", RunStatus.LOST), ("block", RunStatus.FAILED)]
    )
    async def test_an_attempt_that_was_cut_off_is_repeated_lost_or_failed(
        self, db: Database, record: Record, mode: str, becomes: RunStatus
    ) -> None:
        run_id = await self.a_run(db, record, mode=mode)
        await runs.begin(db, attempt(run_id, "before the crash"))
        order = await runs.begin(db, attempt(run_id, "after the crash"))
        row = await self.status(record, run_id)
        assert row["status"] == becomes
        assert (order is not None) == (becomes is RunStatus.RUNNING)
        if order is not None:
            assert (order.run_id, row["attempt"]) == (run_id, 2)

    @pytest.mark.parametrize(
        ("mode", "becomes"), [("retry", RunStatus.QUEUED), ("ignore", RunStatus.LOST), ("block", RunStatus.FAILED)]
    )
    async def test_an_attempt_whose_script_worker_died_is_repeated_lost_or_failed(
        self, db: Database, record: Record, mode: str, becomes: RunStatus
    ) -> None:
        run_id = await self.a_run(db, record, mode=mode)
        await runs.begin(db, attempt(run_id))
        following = await runs.finish(db, report(run_id, None, lost=True, error="The script worker died."))
        assert following.status is becomes
        assert (following.pause_seconds is not None) == (becomes is RunStatus.QUEUED)
        row = await self.status(record, run_id)
        assert (row["status"], row["error"]) == (becomes, "The script worker died.")

    async def test_an_attempt_that_lost_the_run_writes_nothing(self, db: Database, record: Record) -> None:
        run_id = await self.a_run(db, record)
        await runs.begin(db, attempt(run_id, "slow"))
        await runs.begin(db, attempt(run_id, "next"))
        assert (await runs.finish(db, report(run_id, FAILED, "slow"))).pause_seconds is None
        assert (await self.status(record, run_id))["status"] == "running"
        assert (await runs.finish(db, report(run_id, SUCCEEDED, "next"))).status is RunStatus.SUCCEEDED

    async def test_beginning_and_ending_twice_changes_nothing_more(self, db: Database, record: Record) -> None:
        run_id = await self.a_run(db, record)
        await runs.begin(db, attempt(run_id))
        await runs.begin(db, attempt(run_id))
        assert (await self.status(record, run_id))["attempt"] == 1
        await runs.finish(db, report(run_id, SUCCEEDED))
        await runs.finish(db, report(run_id, FAILED))
        row = await self.status(record, run_id)
        assert (row["status"], row["output"], row["ticket_hash"]) == ("succeeded", "done", None)

    async def test_a_failure_that_is_written_down_twice_is_answered_with_the_same_pause(
        self, db: Database, record: Record
    ) -> None:
        """The first answer is lost with its workflow task where the worker dies after the commit."""
        run_id = await self.a_run(db, record)
        for holder in ("one", "two"):
            await runs.begin(db, attempt(run_id, holder))
            failed = report(run_id, FAILED, holder)
            following = await runs.finish(db, failed)
            before = await self.status(record, run_id)
            assert await runs.finish(db, failed) == following
            assert following.pause_seconds is not None
            assert await self.status(record, run_id) == before
        assert (await runs.finish(db, report(run_id, FAILED, "one"))).pause_seconds is None

    async def test_the_task_was_deleted(self, db: Database, record: Record) -> None:
        run_id = await self.a_run(db, record)
        await record.execute("DELETE FROM scheduled_tasks")
        assert await runs.begin(db, attempt(run_id)) is None
        row = await self.status(record, run_id)
        assert (row["status"], row["error"]) == ("failed", "The task does not exist any more.")

    async def test_what_was_never_dispatched_is_found_once_by_each_who_looks(
        self, db: Database, record: Record
    ) -> None:
        run_id = await self.a_run(db, record)
        assert await runs.claim_due(db, 10) == []
        await record.execute("UPDATE task_runs SET dispatch_at = now()")
        assert await runs.claim_due(db, 10) == [run_id]
        assert await runs.claim_due(db, 10) == []


class TestTickets:
    async def test_a_ticket_works_once(self, db: Database, record: Record) -> None:
        run_id = await TestAttempts().a_run(db, record, script="def run(): return 1", secret_names=["TOKEN"])
        order = await runs.begin(db, attempt(run_id))
        assert order is not None
        redeemed = await runs.redeem(db, order.ticket)
        assert (redeemed.run_id, redeemed.script, redeemed.secret_names) == (run_id, "def run(): return 1", ["TOKEN"])
        assert redeemed.config == {"run_id": str(run_id)}
        with pytest.raises(Unauthenticated):
            await runs.redeem(db, order.ticket)

    async def test_a_ticket_dies_with_its_attempt(self, db: Database, record: Record) -> None:
        run_id = await TestAttempts().a_run(db, record)
        first = await runs.begin(db, attempt(run_id, "one"))
        second = await runs.begin(db, attempt(run_id, "two"))
        assert first is not None
        assert second is not None
        with pytest.raises(Unauthenticated):
            await runs.redeem(db, first.ticket)
        await runs.finish(db, report(run_id, SUCCEEDED, "two"))
        with pytest.raises(Unauthenticated):
            await runs.redeem(db, second.ticket)

    @pytest.mark.parametrize("ticket", ["", "justiam_run_", "justiam_run_x", "\x00", "\ud800"])
    async def test_what_is_no_ticket_is_refused(self, db: Database, ticket: str) -> None:
        with pytest.raises(Unauthenticated):
            await runs.redeem(db, ticket)

    async def test_a_ticket_runs_out(self, db: Database, record: Record) -> None:
        run_id = await TestAttempts().a_run(db, record)
        order = await runs.begin(db, attempt(run_id))
        assert order is not None
        await record.execute("UPDATE task_runs SET ticket_expires_at = now() - interval '1 second'")
        with pytest.raises(Unauthenticated):
            await runs.redeem(db, order.ticket)
