"""One log for the service and the libraries under it: JSON lines for machines, coloured text for people."""

from __future__ import annotations

import logging
import sys
import time
from io import StringIO
from textwrap import indent
from typing import Any, Final, Literal, TextIO

import structlog
from opentelemetry import trace
from temporalio import activity

TEMPORAL: Final = "temporal"
"""The logger of what the Temporal client has to say."""
CHATTY: Final = (TEMPORAL, "psycopg.pool", "temporalio.activity")
"""The loggers of libraries that say the same again and again while a store is away."""
REPEATED_EVERY_SECS: Final = 60.0
"""A store that is away is said at once, and then as often as this for as long as it is."""


def configure(level: str, style: Literal["json", "console"]) -> None:
    """Send everything that is logged to standard error in one format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _where,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if style == "json"
        else [
            _harmless,
            # Not the traceback that the renderer would choose, which shows the values of variables: tokens, secrets.
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_harmless_traceback),
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _without_colour],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Every poll and statement of the libraries is of no interest to anybody who asked for less than debug.
    for name in ("httpx", "httpcore", "psycopg.pool"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # They say the same with each attempt of each of their connections and pollers.
    for name in CHATTY:
        chatty = logging.getLogger(name)
        for earlier in chatty.filters[:]:
            chatty.removeFilter(earlier)
        chatty.addFilter(_NowAndThen())


class _NowAndThen(logging.Filter):
    """Lets what is said again and again through once in a while."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        # The Temporal client puts what differs into its messages, psycopg beside them.
        what = str(record.msg) if record.args else ""
        if record.name == "temporalio.activity":
            failure = record.exc_info[0] if record.exc_info else None
            if failure is None or not failure.__module__.startswith("psycopg"):
                # Of one activity; while the database is away, each attempt of all that wait for it fails alike.
                return True
            what = failure.__name__
        kind = (record.name, record.levelno, what)
        now = time.monotonic()
        if now - self._said.get(kind, float("-inf")) < REPEATED_EVERY_SECS:
            return False
        self._said[kind] = now
        return True


def _where(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The trace that a message belongs to, and the workflow whose activity says it."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event.setdefault("trace_id", trace.format_trace_id(span.trace_id))
        event.setdefault("span_id", trace.format_span_id(span.span_id))
    if activity.in_activity():
        info = activity.info()
        event.setdefault("workflow_id", info.workflow_id)
        event.setdefault("activity", info.activity_type)
        if info.attempt > 1:
            event.setdefault("attempt", info.attempt)
    return event


def _harmless(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {key: _escaped(value, "") if isinstance(value, str) else value for key, value in event.items()}


def _harmless_traceback(into: TextIO, failure: structlog.typing.ExcInfo) -> None:
    told = StringIO()
    structlog.dev.plain_traceback(told, failure)
    # Indented, so that no line of a message passes for one of the log.
    into.write(indent(_escaped(told.getvalue(), "\n"), "  "))


def _escaped(text: str, kept: str) -> str:
    """`text` as a terminal can show it, which does what some characters say: what callers sent may be in it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in kept else ascii(char)[1:-1] for char in text)


def _without_colour(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    # uvicorn's second copy of each message.
    event.pop("color_message", None)
    return event
