"""The one place where a request's status is written after its submission.

A transition is one transaction with one guard. The workflow, the sweep and the command line all come through `apply`;
what it answers the workflow adopts, so that a record that ran ahead of its workflow (a commit whose workflow task was
lost) is caught up with and never undone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID, uuid4

from psycopg import AsyncCursor
from psycopg.rows import DictRow

from db import deliveries, people, requests, runs
from db.database import Connection, Database
from db.runs import Change
from db.timeline import add_to_timeline
from domain import deciding, events
from domain.actors import Permission, SystemActor, temporary_group_id, temporary_group_name
from domain.addresses import sought_address
from domain.deciding import Person, Standing
from domain.errors import Forbidden, NotFound, RequestNotActive, RequestNotPending, TriggerTaskFailed
from domain.events import EVENT_OF, Event
from domain.proofs import InvalidProof, ProofKey
from domain.states import PEOPLES_ACTIONS, Action, Status, after
from domain.tasks import TRIGGER_EVENTS, Ending, Report, RunNext, RunStatus
from domain.templates import TriggerFailureMode
from domain.text import made_harmless, made_storable
from domain.transitions import (
    REFUSALS_KEPT,
    BlockBegun,
    Channel,
    Outcome,
    Refused,
    RequestState,
    Transition,
)
from telemetry import metrics

_UNKNOWN_ACTOR: Final = "unknown"
_NOT_RUN: Final = "The task that has to succeed before the approval has not run. Approve the request again."

DECIDABLE: Final = """
    (r.admins_decide OR r.status <> 'pending' OR EXISTS (
        SELECT 1 FROM group_members m JOIN users d ON d.id = m.user_id AND d.active
        WHERE m.group_id = ANY(CASE WHEN r.escalated_at IS NULL OR r.escalation_group_id IS NULL
                                    THEN r.approver_group_ids ELSE r.approver_group_ids || r.escalation_group_id END)
          AND coalesce(d.owner_id, d.id) <> coalesce(u.owner_id, u.id)))
"""
"""Whether somebody who was asked can decide, for a row `r` of `access_requests` and its requester `u`."""

REQUESTER_ACTIVE: Final = people.still_counts("r.created_at")
"""Whether the requester `u` of a row `r` may have what it asks for."""

STATE: Final = f"""
    u.email AS requester_email, {REQUESTER_ACTIVE} AS requester_active, {DECIDABLE} AS decidable,
    ARRAY(
        SELECT g.name FROM groups g
        WHERE g.id = ANY(r.approver_group_ids)
           OR (r.escalated_at IS NOT NULL AND g.id = r.escalation_group_id)
        ORDER BY array_position(r.approver_group_ids, g.id)
    ) AS waiting_for,
    (SELECT count(*) FROM access_request_timeline t WHERE t.request_id = r.id AND t.kind = 'refused') AS refusals
"""
"""The columns that `state` reads in addition to a row `r` of `access_requests`, with its requester `u`."""

_ROW: Final = f"""
    SELECT r.*, {STATE}, u.name AS requester_name,
           EXISTS (SELECT FROM integrations i WHERE i.enabled) AS integrated,
           coalesce(u.owner_id, u.id) AS requester_principal_id
    FROM access_requests r JOIN users u ON u.id = r.requester_id
    WHERE r.id = %(request_id)s
"""


async def load(db: Database, request_id: UUID) -> RequestState | None:
    """The state a workflow starts or goes on from; tells the record that its workflow is looking.

    Returns:
        None where there is no such request.
    """
    async with db.transaction() as connection:
        # First, so that what marked the row (a deactivation, say) is committed before its effects are read below.
        await connection.execute(
            "UPDATE access_requests SET attention_at = NULL WHERE id = %s AND attention_at IS NOT NULL", [request_id]
        )
        row = await (await connection.execute(_ROW, {"request_id": request_id})).fetchone()
    return None if row is None else state(row)


async def apply(
    db: Database,
    proofs: ProofKey,
    transition: Transition,
    *,
    trust_claimed_actors: bool,
    remind_before: timedelta = deliveries.REMIND_BEFORE,
) -> Outcome:
    """Carry out a step, once per key, if the rules allow it at this moment.

    Args:
        db: the record.
        proofs: checks who acts.
        transition: the step.
        trust_claimed_actors: believe an `actor` without a proof (`JUSTIAM_TRUST_SIGNAL_ACTORS`).
        remind_before: how long before the end of a grant its holder is reminded.

    Returns:
        The state of the request after the step, or as it is where the step was refused or came too late. Refusals
        are in the timeline, up to `REFUSALS_KEPT`.
    """
    async with db.transaction() as connection:
        step = await _judge(connection, proofs, transition, trust_claimed_actors=trust_claimed_actors)
        if isinstance(step, Outcome):
            if step.refusal is not None:
                metrics.REFUSALS.labels(step.refusal).inc()
            return step
        if transition.action is Action.APPROVE and blocks(step.row):
            # The workflow has run it. One that was started with a forged state may have left it out.
            passed = await runs.has_passed(connection, transition.request_id, step.key)
            if not passed:
                metrics.REFUSALS.labels(TriggerTaskFailed.code).inc()
                return Outcome(state=state(step.row), refusal=TriggerTaskFailed.code, detail=_NOT_RUN)
        row = step.row | await _carry_out(connection, step, remind_before)
        if transition.action is Action.ESCALATE:
            row = cast(
                "dict[str, Any]",
                await (await connection.execute(_ROW, {"request_id": transition.request_id})).fetchone(),
            )
    _count(step)
    return Outcome(state=state(row))


def _count(step: _Step) -> None:
    action = step.transition.action
    metrics.TRANSITIONS.labels(action.value, "service" if step.person is None else "person").inc()
    if action in {Action.APPROVE, Action.DENY} and step.person is not None:
        waited = step.transition.at - step.row["created_at"]
        metrics.DECISION_SECONDS.labels(action.value).observe(max(0.0, waited.total_seconds()))
    if action is Action.EXPIRE:
        lag = datetime.now(UTC) - step.row["expires_at"]
        metrics.EXPIRY_LAG_SECONDS.observe(max(0.0, lag.total_seconds()))


async def begin_block(
    db: Database, proofs: ProofKey, transition: Transition, *, trust_claimed_actors: bool
) -> BlockBegun:
    """Judge an approval, and begin the run that it has to wait for (specification, Failure modes).

    Nothing of the request changes. Whether the approval still holds is judged once more when the run has succeeded.
    """
    async with db.transaction() as connection:
        step = await _judge(connection, proofs, transition, trust_claimed_actors=trust_claimed_actors)
        if isinstance(step, Outcome):
            return BlockBegun(outcome=step)
        change = _change_of(step.row, step.key, Event.APPROVED, Action.APPROVE, {})
        run = await runs.make_blocking(connection, change, holder=step.key, at=transition.at)
    actor = step.actor if step.verified else None
    return BlockBegun(outcome=Outcome(state=state(step.row)), run=run, holder=step.key, actor=actor)


async def end_block(db: Database, report: Report, request_id: UUID) -> RunNext:
    """Write down how the run of an approval ended; one that failed is in the request's timeline."""
    following = await runs.finish(db, report)
    if following.status in {RunStatus.FAILED, RunStatus.TIMED_OUT}:
        # What a failing script printed at last is for who approves; the timeline is for all who may read the request.
        result, error = report.result, report.error
        if result is not None:
            failed = result.ending is Ending.FAILED and (result.exit_code or 0) > 0
            error = f"It ended with exit code {result.exit_code}." if failed else result.error
        key = f"{request_id}:run:{report.run_id}"
        async with db.transaction() as connection:
            await add_to_timeline(
                connection,
                request_id,
                at=report.at,
                kind="trigger_failed",
                actor=SystemActor.TRIGGER,
                detail={"run_id": str(report.run_id), "event": "approved", "reason": made_storable(error or "")},
                key=key,
            )
            await runs.link(connection, report.run_id, key)
    return following


async def _judge(
    connection: Connection, proofs: ProofKey, transition: Transition, *, trust_claimed_actors: bool
) -> _Step | Outcome:
    """The step to carry out; an outcome where there is none: it was refused, is done already, or is not due."""
    who = _identify(proofs, transition, trust_claimed_actors=trust_claimed_actors)
    key = f"{transition.request_id}:{who.key}"
    # Locked first and read then: a statement that waits for a lock sees everything else as it was before.
    await connection.execute("SELECT FROM access_requests WHERE id = %s FOR UPDATE", [transition.request_id])
    rows = await connection.execute(_ROW, {"request_id": transition.request_id})
    recorded = await _recorded(connection, key)
    person = None
    if transition.channel is not Channel.SYSTEM and who.reference is not None:
        person = await people.find(connection, who.reference)
    row, done = await rows.fetchone(), await recorded.fetchone()
    if row is None:
        return Outcome(state=None, refusal=NotFound.code, detail="There is no such request.")
    if who.verified and person is not None and not _is_named(person, transition):
        # Refused under the key of the sender: the proof stays good for the step that it proves.
        who = replace(who, key=_claimed_key(transition), problem="The proof is another actor's.")
        key = f"{transition.request_id}:{who.key}"
    if done is not None and who.problem is None:
        return _same_answer(row, transition, done)
    refusal = _refusal(row, transition, who, person)
    actor = person.email if person else (transition.actor or who.reference or _UNKNOWN_ACTOR)
    if refusal is not None:
        code, detail = refusal
        await _record_refusal(
            connection,
            row,
            at=transition.at,
            actor=actor,
            key=key,
            verified=who.verified and person is not None,
            detail={"action": transition.action.value, "code": code, "reason": detail},
        )
        return Outcome(state=state(row), refusal=code, detail=detail)
    if _is_over(row, transition.at) and transition.action is Action.REVOKE:
        # The service comes too late to end it for another reason: it has ended by itself.
        actor, key = SystemActor.EXPIRY.value, f"{transition.request_id}:expire"
        transition = transition.model_copy(update={"action": Action.EXPIRE, "actor": actor})
    if not _is_due(row, transition):
        return Outcome(state=state(row))
    return _Step(transition, row, actor, who.verified, key, person)


async def record_refusal(db: Database, refused: Refused) -> None:
    """Write to the timeline what was refused before it could become a transition.

    A signal nobody can read, or a decision that the API turned away.
    """
    async with db.transaction() as connection:
        # Locked, so that refusals at the same moment count each other.
        await connection.execute("SELECT FROM access_requests WHERE id = %s FOR NO KEY UPDATE", [refused.request_id])
        row = await (await connection.execute(_ROW, {"request_id": refused.request_id})).fetchone()
        if row is not None:
            await _record_refusal(
                connection,
                row,
                at=refused.at,
                actor=refused.actor or _UNKNOWN_ACTOR,
                key=f"{refused.request_id}:{refused.key}",
                verified=refused.actor is not None,
                detail={"action": refused.action, "code": refused.code, "reason": refused.reason},
            )


async def is_done(connection: Connection, request_id: UUID, key: str) -> bool:
    """Whether the step with this key was carried out; a refusal is not."""
    done = await (await _recorded(connection, f"{request_id}:{key}")).fetchone()
    return done is not None and done["kind"] != "refused"


@dataclass(frozen=True)
class _Who:
    """Who acts, before the record is asked about them."""

    reference: str | None
    """Id or email address; None where nobody could be made out."""
    key: str
    verified: bool
    problem: str | None = None
    proven_at: datetime | None = None
    """When the proof was made; None: there is none."""


@dataclass(frozen=True)
class _Step:
    transition: Transition
    row: dict[str, Any]
    actor: str
    verified: bool
    key: str
    person: Person | None


def _identify(proofs: ProofKey, transition: Transition, *, trust_claimed_actors: bool) -> _Who:
    if transition.channel is Channel.SYSTEM:
        return _Who(transition.actor, transition.key, verified=True)
    claimed_key = _claimed_key(transition)
    if transition.proof is not None:
        try:
            proven = proofs.check(transition.proof, transition.request_id, transition.action, at=transition.at)
        except InvalidProof as error:
            return _Who(transition.actor, claimed_key, verified=False, problem=str(error))
        return _Who(str(proven.actor_id), proven.jti, verified=True, proven_at=proven.issued_at)
    if transition.actor is None or not trust_claimed_actors:
        problem = (
            "A decision needs a proof of who decides: POST /api/v1/access-requests/{id}/signal-proofs makes one. "
            "A bare actor counts only where JUSTIAM_TRUST_SIGNAL_ACTORS is set."
        )
        return _Who(transition.actor, claimed_key, verified=False, problem=problem)
    return _Who(transition.actor, claimed_key, verified=False)


def _claimed_key(transition: Transition) -> str:
    """Return the key of a step that no proof stands for.

    The sender chooses the id of an update, with any characters. Kept apart from the keys of proofs and of the service,
    it uses up none of them.
    """
    return f"claimed:{made_storable(transition.key)}"


def _is_named(person: Person, transition: Transition) -> bool:
    """Return whether the `actor` beside a proof, if any, is the person that the proof names."""
    claimed = transition.actor
    if claimed is None or claimed.lower() == str(person.id):
        return True
    return sought_address(claimed).lower() == person.email.lower()


def _refusal(  # noqa: PLR0911 - one return for each reason
    row: dict[str, Any], transition: Transition, who: _Who, person: Person | None
) -> tuple[str, str] | None:
    """Why the step may not be taken, as a code and a sentence; None where it may."""
    action, status = transition.action, Status(row["status"])
    if transition.channel is Channel.SYSTEM:
        return None
    if who.problem is not None or action not in PEOPLES_ACTIONS:
        return Forbidden.code, who.problem or "People approve, deny and revoke; the rest is up to the service."
    if person is None:
        return Forbidden.code, f"Nobody here is known as {who.reference}."
    if who.proven_at is not None and person.was_deactivated_since(who.proven_at):
        return Forbidden.code, "The account was deactivated after the proof was made. Make another proof."
    over = _is_over(row, transition.at)
    if after(status, action) is None or over:
        if action is Action.REVOKE:
            return RequestNotActive.code, f"The request is over: it is {'expired' if over else status}."
        return RequestNotPending.code, f"The request is no longer pending: it is {status}" + (
            f", decided by {row['decided_by']}." if row["decided_by"] else "."
        )
    standing = Standing.of(person, requests.asked(row))
    if not deciding.may_do(action, standing, status):
        return Forbidden.code, deciding.why_not(action, standing)
    if action is Action.APPROVE and not row["requester_active"]:
        return Forbidden.code, "The requester's account is deactivated."
    return None


def _is_over(row: dict[str, Any], at: datetime) -> bool:
    """Whether it is a grant whose time was up at that moment, written down or not."""
    return bool(row["status"] == Status.APPROVED and at >= row["expires_at"])


def _is_due(row: dict[str, Any], transition: Transition) -> bool:
    """Whether the guard of the step holds.

    People's steps were judged before; a step of the service that came twice or late changes nothing.
    """
    status = Status(row["status"])
    if after(status, transition.action) is None:
        return False
    match transition.action:
        case Action.EXPIRE:
            return _is_over(row, transition.at)
        case Action.ESCALATE:
            return row["escalated_at"] is None or not row["decidable"]
        case Action.APPROVE if transition.channel is Channel.SYSTEM:
            return bool(row["snapshot"]["auto_approve"] and row["requester_active"])
    return True


async def _carry_out(connection: Connection, step: _Step, remind_before: timedelta) -> dict[str, Any]:
    """Write the step: row, timeline, event and, for a grant, its group. Returns the columns that changed."""
    changes, detail = await _changes(connection, step)
    request_id = step.row["id"]
    assignments = ", ".join(f"{column} = %({column})s" for column in changes)
    await connection.execute(
        # The workflow adopts the row as this transaction read it under its lock, whatever marked it before.
        f"UPDATE access_requests SET {assignments}, attention_at = NULL WHERE id = %(id)s AND status = %(expected)s",
        {**changes, "id": request_id, "expected": step.row["status"]},
    )
    event = EVENT_OF[step.transition.action]
    payload = events.payload(
        event,
        request_id=str(request_id),
        template_name=step.row["template_name"],
        requester_email=step.row["requester_email"],
        decided_by=cast("str | None", changes.get("decided_by")),
    )
    await add_to_timeline(
        connection,
        request_id,
        at=step.transition.at,
        kind=event.removeprefix("access_request."),
        actor=step.actor,
        verified=step.verified,
        detail=detail,
        key=step.key,
        event=event,
        payload=payload,
    )
    change = _change_of(step.row, step.key, event, step.transition.action, payload)
    await runs.make_for_change(connection, change, integrated=step.row["integrated"])
    if step.row["integrated"]:
        await deliveries.rows_for(connection, step.key, remind_before=remind_before)
    if step.transition.action is Action.APPROVE:
        await _open_grant(connection, step.row, changes["expires_at"])
    elif changes.get("ended_at") is not None:
        await connection.execute("DELETE FROM groups WHERE request_id = %s AND system", [request_id])
    return changes


def _change_of(row: dict[str, Any], key: str, event: Event, action: Action, payload: events.Payload) -> Change:
    return Change(
        request_id=row["id"],
        key=key,
        trigger_event=TRIGGER_EVENTS.get(action),
        previous_status=row["status"],
        event=event,
        payload=payload,
        requester_id=row["requester_id"],
        requester_email=row["requester_email"],
        requester_name=row["requester_name"],
        justification=row["justification"],
        template_id=row["template_id"],
        template_name=row["template_name"],
        app_id=row["app_id"],
        app_name=row["app_name"],
        trigger_task_id=_uuid(row["snapshot"].get("trigger_task_id")),
        trigger_mode=TriggerFailureMode(row["snapshot"].get("trigger_task_failure_mode", TriggerFailureMode.IGNORE)),
    )


def _uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


async def _changes(connection: Connection, step: _Step) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns that the step changes, and what the timeline says beside who and when."""
    transition, row, at = step.transition, step.row, step.transition.at
    detail: dict[str, Any] = {"channel": transition.channel.value}
    comment = made_harmless(transition.comment)
    if comment:
        detail["comment"] = comment
    decision = {"decided_by": step.actor, "decided_at": at, "decision_comment": comment or None}
    ending = {"ended_by": step.actor, "ended_at": at}
    match transition.action:
        case Action.APPROVE:
            expires_at = at + state(row).duration
            detail["expires_at"] = expires_at.isoformat()
            return {"status": Status.APPROVED.value, **decision, "expires_at": expires_at}, detail
        case Action.DENY:
            return {"status": Status.DENIED.value, **decision, **ending}, detail
        case Action.EXPIRE:
            # It ended when its time was up, however late somebody came to write it down.
            ending["ended_at"] = row["expires_at"]
            return {"status": Status.EXPIRED.value, **ending}, detail
        case Action.REVOKE:
            changes = {"status": Status.REVOKED.value, **ending}
            own = step.person is not None and step.person.principal_id == row["requester_principal_id"]
            if row["status"] == Status.PENDING:
                detail["cancelled"] = own
                changes |= {} if own else decision
            return changes, detail
        case Action.ESCALATE:
            return await _escalation(connection, step, detail)


async def _escalation(
    connection: Connection, step: _Step, detail: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    row = step.row
    escalation = await next_to_ask(
        connection, row["requester_principal_id"], row["escalation_group_id"] if row["escalated_at"] is None else None
    )
    told = [user_id for user_id in escalation.people if user_id not in row["notified_ids"]]
    detail["asked"] = "administrators" if escalation.admins else "escalation group"
    detail["notified"] = [str(user_id) for user_id in told]
    return {
        "escalated_at": row["escalated_at"] or step.transition.at,
        "admins_decide": row["admins_decide"] or escalation.admins,
        "notified_ids": [*row["notified_ids"], *told],
    }, detail


@dataclass(frozen=True)
class Escalation:
    """Whom to ask when the approver groups did not answer, or cannot."""

    people: dict[UUID, str]
    """Their ids and email addresses, in the order in which they joined."""
    admins: bool
    """The administrators, because the escalation group has nobody who could decide."""


async def next_to_ask(connection: Connection, principal_id: UUID, escalation_group_id: UUID | None) -> Escalation:
    """The escalation group's members; where nobody there could decide, the administrators."""
    parameters = {"principal_id": principal_id, "group_id": escalation_group_id, "permission": Permission.REQUESTS}
    rows = await connection.execute(people.ELIGIBLE + " AND m.group_id = %(group_id)s ORDER BY m.joined", parameters)
    members = {row["user_id"]: row["email"] for row in await rows.fetchall()}
    if members:
        return Escalation(members, admins=False)
    rows = await connection.execute(
        people.ELIGIBLE + " AND g.permissions @> ARRAY[%(permission)s::text] ORDER BY m.joined", parameters
    )
    return Escalation({row["user_id"]: row["email"] for row in await rows.fetchall()}, admins=True)


async def _open_grant(connection: Connection, row: dict[str, Any], expires_at: datetime) -> None:
    """The temporary group with its one member and its mappings (specification, Concepts)."""
    await connection.execute(
        """
        WITH granted AS (
            INSERT INTO groups (id, name, description, permissions, system, request_id, expires_at)
            VALUES (%(id)s, %(name)s, %(description)s, '{}', true, %(request_id)s, %(expires_at)s)
            RETURNING id
        ), member AS (
            INSERT INTO group_members (group_id, user_id) SELECT id, %(requester_id)s FROM granted
        )
        INSERT INTO app_mapping_groups (mapping_id, group_id)
        SELECT a.id, granted.id FROM granted, app_mappings a WHERE a.id = ANY(%(mapping_ids)s)
        """,
        {
            "id": temporary_group_id(uuid4()),
            "name": temporary_group_name(row["id"]),
            "description": f"{row['template_name']}, granted for {row['requested_duration_mins']} minutes",
            "request_id": row["id"],
            "requester_id": row["requester_id"],
            "expires_at": expires_at,
            "mapping_ids": row["mapping_ids"],
        },
    )


async def _record_refusal(
    connection: Connection,
    row: dict[str, Any],
    *,
    at: datetime | None,
    actor: str,
    key: str,
    verified: bool,
    detail: dict[str, Any],
) -> None:
    if row["refusals"] < REFUSALS_KEPT:
        await add_to_timeline(
            connection, row["id"], at=at, kind="refused", actor=actor, verified=verified, detail=detail, key=key
        )
        row["refusals"] += 1


async def _recorded(connection: Connection, key: str) -> AsyncCursor[DictRow]:
    return await connection.execute("SELECT kind, detail FROM access_request_timeline WHERE transition_key = %s", [key])


def _same_answer(row: dict[str, Any], transition: Transition, done: dict[str, Any]) -> Outcome:
    """What was answered when this key was first carried out."""
    if done["kind"] == "refused":
        return Outcome(state=state(row), refusal=done["detail"]["code"], detail=done["detail"]["reason"])
    if done["kind"] != EVENT_OF[transition.action].removeprefix("access_request."):
        return Outcome(state=state(row), refusal=Forbidden.code, detail="The proof or key was used before.")
    return Outcome(state=state(row))


def state(row: dict[str, Any]) -> RequestState:
    """Return what a workflow knows of a request, from its row with `STATE`."""
    waiting_for = ["administrators"] if row["admins_decide"] else row["waiting_for"]
    return RequestState(
        **{name: row[name] for name in RequestState.model_fields if name in row and name != "waiting_for"},
        request_id=row["id"],
        auto_approve=row["snapshot"]["auto_approve"],
        approval_blocks=blocks(row),
        waiting_for=waiting_for,
    )


def blocks(row: dict[str, Any]) -> bool:
    """Return whether a task has to succeed before this request is approved (specification, Failure modes)."""
    snapshot = row["snapshot"]
    return (
        snapshot.get("trigger_task_id") is not None
        and snapshot.get("trigger_task_failure_mode") == TriggerFailureMode.BLOCK
    )
