"""Whether what is served is SCIM: asked over HTTP by scim2-tester, which nobody here wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_tester import Status, check_server

from domain.actors import Permission
from tests.api.house import House, served


@pytest.fixture
async def address(house: House) -> AsyncIterator[str]:
    """Where the service listens, as its own server serves it."""
    async with served(house.app) as url:
        yield url


async def test_scim2_tester_finds_no_error(house: House, address: str) -> None:
    owner = await house.person("provisioning")
    client = await house.person("idp", Permission.DIRECTORY, owner=owner)

    def check() -> list[tuple[str, Status, str | None]]:
        headers = {"Authorization": f"Bearer {client.token}"}
        with httpx2.Client(base_url=f"{address}/scim/v2", headers=headers) as http:
            results = check_server(SyncSCIMClient(http))
        return [(f"{result.title} {result.resource_type}", result.status, result.reason) for result in results]

    results = await asyncio.to_thread(check)
    wrong = [result for result in results if result[1] not in {Status.SUCCESS, Status.SKIPPED, Status.COMPLIANT}]
    assert not wrong, "\n".join(map(str, wrong))
    done = [title for title, status, _ in results if status is not Status.SKIPPED]
    assert {"check_add_attribute User", "check_remove_attribute Group", "object_replacement Group"} <= set(done)
    assert len(done) > 50
