"""What the record may hold, made by the functions of the product; by SQL where it has none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

from db import applications, claims, groups, people, submission, templates, transitions, users
from db.administrators import OPERATOR
from db.applications import ApplicationView, MappingView
from db.database import Database
from db.groups import GroupView
from db.templates import TemplateView
from domain.actors import Permission
from domain.deciding import Person
from domain.directory import ApplicationValues, GroupValues, MappingValues, UserValues
from domain.proofs import ProofKey
from domain.states import Action
from domain.submission import Submission
from domain.templates import TemplateValues
from domain.transitions import Channel, Outcome, RequestState, Transition

SECRET: Final = "a secret that is long enough for a test"
PROOFS: Final = ProofKey(SECRET)
LONGEST_MINS: Final = 525_600

_numbers: Iterator[int] = itertools.count(1)


@dataclass(frozen=True)
class Account:
    """Somebody in the record."""

    id: UUID
    email: str


@dataclass(frozen=True)
class Cast:
    """Who takes part in a request, in a record of many: everybody and everything is this cast's own."""

    requester: Account
    approver: Account
    second_approver: Account
    manager: Account
    """In the escalation group."""
    admin: Account
    team: GroupView
    managers: GroupView
    application: ApplicationView
    mapping: MappingView
    template: TemplateView


class Record:
    """Makes people, groups, applications, mappings, templates and requests. Names are unique unless they are given."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def user(self, name: str = "user", *, owner: Account | None = None, active: bool = True) -> Account:
        """A person, or a service account of `owner`."""
        email = f"{name}.{next(_numbers)}@example.com"
        user = await users.create(
            self.db, UserValues(email=email, name=name.title(), owner_id=owner.id if owner else None)
        )
        if not active:
            await self.execute("UPDATE users SET active = false WHERE id = %s", user.id)
        return Account(user.id, email)

    async def group(
        self, *members: Account, name: str | None = None, permissions: list[Permission] | None = None
    ) -> GroupView:
        """A group with these members, who join in this order."""
        values = GroupValues(name=name or f"group {next(_numbers)}", permissions=permissions or [])
        group = await groups.create(self.db, OPERATOR, values)
        for member in members:
            await groups.add_member(self.db, OPERATOR, group.id, member.id)
        return group

    async def admin(self, name: str = "admin") -> Account:
        """Somebody who holds `access_requests.manage`."""
        user = await self.user(name)
        await self.group(user, permissions=[Permission.REQUESTS])
        return user

    async def application(self, name: str | None = None) -> ApplicationView:
        """An application."""
        return await applications.create_application(
            self.db, ApplicationValues(name=name or f"application {next(_numbers)}")
        )

    async def mapping(
        self, application: ApplicationView, *, claim: str = "roles", value: str = "db_readonly"
    ) -> MappingView:
        """A mapping of `application`."""
        values = MappingValues(app_id=application.id, name=f"mapping {next(_numbers)}", claim=claim, value=value)
        return await applications.create_mapping(self.db, values)

    async def template(self, **values: Any) -> TemplateView:
        """A template, for an application of its own unless one is named."""
        if "app_id" not in values:
            values["app_id"] = (await self.application()).id
        checked = TemplateValues.model_validate({"name": f"template {next(_numbers)}", **values})
        return await templates.create(self.db, checked, longest_mins=LONGEST_MINS)

    async def cast(self, **values: Any) -> Cast:
        """A template that grants one mapping, with people in every role.

        Args:
            values: of the template, where they differ: by default a team of two decides and nothing escalates.
        """
        requester, approver, second, manager, admin = [
            Account(uuid4(), f"{name}.{next(_numbers)}@example.com")
            for name in ("alice", "bob", "carol", "erin", "admin")
        ]
        made = datetime.now(UTC)
        team, managers, admins = [
            GroupView.model_construct(
                id=uuid4(), name=f"{name} {next(_numbers)}", description="", permissions=held, created_at=made
            )
            for name, held in (("team", []), ("managers", []), ("admins", [Permission.REQUESTS]))
        ]
        # By SQL, since nearly every test begins with it: the functions of the product take five times as long.
        async with self.db.transaction() as connection:
            for user in (requester, approver, second, manager, admin):
                await connection.execute(
                    "INSERT INTO users (id, email, name) VALUES (%s, %s, %s)", [user.id, user.email, user.email]
                )
            for group, members in ((team, [approver, second]), (managers, [manager]), (admins, [admin])):
                await connection.execute(
                    "INSERT INTO groups (id, name, description, permissions) VALUES (%s, %s, '', %s)",
                    [group.id, group.name, [str(permission) for permission in group.permissions]],
                )
                for member in members:
                    await connection.execute(
                        "INSERT INTO group_members (group_id, user_id) VALUES (%s, %s)", [group.id, member.id]
                    )
        application = await self.application()
        mapping = await self.mapping(application)
        template = await self.template(
            **{
                "app_id": application.id,
                "mapping_ids": [mapping.id],
                "approver_group_ids": [team.id],
                "escalation_group_id": managers.id,
                **values,
            }
        )
        return Cast(requester, approver, second, manager, admin, team, managers, application, mapping, template)

    async def person(self, account: Account) -> Person:
        """As the rules see somebody now."""
        async with self.db.connection() as connection:
            person = await people.find(connection, str(account.id))
        assert person is not None
        return person

    async def submit(
        self,
        template: TemplateView,
        requester: Account,
        *,
        minutes: int = 60,
        at: datetime | None = None,
        **values: Any,
    ) -> UUID:
        """A pending request.

        Args:
            template: what is asked for.
            requester: who asks.
            minutes: for how long.
            at: when, where that is not now.
            values: of the submission.
        """
        sent = Submission.model_validate(
            {
                "template_id": template.id,
                "requested_duration_mins": minutes,
                "justification": "an incident",
                **values,
            }
        )
        person = await self.person(requester)
        submitted = await submission.submit(self.db, person, sent, longest_mins=LONGEST_MINS)
        if at is not None:
            await self.execute(
                """
                UPDATE access_requests SET created_at = %(at)s, escalates_at = escalates_at + (%(at)s - created_at),
                    escalated_at = escalated_at + (%(at)s - created_at)
                WHERE id = %(id)s
                """,
                at=at,
                id=submitted.request_id,
            )
        return submitted.request_id

    def proof(
        self, request_id: UUID, action: Action, actor: Account, *, jti: str | None = None, now: datetime | None = None
    ) -> str:
        """What the API makes when `actor` decides."""
        return PROOFS.mint(request_id, action, actor.id, jti=jti or str(uuid4()), now=now or datetime.now(UTC))

    async def decide(
        self,
        request_id: UUID,
        action: Action,
        actor: Account,
        *,
        at: datetime | None = None,
        key: str | None = None,
        comment: str = "",
    ) -> Outcome:
        """What a workflow does with a decision, without a workflow."""
        at, key = at or datetime.now(UTC), key or str(uuid4())
        transition = Transition(
            request_id=request_id,
            action=action,
            channel=Channel.UPDATE,
            at=at,
            key=key,
            comment=comment,
            proof=self.proof(request_id, action, actor, jti=key, now=at),
        )
        return await transitions.apply(self.db, PROOFS, transition, trust_claimed_actors=False)

    async def take(
        self, request_id: UUID, action: Action, actor: str, *, key: str, at: datetime | None = None
    ) -> Outcome:
        """A step of the service, without a workflow."""
        transition = Transition(
            request_id=request_id,
            action=action,
            channel=Channel.SYSTEM,
            at=at or datetime.now(UTC),
            key=key,
            actor=actor,
        )
        return await transitions.apply(self.db, PROOFS, transition, trust_claimed_actors=False)

    async def row(self, request_id: UUID) -> dict[str, Any]:
        """A request as it is stored."""
        (row,) = await self.query("SELECT * FROM access_requests WHERE id = %s", request_id)
        return row

    async def state(self, request_id: UUID) -> RequestState:
        """A request as a workflow that starts would see it; like that, it takes the mark off the row."""
        state = await transitions.load(self.db, request_id)
        assert state is not None
        return state

    async def timeline(self, request_id: UUID) -> list[dict[str, Any]]:
        """What happened to a request, oldest first."""
        return await self.query("SELECT * FROM access_request_timeline WHERE request_id = %s ORDER BY id", request_id)

    async def kinds(self, request_id: UUID) -> list[str]:
        """What happened to a request, in one word each."""
        return [entry["kind"] for entry in await self.timeline(request_id)]

    async def temporary_groups(self, request_id: UUID) -> list[dict[str, Any]]:
        """The groups that carry a request's grant: one or none."""
        return await self.query("SELECT * FROM groups WHERE request_id = %s", request_id)

    async def claims(self, account: Account, application: ApplicationView) -> dict[str, list[str]]:
        """What somebody's token for an application would say now."""
        async with self.db.connection() as connection:
            return await claims.get_effective_mapping_values(connection, account.id, application.id)

    async def query(self, statement: str, *positional: Any, **named: Any) -> list[dict[str, Any]]:
        """Rows, for what the product does not read."""
        async with self.db.connection() as connection:
            rows = await connection.execute(statement, named or positional)
            return await rows.fetchall()

    async def execute(self, statement: str, *positional: Any, **named: Any) -> None:
        """A change that the product does not make."""
        async with self.db.connection() as connection:
            await connection.execute(statement, named or positional)
