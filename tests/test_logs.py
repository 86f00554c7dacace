"""What is logged says what went wrong, and not with which values."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Literal
from uuid import uuid4

import psycopg
import pytest
import structlog

import logs


@pytest.fixture
def kept_loggers() -> Iterator[None]:
    """Logging as it was, whatever a test configures."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    chatty = {name: logging.getLogger(name).filters[:] for name in logs.CHATTY}
    configured = structlog.get_config()
    yield
    for name, filters in chatty.items():
        logging.getLogger(name).filters[:] = filters
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configured)


@pytest.mark.usefixtures("kept_loggers")
@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_shows_no_variables(style: Literal["json", "console"], capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", style)
    opened = {"hush": uuid4().hex}
    try:
        int(str(opened.keys()))
    except ValueError:
        logging.getLogger("service").exception("a call failed")
    shown = capsys.readouterr().err
    assert "invalid literal for int" in shown
    assert "a call failed" in shown
    assert opened["hush"] not in shown


@pytest.mark.usefixtures("kept_loggers")
def test_what_libraries_say_again_and_again_is_let_through_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.configure("info", "json")
    pool, temporal = logging.getLogger("psycopg.pool"), logging.getLogger(logs.TEMPORAL)

    def said() -> list[str]:
        for attempt in range(100):
            pool.warning("error connecting in %r: %s", "pool-1", f"attempt {attempt}")
            temporal.warning(f"gRPC call poll_workflow_task_queue retried {attempt} times")
        pool.warning("discarding %s", "a connection")
        temporal.error("gRPC call poll_workflow_task_queue retried 100 times")
        return [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]

    assert said() == [
        "error connecting in 'pool-1': attempt 0",
        "gRPC call poll_workflow_task_queue retried 0 times",
        "discarding a connection",
        "gRPC call poll_workflow_task_queue retried 100 times",
    ]
    assert said() == []
    monkeypatch.setattr(logs, "REPEATED_EVERY_SECS", -1.0)
    assert len(said()) == 202


@pytest.mark.usefixtures("kept_loggers")
def test_a_database_that_is_away_is_said_once_for_all_activities_and_a_fault_for_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "json")
    for failure in (psycopg.OperationalError("connection refused"), psycopg.errors.DiskFull("no space"), KeyError("x")):
        for attempt in range(10):
            try:
                raise failure
            except (psycopg.Error, KeyError):
                logging.getLogger("temporalio.activity").warning(
                    "Completing activity as failed (%s)", attempt, exc_info=True
                )
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["exception"].splitlines()[-1].partition(":")[0] for line in said] == [
        "psycopg.OperationalError",
        "psycopg.errors.DiskFull",
        *["KeyError"] * 10,
    ]


@pytest.mark.usefixtures("kept_loggers")
@pytest.mark.parametrize("style", ["json", "console"])
def test_what_callers_sent_neither_moves_a_terminal_nor_begins_a_line(
    style: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", style)
    sent = "/\x1b[2J\x1b]0;owned\x07\x9b1m\u202e\r\n2026-11-28 [info] call status=200"
    structlog.get_logger("http").info("call", path=sent)
    logging.getLogger("library").warning("refused %s", sent)
    try:
        raise ValueError(sent)  # noqa: TRY301 - what a library does
    except ValueError:
        structlog.get_logger("service").exception("failed")
    shown = capsys.readouterr().err
    assert "owned" in shown
    assert not {char for char in shown if not char.isprintable()} - {"\n"}
    assert not [line for line in shown.splitlines() if line.startswith("2026-11-28 [info]")]
