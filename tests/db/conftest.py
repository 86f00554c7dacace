"""A record that the tests of a module share: each brings a cast of its own, and names nobody else's."""

from __future__ import annotations

import pytest

from db.database import Database
from tests.record import Record


@pytest.fixture
def shared(module_db: Database) -> Record:
    """Makes what the record of this module may hold."""
    return Record(module_db)
