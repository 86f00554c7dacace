"""`justiam audit verify` and `justiam audit export`: the audit log as an operator proves it and keeps it elsewhere."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from db import acting, groups
from db.administrators import OPERATOR
from db.database import Database
from domain.directory import GroupValues
from tests.record import SECRET

Justiam = Callable[..., Result]
DANA: Final = "dana@example.com"


@pytest.fixture
def justiam(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Justiam:
    """Runs `justiam audit` on a log of three entries."""
    monkeypatch.setenv("JUSTIAM_DATABASE_URL", database_url)
    monkeypatch.setenv("JUSTIAM_SECRET_KEY", SECRET)
    _make(database_url, "one", "=two", "three")
    return lambda *arguments: CliRunner().invoke(app, ["audit", *arguments])


def _make(database_url: str, *names: str) -> None:
    async def make() -> None:
        async with Database(database_url, max_connections=1) as db:
            with acting.acting(DANA):
                for name in names:
                    await groups.create(db, OPERATOR, GroupValues(name=name))

    asyncio.run(make())


def _tamper(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE audit_log DISABLE TRIGGER USER")
        connection.execute(statement)
        connection.execute("ALTER TABLE audit_log ENABLE TRIGGER USER")


def _anchor(said: str) -> str:
    return said.strip().rpartition(" ")[2]


class TestVerify:
    def test_says_that_all_hold_and_what_to_keep(self, justiam: Justiam, database_url: str) -> None:
        done = justiam("verify")
        assert done.exit_code == 0, done.output
        assert done.output.startswith("3 entries hold.\n")
        anchor = _anchor(done.output)
        assert anchor.startswith("3:")
        _make(database_url, "four")
        again = justiam("verify", "--anchor", anchor)
        assert again.exit_code == 0, again.output
        assert again.output.startswith("4 entries hold.\n")

    @pytest.mark.parametrize(
        ("statement", "said"),
        [
            ("UPDATE audit_log SET entry = replace(entry, 'two', 'too')", "Entry 2 was changed"),
            ("UPDATE audit_log SET at = now() WHERE id = 2", "Entry 2 is listed under another name, number or time"),
            ("UPDATE audit_log SET entry = 'x' WHERE id = 1", "Entry 1 was changed"),
            ("UPDATE audit_log SET entry = 'x', hash = sha256('x') WHERE id = 1", "Entry 1 cannot be read"),
            ("DELETE FROM audit_log WHERE id = 1", "Entry 1 is missing"),
            ("UPDATE audit_log SET id = 0 WHERE id = 3", "Entry 0 has a number that no entry has"),
            ("DELETE FROM audit_log WHERE id = 3", "Entry 3 and those up to 3 are missing"),
        ],
    )
    def test_names_the_first_that_does_not_hold(
        self, justiam: Justiam, database_url: str, statement: str, said: str
    ) -> None:
        anchor = _anchor(justiam("verify").output)
        _tamper(database_url, statement)
        done = justiam("verify", "--anchor", anchor)
        assert done.exit_code == 1
        assert said in done.output
        assert "Traceback" not in done.output

    @pytest.mark.parametrize(
        ("statement", "table"),
        [
            ("ALTER TABLE users DISABLE TRIGGER audit", "users"),
            ("ALTER TABLE secrets DISABLE TRIGGER ALL", "secrets"),
            ("ALTER TABLE secrets ENABLE REPLICA TRIGGER audit", "secrets"),
            ("DROP TRIGGER audit_delete ON group_members", "group_members"),
            ("DROP TRIGGER not_truncated ON groups", "groups"),
            ("ALTER TABLE audit_log DISABLE TRIGGER append_only", "audit_log"),
        ],
    )
    def test_says_where_changes_go_unseen(
        self, justiam: Justiam, database_url: str, statement: str, table: str
    ) -> None:
        with psycopg.connect(database_url) as connection:
            connection.execute(statement)
        done = justiam("verify")
        assert done.exit_code == 1
        assert done.output == (
            "3 entries hold, but changes go unseen now: the triggers are gone or switched off of " + table + ".\n"
        )

    def test_holds_the_log_to_an_export(self, justiam: Justiam, database_url: str, tmp_path: Path) -> None:
        kept = tmp_path / "audit.jsonl"
        kept.write_text(justiam("export").stdout, encoding="utf-8")
        assert justiam("verify", "--exported", str(kept)).exit_code == 0
        _tamper(database_url, "DELETE FROM audit_log")
        _make(database_url, "anew", "and anew", "and again")
        assert justiam("verify").exit_code == 0
        done = justiam("verify", "--exported", str(kept))
        assert done.exit_code == 1
        assert "written anew" in done.output

    @pytest.mark.parametrize(
        "content", [b"", b"\n\n", b"[1]", b"{}", b"\xff\xfe", b'{"id": "x", "hash": 1}', b"no JSON"]
    )
    def test_says_what_is_no_export(self, justiam: Justiam, tmp_path: Path, content: bytes) -> None:
        kept = tmp_path / "other"
        kept.write_bytes(content)
        done = justiam("verify", "--exported", str(kept))
        assert done.exit_code == 1
        assert "is no export of the audit log" in done.output

    @pytest.mark.parametrize("anchor", ["", "3", "3:", "x:ab", "²:ab", ":ab", "-1:ab"])
    def test_says_what_is_no_anchor(self, justiam: Justiam, anchor: str) -> None:
        done = justiam("verify", "--anchor", anchor)
        assert done.exit_code == 1
        assert "An anchor is NUMBER:HASH" in done.output


class TestExport:
    def test_has_every_entry_oldest_first(self, justiam: Justiam) -> None:
        lines = [json.loads(line) for line in justiam("export").stdout.splitlines()]
        assert [(each["id"], each["actor"], each["after"]["name"]) for each in lines] == [
            (1, DANA, "one"),
            (2, DANA, "=two"),
            (3, DANA, "three"),
        ]

    def test_is_a_table_that_no_spreadsheet_calculates_with(self, justiam: Justiam, database_url: str) -> None:
        with psycopg.connect(database_url) as connection:
            connection.execute("SELECT set_config('justiam.actor', '=1+1', false)")
            connection.execute("INSERT INTO groups (id, name, description) VALUES (gen_random_uuid(), 'x', '')")
        rows = list(
            csv.DictReader(io.StringIO(justiam("export", "--format", "csv").stdout.removeprefix("\N{BYTE ORDER MARK}")))
        )
        assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
        assert json.loads(rows[1]["after"])["name"] == "=two"
        assert rows[3]["actor"] == "'=1+1"

    @pytest.mark.parametrize(
        ("options", "ids"),
        [
            (["--since", "2026-01-02"], [2, 3]),
            (["--until", "2026-01-02"], [1]),
            (["--since", "2026-01-01T00:00:01", "--until", "2026-01-03"], [2]),
        ],
    )
    def test_is_of_a_time(self, justiam: Justiam, database_url: str, options: list[str], ids: list[int]) -> None:
        _tamper(database_url, "UPDATE audit_log SET at = '2026-01-01Z'::timestamptz + (id - 1) * interval '1 day'")
        assert [json.loads(line)["id"] for line in justiam("export", *options).stdout.splitlines()] == ids

    @pytest.mark.parametrize("written_as", ["jsonl", "csv"])
    def test_stops_at_what_nobody_can_read(self, justiam: Justiam, database_url: str, written_as: str) -> None:
        _tamper(database_url, "UPDATE audit_log SET entry = 'x' WHERE id = 2")
        done = justiam("export", "--format", written_as)
        assert done.exit_code == 1
        assert "justiam audit verify" in done.stderr
        assert done.exception is None or isinstance(done.exception, SystemExit)
        assert "one" in done.stdout


def test_an_empty_log_holds(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTIAM_DATABASE_URL", database_url)
    monkeypatch.setenv("JUSTIAM_SECRET_KEY", SECRET)
    done = CliRunner().invoke(app, ["audit", "verify"])
    assert (done.exit_code, done.output) == (0, "0 entries hold.\n")
