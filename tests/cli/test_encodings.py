"""Bytes that are no text end a command with a sentence, wherever they come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

JUSTIAM = os.fsencode(Path(sys.executable).parent / "justiam")
LATIN = "Störung".encode("latin-1")
UTF_8 = {"LC_ALL": "C.UTF-8", "JUSTIAM_ENDPOINT": "http://localhost:1", "JUSTIAM_TOKEN": "justiam_a-token"}


def run(
    *arguments: bytes, stdin: bytes = b"", environment: dict[str, str] | None = None, **variables: bytes
) -> subprocess.CompletedProcess[bytes]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUSTIAM_")}
    given = {os.fsencode(name): os.fsencode(value) for name, value in (inherited | (environment or UTF_8)).items()}
    given |= {os.fsencode(name): value for name, value in variables.items()}
    return subprocess.run([JUSTIAM, *arguments], input=stdin, capture_output=True, check=False, env=given)


@pytest.mark.parametrize(
    "arguments",
    [
        (b"request", b"submit", b"A template", b"--justification", LATIN),
        (b"request", b"show", LATIN),
        (b"audit", b"export", b"--since", LATIN),
        (b"dev", b"--data-dir", LATIN),
        (LATIN,),
    ],
)
def test_an_argument(arguments: tuple[bytes, ...]) -> None:
    done = run(*arguments)
    number = arguments.index(LATIN) + 1
    said = f"Argument {number} is not UTF-8 text. Set the terminal and its locale to UTF-8.\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", said)


def test_a_variable() -> None:
    done = run(b"migrate", JUSTIAM_DATABASE_URL=LATIN)
    said = "JUSTIAM_DATABASE_URL is not UTF-8 text. Set the terminal and its locale to UTF-8.\n"
    assert (done.returncode, done.stderr.decode()) == (2, said)


def test_standard_input(tmp_path: Path) -> None:
    done = run(b"login", b"--server", b"localhost:1", b"--token-stdin", stdin=LATIN, HOME=os.fsencode(tmp_path))
    said = "What was typed or read is not UTF-8 text. Set the terminal and its locale to UTF-8.\n"
    assert (done.returncode, done.stderr.decode()) == (2, said)


def test_an_export(tmp_path: Path) -> None:
    exported = tmp_path / "log.jsonl"
    exported.write_bytes(LATIN)
    done = run(b"audit", b"verify", b"--exported", os.fsencode(exported))
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr


def test_a_terminal_that_shows_less_is_told_the_rest() -> None:
    done = run(b"settings", environment=UTF_8 | {"PYTHONIOENCODING": "ascii"}, JUSTIAM_MAIL_SENDER="Störung".encode())
    assert b"Traceback" not in done.stderr
    assert b"JUSTIAM_DATABASE_URL" in done.stdout
