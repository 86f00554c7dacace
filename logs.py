"""One log for the service and the libraries under it: JSON lines for machines, coloured text for people."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog


def configure(level: str, style: Literal["json", "console"]) -> None:
    """Send everything that is logged to standard error in one format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if style == "json"
        else [
            # Not the traceback that the renderer would choose, which shows the values of variables: tokens, secrets.
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
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
    logging.getLogger("uvicorn.access").addFilter(_without_query)


def _without_query(record: logging.LogRecord) -> bool:
    # What is asked for can be a secret: the code that an issuer sends somebody back with.
    if isinstance(record.args, tuple):
        record.args = tuple(
            each.partition("?")[0] if isinstance(each, str) and each.startswith("/") else each for each in record.args
        )
    return True


def _without_colour(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    # uvicorn's second copy of each message.
    event.pop("color_message", None)
    return event
