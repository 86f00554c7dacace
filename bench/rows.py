"""`make bench-rows`: what reading costs in a big record as a ratio to a small one; prints a table, writes JSON.

Both records lie in one PostgreSQL server, each behind an API process of its own, and are asked in turn, so that both
meet the same machine. Every line of the table cycles through several people, templates and requests. What one person
has, and what a page holds, is about the same in both; what grows is the history, the company and what is open.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from activities import processes
from api.app import create_app
from bench.load import Connection, Timings
from bench.populate import BOUGHT, NotEmpty, populate, show_progress
from bench.servers import process, wait_for
from bench.statements import ask_each, print_table, some_ids
from cli.dev import PostgresServer
from cli.dev.program import free_port
from db import migrate, people, submission, tokens
from db.database import Database
from db.paging import Page, Position
from domain.submission import Submission
from settings import Settings

TARGET: Final = 3.0
"""How much longer the big record may take."""
_LIMIT: Final = 20
_SECRET: Final = "a secret that lives as long as the benchmark"
_BIN: Final = Path(sys.executable).parent
_STATUSES: Final = (None, "pending", "approved", "denied", "expired", "revoked")
_CLAIMED: Final = 20
"""Requests that ask for attention at once."""
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"

Step = Callable[[], Awaitable[int]]
"""Does one thing, whose time is taken, and says how many rows it had to do with."""


@dataclass
class Record:
    """One of the two records, and whom and what to ask it about."""

    name: str
    url: str
    api_port: int = field(default_factory=free_port)
    http: Connection = field(init=False)
    db: Database = field(init=False)
    took: dict[str, float] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    admin: str = ""
    askers: list[tuple[UUID, str]] = field(default_factory=list)
    """People who asked for much: ids and tokens."""
    approvers: list[str] = field(default_factory=list)
    """Tokens of people whom somebody waits for."""
    requests: list[UUID] = field(default_factory=list)
    templates: dict[str, UUID] = field(default_factory=dict)
    emails: dict[str, str] = field(default_factory=dict)
    clients: list[str] = field(default_factory=list)
    waiting: list[tuple[str, UUID]] = field(default_factory=list)
    """Who waits for which template: tokens and ids."""
    teams: list[UUID] = field(default_factory=list)
    cursors: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, token: str) -> int:
        """The rows on a page."""
        answer = (await self.http.call("GET", f"/api/v1{path}", token)).json()
        return len(answer["items"]) if "items" in answer else 1


@dataclass(frozen=True)
class Line:
    """One line of the table: what was asked, and how long each record took, in milliseconds."""

    what: str
    p50: tuple[float, float]
    p95: tuple[float, float]
    rows: tuple[float, float]
    """On an average page."""

    @property
    def ratio(self) -> float:
        """Of the typical call."""
        return self.p50[1] / self.p50[0]

    @property
    def tail(self) -> float:
        """Of the slowest twentieth."""
        return self.p95[1] / self.p95[0]

    @property
    def met(self) -> bool:
        """Whether the typical call is within the target."""
        return self.ratio <= TARGET


Question = Callable[[Record], Iterator[Step]]
"""The calls of one line, as many as are wanted."""


def main() -> None:
    """`python -m bench.rows`."""
    options = _options()
    asyncio.run(_measure(options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.rows", description=__doc__)
    parser.add_argument("--small", type=int, default=10_000, help="requests of the small record (%(default)s)")
    parser.add_argument("--big", type=int, default=1_000_000, help="requests of the big one (%(default)s)")
    parser.add_argument("--calls", type=int, default=200, help="calls for each line and record (%(default)s)")
    parser.add_argument(
        "--directory", type=Path, help="where the server and its records are kept, and found again by the next run"
    )
    parser.add_argument("--only", default="", help="lines with this in their name")
    parser.add_argument("--json", type=Path, default=Path("bench-rows.json"), help="where the results are written")
    return parser.parse_args()


async def _measure(options: argparse.Namespace) -> None:
    directory = options.directory or Path(tempfile.mkdtemp(prefix="bench-rows-"))
    async with _records(directory, {"small": options.small, "big": options.big}) as (small, big):
        _print_line("", (f"{small.counted['access_requests']:,}", f"{big.counted['access_requests']:,}"))
        lines = []
        for what, question in _questions().items():
            if options.only in what:
                lines.append(await _line(what, question, small, big, options.calls))
                _print(lines[-1])
        worst = await _combinations(small, big, options.calls // 10) if not options.only else []
        report = {
            "measured_at": datetime.now(UTC).isoformat(),
            "machine": _machine(small),
            "rows": {record.name: record.counted for record in (small, big)},
            "populated_in_secs": {record.name: record.took for record in (small, big)},
            "statements": await _statements(big),
            "lines": [_as_json(line) for line in lines],
            "combinations": [_as_json(line) for line in worst],
        }
    options.json.write_text(json.dumps(report, indent=1))
    sys.stdout.write(f"\n{report['machine']}\nWritten to {options.json}\n")


def _as_json(line: Line) -> dict[str, Any]:
    return vars(line) | {"ratio": line.ratio, "ratio_p95": line.tail, "met": line.met}


@asynccontextmanager
async def _records(directory: Path, sizes: dict[str, int]) -> AsyncIterator[list[Record]]:
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(directory / "postgres"))
        records = []
        for name, requests in sizes.items():
            postgres.create_database(name)
            record = Record(name, postgres.url(name))
            migrate.upgrade(record.url)
            try:
                record.took = populate(record.url, requests=requests, on_progress=show_progress).took
            except NotEmpty:
                sys.stderr.write(f"The {name} record is there already.\n")
            records.append(record)
        for record in records:
            environment = os.environ | {
                "JUSTIAM_DATABASE_URL": record.url,
                # Nobody listens there, and nothing that is measured asks.
                "JUSTIAM_TEMPORAL_ADDRESS": "127.0.0.1:1",
                "JUSTIAM_SECRET_KEY": _SECRET,
                "JUSTIAM_API_PORT": str(record.api_port),
                "JUSTIAM_LOG_LEVEL": "warning",
            }
            stack.enter_context(process([str(_BIN / "justiam"), "api"], environment))
        await wait_for(*(record.api_port for record in records))
        for record in records:
            record.http = await stack.enter_async_context(Connection(record.api_port))
            record.db = await stack.enter_async_context(Database(record.url))
            await _pick(record)
        yield records


async def _pick(record: Record) -> None:
    """Choose whom and what to ask about: the same choice in the same record."""
    with psycopg.connect(record.url, autocommit=True, row_factory=dict_row) as connection:

        def rows(statement: str) -> list[dict[str, Any]]:
            return connection.execute(statement.encode()).fetchall()

        for table in ("users", "access_request_templates", "access_requests", "access_request_timeline"):
            record.counted[table] = rows(f"SELECT count(*) AS n FROM {table}")[0]["n"]  # noqa: S608 - named above
        record.counted["open requests"] = rows(_OPEN)[0]["n"]
        askers, approvers, waiting = rows(_ASKERS), rows(_APPROVERS), rows(_WAITING)
        record.requests = [row["id"] for row in rows("SELECT id FROM access_requests ORDER BY md5(id::text) LIMIT 40")]
        record.templates = {row["kind"]: row["id"] for row in rows(_TEMPLATES)}
        record.clients = [row["client_id"] for row in rows("SELECT client_id FROM applications ORDER BY id LIMIT 8")]
        record.teams = [row["id"] for row in rows("SELECT id FROM groups WHERE NOT system ORDER BY id LIMIT 10")]
        record.cursors = {
            "middle": _cursor(*_row_at(rows, record.counted["access_requests"] // 2)),
            "end": _cursor(*_row_at(rows, record.counted["access_requests"] - 2 * _LIMIT)),
        }
        admin = rows(
            "SELECT m.user_id AS id FROM group_members m JOIN groups g ON g.id = m.group_id"
            " WHERE 'access_requests.manage' = ANY(g.permissions) ORDER BY m.joined LIMIT 1"
        )[0]["id"]

    async def token(user_id: UUID) -> str:
        return (await tokens.create_token(record.db, user_id, "bench", timedelta(days=1))).token

    record.admin = await token(admin)
    record.askers = [(row["id"], await token(row["id"])) for row in askers]
    record.approvers = [await token(row["id"]) for row in approvers]
    record.waiting = [(await token(row["requester_id"]), row["template_id"]) for row in waiting]
    record.emails = {
        "nobody": "nobody@",
        "one person": askers[0]["email"],
        "a first name": "maria.",
        "people who left": BOUGHT,
        "everybody": "example",
    }


_OPEN: Final = "SELECT count(*) AS n FROM access_requests WHERE status IN ('pending', 'approved')"
_ASKERS: Final = """
    SELECT u.id, u.email FROM users u WHERE u.active AND u.owner_id IS NULL
    AND (SELECT count(*) FROM access_requests r WHERE r.requester_id = u.id) BETWEEN 50 AND 150
    ORDER BY md5(u.email) LIMIT 10
"""
_APPROVERS: Final = """
    SELECT m.user_id AS id, count(*)
    FROM access_requests r JOIN group_members m ON m.group_id = ANY(r.approver_group_ids)
    WHERE r.status = 'pending' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10
"""
_WAITING: Final = """
    SELECT DISTINCT ON (r.template_id) r.template_id, r.requester_id
    FROM access_requests r WHERE r.status = 'pending' ORDER BY r.template_id, r.id LIMIT 10
"""
_TEMPLATES: Final = """
    WITH counted AS (
        SELECT t.id, t.auto_approve, (SELECT count(*) FROM access_requests r WHERE r.template_id = t.id) AS n
        FROM access_request_templates t
    )
    (SELECT 'popular' AS kind, id FROM counted WHERE NOT auto_approve ORDER BY n DESC LIMIT 1) UNION ALL
    (SELECT 'auto-approved', id FROM counted WHERE auto_approve ORDER BY n DESC LIMIT 1) UNION ALL
    (SELECT 'rare', id FROM counted ORDER BY n LIMIT 1)
"""


def _row_at(rows: Callable[[str], list[dict[str, Any]]], offset: int) -> tuple[datetime, UUID]:
    found = rows(f"SELECT created_at, id FROM access_requests ORDER BY 1 DESC, 2 DESC OFFSET {offset} LIMIT 1")  # noqa: S608
    return found[0]["created_at"], found[0]["id"]


def _cursor(moment: datetime, row_id: UUID) -> str:
    """What the page that ends with this row says comes next."""
    page = Page[int].dated([0, 0], Position(limit=1), lambda _: (moment, row_id))
    return page.next_cursor or ""


def _questions() -> dict[str, Question]:
    def paths(make: Callable[[Record], list[tuple[str, str]]]) -> Question:
        def steps(record: Record) -> Iterator[Step]:
            for path, token in cycle(make(record)):
                yield lambda path=path, token=token: record.get(path, token)  # type: ignore[misc]

        return steps

    def listed(*, deep: str = "", **filters: str) -> Question:
        return paths(lambda record: [(path, record.admin) for path in _filtered(record, filters, deep)])

    def mine(suffix: str) -> Question:
        return paths(lambda record: [(f"/access-requests?limit={_LIMIT}{suffix}", token) for _, token in record.askers])

    def of_requests(suffix: str) -> Question:
        return paths(lambda record: [(f"/access-requests/{each}{suffix}", record.admin) for each in record.requests])

    questions: dict[str, Question] = {
        "all": listed(),
        "all, deep: middle": listed(deep="middle"),
        "all, deep: end": listed(deep="end"),
    }
    for status in _STATUSES[1:]:
        questions[f"all, status={status}"] = listed(status=status or "")
        questions[f"all, status={status}, deep: middle"] = listed(status=status or "", deep="middle")
    for template in ("popular", "auto-approved", "rare"):
        questions[f"all, template: {template}"] = listed(template=template)
    questions["all, template: popular, deep: middle"] = listed(template="popular", deep="middle")
    for requester in ("nobody", "one person", "a first name", "people who left", "everybody"):
        questions[f"all, requester: {requester}"] = listed(requester=requester)
    questions |= {
        "all, status and template": listed(status="*", template="*"),
        "all, status and requester": listed(status="*", requester="*"),
        "all, template and requester": listed(template="*", requester="*"),
        "all, status, template and requester": listed(status="*", template="*", requester="*"),
        "all, three filters, deep: middle": listed(status="*", template="*", requester="*", deep="middle"),
        "mine": mine(""),
        "mine, deep: middle": paths(
            lambda record: [
                (f"/access-requests?limit={_LIMIT}&cursor={quote(record.cursors['middle'])}", token)
                for _, token in record.askers
            ]
        ),
        "pending, an approver": paths(
            lambda record: [(f"/access-requests/pending?limit={_LIMIT}", token) for token in record.approvers]
        ),
        "pending, somebody whom nobody asks": paths(
            lambda record: [(f"/access-requests/pending?limit={_LIMIT}", token) for _, token in record.askers]
        ),
        "pending, an administrator": paths(lambda record: [(f"/access-requests/pending?limit={_LIMIT}", record.admin)]),
        "one request": of_requests(""),
        "timeline": of_requests("/timeline"),
        "discussion": of_requests("/messages"),
        "who am I": paths(lambda record: [("/users/me", token) for _, token in record.askers]),
        "mapping values": paths(_mapping_values),
        "users": paths(lambda record: [(f"/users?limit={_LIMIT}", record.admin)]),
        "users, email: a first name": paths(lambda record: [(f"/users?limit={_LIMIT}&email=maria.", record.admin)]),
        "groups": paths(lambda record: [(f"/groups?limit={_LIMIT}", record.admin)]),
        "members of a group": paths(
            lambda record: [(f"/groups/{team}/members?limit={_LIMIT}", record.admin) for team in record.teams]
        ),
        "templates": paths(lambda record: [(f"/access-request-templates?limit={_LIMIT}", record.admin)]),
        "API tokens, everybody's": paths(lambda record: [(f"/api-tokens?all=true&limit={_LIMIT}", record.admin)]),
        "token exchange": _exchanges,
        "submission, refused: one is pending": _second_submissions,
        "submission, written": _submissions,
        "claim of attention, nothing to do": _idle_claims,
        f"claim of attention, {_CLAIMED} to tell": _claims,
    }
    return questions


def _filtered(record: Record, filters: dict[str, str], deep: str = "") -> list[str]:
    """The paths of the list of all; a `*` stands for each value in turn."""
    statuses = _STATUSES[1:] if filters.get("status") == "*" else [filters.get("status")]
    templates: list[str | None] = [*record.templates] if filters.get("template") == "*" else [filters.get("template")]
    requesters: list[str | None] = [*record.emails] if filters.get("requester") == "*" else [filters.get("requester")]
    made = []
    for status, template, requester in product(statuses, templates, requesters):
        query = {
            "limit": str(_LIMIT),
            "status": status,
            "template_id": None if template is None else str(record.templates[template]),
            "requester": None if requester is None else record.emails[requester],
            "cursor": record.cursors.get(deep),
        }
        made.append("/access-requests/all?" + urlencode({name: value for name, value in query.items() if value}))
    return made


def _mapping_values(record: Record) -> list[tuple[str, str]]:
    with psycopg.connect(record.url) as connection:
        apps = connection.execute("SELECT id FROM applications ORDER BY id LIMIT 5").fetchall()
    return [
        (f"/users/{user_id}/mapping-values?app_id={app_id}", token)
        for (user_id, token), (app_id,) in product(record.askers, apps)
    ]


def _exchanges(record: Record) -> Iterator[Step]:
    for (_, token), client in cycle(product(record.askers, record.clients)):
        sent = {
            "grant_type": _EXCHANGE,
            "subject_token": token,
            "subject_token_type": _TOKEN_TYPE,
            "audience": client,
        }

        async def exchange(sent: dict[str, str] = sent) -> int:
            (await record.http.call("POST", "/oauth2/token", form=urlencode(sent))).json()
            return 1

        yield exchange


def _second_submissions(record: Record) -> Iterator[Step]:
    for token, template_id in cycle(record.waiting):
        sent = {"template_id": str(template_id), "requested_duration_mins": 1440, "justification": "again"}

        async def refused(token: str = token, sent: dict[str, object] = sent) -> int:
            answer = await record.http.call("POST", "/api/v1/access-requests", token, sent)
            if b"pending_request_exists" not in answer.body:
                raise RuntimeError(f"{answer.status}: {answer.body.decode()}")
            return 0

        yield refused


def _submissions(record: Record) -> Iterator[Step]:
    """By the function of the product: over HTTP, Temporal would be asked to start a workflow."""
    with psycopg.connect(record.url) as connection:
        pairs = connection.execute(
            """
            SELECT u.id, t.id, t.allowed_durations[1] FROM access_request_templates t, LATERAL (
                SELECT id FROM users WHERE active AND owner_id IS NULL AND NOT EXISTS (
                    SELECT FROM access_requests r
                    WHERE r.requester_id = users.id AND r.template_id = t.id AND r.status = 'pending')
                ORDER BY md5(id::text || t.id::text) LIMIT 40
            ) u
            WHERE t.custom_fields = '[]' ORDER BY md5(u.id::text) LIMIT 400
            """
        ).fetchall()
    for user_id, template_id, minutes in pairs:
        sent = Submission(template_id=template_id, requested_duration_mins=minutes, justification="an incident")

        async def submit(user_id: UUID = user_id, sent: Submission = sent) -> int:
            async with record.db.connection() as connection:
                person = await people.find(connection, str(user_id))
            if person is None:
                raise RuntimeError(f"{user_id} is gone")
            await submission.submit(record.db, person, sent, longest_mins=525_600)
            return 1

        yield submit


def _idle_claims(record: Record) -> Iterator[Step]:
    _attend(record, 0)
    while True:
        yield lambda: _claim(record)


def _claims(record: Record) -> Iterator[Step]:
    while True:
        _attend(record, _CLAIMED)
        yield lambda: _claim(record)


async def _claim(record: Record) -> int:
    return len(await processes._claim_attention(record.db))  # noqa: SLF001 - `attend` would go on to tell Temporal


def _attend(record: Record, due: int) -> None:
    """Let so many open requests, and no others, ask for attention."""
    with psycopg.connect(record.url) as connection:
        connection.execute("UPDATE access_requests SET attention_at = NULL WHERE attention_at IS NOT NULL")
        connection.execute(
            """
            UPDATE access_requests SET attention_at = now() - interval '1 second' WHERE id IN (
                SELECT id FROM access_requests WHERE status IN ('pending', 'approved') ORDER BY id LIMIT %s)
            """,
            [due],
        )


async def _line(what: str, question: Question, small: Record, big: Record, calls: int) -> Line:
    sides = [(iter(question(record)), Timings()) for record in (small, big)]
    seen: list[list[int]] = [[], []]
    for number in range(calls + calls // 4):
        # In turn, so that both meet the same machine.
        for side, (steps, timings) in enumerate(sides):
            step = next(steps)
            rows = await timings.of(step())
            if number < calls // 4:
                # Warming up: caches, connections, prepared statements.
                timings.taken.clear()
            else:
                seen[side].append(rows)
    first, second = (timings for _, timings in sides)
    return Line(
        what,
        p50=(first.quantile(0.5), second.quantile(0.5)),
        p95=(first.quantile(0.95), second.quantile(0.95)),
        rows=(sum(seen[0]) / len(seen[0]), sum(seen[1]) / len(seen[1])),
    )


async def _combinations(small: Record, big: Record, calls: int) -> list[Line]:
    """Each combination of filters by itself; those that grow most."""
    lines = []
    for status, template, requester, deep in product(
        _STATUSES, (None, *small.templates), (None, *small.emails), ("", "middle")
    ):
        filters = {
            name: value
            for name, value in (("status", status), ("template", template), ("requester", requester))
            if value is not None
        }

        def question(record: Record, filters: dict[str, str] = filters, deep: str = deep) -> Iterator[Step]:
            for path in cycle(_filtered(record, filters, deep)):
                yield lambda path=path: record.get(path, record.admin)  # type: ignore[misc]

        what = ", ".join([f"{name}: {value}" for name, value in filters.items()] + ([f"deep: {deep}"] if deep else []))
        lines.append(await _line(what or "none", question, small, big, calls))
    lines.sort(key=lambda line: line.ratio, reverse=True)
    within = sum(line.met for line in lines)
    sys.stdout.write(f"\n{within} of {len(lines)} combinations of filters within {TARGET:g}; those that grow most:\n")
    for line in islice(lines, 10):
        _print(line)
    return lines


async def _statements(record: Record) -> dict[str, int]:
    """How many statements each reading endpoint sends, by the same service in this process."""
    chosen = Settings.model_validate({"database_url": record.url, "secret_key": _SECRET})
    app = create_app(chosen)
    with psycopg.connect(record.url) as connection:
        ids = some_ids(connection)
    async with app.router.lifespan_context(app):
        counts = {asked.endpoint: len(asked.statements) async for asked in ask_each(app, record.admin, ids)}
    sys.stdout.write("\nStatements of each endpoint, who calls included:\n")
    print_table(counts)
    return counts


def _machine(record: Record) -> str:
    with psycopg.connect(record.url) as connection:
        version, buffers = connection.execute(
            "SELECT current_setting('server_version'), current_setting('shared_buffers')"
        ).fetchall()[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, PostgreSQL {version} with shared_buffers {buffers}"
    )


def _print(line: Line) -> None:
    cells = [f"{small:8.2f}{big:9.2f} ms" for small, big in (line.p50, line.p95)]
    rows = f"{line.rows[0]:5.1f}{line.rows[1]:6.1f}"
    verdict = "" if line.met else "  missed"
    _print_line(line.what, (cells[0], f"{line.ratio:5.2f}", cells[1], f"{line.tail:5.2f}", rows + verdict))


def _print_line(what: str, cells: tuple[str, ...]) -> None:
    sys.stdout.write(f"{what:<52}" + "  ".join(cells) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
