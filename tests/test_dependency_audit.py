"""`make audit-dependencies`: what is locked is asked about, by the real pip-audit.

The database cannot be reached from everywhere, so one stands in for it: it answers as OSV's does
(https://google.github.io/osv.dev/post-v1-query/), on this machine.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from cli.dev.program import free_port
from tests.documented import ROOT

LOCKS: Final = [*sorted((ROOT / "requirements").glob("*.txt")), ROOT / "terraform/requirements.txt"]
LEAKY: Final = {
    "schema_version": "1.7.0",
    "id": "PYSEC-2026-1",
    "aliases": ["CVE-2026-12345"],
    "summary": "It leaks",
    "affected": [
        {
            "package": {"name": "leaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.4.2"}]}],
        }
    ],
}


class Osv(ThreadingHTTPServer):
    """A database that knows of one vulnerability, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: set[tuple[str, str]] = set()
        self.broken = False
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1/query"


class _Handler(BaseHTTPRequestHandler):
    server: Osv

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert query["package"]["ecosystem"] == "PyPI"
        self.server.asked.add((query["package"]["name"], query["version"]))
        answer = {"vulns": [LEAKY]} if query["package"]["name"] == "leaky" and query["version"] < "1.4.2" else {}
        body = json.dumps(answer).encode()
        self.send_response(503 if self.server.broken else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[Osv]:
    with Osv() as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        yield server
        server.shutdown()
        serving.join()


class Audits:
    """Audits of one lock, with one file of what is ignored."""

    def __init__(self, directory: Path) -> None:
        self.lock = directory / "lock.txt"
        self.ignored = directory / "ignored.toml"
        self.ignored.touch()

    def locked(self, *pins: str) -> None:
        self.lock.write_text("".join(f"{pin} \\\n    --hash=sha256:{'0' * 64}\n    # via something\n" for pin in pins))

    def ignore(self, vulnerability: str, days: int) -> None:
        until = datetime.now(UTC).date() + timedelta(days=days)
        self.ignored.write_text(f'[[ignored]]\nid = "{vulnerability}"\nreason = "we do not call it"\nuntil = {until}\n')

    def run(self, url: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, ROOT / "requirements/audit.py", "--ignored", self.ignored),
                *(more or ("--lock", self.lock)),
                *("--vulnerability-service=osv", f"--osv-url={url}"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def audits(tmp_path: Path) -> Audits:
    return Audits(tmp_path)


def test_what_is_vulnerable_fails_and_says_which_version_is_not(audits: Audits, osv: Osv) -> None:
    audits.locked("sound==2.0", "leaky==1.4.1")
    audit = audits.run(osv.url)
    assert audit.returncode == 1
    assert re.search(r"leaky 1\.4\.1 has PYSEC-2026-1, fixed in 1\.4\.2 \(.*lock\.txt\)", audit.stdout)
    assert "2 dependencies were asked about, 1 vulnerabilities found" in audit.stdout


def test_what_is_sound_passes(audits: Audits, osv: Osv) -> None:
    audits.locked("sound==2.0", "leaky==1.4.2")
    audit = audits.run(osv.url)
    assert (audit.returncode, audit.stderr) == (0, "")
    assert "2 dependencies were asked about, 0 vulnerabilities found" in audit.stdout


@pytest.mark.parametrize("known_as", ["PYSEC-2026-1", "CVE-2026-12345"])
def test_what_is_ignored_passes_until_its_day(known_as: str, audits: Audits, osv: Osv) -> None:
    audits.locked("leaky==1.4.1")
    audits.ignore(known_as, days=1)
    audit = audits.run(osv.url)
    assert audit.returncode == 0
    assert "0 vulnerabilities found, 1 ignored" in audit.stdout
    audits.ignore(known_as, days=-1)
    audit = audits.run(osv.url)
    assert audit.returncode == 1
    assert f"{known_as} was ignored until" in audit.stdout
    assert "leaky 1.4.1 has PYSEC-2026-1" in audit.stdout


def test_what_is_ignored_for_nothing_is_said(audits: Audits, osv: Osv) -> None:
    audits.locked("leaky==1.4.2")
    audits.ignore("PYSEC-2026-1", days=1)
    audit = audits.run(osv.url)
    assert audit.returncode == 0
    assert "PYSEC-2026-1 is ignored, and nothing has it any more" in audit.stdout


@pytest.mark.parametrize("how", ["nobody listens", "it fails"])
def test_a_database_that_is_away_is_said_loudly_and_fails_nobody(how: str, audits: Audits, osv: Osv) -> None:
    audits.locked("leaky==1.4.1")
    osv.broken = how == "it fails"
    url = osv.url if osv.broken else f"http://127.0.0.1:{free_port()}/v1/query"
    audit = audits.run(url)
    assert audit.returncode == 0
    assert "WARNING: NOTHING WAS ASKED ABOUT VULNERABILITIES" in audit.stderr
    audits.ignore("PYSEC-2026-1", days=-1)
    assert audits.run(url).returncode == 1


def test_what_pip_audit_does_not_take_is_no_database_that_is_away(audits: Audits, osv: Osv) -> None:
    audits.locked("leaky==1.4.1")
    audit = audits.run(osv.url, "--lock", str(audits.lock), "--misspelt")
    assert audit.returncode != 0
    assert "misspelt" in audit.stderr


def test_every_pin_of_every_lock_is_asked_about(audits: Audits, osv: Osv) -> None:
    audits.ignored = ROOT / "requirements/ignored-vulnerabilities.toml"
    audit = audits.run(osv.url, *(f"--lock={lock}" for lock in LOCKS))
    assert (audit.returncode, audit.stderr) == (0, "")
    pinned = {
        (match[1].lower(), match[2])
        for lock in LOCKS
        for line in lock.read_text().splitlines()
        if (match := re.match(r"([\w.-]+)==([\w.+!-]+)", line))
    }
    # Windows' alone, which this is not.
    assert any(name == "colorama" for name, _ in pinned)
    assert {name for name, _ in pinned} > {"uv", "fastapi", "temporalio"}
    assert osv.asked == pinned
