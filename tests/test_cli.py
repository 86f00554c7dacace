"""The `justiam` command where something is missing: one line, no traceback, a way out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from cli.dev.program import free_port

_JUSTIAM: Final = Path(sys.executable).parent / "justiam"


def justiam(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_JUSTIAM, *arguments], capture_output=True, text=True, check=False, timeout=60, env={"PATH": "", **environment}
    )


@pytest.fixture
def nowhere() -> dict[str, str]:
    return {
        "JUSTIAM_DATABASE_URL": f"postgresql://justiam:hush@127.0.0.1:{free_port()}/justiam",
        "JUSTIAM_TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
        "JUSTIAM_SECRET_KEY": "0123456789abcdef0123456789abcdef",
    }


@pytest.mark.parametrize("command", ["api", "worker", "migrate", "setup-temporal", "sweep"])
def test_a_command_without_settings_names_what_is_missing(command: str) -> None:
    done = justiam(command)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "JUSTIAM_DATABASE_URL is not set, and has no default",
        "JUSTIAM_SECRET_KEY is not set, and has no default",
        "Run justiam settings for the meaning of each, or justiam dev for a service that needs none.",
    ]


@pytest.mark.parametrize(
    ("command", "explanation"),
    [
        ("migrate", "PostgreSQL, as JUSTIAM_DATABASE_URL names it: "),
        ("setup-temporal", "Temporal at 127.0.0.1:"),
        ("sweep", "Temporal at 127.0.0.1:"),
    ],
)
def test_a_command_whose_server_is_away_says_so_in_one_line(
    command: str, explanation: str, nowhere: dict[str, str]
) -> None:
    done = justiam(command, **nowhere)
    assert done.returncode == 1
    assert done.stderr.startswith(explanation)
    assert done.stderr.count("\n") == 1
    assert "hush" not in done.stderr


def test_help_teaches_where_to_begin() -> None:
    done = justiam("--help")
    assert done.returncode == 0
    assert "justiam dev" in done.stdout
