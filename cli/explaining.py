"""What an operator can mend, said in one line."""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import typer

from settings import ScriptWorkerSettings, Settings, SettingsError, load_script_worker_settings, load_settings

_LAST_ANSWER_SECS: Final = 0.1


def checked_settings() -> Settings:
    """The settings, or the end of the command with every variable that is missing or wrong."""
    try:
        return load_settings()
    except SettingsError as error:
        fail(f"{error}\nRun justiam settings for the meaning of each, or justiam dev for a service that needs none.")


def checked_script_worker_settings() -> ScriptWorkerSettings:
    """What a script worker is told, or the end of the command with every variable that is missing or wrong."""
    try:
        return load_script_worker_settings()
    except SettingsError as error:
        fail(f"{error}\nRun justiam settings for the meaning of each, or justiam dev for a service that needs none.")


@contextmanager
def unreachable_explained(settings: Settings) -> Iterator[None]:
    """Turn the failures an operator can mend into one line."""
    import psycopg
    from psycopg_pool import PoolTimeout
    from sqlalchemy.exc import DBAPIError
    from temporalio.service import RPCError

    # The pool would log each of its attempts beside what is said below.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    try:
        yield
    except (psycopg.Error, DBAPIError) as error:
        cause: BaseException | None = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, PoolTimeout):
            cause = _refused(settings) or cause
        said = f"PostgreSQL, as JUSTIAM_DATABASE_URL names it: {_first_line(cause)}"
        if isinstance(cause, (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)):
            said += ".\nIt has not this version's schema: run justiam migrate."
        fail(said)
    except (RPCError, RuntimeError) as error:
        # RuntimeError is what Temporal's client raises where it cannot connect.
        fail(f"Temporal at {settings.temporal_address}, as JUSTIAM_TEMPORAL_ADDRESS names it: {_first_line(error)}")


def _refused(settings: Settings) -> BaseException | None:
    """Why there is no connection, which a pool does not say."""
    import psycopg

    try:
        psycopg.connect(settings.database_url.get_secret_value(), connect_timeout=2).close()
    except psycopg.Error as error:
        return error
    return None


def fail(message: str) -> NoReturn:
    """End the command with `message`."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


def _first_line(error: BaseException | None) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def speaks_to_temporal() -> None:
    """Have the process wait a moment before it ends.

    Temporal's client answers from a thread of its own. Python aborts (SIGABRT instead of the exit code) where that
    thread still holds the interpreter when it is torn down, which was seen in one of ten runs on a busy machine.
    """
    atexit.register(time.sleep, _LAST_ANSWER_SECS)
