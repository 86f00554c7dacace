"""The service over HTTP, on a database made for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest
from fastapi import FastAPI

import worker
from activities import setup
from api.app import create_app
from api.orchestrator import Orchestrator
from tests.api.house import House, open_house, settings
from tests.servers import TestingTemporal


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


@pytest.fixture(scope="module")
async def stack(
    temporal: TestingTemporal, new_database: Callable[[], AbstractContextManager[str]]
) -> AsyncIterator[House]:
    """The whole service: API, worker, a Temporal server, PostgreSQL; shared by the tests of a module."""
    with new_database() as url:
        chosen = settings(url).model_copy(update={"temporal_address": temporal.address})
        async with worker.connected(chosen, wait=False) as stores:
            await setup.ensure(stores.client, timedelta(minutes=5))
            async with (
                worker.worker(stores, chosen),
                open_house(url, create_app(chosen)) as house,
                Orchestrator(chosen) as house.app.state.orchestrator,
            ):
                yield house
