"""The service over HTTP, and an identity provider that keeps its directory."""

from __future__ import annotations

import pytest

from tests.api.conftest import application, house, stack, standing_house
from tests.api.house import House
from tests.scim.provider import Provider

__all__ = ["application", "house", "stack", "standing_house"]


@pytest.fixture
async def provider(house: House) -> Provider:
    """An identity provider whose account may keep the directory and nothing else."""
    return await Provider.of(house)


@pytest.fixture(scope="module")
async def standing_provider(standing_house: House) -> Provider:
    """One that the tests of a module share, for what changes nothing: with Dana, and Erin who is inactive."""
    provider = await Provider.of(standing_house)
    await provider.make("dana", externalId="00uA")
    await provider.make("erin", active=False)
    return provider
