"""Worlds: a database and a worker for each module, on one of the session's two Temporal servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.conftest import Databases
from tests.workflows.world import World, open_world


@pytest.fixture(scope="module")
async def world(new_database: Databases, time_skipping: WorkflowEnvironment) -> AsyncIterator[World]:
    """Where time can be skipped."""
    with new_database() as url:
        async with open_world(url, time_skipping.client, time_skipping) as world:
            yield world


@pytest.fixture(scope="module")
async def real_world(new_database: Databases, temporal_client: Client) -> AsyncIterator[World]:
    """On the real server: lists, Schedules, cancellation and metadata as in production."""
    with new_database() as url:
        async with open_world(url, temporal_client) as world:
            yield world
