"""Fills a database with what a company leaves in it: people, templates, and the requests of three years.

For measurements and plans, so what counts is that it is like a record that grew: requests came one after the other and
more of them each year, timelines of many requests are interleaved on disk, few requests are open, some people ask for
much, some left long ago. The same seed, size and moment make the same rows, but for the numbers that PostgreSQL gives.
No token that is written can be used: what is stored is the hash of nothing.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import sys
import time
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql
from pydantic_core import to_json

from db import tokens
from domain import events
from domain.actors import Permission, SystemActor, temporary_group_id, temporary_group_name
from domain.events import Event
from domain.states import Status
from domain.templates import GrantedMapping, NotificationPolicy, Snapshot, TemplateValues

HISTORY: Final = timedelta(days=3 * 365)
_SPAN: Final = HISTORY.total_seconds()
_MINUTE: Final = 60.0
_DAY: Final = 86_400.0
_CHUNK: Final = 10_000
"""Requests that are made while the ones before are on their way into the database."""


def _words(text: str) -> list[str]:
    return text.split()


_FIRST: Final = _words(
    "adam aisha alba amir anna ben carla chen clara dario dina eda elif emil eva felix fiona hana hugo ida ines ivan "
    "jana jonas kaya kim lara leo lena luca maria marco mia milan nadia nils nora omar otto paula rosa sami sofia tara "
    "theo tomas uma vera viktor yara yusuf zoe"
)
_LAST: Final = _words(
    "adler ahmed bauer berg bianchi bosch braun chen costa cruz diaz dubois eriksen farah ferrari fischer garcia "
    "gruber haddad hansen ito jansen kaya keller khan kim koch kovac larsen lopez maier mendes moreau nagy novak "
    "okafor olsen park patel petrov rossi sato schmidt silva singh stein tanaka torres vidal "
    "wagner weber wolf yilmaz zhang"
)
_SYSTEMS: Final = _words(
    "billing warehouse ledger payroll search catalogue checkout metrics identity mail backup registry support archive"
)
_REASONS: Final = (
    "Looking into the failed export that a customer reported.",
    "On call this week; the alert needs a look at production.",
    "Quarterly audit: comparing the ledger with what was billed.",
    "Migration of the old tables, step two of four, as agreed in planning.",
    "Reproducing a defect that only shows with production data.",
    "Rotation of credentials, which nobody else can do before the weekend.",
)
_LINES: Final = (
    "Which tables do you need?",
    "Only the two of the export, for reading.",
    "Would the replica do?",
    "Please add the ticket next time.",
    "Thanks, that is all I needed.",
)
BOUGHT: Final = "acquired.example"
"""Whose people came with a company that was bought, asked in the first year only and have been gone since."""

Text = str | None
Progress = Callable[[str, float], None]


class NotEmpty(Exception):
    """The database holds people or requests already."""


@dataclass(frozen=True)
class Populated:
    """What was written, by table, and how long each part of the work took, in seconds."""

    rows: dict[str, int]
    took: dict[str, float]


@dataclass(frozen=True)
class _Person:
    id: str
    email: str
    name: str
    principal: str
    since: float
    until: float


@dataclass(frozen=True)
class _Group:
    id: str
    name: str
    members: list[_Person]
    permissions: tuple[Permission, ...] = ()


@dataclass(frozen=True)
class _Application:
    id: str
    name: str
    mappings: list[GrantedMapping]


@dataclass(frozen=True)
class _Template:
    id: str
    values: TemplateValues
    app: _Application
    snapshot: str
    mapping_ids: str
    approvers: list[_Person]
    escalation: list[_Person]
    since: float
    until: float = math.inf
    """Deleted then; its requests stay."""

    @property
    def deleted(self) -> bool:
        return self.until < math.inf


class _Rows:
    """Rows of one table in the text format of COPY. None of our values has a character that it would escape."""

    def __init__(self, table: str, columns: str) -> None:
        self.table = table
        self.columns = columns.split()
        self.count = 0
        self._lines: list[str] = []

    def add(self, *values: Text) -> None:
        self._lines.append("\t".join(["\\N" if value is None else value for value in values]))

    def take(self) -> bytes:
        self.count += len(self._lines)
        lines, self._lines = self._lines, []
        return "".join([f"{line}\n" for line in lines]).encode()


def _tables() -> dict[str, _Rows]:
    values = " ".join(TemplateValues.model_fields)
    return {
        rows.table: rows
        for rows in (
            _Rows("users", "id email name active owner_id created_at"),
            _Rows("groups", "id name description permissions system request_id expires_at created_at"),
            _Rows("group_members", "group_id user_id created_at"),
            _Rows("applications", "id name description client_id created_at"),
            _Rows("app_mappings", "id app_id name claim value created_at"),
            _Rows("app_mapping_groups", "mapping_id group_id"),
            _Rows("access_request_templates", f"id {values} created_at updated_at"),
            _Rows("api_tokens", "id user_id name token_hash hint expires_at last_used_at revoked_at created_at"),
            _Rows(
                "access_requests",
                "id status template_id template_name app_id app_name requester_id requested_duration_mins"
                " justification custom_answers snapshot mapping_ids approver_group_ids escalation_group_id"
                " admins_decide notified_ids escalates_at escalated_at decided_by decided_at decision_comment"
                " expires_at ended_by ended_at idempotency_key idempotency_digest attention_at created_at",
            ),
            _Rows("access_request_timeline", "request_id at kind actor detail event payload transition_key verified"),
            _Rows("access_request_messages", "id request_id author_id body created_at"),
        )
    }


def populate(
    database_url: str,
    *,
    requests: int,
    seed: int = 1,
    now: datetime | None = None,
    beside: bool = False,
    vacuum: bool = True,
    unanswered: float = 0.03,
    on_progress: Progress = lambda _, __: None,
) -> Populated:
    """Write everything, in one transaction.

    Args:
        database_url: a database with this version's schema.
        requests: how many; the directory and the number of templates grow with them.
        seed: what is made up.
        now: the moment at which the three years end; grants that last are counted from it.
        beside: go on where the database is not empty. A seed fits into a database once.
        vacuum: leave statistics and visibility maps behind, as a server that runs for a while has them.
        unanswered: of the requests of the last three months, how many wait still.
        on_progress: told what is being done, and which share of it is.

    Raises:
        NotEmpty: there is something in the database already.
        psycopg.Error: the database cannot be reached, or has another schema.
    """
    tables = _tables()
    took: dict[str, float] = {}
    moment = (now or datetime.now(UTC)).replace(microsecond=0)
    company = _Company(random.Random(f"{seed}"), tables, seed, requests, moment.timestamp())  # noqa: S311 - made up
    with psycopg.connect(database_url, autocommit=True, application_name="justiam-populate") as connection:
        with connection.transaction():
            # Whoever looks meanwhile waits: there are no rows yet, and for a while no indexes.
            _refuse_full(connection, beside=beside)
            connection.execute("SET LOCAL statement_timeout = 0")
            connection.execute("SET LOCAL maintenance_work_mem = '512MB'")
            with _without_indexes(connection, took, on_progress), _noted(took, "rows"):
                company.furnish()
                _write(connection, tables, company.history(unanswered), requests, on_progress)
        if vacuum:
            on_progress("vacuum", 0.0)
            with _noted(took, "vacuum"):
                connection.execute("VACUUM (ANALYZE)")
            on_progress("vacuum", 1.0)
    return Populated({name: rows.count for name, rows in tables.items()}, took)


def _refuse_full(connection: psycopg.Connection, *, beside: bool) -> None:
    found = connection.execute("SELECT EXISTS (SELECT FROM users) OR EXISTS (SELECT FROM access_requests)").fetchone()
    if found and found[0] and not beside:
        raise NotEmpty("The database is not empty.")


def _write(
    connection: psycopg.Connection,
    tables: dict[str, _Rows],
    history: Iterable[int],
    requests: int,
    on_progress: Progress,
) -> None:
    """Copy chunk after chunk. The next one is made while PostgreSQL takes this one in: it has a core of its own."""

    def copy(chunk: list[tuple[_Rows, bytes]]) -> None:
        with connection.cursor() as cursor:
            for rows, content in chunk:
                statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
                    sql.Identifier(rows.table), sql.SQL(", ").join(map(sql.Identifier, rows.columns))
                )
                with cursor.copy(statement) as to:
                    to.write(content)

    with ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        for made in history:
            chunk = [(rows, content) for rows in tables.values() if (content := rows.take())]
            if written is not None:
                written.result()
            written = writer.submit(copy, chunk)
            on_progress("rows", made / requests)
        if written is not None:
            written.result()


_BIG: Final = ["access_requests", "access_request_timeline", "access_request_messages"]
_INDEXES: Final = """
    SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition
    FROM pg_index i
    WHERE i.indrelid = ANY(%s::regclass[]) AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)
    ORDER BY 1
"""
_CONSTRAINTS: Final = """
    SELECT c.conrelid::regclass::text AS relation, c.conname AS name, pg_get_constraintdef(c.oid) AS definition
    FROM pg_constraint c WHERE c.conrelid = ANY(%s::regclass[]) AND c.contype IN ('u', 'f') ORDER BY c.contype DESC, 2
"""


@contextmanager
def _without_indexes(connection: psycopg.Connection, took: dict[str, float], on_progress: Progress) -> Iterator[None]:
    """Do without the indexes and references of the big tables for a while: sorted once is faster than kept sorted.

    Primary keys stay, since other tables refer to them, and so do triggers: nothing here updates a timeline.
    """
    indexes = connection.execute(_INDEXES, [_BIG]).fetchall()
    constraints = connection.execute(_CONSTRAINTS, [_BIG]).fetchall()
    for relation, name, _ in constraints:
        connection.execute(
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(sql.Identifier(relation), sql.Identifier(name))
        )
    for name, _ in indexes:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    yield
    again = [definition for _, definition in indexes]
    again += [f'ALTER TABLE {relation} ADD CONSTRAINT "{name}" {rule}' for relation, name, rule in constraints]
    with _noted(took, "indexes"):
        for done, statement in enumerate(again, start=1):
            connection.execute(statement.encode())
            on_progress("indexes", done / len(again))


@contextmanager
def _noted(took: dict[str, float], what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    took[what] = round(time.perf_counter() - started, 1)


def _instant(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


def _array(values: Iterable[object]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


def _json(value: object) -> str:
    return to_json(value).decode()


def _truth(value: object) -> str:
    return "t" if value else "f"


@dataclass
class _Life:
    """What becomes of a request, as columns of its row."""

    status: Status = Status.PENDING
    escalated_at: float | None = None
    admins_decide: bool = False
    notified: list[_Person] = field(default_factory=list)
    decided_by: Text = None
    decided_at: float | None = None
    comment: Text = None
    expires_at: float | None = None
    ended_by: Text = None
    ended_at: float | None = None


@dataclass(frozen=True)
class _Asked:
    """A request as it was submitted."""

    id: str
    at: float
    template: _Template
    requester: _Person
    minutes: int


class _Company:
    """Makes the rows. Moments are seconds of the epoch."""

    def __init__(self, chance: random.Random, tables: dict[str, _Rows], seed: int, requests: int, now: float) -> None:
        self._chance = chance
        self._tables = tables
        self._seed = seed
        self._requests = requests
        self._now = now
        self._start = now - _SPAN
        # As many requests a head, whatever the size: what one person has does not grow with the company.
        self._people_count = max(60, requests // 50)
        self._people: list[_Person] = []
        self._admins: list[_Person] = []
        self._templates: list[_Template] = []
        self._timeline: list[tuple[float, int, tuple[Text, ...]]] = []
        self._entries = 0
        self._waiting: set[tuple[str, str]] = set()

    def furnish(self) -> None:
        """The directory and the templates."""
        self._hire()
        staff = [person for person in self._people if person.until == math.inf and person.id == person.principal]
        count = max(3, len(staff) // 200)
        departments = self._groups("department", staff, count, len(staff) // count)
        teams = self._groups("team", staff, max(8, len(staff) // 25), 8)
        self._admins = staff[:5]
        self._group(_Group(self._id(), f"administrators-{self._seed}", self._admins, tuple(Permission)))
        applications = [self._application(number, departments + teams) for number in range(max(8, len(staff) // 150))]
        for number in range(max(20, self._requests // 2500)):
            self._template(number, applications, teams)

    def history(self, unanswered: float) -> Iterator[int]:
        """Requests in the order in which they came; at each step, how many there are."""
        popular = list(accumulate(1 / (rank + 5) for rank in range(len(self._templates))))
        for number in range(self._requests):
            # More each year.
            at = self._start + _SPAN * ((number + self._chance.random()) / (self._requests + 1)) ** 0.8
            self._request(at, popular, unanswered)
            if (number + 1) % _CHUNK == 0 and number + 1 < self._requests:
                self._flush_timeline(at)
                yield number + 1
        self._flush_timeline(math.inf)
        yield self._requests

    def _id(self) -> str:
        return str(UUID(int=self._chance.getrandbits(128), version=4))

    def _hire(self) -> None:
        chance, users = self._chance, self._tables["users"]
        for number in range(self._people_count):
            first, last = chance.choice(_FIRST), chance.choice(_LAST)
            since = self._start + _SPAN * max(-0.5, chance.uniform(-1, 0.9))
            until, domain, owner = math.inf, f"seed-{self._seed}.example", None
            if number % 33 == 7:  # noqa: PLR2004 - a share
                since, until, domain = self._start - _DAY, self._start + _SPAN / 3, BOUGHT
            elif number % 12 == 5:  # noqa: PLR2004
                since, until = self._start, self._start + _SPAN * chance.uniform(0.2, 0.85)
            elif number % 50 == 49:  # noqa: PLR2004
                owner = next(person for person in self._people if person.until == math.inf)
                first, last = "bot", owner.name.split()[1].lower()
            person_id = self._id()
            email = f"{first}.{last}.{number}@{domain}"
            if domain == BOUGHT:
                email = f"{first}.{last}.{number}.{self._seed}@{domain}"
            name = f"{first} {last}".title()
            principal = person_id if owner is None else owner.id
            self._people.append(_Person(person_id, email, name, principal, since, until))
            active = _truth(until == math.inf)
            users.add(person_id, email, name, active, None if owner is None else owner.id, _instant(since))
            if number % 3 == 0:
                self._token(person_id, since)

    def _token(self, person_id: str, since: float) -> None:
        made = self._chance.uniform(max(since, self._now - 90 * _DAY), self._now)
        used = self._chance.uniform(made, self._now)
        self._tables["api_tokens"].add(
            self._id(),
            person_id,
            "laptop",
            f"\\\\x{self._chance.randbytes(32).hex()}",
            f"{tokens.PREFIX}{self._chance.randbytes(2).hex()}",
            _instant(made + 90 * _DAY),
            _instant(used),
            _instant(used) if self._chance.random() < 0.2 else None,  # noqa: PLR2004
            _instant(made),
        )

    def _groups(self, what: str, staff: list[_Person], count: int, size: int) -> list[_Group]:
        made = []
        for number in range(count):
            members = self._chance.sample(staff, min(len(staff), self._chance.randint(size * 3 // 4, size * 5 // 4)))
            name = f"{self._chance.choice(_SYSTEMS)}-{what}-{number}-{self._seed}"
            made.append(self._group(_Group(self._id(), name, members)))
        return made

    def _group(self, group: _Group) -> _Group:
        since = _instant(self._start)
        permissions = _array(group.permissions)
        self._tables["groups"].add(group.id, group.name, "", permissions, "f", None, None, since)
        for person in group.members:
            self._tables["group_members"].add(group.id, person.id, _instant(max(person.since, self._start)))
        return group

    def _application(self, number: int, groups: list[_Group]) -> _Application:
        made, since = self._id(), _instant(self._start)
        name = f"{self._chance.choice(_SYSTEMS)}-{number}-{self._seed}"
        self._tables["applications"].add(made, name, "", f"app-{made}", since)
        mappings = []
        for value in ("reader", "writer", "operator", "owner"):
            mapping = GrantedMapping(id=UUID(self._id()), name=f"{value} role", claim="roles", value=value)
            self._tables["app_mappings"].add(str(mapping.id), made, mapping.name, mapping.claim, mapping.value, since)
            for group in self._chance.sample(groups, 2):
                self._tables["app_mapping_groups"].add(str(mapping.id), group.id)
            mappings.append(mapping)
        return _Application(made, name, mappings)

    def _template(self, number: int, applications: list[_Application], teams: list[_Group]) -> None:
        chance = self._chance
        app = chance.choice(applications)
        mappings = app.mappings[: chance.randint(1, 3)]
        first, second, escalation = chance.sample(teams, 3)
        auto, by_admins = number % 10 == 3, number % 20 == 11  # noqa: PLR2004 - shares
        approvers = [] if by_admins else [first, second][: chance.randint(1, 2)]
        escalates = not auto and not by_admins and chance.random() < 0.5  # noqa: PLR2004
        values = TemplateValues.model_validate(
            {
                "name": f"{app.name}, {mappings[-1].value}, {number}",
                "description": "For work on incidents and exports. Say what you need it for, and for how long.",
                "app_id": app.id,
                "mapping_ids": [mapping.id for mapping in mappings],
                "allowed_durations": [1440, 10_080, 43_200] if number % 20 == 9 else [60, 240, 480, 1440],  # noqa: PLR2004
                "approver_group_ids": [group.id for group in approvers],
                "auto_approve": auto,
                "notification_policy": chance.choice(list(NotificationPolicy)),
                "notification_count": chance.randint(1, 3),
                "escalation_after_mins": chance.choice([30, 60, 240]) if escalates else None,
                "escalation_group_id": escalation.id if escalates else None,
                "custom_fields": [{"label": "Ticket", "type": "text"}] if number % 4 == 1 else [],
            }
        )
        template = _Template(
            id=self._id(),
            values=values,
            app=app,
            snapshot=_json(Snapshot(**values.model_dump(), mappings=mappings)),
            mapping_ids=_array(values.mapping_ids),
            approvers=[person for group in approvers for person in group.members] or self._admins,
            escalation=escalation.members if escalates else [],
            since=self._start + (0 if number % 3 else _SPAN * chance.uniform(0, 0.8)),
            until=self._start + _SPAN * 0.8 if number % 25 == 14 else math.inf,  # noqa: PLR2004
        )
        self._templates.append(template)
        if template.deleted:
            return
        sent = values.model_dump(mode="json")
        columns = [_json(value) if name == "custom_fields" else _column(value) for name, value in sent.items()]
        since = _instant(template.since)
        self._tables["access_request_templates"].add(template.id, *columns, since, since)

    def _request(self, at: float, popular: list[float], unanswered: float) -> None:
        chance = self._chance
        template, requester = self._who_asks_for_what(at, popular)
        minutes = chance.choice(template.values.allowed_durations)
        asked = _Asked(self._id(), at, template, requester, minutes)
        forgotten = at > self._now - 90 * _DAY and chance.random() < unanswered
        life = self._live(asked, forgotten=forgotten)
        if life.status is Status.PENDING:
            self._waiting.add((template.id, requester.id))
        elif life.status is Status.APPROVED:
            self._grant(asked, life)
        if not template.values.auto_approve and chance.random() < 0.2:  # noqa: PLR2004 - a share
            self._talk(asked, life)
        self._row(asked, life)

    def _who_asks_for_what(self, at: float, popular: list[float]) -> tuple[_Template, _Person]:
        chance, people = self._chance, self._people
        while True:
            template = self._templates[bisect(popular, chance.random() * popular[-1])]
            requester = people[int(len(people) * chance.random() ** 1.3)]
            if (
                template.since <= at <= template.until
                and requester.since <= at <= requester.until
                and (template.id, requester.id) not in self._waiting
            ):
                return template, requester

    def _live(self, asked: _Asked, *, forgotten: bool) -> _Life:
        """What becomes of a request until now, with its timeline."""
        chance, values, now = self._chance, asked.template.values, self._now
        life = _Life(admins_decide=not values.approver_group_ids)
        if values.auto_approve:
            self._say(asked, asked.at, Event.SUBMITTED, asked.requester.email, {"notified": []}, "created", notified=[])
            return self._decided(asked, life, SystemActor.AUTO, asked.at + chance.uniform(0.2, 2), approves=True)
        count = len(asked.template.approvers) if values.notification_policy == "all" else values.notification_count
        life.notified = [each for each in asked.template.approvers if each.principal != asked.requester.principal]
        life.notified = list({person.id: person for person in life.notified}.values())[:count]
        self._say(
            asked,
            asked.at,
            Event.SUBMITTED,
            asked.requester.email,
            {"notified": [person.id for person in life.notified]},
            "created",
            notified=[person.email for person in life.notified],
        )
        wait = min(chance.lognormvariate(math.log(25 * _MINUTE), 1.6), 10 * _DAY)
        decided_at = math.inf if forgotten else asked.at + wait
        if values.escalation_after_mins is not None:
            due = asked.at + values.escalation_after_mins * _MINUTE
            if due < min(decided_at, now):
                self._escalate(asked, life, due)
        if chance.random() < 0.01:  # noqa: PLR2004 - a share
            self._refuse(asked, chance.uniform(asked.at, min(decided_at, now)))
        if decided_at > now:
            return life
        return self._ended_or_decided(asked, life, decided_at)

    def _ended_or_decided(self, asked: _Asked, life: _Life, at: float) -> _Life:
        outcome = self._chance.random()
        if outcome < 0.08:  # noqa: PLR2004 - shares, as those below
            life.status, life.ended_by, life.ended_at = Status.REVOKED, asked.requester.email, at
            self._say(asked, at, Event.REVOKED, asked.requester.email, {"channel": "update", "cancelled": True})
            return life
        others = [each for each in life.notified if each.principal != asked.requester.principal]
        decider = self._chance.choice(others)
        if outcome < 0.085:  # noqa: PLR2004
            admin = next(each for each in self._admins if each.principal != asked.requester.principal)
            life.status = Status.REVOKED
            life.decided_by = life.ended_by = admin.email
            life.decided_at = life.ended_at = at
            self._say(asked, at, Event.REVOKED, admin.email, {"channel": "update", "cancelled": False})
            return life
        return self._decided(asked, life, decider.email, at, approves=outcome > 0.2)  # noqa: PLR2004

    def _decided(self, asked: _Asked, life: _Life, actor: str, at: float, *, approves: bool) -> _Life:
        chance, key = self._chance, None
        detail: dict[str, Any] = {"channel": "update"}
        if actor == SystemActor.AUTO:
            detail, key = {"channel": "system"}, "auto"
        elif chance.random() < 0.3:  # noqa: PLR2004 - a share
            life.comment = detail["comment"] = "For the incident only." if approves else "Use the replica instead."
        life.decided_by, life.decided_at = actor, at
        if not approves:
            life.status, life.ended_by, life.ended_at = Status.DENIED, actor, at
            self._say(asked, at, Event.DENIED, actor, detail, decided_by=actor)
            return life
        life.status, life.expires_at = Status.APPROVED, at + asked.minutes * _MINUTE
        detail["expires_at"] = _instant(life.expires_at)
        self._say(asked, at, Event.APPROVED, actor, detail, key, decided_by=actor)
        revoked_at = chance.uniform(at, life.expires_at) if chance.random() < 0.07 else math.inf  # noqa: PLR2004
        if revoked_at <= self._now:
            life.status, life.ended_by, life.ended_at = Status.REVOKED, asked.requester.email, revoked_at
            self._say(asked, revoked_at, Event.REVOKED, asked.requester.email, {"channel": "update"})
        elif life.expires_at <= self._now:
            life.status, life.ended_by, life.ended_at = Status.EXPIRED, SystemActor.EXPIRY, life.expires_at
            self._say(asked, life.expires_at, Event.EXPIRED, SystemActor.EXPIRY, {"channel": "system"}, "expire")
        return life

    def _escalate(self, asked: _Asked, life: _Life, at: float) -> None:
        known = {person.id for person in life.notified}
        told = [
            each
            for each in asked.template.escalation
            if each.id not in known and each.principal != asked.requester.principal
        ]
        life.escalated_at = at
        life.notified = [*life.notified, *told]
        detail = {"channel": "system", "asked": "escalation group", "notified": [person.id for person in told]}
        self._say(asked, at, Event.ESCALATED, SystemActor.ESCALATION, detail, "escalate")

    def _refuse(self, asked: _Asked, at: float) -> None:
        detail = _json({"action": "approve", "code": "forbidden", "reason": "The requester cannot decide."})
        key = f"{asked.id}:{self._id()}"
        self._note(at, asked.id, _instant(at), "refused", asked.requester.email, detail, None, None, key)

    def _say(
        self,
        asked: _Asked,
        at: float,
        event: Event,
        actor: str,
        detail: dict[str, Any],
        key: Text = None,
        *,
        notified: list[str] | None = None,
        decided_by: Text = None,
    ) -> None:
        payload = events.payload(
            event,
            request_id=asked.id,
            template_name=asked.template.values.name,
            requester_email=asked.requester.email,
            notified_approvers=notified,
            decided_by=decided_by,
        )
        self._note(
            at,
            asked.id,
            _instant(at),
            event.removeprefix("access_request."),
            actor,
            _json(detail),
            event,
            _json(payload),
            f"{asked.id}:{key or self._id()}",
        )

    def _note(self, at: float, *values: Text) -> None:
        self._entries += 1
        heapq.heappush(self._timeline, (at, self._entries, values))

    def _flush_timeline(self, until: float) -> None:
        """Entries in the order in which they were written, so that those of a request do not lie side by side."""
        timeline = self._tables["access_request_timeline"]
        while self._timeline and self._timeline[0][0] <= until:
            timeline.add(*heapq.heappop(self._timeline)[2], "t")

    def _grant(self, asked: _Asked, life: _Life) -> None:
        group, expires_at = str(temporary_group_id(UUID(self._id()))), _instant(life.expires_at or 0)
        name = temporary_group_name(UUID(asked.id))
        since = _instant(life.decided_at or 0)
        description = f"{asked.template.values.name}, granted for {asked.minutes} minutes"
        self._tables["groups"].add(group, name, description, "{}", "t", asked.id, expires_at, since)
        self._tables["group_members"].add(group, asked.requester.id, since)
        for mapping_id in asked.template.values.mapping_ids:
            self._tables["app_mapping_groups"].add(str(mapping_id), group)

    def _talk(self, asked: _Asked, life: _Life) -> None:
        until = min(life.decided_at or life.ended_at or self._now, self._now)
        speakers = [asked.requester, life.notified[0]]
        moments = sorted(self._chance.uniform(asked.at, until) for _ in range(self._chance.randint(1, 4)))
        for turn, at in enumerate(moments, start=1):
            self._tables["access_request_messages"].add(
                self._id(), asked.id, speakers[turn % 2].id, self._chance.choice(_LINES), _instant(at)
            )

    def _row(self, asked: _Asked, life: _Life) -> None:
        template, values = asked.template, asked.template.values
        repeatable = self._chance.random() < 0.1  # noqa: PLR2004 - a share
        answers = {question.key: f"OPS-{self._chance.randint(1, 99_999)}" for question in values.custom_fields}
        escalates_at = None
        if values.escalation_after_mins is not None:
            escalates_at = _instant(asked.at + values.escalation_after_mins * _MINUTE)
        self._tables["access_requests"].add(
            asked.id,
            life.status,
            None if template.deleted else template.id,
            values.name,
            template.app.id,
            template.app.name,
            asked.requester.id,
            str(asked.minutes),
            self._chance.choice(_REASONS),
            _json(answers),
            template.snapshot,
            template.mapping_ids,
            _array(values.approver_group_ids),
            None if values.escalation_group_id is None else str(values.escalation_group_id),
            _truth(life.admins_decide),
            _array(person.id for person in life.notified),
            escalates_at,
            _optional(life.escalated_at),
            life.decided_by,
            _optional(life.decided_at),
            life.comment,
            _optional(life.expires_at),
            life.ended_by,
            _optional(life.ended_at),
            self._id() if repeatable else None,
            f"\\\\x{self._chance.randbytes(32).hex()}" if repeatable else None,
            None,
            _instant(asked.at),
        )


def _optional(moment: float | None) -> Text:
    return None if moment is None else _instant(moment)


def _column(value: Any) -> Text:  # noqa: ANN401 - a template's values are of any type
    match value:
        case None:
            return None
        case bool():
            return _truth(value)
        case list():
            return _array(value)
        case _:
            return str(value)


def main() -> None:
    """`python -m bench.populate`."""
    parser = argparse.ArgumentParser(prog="python -m bench.populate", description=__doc__)
    parser.add_argument("--database-url", required=True, help="a migrated database: postgresql://…")
    parser.add_argument("--requests", type=int, default=1_000_000, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="what is made up (%(default)s)")
    parser.add_argument("--beside", action="store_true", help="go on where the database is not empty")
    options = parser.parse_args()
    try:
        done = populate(
            options.database_url,
            requests=options.requests,
            seed=options.seed,
            beside=options.beside,
            on_progress=show_progress,
        )
    except NotEmpty as error:
        parser.exit(1, f"{error} Name an empty one, or say --beside.\n")
    for table, count in done.rows.items():
        sys.stdout.write(f"{table:<28}{count:>12,}\n")
    sys.stdout.write(", ".join(f"{what} {seconds} s" for what, seconds in done.took.items()) + "\n")


def show_progress(what: str, share: float) -> None:
    """One line that is written over, where people look; elsewhere nothing but the end of each part."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{what} {share:4.0%}   " + ("\n" if share >= 1 else ""))
    elif share >= 1:
        sys.stderr.write(f"{what} done\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
