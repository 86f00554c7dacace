"""What is logged says what went wrong, and not with which values."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal
from uuid import uuid4

import pytest
import structlog

import logs


@pytest.fixture
def kept_loggers() -> Iterator[None]:
    """Logging as it was, whatever a test configures."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configured = structlog.get_config()
    yield
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
