"""What the servers of the development stack must hold before the service starts: schema, search attributes, demo data.

Apart from the supervisor, because these imports take longer than the servers need to start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout
from sqlalchemy.exc import SQLAlchemyError
from temporalio.service import RPCError

import worker
from cli.dev.program import DevStackError
from cli.record import operator
from db import acting, demo, migrate
from settings import load_settings


def record(database_url: str) -> list[str]:
    """Bring the database to this version's schema.

    Returns:
        The revisions that were applied.

    Raises:
        DevStackError: PostgreSQL refused.
    """
    with _failures_explained("the schema"):
        return migrate.upgrade(database_url)


def process() -> None:
    """Create the search attributes and the Schedule in the Temporal that the environment names.

    Raises:
        DevStackError: Temporal refused.
        SettingsError: the environment is wrong.
    """
    settings = load_settings()
    with _failures_explained("Temporal's search attributes and Schedule"):
        asyncio.run(worker.setup_temporal(settings))


def people(database_url: str, known: dict[str, Any]) -> dict[str, Any]:
    """Load the demo data where it is missing.

    Args:
        database_url: the record.
        known: the people and tokens of an earlier start; a token that is still valid is kept.

    Returns:
        The demo people by name, each with id, email and token.

    Raises:
        DevStackError: PostgreSQL refused.
    """
    with _failures_explained("the demo data"), acting.acting(operator()):
        return demo.load(database_url, known)


@contextmanager
def _failures_explained(what: str) -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, PoolTimeout, SQLAlchemyError, RPCError, RuntimeError) as error:
        raise DevStackError(f"Setting up {what} failed: {error}") from error
