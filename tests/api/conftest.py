"""One PostgreSQL for the session, one database made from a migrated one for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from uuid import uuid4

import psycopg
import pytest
from fastapi import FastAPI
from psycopg import sql

from api.app import create_app
from cli.dev import PostgresServer
from db import migrate
from tests.api.house import House, open_house, settings

_MIGRATED = "migrated"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Where a database of a PostgreSQL server is, by name."""
    given = os.environ.get("JUSTIAM_TEST_DATABASE_URL")
    if given is not None:
        yield lambda name: given.rpartition("/")[0] + "/" + name
        return
    with PostgresServer(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def new_database(postgres: Callable[[str], str]) -> Callable[[], AbstractContextManager[str]]:
    """Makes a database with this version's schema."""
    maintenance = postgres("postgres")
    migrated = f"{_MIGRATED}_{uuid4().hex}"

    def execute(statement: str, *names: str) -> None:
        with psycopg.connect(maintenance, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    execute("CREATE DATABASE {}", migrated)
    migrate.upgrade(postgres(migrated))

    @contextmanager
    def make() -> Iterator[str]:
        name = f"test_{uuid4().hex}"
        # Six times as fast as the default, for a database this small.
        execute("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, migrated)
        try:
            yield postgres(name)
        finally:
            execute("DROP DATABASE {} WITH (FORCE)", name)

    return make


@pytest.fixture(scope="session")
def application(postgres: Callable[[str], str]) -> FastAPI:
    """One application for all tests: making it takes longer than most of them."""
    return create_app(settings(postgres("postgres")))


@pytest.fixture
async def house(new_database: Callable[[], AbstractContextManager[str]], application: FastAPI) -> AsyncIterator[House]:
    """The service on a database of this test's own."""
    with new_database() as url:
        async with open_house(url, application) as house:
            yield house


@pytest.fixture(scope="module")
async def standing_house(new_database: Callable[[], AbstractContextManager[str]]) -> AsyncIterator[House]:
    """The service on a database that the tests of a module share; for what changes nothing."""
    with new_database() as url:
        async with open_house(url) as house:
            yield house
