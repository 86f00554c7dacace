"""Reading requests: one request, the lists, the timeline, the thread.

What is over is over: a grant past its `expires_at` is read as expired, however late its workflow is.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, Field

from db.database import Connection
from db.folding import within
from db.paging import Page, Position
from domain.actors import TEMPORARY_GROUP_PREFIX, SystemActor, workflow_id
from domain.addresses import sought_address
from domain.custom_fields import Answers, CustomField
from domain.deciding import Asked, Person
from domain.states import Status, Verdict, verdict
from domain.templates import GrantedMapping, TriggerFailureMode
from domain.text import STORED


class PersonView(BaseModel):
    """A person as others see them."""

    id: UUID
    email: str
    name: str


class GroupRef(BaseModel):
    """A group by name."""

    id: UUID
    name: str


class RequestView(BaseModel):
    """An access request with everything a person deciding it needs. Times are UTC."""

    id: UUID
    status: Status
    template_id: UUID | None = Field(description="Null once the template is deleted.")
    template_name: str = Field(description="As it was at submission.")
    app_id: UUID | None
    app_name: str
    requester: PersonView
    requested_duration_mins: int
    justification: str
    custom_answers: Answers = Field(description="By the id of the field in `custom_fields`.")
    custom_fields: list[CustomField] = Field(description="The template's questions at submission.")
    mappings: list[GrantedMapping] = Field(description="The claims that a grant adds.")
    approver_groups: list[GroupRef] = Field(description="Groups whose members decide, as far as they still exist.")
    admins_decide: bool = Field(description="Holders of `access_requests.manage` decide.")
    notified_approvers: list[PersonView]
    trigger_task_id: UUID | None = Field(description="The task that its status changes fire, as at submission.")
    trigger_task_failure_mode: TriggerFailureMode = Field(
        description="`block`: the task has to succeed before an approval counts, for which it has 30 s."
    )
    decided_by: str | None = Field(
        description="Email address of who decided, or `system:…`. Null and revoked: its requester cancelled it."
    )
    decided_at: datetime | None
    decision_comment: str | None
    created_at: datetime
    escalates_at: datetime | None = Field(description="When a pending request is escalated.")
    escalated_at: datetime | None
    expires_at: datetime | None = Field(description="When the grant ends, or ended at the latest.")
    ended_at: datetime | None = Field(description="When the request was closed.")
    ended_by: str | None = Field(description="Who closed it: an email address or `system:…`.")
    temporary_group: str | None = Field(description="Name of the group that carries the grant, while it lasts.")
    workflow_id: str

    @property
    def verdict(self) -> Verdict | None:
        """What was decided."""
        return verdict(self.status, decided=self.decided_by is not None, granted=self.expires_at is not None)

    @property
    def duration(self) -> timedelta:
        """How long a grant lasts from its decision."""
        return timedelta(minutes=self.requested_duration_mins)


class TimelineView(BaseModel):
    """Something that happened to a request."""

    id: int
    at: datetime
    kind: str = Field(description="`submitted`, `escalated`, `approved`, `denied`, `revoked`, `expired`, `refused`.")
    actor: str = Field(description="An email address, or `system:…`.")
    verified: bool = Field(description="False where a signal named the actor without proof.")
    detail: dict[str, Any]
    event: str | None = Field(description="The lifecycle event, where it is one.")
    payload: dict[str, Any] | None = Field(description="The event's payload, as integrations get it.")
    run_ids: list[UUID] = Field(description="The runs of tasks that it made, oldest first.")


class MessageView(BaseModel):
    """A line in a request's discussion thread."""

    id: UUID
    author: PersonView
    body: str
    created_at: datetime


_OVER: Final = "(r.status = 'approved' AND r.expires_at <= now())"

VIEW: Final = f"""
           r.id, r.template_id, r.template_name, r.app_id, r.app_name, r.requested_duration_mins, r.justification,
           r.custom_answers, r.decided_by, r.decided_at, r.decision_comment, r.created_at, r.escalated_at,
           r.expires_at, r.admins_decide, r.approver_group_ids, r.escalation_group_id,
           r.snapshot -> 'custom_fields' AS custom_fields, r.snapshot -> 'mappings' AS mappings,
           r.snapshot ->> 'trigger_task_id' AS trigger_task_id,
           coalesce(r.snapshot ->> 'trigger_task_failure_mode', 'ignore') AS trigger_task_failure_mode,
           CASE WHEN {_OVER} THEN 'expired' ELSE r.status END AS status,
           CASE WHEN {_OVER} THEN r.expires_at ELSE r.ended_at END AS ended_at,
           CASE WHEN {_OVER} THEN '{SystemActor.EXPIRY}' ELSE r.ended_by END AS ended_by,
           CASE WHEN r.status = 'pending' AND r.escalated_at IS NULL THEN r.escalates_at END AS escalates_at,
           CASE WHEN r.status = 'approved' AND NOT {_OVER} THEN '{TEMPORARY_GROUP_PREFIX}' || r.id END
               AS temporary_group,
           json_build_object('id', u.id, 'email', u.email, 'name', u.name) AS requester,
           coalesce(u.owner_id, u.id) AS requester_principal_id,
           (SELECT coalesce(json_agg(json_build_object('id', n.id, 'email', n.email, 'name', n.name)
                                     ORDER BY array_position(r.notified_ids, n.id)), '[]')
            FROM users n WHERE n.id = ANY(r.notified_ids)) AS notified_approvers,
           (SELECT coalesce(json_agg(json_build_object('id', g.id, 'name', g.name)
                                     ORDER BY array_position(r.approver_group_ids, g.id)), '[]')
            FROM groups g WHERE g.id = ANY(r.approver_group_ids)
                             OR (r.escalated_at IS NOT NULL AND g.id = r.escalation_group_id)) AS approver_groups
"""
"""The columns that `view` reads, of a row `r` of `access_requests` with its requester `u`."""

_VIEW: Final = f"""
    SELECT {VIEW}
    FROM access_requests r JOIN users u ON u.id = r.requester_id
"""

_ORDER: Final = "ORDER BY r.created_at DESC, r.id DESC"
_NEWEST: Final = f" {_ORDER} LIMIT %(limit)s"
_BEFORE: Final = "(r.created_at, r.id) < (%(before_at)s, %(before_id)s)"
_OLDEST: Final = " ORDER BY r.created_at, r.id LIMIT %(limit)s"
_AFTER: Final = "(r.created_at, r.id) > (%(before_at)s, %(before_id)s)"

# Folded by the database on both sides: its idea of case is not Python's for every letter.
_SOUGHT: Final = "folded_address(s.email) LIKE folded_address(%(requester)s)"
_OF_SOUGHT: Final = f"""
    WITH sample AS MATERIALIZED (
        SELECT s.id FROM users s WHERE {_SOUGHT} LIMIT 51
    ), few AS MATERIALIZED (
        SELECT count(*) <= 50 AS yes FROM sample
    ), newest AS MATERIALIZED (
        -- With ctid, which no index has: an index with all that is asked for would tempt into reading the whole of it.
        SELECT r.ctid, r.id, r.created_at, r.requester_id FROM access_requests r {{where}} {_ORDER} LIMIT 2000
    ), recent AS MATERIALIZED (
        SELECT r.id FROM newest r JOIN users s ON s.id = r.requester_id AND {_SOUGHT}
        WHERE NOT (SELECT yes FROM few)
        {_ORDER} LIMIT %(limit)s
    ), complete AS MATERIALIZED (
        SELECT NOT (SELECT yes FROM few)
               AND ((SELECT count(*) FROM recent) = %(limit)s OR (SELECT count(*) FROM newest) < 2000) AS yes
    ), sought AS (
        SELECT id FROM sample WHERE (SELECT yes FROM few)
        UNION ALL SELECT s.id FROM users s
        WHERE {_SOUGHT} AND NOT (SELECT yes FROM few) AND NOT (SELECT yes FROM complete)
    ), of_each AS (
        SELECT r.id FROM sought s CROSS JOIN LATERAL (
            SELECT r.id, r.created_at FROM access_requests r WHERE r.requester_id = s.id {{also}}
            {_ORDER} LIMIT %(limit)s
        ) r
        {_ORDER} LIMIT %(limit)s
    )
    SELECT id FROM recent WHERE (SELECT yes FROM complete) UNION ALL SELECT id FROM of_each
"""
"""The newest requests of people whose address has something in it.

Nobody can tell beforehand where they are: those of everybody are the newest ones, those of people who left lie below a
history that grows. So the newest are looked through first, a bounded number and only until a page is full. Where it is
not, and where few people are sought, the newest of each of these are taken: a matter of people, not of history."""

_STATUS_FILTER: Final = {
    Status.APPROVED: "r.status = 'approved' AND r.expires_at > now()",
    Status.EXPIRED: f"(r.status = 'expired' OR {_OVER})",
}


async def get(connection: Connection, request_id: UUID) -> tuple[RequestView, Asked] | None:
    """A request, and who was asked to decide it; None where there is none."""
    rows = await connection.execute(f"{_VIEW} WHERE r.id = %s", [request_id])
    row = await rows.fetchone()
    return None if row is None else (view(row), asked(row))


async def list_mine(connection: Connection, person: Person, position: Position) -> Page[RequestView]:
    """The requests of one person, newest first."""
    return await _list(connection, ["r.requester_id = %(person_id)s"], {"person_id": person.id}, position)


async def list_active(connection: Connection, person: Person, position: Position) -> Page[RequestView]:
    """The grants of one person that last, newest first."""
    conditions = ["r.requester_id = %(person_id)s", _STATUS_FILTER[Status.APPROVED]]
    return await _list(connection, conditions, {"person_id": person.id}, position)


async def list_awaiting(
    connection: Connection, person: Person, position: Position, *, oldest_first: bool = False
) -> Page[RequestView]:
    """The pending requests that this person may decide, newest first, or as they came.

    The set form of `domain.deciding.may_decide`; a test holds the two to each other.
    """
    return await _list(connection, *_awaiting(person), position, oldest_first=oldest_first)


async def count_awaiting(connection: Connection, person: Person) -> int:
    """How many pending requests this person may decide; counted up to 100."""
    conditions, parameters = _awaiting(person)
    rows = await connection.execute(
        f"""
        SELECT count(*) AS count FROM (
            SELECT FROM access_requests r JOIN users u ON u.id = r.requester_id
            WHERE {" AND ".join(conditions)} LIMIT 100
        ) counted
        """,
        parameters,
    )
    row = await rows.fetchone()
    return row["count"] if row else 0


def _awaiting(person: Person) -> tuple[list[str], dict[str, Any]]:
    asked_of = [
        "r.approver_group_ids && %(group_ids)s",
        "(r.escalated_at IS NOT NULL AND r.escalation_group_id = ANY(%(group_ids)s))",
    ]
    if person.is_admin:
        asked_of.append("r.admins_decide")
    conditions = [
        "r.status = 'pending'",
        "coalesce(u.owner_id, u.id) <> %(principal_id)s",
        f"({' OR '.join(asked_of)})",
    ]
    return conditions, {"principal_id": person.principal_id, "group_ids": list(person.group_ids)}


async def list_all(
    connection: Connection,
    position: Position,
    *,
    status: Status | None = None,
    template_id: UUID | None = None,
    requester: str | None = None,
    app_id: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Page[RequestView]:
    """Every request, newest first (specification, Admin History View).

    Args:
        connection: the record.
        position: which page.
        status: only these; a grant whose time is up counts as expired.
        template_id: only these.
        requester: part of the requester's email address, in any case.
        app_id: only requests for this application.
        since: only requests that were submitted then or later.
        until: only requests that were submitted before.
    """
    conditions: list[str] = []
    parameters: dict[str, Any] = {"app_id": app_id, "since": since, "until": until}
    if status is not None:
        conditions.append(_STATUS_FILTER.get(status, "r.status = %(status)s"))
        parameters["status"] = status.value
    if template_id is not None:
        conditions.append("r.template_id = %(template_id)s")
        parameters["template_id"] = template_id
    for value, condition in (
        (app_id, "r.app_id = %(app_id)s"),
        (since, "r.created_at >= %(since)s"),
        (until, "r.created_at < %(until)s"),
    ):
        if value is not None:
            conditions.append(condition)
    if requester is None:
        return await _list(connection, conditions, parameters, position)
    parameters["requester"] = within(sought_address(requester))
    wanted = [*conditions, _BEFORE] if position.before else conditions
    found = _OF_SOUGHT.format(where=f"WHERE {' AND '.join(wanted)}" if wanted else "", also=_and(wanted))
    return await _list(connection, [f"r.id = ANY(ARRAY({found}))"], parameters, position, prepare=False)


async def list_timeline(connection: Connection, request_id: UUID, position: Position) -> Page[TimelineView]:
    """What happened to a request, newest first."""
    rows = await connection.execute(
        """
        SELECT id, at, kind, actor, verified, detail, event, payload,
               ARRAY(SELECT r.id FROM task_runs r WHERE r.timeline_id = t.id ORDER BY r.created_at, r.id) AS run_ids
        FROM access_request_timeline t
        WHERE request_id = %s AND id < %s ORDER BY id DESC LIMIT %s
        """,
        [request_id, position.before_number, position.limit + 1],
    )
    entries = [TimelineView.model_validate(row) for row in await rows.fetchall()]
    return Page.numbered(entries, position, lambda entry: entry.id)


async def list_messages(connection: Connection, request_id: UUID, position: Position) -> Page[MessageView]:
    """The discussion thread, newest first."""
    rows = await connection.execute(
        f"""
        SELECT r.id, r.body, r.created_at, json_build_object('id', u.id, 'email', u.email, 'name', u.name) AS author
        FROM access_request_messages r JOIN users u ON u.id = r.author_id
        WHERE r.request_id = %(request_id)s {f"AND {_BEFORE}" if position.before else ""} {_NEWEST}
        """,
        {"request_id": request_id, **position.parameters},
    )
    messages = [MessageView.model_validate(row) for row in await rows.fetchall()]
    return Page.dated(messages, position, lambda message: (message.created_at, message.id))


async def add_message(connection: Connection, request_id: UUID, author: Person, body: str) -> MessageView:
    """Say something in a request's thread."""
    rows = await connection.execute(
        """
        INSERT INTO access_request_messages (id, request_id, author_id, body)
        VALUES (gen_random_uuid(), %s, %s, %s) RETURNING id, body, created_at
        """,
        [request_id, author.id, body],
    )
    row = await rows.fetchone()
    return MessageView.model_validate(
        {**(row or {}), "author": {"id": author.id, "email": author.email, "name": author.name}}
    )


async def _list(
    connection: Connection,
    conditions: list[str],
    parameters: dict[str, Any],
    position: Position,
    *,
    prepare: bool = True,
    oldest_first: bool = False,
) -> Page[RequestView]:
    order, further = (_OLDEST, _AFTER) if oldest_first else (_NEWEST, _BEFORE)
    wanted = [*conditions, further] if position.before else conditions
    where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
    rows = await connection.execute(
        _VIEW + where + order,
        {**parameters, **position.parameters},
        # Unprepared, a statement is planned for its values. How many people a pattern fits decides the plan; the one
        # for any pattern would read every request of everybody, where it fits everybody.
        prepare=None if prepare else False,
    )
    views = [view(row) for row in await rows.fetchall()]
    return Page.dated(views, position, lambda view: (view.created_at, view.id))


def view(row: dict[str, Any]) -> RequestView:
    """Return a request from its row with `VIEW`."""
    return RequestView.model_validate({**row, "workflow_id": workflow_id(row["id"])}, context=STORED)


def asked(row: dict[str, Any]) -> Asked:
    """Who was asked, from a request's row with `requester_principal_id`."""
    return Asked(
        requester_principal_id=row["requester_principal_id"],
        approver_group_ids=frozenset(row["approver_group_ids"]),
        escalation_group_id=row["escalation_group_id"],
        escalated=row["escalated_at"] is not None,
        admins_decide=row["admins_decide"],
    )


def _and(conditions: list[str]) -> str:
    return "".join(f" AND {condition}" for condition in conditions)
