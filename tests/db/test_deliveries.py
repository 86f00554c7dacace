"""Which deliveries an event makes, to whom, when each is tried, and when it is given up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from db import deliveries, integrations
from db.database import Database
from db.integrations import NewIntegration
from db.secrets import SecretVault
from domain.actors import SystemActor
from domain.deliveries import MOST_ATTEMPTS, PAUSES, Attempt, Outgoing, pause_after
from domain.events import Event
from domain.integrations import REMINDER, IntegrationValues, Role, Target
from domain.states import Action
from tests.record import SECRET, Cast, Record

VAULT: Final = SecretVault(SecretStr(SECRET))
EVERY: Final = [event.value for event in Event]
FAILED: Final = Attempt(delivered=False, error="It answered 503.", response_status=503, retryable=True, latency_ms=7)
REFUSED: Final = Attempt(delivered=False, error="It answered 404.", response_status=404, latency_ms=7)
ARRIVED: Final = Attempt(delivered=True, response_status=200, response_head="ok", latency_ms=7)


@dataclass(frozen=True)
class Deliveries:
    """Makes integrations, and reads what was made of events."""

    db: Database
    record: Record

    async def integrate(self, target: str = "webhook", **values: Any) -> NewIntegration:
        chosen: dict[str, Any] = {"name": f"integration {uuid4()}", "target": target, "events": EVERY, **values}
        if target == "webhook":
            chosen = {"url": "https://hooks.example.com/", **chosen}
        if target == "slack":
            chosen = {"slack_url": "https://hooks.slack.com/services/T0/B0/hush", **chosen}
        return await integrations.create(self.db, VAULT, IntegrationValues.model_validate(chosen))

    async def made(self) -> list[dict[str, Any]]:
        return await self.record.query("SELECT * FROM deliveries ORDER BY timeline_id, role, recipient, target")

    async def told(self) -> set[tuple[str, str, str]]:
        """Who is told what by mail, and as whom."""
        return {(row["event"], row["role"], row["recipient"]) for row in await self.made()}

    async def one(self) -> dict[str, Any]:
        [row] = await self.made()
        return row

    async def begin(self, delivery_id: UUID) -> Outgoing | None:
        return await deliveries.begin(self.db, VAULT, delivery_id, public_url="https://access.example.com")


@pytest.fixture
def told(db: Database, record: Record) -> Deliveries:
    return Deliveries(db, record)


async def begun(told: Deliveries, delivery_id: UUID) -> Outgoing:
    outgoing = await told.begin(delivery_id)
    assert outgoing is not None
    return outgoing


async def asked(record: Record, **values: Any) -> tuple[Cast, UUID]:
    cast = await record.cast(**values)
    return cast, await record.submit(cast.template, cast.requester)


class TestRows:
    async def test_are_none_without_an_integration(self, told: Deliveries, record: Record) -> None:
        cast, request_id = await asked(record)
        await record.decide(request_id, Action.APPROVE, cast.approver)
        assert await told.made() == []

    @pytest.mark.parametrize("target", ["webhook", "slack"])
    async def test_are_one_for_each_event(self, told: Deliveries, record: Record, target: str) -> None:
        await told.integrate(target)
        cast, request_id = await asked(record)
        await record.take(request_id, Action.ESCALATE, SystemActor.ESCALATION, key="escalate")
        await record.decide(request_id, Action.APPROVE, cast.approver)
        await record.decide(request_id, Action.REVOKE, cast.requester)
        made = await told.made()
        assert [row["event"] for row in made] == [Event.SUBMITTED, Event.ESCALATED, Event.APPROVED, Event.REVOKED]
        timeline = {entry["id"]: entry for entry in await record.timeline(request_id)}
        for row in made:
            assert row["payload"] == timeline[row["timeline_id"]]["payload"]
            assert (row["target"], row["status"], row["attempts"]) == (target, "pending", 0)
            assert (row["recipient"], row["role"], row["request_id"]) == (None, None, request_id)
            assert row["dispatch_at"] == row["not_before"]

    async def test_are_for_the_events_the_template_and_the_application_of_the_integration(
        self, told: Deliveries, record: Record
    ) -> None:
        cast, other = await record.cast(), await record.cast()
        fitting = [
            await told.integrate(events=["access_request.submitted"]),
            await told.integrate(template_id=cast.template.id),
            await told.integrate(app_id=cast.application.id, template_id=cast.template.id),
        ]
        await told.integrate(events=["access_request.denied", "access_request.expired"])
        await told.integrate(template_id=other.template.id)
        await told.integrate(app_id=other.application.id)
        await told.integrate(enabled=False)
        await record.submit(cast.template, cast.requester)
        assert {row["integration_id"] for row in await told.made()} == {view.id for view in fitting}

    async def test_are_in_the_transaction_of_the_change(self, told: Deliveries, record: Record) -> None:
        await told.integrate()
        cast, request_id = await asked(record)
        refused = await record.decide(request_id, Action.APPROVE, cast.requester)
        assert refused.refusal is not None
        key = str(uuid4())
        for _ in range(2):
            await record.decide(request_id, Action.DENY, cast.approver, key=key)
        assert [row["event"] for row in await told.made()] == [Event.SUBMITTED, Event.DENIED]

    async def test_do_not_fail_a_change_while_their_integration_is_deleted(
        self, told: Deliveries, record: Record
    ) -> None:
        cast = await record.cast()
        for _ in range(20):
            integration = await told.integrate()
            request_id, _ = await asyncio.gather(
                record.submit(cast.template, cast.requester), integrations.delete(told.db, integration.id)
            )
            integration = await told.integrate()
            outcome, _ = await asyncio.gather(
                record.decide(request_id, Action.DENY, cast.approver), integrations.delete(told.db, integration.id)
            )
            assert outcome.refusal is None
        assert await told.made() == []

    async def test_of_tasks_are_runs(self, told: Deliveries, record: Record) -> None:
        task_id = uuid4()
        await record.execute(
            """
            INSERT INTO scheduled_tasks (id, name, description, task_type, language, language_given, script,
                schedule_type, time_zone, max_retries, timeout_seconds, network, paused)
            VALUES (%s, 'log', '', 'script', 'python', false, 'def run(): pass', 'once', 'UTC', 0, 60, true, false)
            """,
            task_id,
        )
        await told.integrate("task", task_id=str(task_id))
        await asked(record)
        assert await told.made() == []


class TestMail:
    async def test_asks_who_was_notified_each_on_their_own(self, told: Deliveries, record: Record) -> None:
        await told.integrate("email")
        cast, _ = await asked(record)
        assert await told.told() == {
            (Event.SUBMITTED, Role.APPROVER, cast.approver.email),
            (Event.SUBMITTED, Role.APPROVER, cast.second_approver.email),
        }

    async def test_asks_only_whom_the_policy_picked(self, told: Deliveries, record: Record) -> None:
        await told.integrate("email")
        cast, _ = await asked(record, notification_policy="first_n", notification_count=1)
        assert await told.told() == {(Event.SUBMITTED, Role.APPROVER, cast.approver.email)}

    async def test_asks_who_comes_in_with_the_escalation_and_nobody_twice(
        self, told: Deliveries, record: Record
    ) -> None:
        await told.integrate("email")
        cast, request_id = await asked(record)
        await record.take(request_id, Action.ESCALATE, SystemActor.ESCALATION, key="escalate")
        assert {each for each in await told.told() if each[0] == Event.ESCALATED} == {
            (Event.ESCALATED, Role.APPROVER, cast.manager.email)
        }

    async def test_asks_once_where_a_request_is_escalated_at_its_submission(
        self, told: Deliveries, record: Record
    ) -> None:
        await told.integrate("email")
        late = await told.integrate("email", events=["access_request.escalated"])
        cast = await record.cast()
        alone = await record.group(cast.requester)
        template = await record.template(
            app_id=cast.application.id, approver_group_ids=[alone.id], escalation_group_id=cast.managers.id
        )
        await record.submit(template, cast.requester)
        made = await told.made()
        assert [(row["event"], row["recipient"]) for row in made if row["integration_id"] != late.id] == [
            (Event.SUBMITTED, cast.manager.email)
        ]
        assert [(row["event"], row["recipient"]) for row in made if row["integration_id"] == late.id] == [
            (Event.ESCALATED, cast.manager.email)
        ]

    @pytest.mark.parametrize("action", [Action.APPROVE, Action.DENY])
    async def test_tells_the_requester_the_outcome_and_the_others_that_it_is_handled(
        self, told: Deliveries, record: Record, action: Action
    ) -> None:
        await told.integrate("email", roles=["requester", "handled"])
        cast, request_id = await asked(record)
        await record.decide(request_id, action, cast.approver)
        event = Event.APPROVED if action is Action.APPROVE else Event.DENIED
        assert await told.told() == {
            (event, Role.REQUESTER, cast.requester.email),
            (event, Role.HANDLED, cast.second_approver.email),
        }

    async def test_tells_of_a_cancel_and_of_the_end(self, told: Deliveries, record: Record) -> None:
        await told.integrate(
            "email", roles=["requester", "handled"], events=["access_request.revoked", "access_request.expired"]
        )
        cast, request_id = await asked(record)
        await record.decide(request_id, Action.REVOKE, cast.requester)
        assert await told.told() == {
            (Event.REVOKED, Role.REQUESTER, cast.requester.email),
            (Event.REVOKED, Role.HANDLED, cast.approver.email),
            (Event.REVOKED, Role.HANDLED, cast.second_approver.email),
        }
        other = await record.submit(cast.template, cast.requester)
        at = datetime.now(UTC)
        await record.decide(other, Action.APPROVE, cast.approver, at=at)
        await record.take(other, Action.EXPIRE, SystemActor.EXPIRY, key="expire", at=at + timedelta(hours=2))
        assert {each for each in await told.told() if each[0] == Event.EXPIRED} == {
            (Event.EXPIRED, Role.REQUESTER, cast.requester.email)
        }

    async def test_goes_to_the_owner_of_a_service_account(self, told: Deliveries, record: Record) -> None:
        await told.integrate("email", roles=["requester"])
        cast = await record.cast()
        bot = await record.user("bot", owner=cast.requester)
        request_id = await record.submit(cast.template, bot)
        await record.decide(request_id, Action.DENY, cast.approver)
        assert await told.told() == {(Event.DENIED, Role.REQUESTER, cast.requester.email)}

    async def test_does_not_go_to_who_was_deactivated(self, told: Deliveries, record: Record) -> None:
        await told.integrate("email", roles=["handled", "requester"])
        cast, request_id = await asked(record)
        await record.execute("UPDATE users SET active = false WHERE id = %s", cast.second_approver.id)
        await record.decide(request_id, Action.DENY, cast.approver)
        assert await told.told() == {(Event.DENIED, Role.REQUESTER, cast.requester.email)}

    async def test_tells_nobody_in_a_role_that_is_not_wanted(self, told: Deliveries, record: Record) -> None:
        await told.integrate("email", roles=["reminder"], events=["access_request.submitted"])
        cast, request_id = await asked(record)
        await record.decide(request_id, Action.APPROVE, cast.approver)
        assert await told.made() == []


class TestReminder:
    async def granted(self, told: Deliveries, record: Record, minutes: int = 60) -> tuple[Cast, UUID, datetime]:
        await told.integrate("email", roles=["reminder"])
        cast = await record.cast()
        request_id = await record.submit(cast.template, cast.requester, minutes=minutes)
        at = datetime.now(UTC)
        await record.decide(request_id, Action.APPROVE, cast.approver, at=at)
        return cast, request_id, at

    async def test_waits_for_the_quarter_of_an_hour_before_the_end(self, told: Deliveries, record: Record) -> None:
        cast, request_id, at = await self.granted(told, record)
        row = await told.one()
        assert (row["event"], row["role"], row["recipient"]) == (REMINDER, Role.REMINDER, cast.requester.email)
        assert row["not_before"] == row["dispatch_at"] == at + timedelta(minutes=45)
        assert set(row["payload"]) == {"request_id", "template_name", "requester_email"}
        assert await told.begin(row["id"]) is None
        assert (await told.one())["attempts"] == 0
        await record.execute("UPDATE deliveries SET not_before = now()")
        outgoing = await begun(told, row["id"])
        assert outgoing.envelope.request.expires_at == at + timedelta(hours=1)
        assert outgoing.envelope.request.link == f"https://access.example.com/requests/{request_id}"

    async def test_is_not_worth_it_for_shorter_access(self, told: Deliveries, record: Record) -> None:
        await self.granted(told, record, minutes=15)
        assert await told.made() == []

    async def test_is_dropped_where_the_access_has_ended(self, told: Deliveries, record: Record) -> None:
        cast, request_id, _ = await self.granted(told, record)
        await record.decide(request_id, Action.REVOKE, cast.requester)
        await record.execute("UPDATE deliveries SET not_before = now()")
        delivery = await told.one()
        assert await told.begin(delivery["id"]) is None
        row = await told.one()
        assert (row["status"], row["dispatch_at"], row["attempts"]) == ("dropped", None, 0)
        assert row["finished_at"] is not None


class TestAttempts:
    async def test_know_all_that_is_to_be_sent(self, told: Deliveries, record: Record) -> None:
        integration = await told.integrate()
        cast, request_id = await asked(record)
        row = await told.one()
        outgoing = await begun(told, row["id"])
        assert outgoing.target is Target.WEBHOOK
        assert outgoing.settings == {"url": "https://hooks.example.com/"}
        assert outgoing.secrets == {"signing_secrets": [integration.signing_secret]}
        assert (outgoing.envelope.delivery_id, outgoing.envelope.event) == (row["id"], Event.SUBMITTED)
        assert outgoing.envelope.payload == row["payload"]
        [entry] = await record.timeline(request_id)
        assert outgoing.envelope.at == entry["at"]
        facts = outgoing.envelope.request
        assert (facts.id, facts.template_name, facts.app_name) == (
            request_id,
            cast.template.name,
            cast.application.name,
        )
        assert [approver.email for approver in facts.approvers] == [cast.approver.email, cast.second_approver.email]
        assert (facts.requester.email, facts.mappings) == (cast.requester.email, [cast.mapping.name])
        assert (facts.requested_duration_mins, facts.justification, facts.status) == (60, "an incident", "pending")

    async def test_that_arrive_are_the_last(self, told: Deliveries, record: Record) -> None:
        await told.integrate()
        await asked(record)
        delivery_id = (await told.one())["id"]
        await begun(told, delivery_id)
        assert await deliveries.finish(told.db, delivery_id, ARRIVED) is None
        row = await told.one()
        assert (row["status"], row["dispatch_at"], row["attempts"], row["error"]) == ("delivered", None, 1, None)
        assert (row["response_status"], row["response_head"], row["latency_ms"]) == (200, "ok", 7)
        assert row["finished_at"] is not None
        assert await told.begin(delivery_id) is None
        assert await deliveries.finish(told.db, delivery_id, FAILED) is None
        assert (await told.one())["status"] == "delivered"

    async def test_that_fail_are_repeated_for_a_day(self, told: Deliveries, record: Record) -> None:
        await told.integrate()
        await asked(record)
        delivery_id = (await told.one())["id"]
        pauses = []
        for number in range(1, MOST_ATTEMPTS + 1):
            await begun(told, delivery_id)
            pause = await deliveries.finish(told.db, delivery_id, FAILED)
            row = await told.one()
            assert (row["attempts"], row["error"]) == (number, "It answered 503.")
            assert (row["status"], row["dispatch_at"] is None) == (
                ("pending", False) if pause is not None else ("parked", True)
            )
            pauses.append(pause)
        assert pauses.index(None) == len(pauses) - 1
        assert await told.begin(delivery_id) is None

    async def test_that_cannot_succeed_are_not_repeated(self, told: Deliveries, record: Record) -> None:
        await told.integrate()
        await asked(record)
        delivery_id = (await told.one())["id"]
        await begun(told, delivery_id)
        assert await deliveries.finish(told.db, delivery_id, REFUSED) is None
        row = await told.one()
        assert (row["status"], row["error"], row["dispatch_at"]) == ("parked", "It answered 404.", None)

    async def test_that_were_cut_off_count(self, told: Deliveries, record: Record) -> None:
        await told.integrate()
        await asked(record)
        delivery_id = (await told.one())["id"]
        for _ in range(MOST_ATTEMPTS):
            await begun(told, delivery_id)
        assert await told.begin(delivery_id) is None
        row = await told.one()
        assert (row["status"], row["error"]) == ("parked", "The last attempt was cut off by a crash.")

    async def test_that_say_what_cannot_be_stored_are_stored(self, told: Deliveries, record: Record) -> None:
        await told.integrate()
        await asked(record)
        delivery_id = (await told.one())["id"]
        await begun(told, delivery_id)
        await deliveries.finish(
            told.db, delivery_id, FAILED.model_copy(update={"response_head": "\x00", "error": "\x00"})
        )
        assert (await told.one())["response_head"] == "\ufffd"

    async def test_are_dropped_for_an_integration_that_is_disabled(self, told: Deliveries, record: Record) -> None:
        integration = await told.integrate()
        await asked(record)
        values = IntegrationValues(
            name="off", target=Target.WEBHOOK, enabled=False, events=list(Event), url="https://hooks.example.com/"
        )
        await integrations.replace(told.db, VAULT, integration.id, values)
        assert await told.begin((await told.one())["id"]) is None
        row = await told.one()
        assert (row["status"], row["error"]) == ("dropped", "The integration is disabled.")

    async def test_at_asking_are_dropped_where_it_is_decided(self, told: Deliveries, record: Record) -> None:
        await told.integrate("email", roles=["approver"])
        cast, request_id = await asked(record)
        await record.decide(request_id, Action.DENY, cast.approver)
        for row in await told.made():
            assert await told.begin(row["id"]) is None
        assert {row["status"] for row in await told.made()} == {"dropped"}

    async def test_at_telling_a_channel_are_made_all_the_same(self, told: Deliveries, record: Record) -> None:
        await told.integrate("slack", events=["access_request.submitted"])
        cast, request_id = await asked(record)
        await record.decide(request_id, Action.DENY, cast.approver)
        assert (await begun(told, (await told.one())["id"])).secrets == {
            "url": "https://hooks.slack.com/services/T0/B0/hush"
        }

    async def test_without_the_key_of_their_secret_are_looked_at_again(self, told: Deliveries, record: Record) -> None:
        await told.integrate()
        await asked(record)
        delivery_id = (await told.one())["id"]
        other = SecretVault(SecretStr("another secret that is long enough"))
        assert await deliveries.begin(told.db, other, delivery_id, public_url=None) is None
        row = await told.one()
        assert (row["status"], row["attempts"]) == ("pending", 1)
        assert "JUSTIAM_ENCRYPTION_KEYS" in row["error"]
        assert row["dispatch_at"] > row["last_attempt_at"]
        assert await told.begin(delivery_id) is not None

    async def test_at_nothing_are_none(self, told: Deliveries) -> None:
        assert await told.begin(uuid4()) is None
        assert await deliveries.finish(told.db, uuid4(), ARRIVED) is None


class TestSigningSecrets:
    async def test_are_two_after_a_rotation_the_newest_first(self, told: Deliveries, record: Record) -> None:
        first = await told.integrate()
        second = await integrations.rotate_secret(told.db, VAULT, first.id)
        third = await integrations.rotate_secret(told.db, VAULT, first.id)
        await asked(record)
        outgoing = await begun(told, (await told.one())["id"])
        assert outgoing.secrets == {"signing_secrets": [third.signing_secret, second.signing_secret]}

    async def test_are_one_when_the_day_is_over(
        self, told: Deliveries, record: Record, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(integrations, "OVERLAP", timedelta(seconds=-1))
        integration = await told.integrate()
        rotated = await integrations.rotate_secret(told.db, VAULT, integration.id)
        await asked(record)
        outgoing = await begun(told, (await told.one())["id"])
        assert outgoing.secrets == {"signing_secrets": [rotated.signing_secret]}

    async def test_are_nowhere_in_the_clear(self, told: Deliveries, record: Record) -> None:
        webhook, _ = await told.integrate(), await told.integrate("slack")
        rows = await record.query("SELECT i::text AS text FROM integrations i")
        assert len(rows) == 2
        for row in rows:
            assert "hush" not in row["text"]
            assert (webhook.signing_secret or "")[6:] not in row["text"]
        sealed = await record.query("SELECT sealed FROM integrations")
        assert all(b"whsec_" not in bytes(row["sealed"]) and b"hush" not in bytes(row["sealed"]) for row in sealed)

    async def test_of_one_integration_do_not_open_for_another(self, told: Deliveries, record: Record) -> None:
        one, other = await told.integrate(events=["access_request.denied"]), await told.integrate()
        await record.execute(
            "UPDATE integrations SET sealed = (SELECT sealed FROM integrations WHERE id = %s) WHERE id = %s",
            one.id,
            other.id,
        )
        await asked(record)
        assert await told.begin((await told.one())["id"]) is None
        assert "moved here" in (await told.one())["error"]


def chance(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - the same each time is what is wanted


class TestPauses:
    def test_are_a_day_together(self) -> None:
        assert timedelta(hours=23) <= sum(PAUSES, timedelta()) <= timedelta(hours=25)
        assert sorted(PAUSES) == list(PAUSES)

    @pytest.mark.parametrize("attempts", range(1, MOST_ATTEMPTS))
    def test_differ_by_chance_around_what_they_are(self, attempts: int) -> None:
        drawn = {pause_after(attempts, chance(seed)) for seed in range(50)}
        assert len(drawn) > 40
        usual = PAUSES[attempts - 1]
        assert all(pause is not None and usual * 0.8 <= pause <= usual * 1.2 for pause in drawn)

    def test_end(self) -> None:
        assert pause_after(MOST_ATTEMPTS, chance(1)) is None

    def test_are_as_long_as_the_receiver_asks_within_reason(self) -> None:
        assert pause_after(1, chance(1), wanted_secs=600) == timedelta(minutes=10)
        assert pause_after(1, chance(1), wanted_secs=1_000_000_000) == PAUSES[-1]
        short = pause_after(5, chance(1), wanted_secs=0)
        assert short is not None
        assert short >= PAUSES[4] * 0.8


class TestDue:
    async def test_are_claimed_once_for_a_while(self, told: Deliveries, record: Record) -> None:
        await told.integrate()
        await asked(record)
        row = await told.one()
        assert await deliveries.claim_due(told.db, 10) == [row["id"]]
        assert await deliveries.claim_due(told.db, 10) == []
