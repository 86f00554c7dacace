"""The service over HTTP, on a database made for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager

import pytest
from fastapi import FastAPI

from api.app import create_app
from tests.api.house import House, open_house, settings


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
