"""The one place where a status is written: by whom, once, all of it or nothing (design, sections 1 and 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from db import transitions
from domain.actors import SystemActor, temporary_group_name
from domain.errors import Forbidden, NotFound, RequestNotActive, RequestNotPending
from domain.states import OPEN, PEOPLES_ACTIONS, Action, Status, after
from domain.transitions import REFUSALS_KEPT, Channel, Outcome, Refused, Transition
from tests.record import PROOFS, Account, Cast, Record

HOUR = timedelta(hours=1)
EVENT = {Action.APPROVE: "approved", Action.DENY: "denied", Action.REVOKE: "revoked"}


async def asked(record: Record, **values: Any) -> tuple[Cast, UUID]:
    cast = await record.cast(**values)
    return cast, await record.submit(cast.template, cast.requester)


async def granted(record: Record, *, at: datetime | None = None, **values: Any) -> tuple[Cast, UUID]:
    cast, request_id = await asked(record, **values)
    outcome = await record.decide(request_id, Action.APPROVE, cast.approver, at=at)
    assert outcome.refusal is None
    return cast, request_id


async def brought_to(record: Record, status: Status) -> tuple[Cast, UUID]:
    cast, request_id = await asked(record)
    match status:
        case Status.APPROVED:
            await record.decide(request_id, Action.APPROVE, cast.approver)
        case Status.DENIED:
            await record.decide(request_id, Action.DENY, cast.approver)
        case Status.REVOKED:
            await record.decide(request_id, Action.REVOKE, cast.requester)
        case Status.EXPIRED:
            await record.decide(request_id, Action.APPROVE, cast.approver)
            await expire(record, request_id, at=datetime.now(UTC) + 2 * HOUR)
    assert (await record.row(request_id))["status"] == status
    return cast, request_id


async def expire(record: Record, request_id: UUID, *, at: datetime) -> Outcome:
    return await record.take(request_id, Action.EXPIRE, SystemActor.EXPIRY, key="expire", at=at)


async def escalate(record: Record, request_id: UUID, *, key: str = "escalate") -> Outcome:
    return await record.take(request_id, Action.ESCALATE, SystemActor.ESCALATION, key=key)


async def claim(
    record: Record,
    request_id: UUID,
    action: Action,
    actor: str | None,
    *,
    key: str | None = None,
    channel: Channel = Channel.UPDATE,
    proof: str | None = None,
    trusted: bool = False,
) -> Outcome:
    """A decision as it comes from somebody who names an actor and may prove nothing."""
    transition = Transition(
        request_id=request_id,
        action=action,
        channel=channel,
        at=datetime.now(UTC),
        key=key or str(uuid4()),
        actor=actor,
        proof=proof,
    )
    return await transitions.apply(record.db, PROOFS, transition, trust_claimed_actors=trusted)


async def last(record: Record, request_id: UUID) -> dict[str, Any]:
    return (await record.timeline(request_id))[-1]


class TestWho:
    """Design, section 2, in a table: what each role may do to a request that is pending, escalated or granted."""

    ROLES = ("requester", "approver", "manager", "admin", "stranger")
    ALLOWED: dict[tuple[str, Action], set[str]] = {  # noqa: RUF012 - the table of the design
        ("pending", Action.APPROVE): {"approver"},
        ("pending", Action.DENY): {"approver"},
        ("pending", Action.REVOKE): {"requester", "admin"},
        ("escalated", Action.APPROVE): {"approver", "manager"},
        ("escalated", Action.DENY): {"approver", "manager"},
        ("escalated", Action.REVOKE): {"requester", "admin"},
        ("granted", Action.REVOKE): {"requester", "approver", "admin"},
    }

    @pytest.mark.parametrize(("stage", "action"), ALLOWED)
    @pytest.mark.parametrize("role", ROLES)
    async def test_may(self, shared: Record, stage: str, action: Action, role: str) -> None:
        cast, request_id = await (granted(shared) if stage == "granted" else asked(shared))
        if stage == "escalated":
            await escalate(shared, request_id)
        before = await shared.row(request_id)
        actor = await shared.user("stranger") if role == "stranger" else getattr(cast, role)
        outcome = await shared.decide(request_id, action, actor)
        entry = await last(shared, request_id)
        assert (entry["actor"], entry["verified"]) == (actor.email, True)
        if role in self.ALLOWED[stage, action]:
            assert outcome.refusal is None
            assert entry["kind"] == EVENT[action]
        else:
            assert outcome.refusal == Forbidden.code
            assert (entry["kind"], entry["event"]) == ("refused", None)
            assert entry["detail"] == {"action": action.value, "code": Forbidden.code, "reason": outcome.detail}
            assert await shared.row(request_id) == before

    async def test_a_manager_may_end_what_was_escalated_and_granted(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        await escalate(shared, request_id)
        await shared.decide(request_id, Action.APPROVE, cast.manager)
        assert (await shared.decide(request_id, Action.REVOKE, cast.manager)).refusal is None

    async def test_somebody_nobody_knows_may_nothing(self, shared: Record) -> None:
        _, request_id = await asked(shared)
        ghost = Account(uuid4(), "ghost@example.com")
        outcome = await shared.decide(request_id, Action.APPROVE, ghost)
        assert outcome.refusal == Forbidden.code
        entry = await last(shared, request_id)
        assert (entry["kind"], entry["actor"], entry["verified"]) == ("refused", str(ghost.id), False)

    async def test_a_request_nobody_knows_is_not_found(self, shared: Record) -> None:
        outcome = await shared.decide(uuid4(), Action.APPROVE, await shared.user())
        assert (outcome.state, outcome.refusal) == (None, NotFound.code)
        assert await transitions.load(shared.db, uuid4()) is None

    @pytest.mark.parametrize("action", [Action.EXPIRE, Action.ESCALATE])
    async def test_people_do_not_take_the_steps_of_the_service(self, shared: Record, action: Action) -> None:
        cast, request_id = await asked(shared)
        assert (await shared.decide(request_id, action, cast.admin)).refusal == Forbidden.code


class TestVerification:
    @pytest.mark.parametrize("trusted", [True, False])
    async def test_a_proof_is_verified_always(self, shared: Record, *, trusted: bool) -> None:
        cast, request_id = await asked(shared)
        proof = shared.proof(request_id, Action.APPROVE, cast.approver)
        await claim(shared, request_id, Action.APPROVE, None, proof=proof, trusted=trusted)
        entry = await last(shared, request_id)
        assert (entry["kind"], entry["actor"], entry["verified"]) == ("approved", cast.approver.email, True)

    @pytest.mark.parametrize("channel", [Channel.UPDATE, Channel.SIGNAL])
    async def test_a_claim_counts_where_it_is_trusted_and_is_marked(self, shared: Record, channel: Channel) -> None:
        cast, request_id = await asked(shared)
        for trusted in (False, True):
            outcome = await claim(
                shared, request_id, Action.DENY, cast.approver.email, channel=channel, trusted=trusted
            )
            assert (outcome.refusal is None) == trusted
        entries = (await shared.timeline(request_id))[1:]
        assert [(entry["kind"], entry["actor"], entry["verified"]) for entry in entries] == [
            ("refused", cast.approver.email, False),
            ("denied", cast.approver.email, False),
        ]
        assert entries[-1]["detail"]["channel"] == channel

    async def test_a_proof_lends_itself_to_nobody_else(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        for actor, refusal in (
            (cast.second_approver.email, Forbidden.code),
            (str(cast.second_approver.id), Forbidden.code),
            (cast.approver.email.upper(), None),
        ):
            proof = shared.proof(request_id, Action.APPROVE, cast.approver)
            outcome = await claim(shared, request_id, Action.APPROVE, actor, proof=proof)
            assert outcome.refusal == refusal

    async def test_a_refused_step_that_names_another_actor_leaves_the_proof_usable(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        proof = shared.proof(request_id, Action.APPROVE, cast.approver)
        for _ in range(2):
            outcome = await claim(
                shared, request_id, Action.APPROVE, cast.second_approver.email, key="sent", proof=proof
            )
            assert (outcome.refusal, outcome.detail) == (Forbidden.code, "The proof is another actor's.")
        outcome = await claim(shared, request_id, Action.APPROVE, cast.approver.email, proof=proof)
        assert outcome.refusal is None
        # Also after the proof was used: a mismatching step is refused and answered with nothing that the proof did.
        outcome = await claim(shared, request_id, Action.APPROVE, cast.second_approver.email, proof=proof)
        assert outcome.refusal == Forbidden.code
        assert await shared.kinds(request_id) == ["submitted", "refused", "approved", "refused"]

    async def test_steps_that_name_other_actors_at_the_same_moment_do_not_stop_the_right_one(
        self, shared: Record
    ) -> None:
        cast, request_id = await asked(shared)
        proof = shared.proof(request_id, Action.APPROVE, cast.approver)
        names = [cast.second_approver.email, cast.admin.email, cast.approver.email, str(cast.manager.id), "x"]
        outcomes = await asyncio.gather(
            *(claim(shared, request_id, Action.APPROVE, name, proof=proof) for name in names)
        )
        assert [outcome.refusal is None for outcome in outcomes] == [name == cast.approver.email for name in names]
        assert (await shared.row(request_id))["decided_by"] == cast.approver.email

    async def test_a_proof_that_does_not_hold_is_not_saved_by_trust(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        for proof in ("garbage", shared.proof(request_id, Action.DENY, cast.approver)):
            outcome = await claim(shared, request_id, Action.APPROVE, cast.approver.email, proof=proof, trusted=True)
            assert outcome.refusal == Forbidden.code
            assert not (await last(shared, request_id))["verified"]

    async def test_the_steps_of_the_service_are_its_own(self, shared: Record) -> None:
        _, request_id = await asked(shared)
        await escalate(shared, request_id)
        entry = await last(shared, request_id)
        assert (entry["actor"], entry["verified"]) == (SystemActor.ESCALATION, True)


class TestGuard:
    @pytest.mark.parametrize(
        ("status", "action"),
        [pair for pair in product(Status, sorted(PEOPLES_ACTIONS)) if after(*pair) is None],
    )
    async def test_a_step_that_does_not_exist_is_refused_and_recorded(
        self, shared: Record, status: Status, action: Action
    ) -> None:
        cast, request_id = await brought_to(shared, status)
        before = await shared.row(request_id)
        outcome = await shared.decide(request_id, action, cast.approver)
        assert outcome.refusal == (RequestNotActive if action is Action.REVOKE else RequestNotPending).code
        assert outcome.state is not None
        assert outcome.state.status is status
        assert await shared.row(request_id) == before
        assert (await last(shared, request_id))["kind"] == "refused"

    @pytest.mark.parametrize("status", Status)
    async def test_a_step_of_the_service_that_comes_too_late_changes_nothing(
        self, shared: Record, status: Status
    ) -> None:
        _, request_id = await brought_to(shared, status)
        before, kinds = await shared.row(request_id), await shared.kinds(request_id)
        late = datetime.now(UTC) + 2 * HOUR
        for action in (*Action,):
            # What the diagram has is not too late; automatic approval was not asked for.
            if after(status, action) is None or action is Action.APPROVE:
                outcome = await shared.take(request_id, action, "system:test", key=f"late {action}", at=late)
                assert outcome.refusal is None
        assert await shared.row(request_id) == before
        assert await shared.kinds(request_id) == kinds

    @pytest.mark.parametrize("status", sorted(set(Status) - OPEN))
    async def test_what_is_closed_has_one_end_and_no_group(self, shared: Record, status: Status) -> None:
        _, request_id = await brought_to(shared, status)
        row = await shared.row(request_id)
        assert row["ended_at"] is not None
        assert row["ended_by"] is not None
        assert await shared.temporary_groups(request_id) == []


class TestGrant:
    async def test_lasts_from_the_decision_for_as_long_as_was_asked(self, shared: Record) -> None:
        cast = await shared.cast()
        request_id = await shared.submit(cast.template, cast.requester, minutes=90)
        at = datetime.now(UTC) + timedelta(days=3)
        outcome = await shared.decide(request_id, Action.APPROVE, cast.approver, at=at, comment="go on")
        row = await shared.row(request_id)
        assert (row["status"], row["decided_by"], row["decided_at"]) == ("approved", cast.approver.email, at)
        assert (row["decision_comment"], row["ended_at"], row["ended_by"]) == ("go on", None, None)
        assert row["expires_at"] == at + timedelta(minutes=90)
        assert outcome.state is not None
        assert outcome.state.expires_at == row["expires_at"]
        entry = await last(shared, request_id)
        assert entry["at"] == at
        assert entry["detail"] == {"channel": "update", "comment": "go on", "expires_at": row["expires_at"].isoformat()}

    async def test_is_carried_by_a_group_with_one_member_and_the_mappings(self, shared: Record) -> None:
        cast, request_id = await granted(shared)
        (group,) = await shared.temporary_groups(request_id)
        assert group["name"] == temporary_group_name(request_id)
        assert (group["system"], group["permissions"]) == (True, [])
        assert group["expires_at"] == (await shared.row(request_id))["expires_at"]
        members = await shared.query("SELECT user_id FROM group_members WHERE group_id = %s", group["id"])
        assert [member["user_id"] for member in members] == [cast.requester.id]
        mappings = await shared.query("SELECT mapping_id FROM app_mapping_groups WHERE group_id = %s", group["id"])
        assert [mapping["mapping_id"] for mapping in mappings] == [cast.mapping.id]

    @pytest.mark.parametrize("who", ["requester", "approver", "admin"])
    async def test_ends_with_its_group_and_keeps_its_decision(self, shared: Record, who: str) -> None:
        cast, request_id = await granted(shared)
        actor = getattr(cast, who)
        at = datetime.now(UTC)
        await shared.decide(request_id, Action.REVOKE, actor, at=at)
        row = await shared.row(request_id)
        assert (row["status"], row["decided_by"]) == ("revoked", cast.approver.email)
        assert (row["ended_by"], row["ended_at"]) == (actor.email, at)
        assert await shared.temporary_groups(request_id) == []
        assert await shared.claims(cast.requester, cast.application) == {}

    async def test_is_all_or_nothing(self, record: Record) -> None:
        """A grant whose group cannot be made has no status, no timeline entry and no event either."""
        cast, request_id = await asked(record)
        before = await record.row(request_id)
        await record.execute("ALTER TABLE groups ADD CONSTRAINT none CHECK (NOT system)")
        with pytest.raises(psycopg.errors.CheckViolation):
            await record.decide(request_id, Action.APPROVE, cast.approver, key="once")
        assert await record.row(request_id) == before
        assert await record.kinds(request_id) == ["submitted"]
        await record.execute("ALTER TABLE groups DROP CONSTRAINT none")
        outcome = await record.decide(request_id, Action.APPROVE, cast.approver, key="once")
        assert outcome.refusal is None
        assert await record.kinds(request_id) == ["submitted", "approved"]


class TestClosing:
    async def test_a_denial_is_a_decision_and_an_end(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        at = datetime.now(UTC)
        await shared.decide(request_id, Action.DENY, cast.approver, at=at, comment="not today")
        row = await shared.row(request_id)
        assert (row["status"], row["decided_by"], row["decided_at"]) == ("denied", cast.approver.email, at)
        assert (row["ended_by"], row["ended_at"], row["expires_at"]) == (cast.approver.email, at, None)
        assert row["decision_comment"] == "not today"

    async def test_a_cancelled_request_has_no_decider(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        await shared.decide(request_id, Action.REVOKE, cast.requester)
        row = await shared.row(request_id)
        assert (row["status"], row["decided_by"], row["decided_at"]) == ("revoked", None, None)
        assert row["ended_by"] == cast.requester.email
        assert (await last(shared, request_id))["detail"]["cancelled"] is True

    async def test_an_account_of_the_same_person_cancels_as_the_requester(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        robot = await shared.user("robot", owner=cast.requester)
        await shared.decide(request_id, Action.REVOKE, robot)
        row = await shared.row(request_id)
        assert (row["decided_by"], row["ended_by"]) == (None, robot.email)

    async def test_an_admin_who_asked_cancels_as_the_requester(self, shared: Record) -> None:
        cast = await shared.cast()
        request_id = await shared.submit(cast.template, cast.admin)
        await shared.decide(request_id, Action.REVOKE, cast.admin)
        assert (await shared.row(request_id))["decided_by"] is None

    @pytest.mark.parametrize("actor", ["admin", SystemActor.OPERATOR, SystemActor.DEACTIVATED])
    async def test_who_else_ends_a_pending_request_is_its_decider(self, shared: Record, actor: str) -> None:
        cast, request_id = await asked(shared)
        if actor == "admin":
            actor = cast.admin.email
            await shared.decide(request_id, Action.REVOKE, cast.admin)
        else:
            await shared.take(request_id, Action.REVOKE, actor, key="ended")
        row = await shared.row(request_id)
        assert (row["status"], row["decided_by"], row["ended_by"]) == ("revoked", actor, actor)
        assert (await last(shared, request_id))["detail"]["cancelled"] is False

    @pytest.mark.parametrize("actor", [SystemActor.OPERATOR, SystemActor.DEACTIVATED])
    async def test_the_service_ends_a_grant_and_leaves_its_decision(self, shared: Record, actor: str) -> None:
        cast, request_id = await granted(shared)
        await shared.take(request_id, Action.REVOKE, actor, key="ended")
        row = await shared.row(request_id)
        assert (row["status"], row["decided_by"], row["ended_by"]) == ("revoked", cast.approver.email, actor)
        assert await shared.temporary_groups(request_id) == []


class TestExpiry:
    async def test_not_a_moment_before_its_time(self, shared: Record) -> None:
        _, request_id = await granted(shared)
        before = await shared.row(request_id)
        outcome = await expire(shared, request_id, at=before["expires_at"] - timedelta(microseconds=1))
        assert outcome.refusal is None
        assert await shared.row(request_id) == before
        assert len(await shared.temporary_groups(request_id)) == 1
        # The early attempt has not used up the step.
        await expire(shared, request_id, at=before["expires_at"])
        assert (await shared.row(request_id))["status"] == "expired"

    @pytest.mark.parametrize("late", [timedelta(), timedelta(days=30)])
    async def test_ended_when_its_time_was_up_however_late_it_is_written(self, shared: Record, late: timedelta) -> None:
        _, request_id = await granted(shared)
        expires_at = (await shared.row(request_id))["expires_at"]
        await expire(shared, request_id, at=expires_at + late)
        row = await shared.row(request_id)
        assert (row["status"], row["ended_at"], row["ended_by"]) == ("expired", expires_at, SystemActor.EXPIRY)
        assert (await last(shared, request_id))["at"] == expires_at + late
        assert await shared.temporary_groups(request_id) == []

    @pytest.mark.parametrize("who", ["requester", "approver", "admin"])
    async def test_what_is_over_cannot_be_revoked(self, shared: Record, who: str) -> None:
        """Though nobody has written it down yet."""
        cast, request_id = await granted(shared, at=datetime.now(UTC) - 2 * HOUR)
        outcome = await shared.decide(request_id, Action.REVOKE, getattr(cast, who))
        assert outcome.refusal == RequestNotActive.code
        assert "expired" in outcome.detail
        assert (await shared.row(request_id))["status"] == "approved"

    @pytest.mark.parametrize("actor", [SystemActor.OPERATOR, SystemActor.DEACTIVATED])
    async def test_what_is_over_expires_though_the_service_would_revoke_it(self, shared: Record, actor: str) -> None:
        cast, request_id = await granted(shared, at=datetime.now(UTC) - 2 * HOUR)
        outcome = await shared.take(request_id, Action.REVOKE, actor, key="ended")
        assert outcome.state is not None
        assert outcome.state.status is Status.EXPIRED
        row = await shared.row(request_id)
        assert (row["status"], row["ended_by"], row["ended_at"]) == ("expired", SystemActor.EXPIRY, row["expires_at"])
        assert row["decided_by"] == cast.approver.email
        for again in (
            await shared.take(request_id, Action.REVOKE, actor, key="ended"),
            await expire(shared, request_id, at=datetime.now(UTC)),
        ):
            assert (again.state, again.refusal) == (outcome.state, None)
        assert await shared.kinds(request_id) == ["submitted", "approved", "expired"]


class TestDeactivatedRequester:
    async def test_is_granted_nothing_by_anybody(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        await shared.execute("UPDATE users SET active = false WHERE id = %s", cast.requester.id)
        assert not (await shared.state(request_id)).requester_active
        outcome = await shared.decide(request_id, Action.APPROVE, cast.approver)
        assert (outcome.refusal, outcome.detail) == (Forbidden.code, "The requester's account is deactivated.")
        assert await shared.temporary_groups(request_id) == []
        assert (await shared.decide(request_id, Action.DENY, cast.approver)).refusal is None


class TestDeactivatedActor:
    @pytest.mark.parametrize(
        ("made_later", "refused"),
        # A proof says when it was made in whole seconds, rounded down: in the second of the deactivation it is refused.
        [(-60, True), (0, True), (0.9, True), (1, False)],
    )
    async def test_who_is_active_again_needs_a_proof_of_after(
        self, shared: Record, made_later: float, refused: bool
    ) -> None:
        cast, request_id = await asked(shared)
        ended = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=100)
        made = ended + timedelta(seconds=made_later)
        proof = PROOFS.mint(request_id, Action.APPROVE, cast.approver.id, jti=str(uuid4()), now=made)
        await shared.execute("UPDATE users SET deactivated_at = %s WHERE id = %s", ended, cast.approver.id)
        outcome = await claim(shared, request_id, Action.APPROVE, None, proof=proof)
        assert (outcome.refusal == Forbidden.code) is refused
        if refused:
            assert outcome.detail == "The account was deactivated after the proof was made. Make another proof."
            assert await shared.temporary_groups(request_id) == []
            new = PROOFS.mint(request_id, Action.APPROVE, cast.approver.id, jti=str(uuid4()), now=datetime.now(UTC))
            assert (await claim(shared, request_id, Action.APPROVE, None, proof=new)).refusal is None


class TestAutomaticApproval:
    async def test_is_for_templates_that_say_so(self, shared: Record) -> None:
        for auto in (True, False):
            _, request_id = await asked(shared, auto_approve=auto)
            await shared.take(request_id, Action.APPROVE, SystemActor.AUTO, key="auto")
            row = await shared.row(request_id)
            assert (row["status"], row["decided_by"]) == (("approved", SystemActor.AUTO) if auto else ("pending", None))

    async def test_is_not_for_somebody_deactivated(self, shared: Record) -> None:
        cast, request_id = await asked(shared, auto_approve=True)
        await shared.execute("UPDATE users SET active = false WHERE id = %s", cast.requester.id)
        await shared.take(request_id, Action.APPROVE, SystemActor.AUTO, key="auto")
        assert (await shared.row(request_id))["status"] == "pending"

    async def test_a_request_that_was_not_approved_is_left_for_people(self, shared: Record) -> None:
        cast, request_id = await asked(shared, auto_approve=True)
        assert (await shared.decide(request_id, Action.APPROVE, cast.approver)).refusal is None

    async def test_without_approver_groups_the_administrators_can_be_asked(self, shared: Record) -> None:
        cast, request_id = await asked(shared, auto_approve=True, approver_group_ids=[], escalation_group_id=None)
        state = await shared.state(request_id)
        assert not state.decidable
        await escalate(shared, request_id)
        assert (await shared.decide(request_id, Action.APPROVE, cast.admin)).refusal is None


class TestEscalation:
    async def test_asks_the_escalation_group_once(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        first = await escalate(shared, request_id)
        row = await shared.row(request_id)
        assert row["escalated_at"] is not None
        assert row["notified_ids"] == [cast.approver.id, cast.second_approver.id, cast.manager.id]
        again = await escalate(shared, request_id), await escalate(shared, request_id, key="another")
        assert [outcome.state for outcome in again] == [first.state, first.state]
        assert await shared.kinds(request_id) == ["submitted", "escalated"]
        detail = (await last(shared, request_id))["detail"]
        assert detail == {"channel": "system", "asked": "escalation group", "notified": [str(cast.manager.id)]}

    async def test_says_whom_the_request_waits_for(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        outcome = await escalate(shared, request_id)
        assert outcome.state is not None
        assert outcome.state.waiting_for == [cast.team.name, cast.managers.name]

    @pytest.mark.parametrize("reason", ["no group", "empty", "deactivated", "only the requester"])
    async def test_asks_administrators_where_nobody_else_could(self, shared: Record, reason: str) -> None:
        cast, request_id = await asked(shared)
        match reason:
            case "no group":
                await shared.execute("UPDATE access_requests SET escalation_group_id = NULL WHERE id = %s", request_id)
            case "deactivated":
                await shared.execute("UPDATE users SET active = false WHERE id = %s", cast.manager.id)
            case _:
                await shared.execute("DELETE FROM group_members WHERE group_id = %s", cast.managers.id)
        if reason == "only the requester":
            await shared.execute(
                "INSERT INTO group_members (group_id, user_id) VALUES (%s, %s)", cast.managers.id, cast.requester.id
            )
        await escalate(shared, request_id)
        row = await shared.row(request_id)
        assert row["admins_decide"]
        assert cast.admin.id in row["notified_ids"]
        assert cast.requester.id not in row["notified_ids"]
        assert (await last(shared, request_id))["detail"]["asked"] == "administrators"

    async def test_goes_on_to_administrators_when_the_escalation_group_cannot(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        await escalate(shared, request_id)
        at = (await shared.row(request_id))["escalated_at"]
        await shared.execute("DELETE FROM group_members WHERE group_id = ANY(%s)", [cast.team.id, cast.managers.id])
        await escalate(shared, request_id, key="admins")
        row = await shared.row(request_id)
        assert row["admins_decide"]
        assert row["escalated_at"] == at, "when it was escalated first"
        assert await shared.kinds(request_id) == ["submitted", "escalated", "escalated"]

    async def test_an_administrator_told_already_is_not_told_again(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        await shared.execute(
            "UPDATE access_requests SET notified_ids = %s WHERE id = %s", [cast.manager.id], request_id
        )
        await escalate(shared, request_id)
        assert (await shared.row(request_id))["notified_ids"] == [cast.manager.id]
        assert (await last(shared, request_id))["detail"]["notified"] == []


class TestEvents:
    """Exactly the payload keys of the specification (Lifecycle Events)."""

    async def _approve(self, record: Record, cast: Cast, request_id: UUID) -> dict[str, Any]:
        await record.decide(request_id, Action.APPROVE, cast.approver)
        return {"decided_by": cast.approver.email}

    async def _deny(self, record: Record, cast: Cast, request_id: UUID) -> dict[str, Any]:
        await record.decide(request_id, Action.DENY, cast.approver)
        return {"decided_by": cast.approver.email}

    async def _cancel(self, record: Record, cast: Cast, request_id: UUID) -> dict[str, Any]:
        await record.decide(request_id, Action.REVOKE, cast.requester)
        return {}

    async def _revoke_pending(self, record: Record, cast: Cast, request_id: UUID) -> dict[str, Any]:
        await record.decide(request_id, Action.REVOKE, cast.admin)
        return {}

    async def _expire(self, record: Record, cast: Cast, request_id: UUID) -> dict[str, Any]:
        await record.decide(request_id, Action.APPROVE, cast.approver)
        await expire(record, request_id, at=datetime.now(UTC) + 2 * HOUR)
        return {}

    async def _escalate(self, record: Record, _: Cast, request_id: UUID) -> dict[str, Any]:
        await escalate(record, request_id)
        return {}

    STEPS: tuple[tuple[Callable[..., Awaitable[dict[str, Any]]], str], ...] = (
        (_approve, "approved"),
        (_deny, "denied"),
        (_cancel, "revoked"),
        (_revoke_pending, "revoked"),
        (_expire, "expired"),
        (_escalate, "escalated"),
    )

    @pytest.mark.parametrize(("step", "kind"), STEPS)
    async def test_are_written_with_the_step(
        self, shared: Record, step: Callable[..., Awaitable[dict[str, Any]]], kind: str
    ) -> None:
        cast, request_id = await asked(shared)
        beyond = await step(self, shared, cast, request_id)
        entry = await last(shared, request_id)
        assert (entry["kind"], entry["event"]) == (kind, f"access_request.{kind}")
        assert entry["payload"] == {
            "request_id": str(request_id),
            "template_name": cast.template.name,
            "requester_email": cast.requester.email,
            **beyond,
        }


class TestKeys:
    @pytest.mark.parametrize("action", sorted(PEOPLES_ACTIONS))
    async def test_a_step_that_comes_twice_is_taken_once_and_answered_the_same(
        self, shared: Record, action: Action
    ) -> None:
        cast, request_id = await asked(shared)
        actor = cast.requester if action is Action.REVOKE else cast.approver
        at = datetime.now(UTC)
        outcomes = [await shared.decide(request_id, action, actor, key="same", at=at) for _ in range(2)]
        outcomes += await asyncio.gather(
            *(shared.decide(request_id, action, actor, key="same", at=at) for _ in range(4))
        )
        assert all(outcome == outcomes[0] for outcome in outcomes)
        assert outcomes[0].refusal is None
        assert await shared.kinds(request_id) == ["submitted", EVENT[action]]

    async def test_a_refusal_that_comes_twice_is_the_same_though_the_request_went_on(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        first = await shared.decide(request_id, Action.APPROVE, cast.requester, key="same")
        await shared.decide(request_id, Action.DENY, cast.approver)
        again = await shared.decide(request_id, Action.APPROVE, cast.requester, key="same")
        assert (again.refusal, again.detail) == (first.refusal, first.detail)
        assert again.state is not None
        assert again.state.status is Status.DENIED
        assert await shared.kinds(request_id) == ["submitted", "refused", "denied"]

    async def test_a_proof_used_for_one_step_is_good_for_no_other(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        await shared.decide(request_id, Action.APPROVE, cast.approver, key="once")
        other = await shared.decide(request_id, Action.REVOKE, cast.approver, key="once")
        assert other.refusal == Forbidden.code
        assert "used before" in other.detail

    @pytest.mark.parametrize("step", ["expire", "ended"])
    async def test_nobody_uses_up_the_key_of_a_step_of_the_service(self, shared: Record, step: str) -> None:
        """Whoever may send updates chooses their ids: without a proof, that must not keep a grant from ending."""
        _, request_id = await granted(shared)
        refused = await claim(shared, request_id, Action.REVOKE, "somebody", key=step)
        assert refused.refusal == Forbidden.code
        if step == "expire":
            await expire(shared, request_id, at=datetime.now(UTC) + 2 * HOUR)
        else:
            await shared.take(request_id, Action.REVOKE, SystemActor.OPERATOR, key=step)
        assert (await shared.row(request_id))["status"] in {"expired", "revoked"}
        assert await shared.temporary_groups(request_id) == []

    @pytest.mark.parametrize("trusted", [True, False])
    async def test_nobody_uses_up_the_key_of_somebody_elses_decision(self, shared: Record, *, trusted: bool) -> None:
        cast, request_id = await asked(shared)
        refused = await claim(shared, request_id, Action.APPROVE, cast.requester.email, key="foreseen", trusted=trusted)
        assert refused.refusal == Forbidden.code
        outcome = await shared.decide(request_id, Action.APPROVE, cast.approver, key="foreseen")
        assert outcome.refusal is None

    async def test_only_what_was_carried_out_is_done(self, shared: Record) -> None:
        cast, request_id = await asked(shared)
        await shared.decide(request_id, Action.APPROVE, cast.requester, key="refused")
        await shared.decide(request_id, Action.APPROVE, cast.approver, key="done")
        async with shared.db.connection() as connection:
            assert await transitions.is_done(connection, request_id, "done")
            assert not await transitions.is_done(connection, request_id, "refused")
            assert not await transitions.is_done(connection, request_id, "never")
            assert not await transitions.is_done(connection, uuid4(), "done")


class TestRefusals:
    async def test_at_most_so_many_are_kept(self, shared: Record) -> None:
        """Also where they come at the same moment, by both ways; what comes after is refused all the same."""
        cast, request_id = await asked(shared)

        def refused(number: int) -> Refused:
            return Refused(
                request_id=request_id, at=None, key=f"edge {number}", action="approve", code="forbidden", reason="no"
            )

        await asyncio.gather(
            *(shared.decide(request_id, Action.APPROVE, cast.requester) for _ in range(REFUSALS_KEPT // 2 + 5)),
            *(transitions.record_refusal(shared.db, refused(number)) for number in range(REFUSALS_KEPT // 2 + 5)),
        )
        assert (await shared.kinds(request_id)).count("refused") == REFUSALS_KEPT
        assert (await shared.decide(request_id, Action.APPROVE, cast.requester)).refusal == Forbidden.code
        assert (await shared.kinds(request_id)).count("refused") == REFUSALS_KEPT
        assert (await shared.state(request_id)).refusals == REFUSALS_KEPT
        assert (await shared.decide(request_id, Action.APPROVE, cast.approver)).refusal is None

    async def test_are_recorded_with_the_actor_only_where_that_is_certain(self, shared: Record) -> None:
        _, request_id = await asked(shared)
        for number, actor in enumerate((None, "bob@example.com")):
            refused = Refused(
                request_id=request_id, at=None, key=str(number), action="?", code="forbidden", reason="no", actor=actor
            )
            await transitions.record_refusal(shared.db, refused)
        entries = (await shared.timeline(request_id))[1:]
        assert [(entry["actor"], entry["verified"]) for entry in entries] == [
            ("unknown", False),
            ("bob@example.com", True),
        ]

    async def test_of_a_request_nobody_knows_leave_no_trace(self, shared: Record) -> None:
        refused = Refused(request_id=uuid4(), at=None, key="k", action="approve", code="forbidden", reason="no")
        await transitions.record_refusal(shared.db, refused)
        assert await shared.timeline(refused.request_id) == []


class TestLooking:
    async def test_takes_the_mark_off(self, shared: Record) -> None:
        _, request_id = await asked(shared)
        assert (await shared.row(request_id))["attention_at"] is not None
        await shared.state(request_id)
        assert (await shared.row(request_id))["attention_at"] is None
