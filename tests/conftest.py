"""The servers of a test session: one PostgreSQL, one time-skipping Temporal, one Temporal dev server.

Each is started by the first test that asks for it. Tests are kept apart by databases, copied from a migrated one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from uuid import UUID, uuid4

import psycopg
import pytest
import structlog
from hypothesis import HealthCheck, settings
from psycopg import sql
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from activities import setup
from cli.dev import PostgresServer
from db import migrate
from db.database import Database
from tests.record import Record
from tests.servers import TestingTemporal
from workflows import names

Databases = Callable[[], AbstractContextManager[str]]

# How long an example takes says how busy the machine is, not whether it is right.
settings.register_profile(
    "unhurried",
    settings(),
    deadline=None,
    suppress_health_check={*settings().suppress_health_check, HealthCheck.too_slow},
)
settings.load_profile("unhurried")
# As the programs do it: what is logged is not mixed into what a command prints.
structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())

# Started in the background, by nohup, say, a process ignores Ctrl-C, and so would each program that a test sends it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The programs that people run do without the sandbox. Every worker that runs inside of the tests has it.
os.environ["JUSTIAM_WORKFLOW_SANDBOX"] = "true"

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is made in it has a name of its own
_ROOM_BYTES: Final = 4 * 2**30
_TEST_SERVER: Final = Path(sys.executable).parent / "temporal-test-server"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store-histories",
        action="store_true",
        help="keep the histories of this run in tests/histories, for later versions to replay",
    )
    parser.addoption("--store-screenshots", action="store_true", help="keep pictures of the pages in docs/images")
    parser.addoption("--quick", action="store_true", help="leave out the files that take long")
    parser.addoption("--fuzz-as", default="root,asker", help="who calls: those of tests/api/scene.py, and anonymous")
    parser.addoption("--fuzz-cases", type=int, default=3, help="how much is made up for each route")
    parser.addoption("--fuzz-seed", type=int, default=1, help="what is made up")


_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name tests without random ids: the processes that share them must call each the same."""
    if isinstance(val, str | UUID) and _UUID.search(str(val)):
        return _UUID.sub("uuid", str(val))
    return None


_LONG: Final = (
    "test_crashes.py",
    "test_soak.py",
    "test_fuzzing.py",
    "test_dev_stack.py",
    "test_running.py",
    "test_restore.py",
    "test_disasters.py",
    "test_looks.py",
    "test_temporal_ui.py",
    "test_sign_in.py",
    "test_compose_programs.py",
)
"""Files that take long with few tests: whole programs, and what can only be waited for. Begun last, they would leave
one process waiting for the other."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        long = [item for item in items if item.path.name in _LONG]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item.path.name not in _LONG]
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Where a database of the session's PostgreSQL is, by name."""
    given = os.environ.get("JUSTIAM_TEST_DATABASE_URL")
    if given is not None:
        yield lambda name: given.rpartition("/")[0] + "/" + name
        return
    with (
        TemporaryDirectory(prefix="justiam-tests-", dir=_in_memory() or tmp_path_factory.mktemp("postgres")) as data,
        PostgresServer(Path(data), durable=False) as server,
    ):
        yield server.url


def _in_memory() -> Path | None:
    """A file system that is no disk's: a database for each test is some 300 files, made and removed."""
    usable = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES
    return _MEMORY if usable else None


@pytest.fixture(scope="session")
def new_database(postgres: Callable[[str], str]) -> Iterator[Databases]:
    """Makes a database with this version's schema, and drops it.

    A database for each test or module: the timeline cannot be emptied, by a trigger, and some tests let the service
    commit in several processes, so that nothing could be rolled back.
    """
    maintenance = postgres("postgres")
    migrated = f"migrated_{uuid4().hex}"

    def execute(statement: str, *identifiers: str) -> None:
        with psycopg.connect(maintenance, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, identifiers)))

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

    yield make
    execute("DROP DATABASE {} WITH (FORCE)", migrated)


@pytest.fixture
def database_url(new_database: Databases) -> Iterator[str]:
    """A database of this test's own."""
    with new_database() as url:
        yield url


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """The record, on a database of this test's own."""
    async with Database(database_url) as database:
        yield database


@pytest.fixture
def record(db: Database) -> Record:
    """Makes what the record may hold."""
    return Record(db)


@pytest.fixture(scope="module")
async def module_db(new_database: Databases) -> AsyncIterator[Database]:
    """The record, on a database that the tests of a module share."""
    with new_database() as url:
        async with Database(url) as database:
            yield database


@pytest.fixture(scope="session")
async def time_skipping() -> AsyncIterator[WorkflowEnvironment]:
    """Temporal's test server, whose clock can be moved ahead. It never goes back: ask it for the time."""
    environment = await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(_TEST_SERVER), data_converter=pydantic_data_converter
    )
    async with environment:
        attributes = {key.name: int(key.indexed_value_type) for key in names.SEARCH_ATTRIBUTES}
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(search_attributes=attributes)  # type: ignore[arg-type]
        )
        yield environment


@pytest.fixture(scope="session")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestingTemporal]:
    """A real Temporal server, in memory."""
    with TestingTemporal(log_file=tmp_path_factory.mktemp("temporal") / "temporal.log", ui_port=None) as server:
        yield server


@pytest.fixture(scope="session")
async def temporal_client(temporal: TestingTemporal) -> Client:
    """A client of the real server, which has the search attributes."""
    # Histories are stored with the name of whoever made them; the machine's is nobody's business.
    client = await Client.connect(temporal.address, data_converter=pydantic_data_converter, identity="tests")
    # Without the Schedule: the sweep runs where a test calls for it.
    await setup._search_attributes(client)
    return client
