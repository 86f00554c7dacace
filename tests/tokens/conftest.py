"""The service over HTTP, with one application that tokens are issued for."""

from __future__ import annotations

import pytest

from tests.api.conftest import application, house, standing_house
from tests.api.house import House
from tests.tokens.shop import Shop, open_shop

__all__ = ["application", "house", "standing_house"]


@pytest.fixture
async def shop(standing_house: House) -> Shop:
    """An application and somebody who may use it, of this test's own, in a house that the tests of a module share."""
    return await open_shop(standing_house)


@pytest.fixture
async def lone_shop(house: House) -> Shop:
    """One in a house of its own: for what concerns all shops, as signing keys do."""
    return await open_shop(house)


@pytest.fixture(scope="module")
async def standing_shop(standing_house: House) -> Shop:
    """One that the tests of a module share; for what changes nothing."""
    return await open_shop(standing_house)
