"""Submitting a request: one transaction from validation to the row (design, section 1)."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from db import deliveries, people, requests, runs, transitions
from db.attention import START_GRACE
from db.database import Connection, Database
from db.requests import RequestView
from db.runs import Change
from db.timeline import add_to_timeline
from db.transitions import next_to_ask
from domain import events, notification
from domain.actors import SystemActor
from domain.custom_fields import check_answers
from domain.deciding import Person, may_ask
from domain.errors import Forbidden, Invalid, PendingRequestExists
from domain.events import Event
from domain.notification import Approver, Served
from domain.submission import Submission
from domain.tasks import TRIGGER_EVENTS
from domain.templates import NotificationPolicy, Snapshot, TemplateValues, TriggerFailureMode, check_duration
from domain.text import STORED, is_visible
from domain.transitions import RequestState

_SUBMITTED: Final = f"""
    SELECT {requests.VIEW}, r.snapshot, {transitions.STATE}
    FROM access_requests r JOIN users u ON u.id = r.requester_id WHERE r.id = %s
"""
_CHANCE: Final = random.SystemRandom()


@dataclass(frozen=True)
class Submitted:
    """The request, and whether this call made it (an `Idempotency-Key` seen before answers with the first one)."""

    request_id: UUID
    created: bool
    view: RequestView | None = field(default=None, compare=False)
    """None where an earlier call made it."""
    state: RequestState | None = field(default=None, compare=False)
    """The state that its workflow starts with. None: the workflow has to load the record first."""


async def submit(
    db: Database, requester: Person, submission: Submission, *, longest_mins: int, idempotency_key: str | None = None
) -> Submitted:
    """Validate, choose whom to notify and write the request with its first timeline entry.

    Args:
        db: the record.
        requester: who asks.
        submission: what for.
        longest_mins: the longest duration where the template does not list any (`JUSTIAM_MAX_DURATION_MINS`).
        idempotency_key: the same key of the same requester makes one request, however often it is sent.

    Raises:
        Invalid: the template is unknown, or a value does not fit it, or the key came with another submission before.
        Forbidden: the template is for members of certain groups.
        PendingRequestExists: this person waits for a decision on the same template already.
    """
    digest = hashlib.sha256(submission.model_dump_json().encode()).digest()
    if idempotency_key is not None:
        idempotency_key = requester.own_key(idempotency_key)
        earlier = await _earlier(db, requester, idempotency_key, digest)
        if earlier is not None:
            return earlier
    try:
        async with db.transaction() as connection:
            request_id = await _submit(connection, requester, submission, longest_mins, idempotency_key, digest)
            # Fetched after the block: its answer comes with that of the commit.
            rows = await connection.execute(_SUBMITTED, [request_id])
        row = await rows.fetchone() or {}
    except UniqueViolation as error:
        # Two sendings with the same key at the same moment: the slower one finds the faster one's request.
        if idempotency_key is not None:
            earlier = await _earlier(db, requester, idempotency_key, digest)
            if earlier is not None:
                return earlier
        msg = "You have a pending request for this template. Wait for its decision, or cancel it first."
        raise PendingRequestExists(msg) from error
    state = transitions.state(row)
    # A step of the service is due at once: it needs the record anyway.
    waits = state.decidable and not state.auto_approve
    return Submitted(request_id, created=True, view=requests.view(row), state=state if waits else None)


async def made_with(connection: Connection, requester: Person, idempotency_key: str) -> UUID | None:
    """Return the request that this key of this requester made; None where it made none."""
    rows = await connection.execute(
        "SELECT id FROM access_requests WHERE requester_id = %s AND idempotency_key = %s",
        [requester.id, idempotency_key],
    )
    row = await rows.fetchone()
    return None if row is None else row["id"]


async def _earlier(db: Database, requester: Person, key: str, digest: bytes) -> Submitted | None:
    async with db.connection() as connection:
        rows = await connection.execute(
            "SELECT id, idempotency_digest FROM access_requests WHERE requester_id = %s AND idempotency_key = %s",
            [requester.id, key],
        )
        row = await rows.fetchone()
    if row is None:
        return None
    if row["idempotency_digest"] != digest:
        raise Invalid(("Idempotency-Key", "was used before with another submission; use a new key"))
    return Submitted(row["id"], created=False)


async def _submit(
    connection: Connection,
    requester: Person,
    submission: Submission,
    longest_mins: int,
    idempotency_key: str | None,
    digest: bytes,
) -> UUID:
    row = await _template(connection, submission.template_id, requester)
    if row["deactivated_at"] != requester.deactivated_at or not row["requester_active"]:
        raise Forbidden("Your account was deactivated at this moment. Nothing was submitted.")
    template = TemplateValues.model_validate({name: row[name] for name in TemplateValues.model_fields}, context=STORED)
    if not may_ask(requester, frozenset(template.allowed_group_ids)):
        msg = "This template is for members of certain groups, and you are in none of them. Ask an administrator."
        raise Forbidden(msg)
    answers = _checked(template, submission, longest_mins)
    mappings = await connection.execute(
        # Locked, so that none of them changes between what is asked for here and what is written down below.
        "SELECT id, name, claim, value FROM app_mappings WHERE id = ANY(%s) ORDER BY array_position(%s, id) FOR SHARE",
        [template.mapping_ids, template.mapping_ids],
    )
    asked = _NOBODY if template.auto_approve else await _ask(connection, requester, row, template)
    snapshot = Snapshot.model_validate({**template.model_dump(), "mappings": await mappings.fetchall()}, context=STORED)
    request_id = uuid4()
    await connection.execute(
        """
        INSERT INTO access_requests (
            id, status, template_id, template_name, app_id, app_name, requester_id, requested_duration_mins,
            justification, custom_answers, snapshot, mapping_ids, approver_group_ids, escalation_group_id,
            admins_decide, notified_ids, escalates_at, escalated_at, attention_at, idempotency_key,
            idempotency_digest)
        VALUES (
            %(id)s, 'pending', %(template_id)s, %(template_name)s, %(app_id)s, %(app_name)s, %(requester_id)s,
            %(minutes)s, %(justification)s, %(answers)s, %(snapshot)s, %(mapping_ids)s, %(approver_group_ids)s,
            %(escalation_group_id)s, %(admins_decide)s, %(notified_ids)s,
            now() + make_interval(mins => %(escalation_after_mins)s), CASE WHEN %(escalated)s THEN now() END,
            now() + %(grace)s, %(idempotency_key)s, %(digest)s)
        """,
        {
            "id": request_id,
            "template_id": submission.template_id,
            "template_name": template.name,
            "app_id": template.app_id,
            "app_name": row["app_name"],
            "requester_id": requester.id,
            "minutes": submission.requested_duration_mins,
            "justification": submission.justification,
            "answers": Jsonb(answers),
            "snapshot": Jsonb(snapshot.model_dump(mode="json")),
            "mapping_ids": template.mapping_ids,
            "approver_group_ids": template.approver_group_ids,
            "escalation_group_id": template.escalation_group_id,
            "admins_decide": asked.admins,
            "notified_ids": list(asked.people),
            "escalation_after_mins": template.escalation_after_mins,
            "escalated": asked.instead,
            "grace": START_GRACE,
            "idempotency_key": idempotency_key,
            "digest": digest if idempotency_key is not None else None,
        },
    )
    if asked.served is not None and asked.served != _served(row):
        await connection.execute(
            "UPDATE access_request_templates SET served_group_id = %s, served_joined = %s WHERE id = %s",
            [asked.served.group_id, asked.served.joined, submission.template_id],
        )
    await _tell(connection, request_id, requester, template, asked)
    await _fire(connection, request_id, requester, submission, row, asked)
    return request_id


async def _template(connection: Connection, template_id: UUID, requester: Person) -> dict[str, Any]:
    # A key share lock: a deletion waits, an edit does not (this request keeps the version read here), and submissions
    # do not wait for each other. The requester is locked against a deactivation: one that comes later finds this
    # request and marks it, and one that came first is seen here.
    rows = await connection.execute(
        """
        SELECT t.*, a.name AS app_name, EXISTS (SELECT FROM integrations i WHERE i.enabled) AS integrated,
               u.active AS requester_active, u.deactivated_at
        FROM access_request_templates t JOIN applications a ON a.id = t.app_id, users u
        WHERE t.id = %s AND u.id = %s FOR KEY SHARE OF t FOR SHARE OF u
        """,
        [template_id, requester.id],
    )
    row = await rows.fetchone()
    if row is None:
        raise Invalid(("template_id", "there is no template with this id"))
    if row["notification_policy"] == NotificationPolicy.ROUND_ROBIN and not row["auto_approve"]:
        # Here submissions do take turns: each has to see whom the one before it served.
        rows = await connection.execute(
            "SELECT served_group_id, served_joined FROM access_request_templates WHERE id = %s FOR NO KEY UPDATE",
            [template_id],
        )
        row |= await rows.fetchone() or {}
    return row


def _checked(template: TemplateValues, submission: Submission, longest_mins: int) -> dict[str, Any]:
    errors: list[tuple[str, str]] = []
    answers: dict[str, Any] = {}
    try:
        check_duration(submission.requested_duration_mins, template.allowed_durations, longest_mins)
    except Invalid as error:
        errors.extend(error.errors)
    if template.require_justification and not is_visible(submission.justification):
        errors.append(("justification", "this template requires one: say what you need the access for"))
    try:
        answers = check_answers(template.custom_fields, submission.custom_answers)
    except Invalid as error:
        errors.extend(error.errors)
    if errors:
        raise Invalid(*errors)
    return answers


def _served(row: dict[str, Any]) -> Served | None:
    return Served(row["served_group_id"], row["served_joined"]) if row["served_group_id"] is not None else None


@dataclass(frozen=True)
class _Asked:
    """Who is told of a new request."""

    people: dict[UUID, str] = field(default_factory=dict)
    """Ids and email addresses."""
    served: Served | None = None
    admins: bool = False
    """The administrators decide."""
    instead: bool = False
    """They are asked because nobody in the approver groups could decide: escalated at once."""


_NOBODY: Final = _Asked()


async def _ask(connection: Connection, requester: Person, row: dict[str, Any], template: TemplateValues) -> _Asked:
    """Whom to notify by the template's policy and, where nobody in its groups could decide, whom to ask instead."""
    rows = await connection.execute(
        f"""
        SELECT e.*, %(prefer)s AND EXISTS (
            SELECT 1 FROM group_members s WHERE s.user_id = e.user_id AND s.group_id = ANY(%(own_groups)s)
        ) AS shares_group
        FROM ({people.ELIGIBLE} AND m.group_id = ANY(%(groups)s)) e
        """,
        {
            "principal_id": requester.principal_id,
            "groups": template.approver_group_ids,
            "prefer": template.prefer_requester_groups,
            "own_groups": list(requester.group_ids),
        },
    )
    members = await rows.fetchall()
    emails = {member["user_id"]: member.pop("email") for member in members}
    notified = notification.choose(
        template.notification_policy,
        template.notification_count,
        template.approver_group_ids,
        [Approver(**member) for member in members],
        prefer_shared=template.prefer_requester_groups,
        served=_served(row),
        random=_CHANCE,
    )
    if notified.user_ids:
        return _Asked({user_id: emails[user_id] for user_id in notified.user_ids}, notified.served)
    # A template without approver groups is for the administrators; the escalation group comes in by its timer.
    instead = bool(template.approver_group_ids)
    escalation = await next_to_ask(
        connection, requester.principal_id, template.escalation_group_id if instead else None
    )
    return _Asked(escalation.people, admins=escalation.admins, instead=instead)


async def _tell(
    connection: Connection, request_id: UUID, requester: Person, template: TemplateValues, asked: _Asked
) -> None:
    common = _common(request_id, requester, template.name)
    notified = [str(user_id) for user_id in asked.people]
    await add_to_timeline(
        connection,
        request_id,
        at=None,
        kind="submitted",
        actor=requester.email,
        detail={"notified": notified},
        key=f"{request_id}:created",
        event=Event.SUBMITTED,
        payload=events.payload(Event.SUBMITTED, **common, notified_approvers=list(asked.people.values())),
    )
    if asked.instead:
        await add_to_timeline(
            connection,
            request_id,
            at=None,
            kind="escalated",
            actor=SystemActor.ESCALATION,
            detail={
                "asked": "administrators" if asked.admins else "escalation group",
                "reason": "nobody in the approver groups could decide",
                "notified": notified,
            },
            key=f"{request_id}:escalate",
            event=Event.ESCALATED,
            payload=events.payload(Event.ESCALATED, **common),
        )


async def _fire(
    connection: Connection,
    request_id: UUID,
    requester: Person,
    submission: Submission,
    row: dict[str, Any],
    asked: _Asked,
) -> None:
    """Queue what the submission fires."""
    common = _common(request_id, requester, row["name"])
    change = Change(
        request_id=request_id,
        key=f"{request_id}:created",
        trigger_event=TRIGGER_EVENTS[None],
        previous_status="",
        event=Event.SUBMITTED,
        payload=events.payload(Event.SUBMITTED, **common, notified_approvers=list(asked.people.values())),
        requester_id=requester.id,
        requester_email=requester.email,
        requester_name=requester.name,
        justification=submission.justification,
        template_id=submission.template_id,
        template_name=row["name"],
        app_id=row["app_id"],
        app_name=row["app_name"],
        trigger_task_id=row["trigger_task_id"],
        trigger_mode=TriggerFailureMode(row["trigger_task_failure_mode"]),
    )
    await runs.make_for_change(connection, change, integrated=row["integrated"])
    if row["integrated"]:
        await deliveries.rows_for(connection, change.key)
    if asked.instead:
        escalated = replace(
            change,
            key=f"{request_id}:escalate",
            trigger_event=None,
            event=Event.ESCALATED,
            payload=events.payload(Event.ESCALATED, **common),
        )
        await runs.make_for_change(connection, escalated, integrated=row["integrated"])
        if row["integrated"]:
            await deliveries.rows_for(connection, escalated.key)


def _common(request_id: UUID, requester: Person, template_name: str) -> dict[str, Any]:
    return {"request_id": str(request_id), "template_name": template_name, "requester_email": requester.email}
