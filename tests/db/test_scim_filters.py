"""What identity providers look for most is found by an index."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from scim2_models import ScimFilter
from sqlalchemy import Select
from sqlalchemy.dialects import postgresql
from sqlmodel import select

from db.database import Database
from db.scim_filters import PERSON, group_condition, user_condition
from db.tables import Group, User
from domain import scim


async def _plan(db: Database, query: Select[Any]) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    compiled = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    async with db.transaction() as connection:
        # The tables are small; that an index can serve is the question.
        await connection.execute("SET LOCAL enable_seqscan = off")
        rows = await (await connection.execute(f"EXPLAIN {compiled}")).fetchall()
    return "\n".join(row["QUERY PLAN"] for row in rows)


@pytest.mark.parametrize(
    ("filter_", "index"),
    [
        ('userName eq "dana@example.com"', "uq_users_user_name"),
        ('externalId eq "00u1" and active eq true', "uq_users_external_id"),
        ('emails[type eq "work"].value eq "dana@example.com"', "uq_users_email"),
        (f'id eq "{uuid4()}"', "pk_users"),
    ],
)
async def test_people_are(db: Database, filter_: str, index: str) -> None:
    plan = await _plan(db, select(User).where(PERSON, user_condition(ScimFilter[scim.User](filter_))))
    assert f"using {index}" in plan or f"on {index}" in plan, plan
    assert "Index Cond" in plan


@pytest.mark.parametrize(
    ("filter_", "index"),
    [
        ('displayName eq "dba_team"', "uq_groups_name"),
        ('externalId eq "g1"', "uq_groups_external_id"),
        (f'id eq "{uuid4()}" and members[value eq "{uuid4()}"]', "pk_groups"),
        (f'members eq "{uuid4()}"', "pk_groups"),
    ],
)
async def test_groups_are(db: Database, filter_: str, index: str) -> None:
    plan = await _plan(db, select(Group).where(group_condition(ScimFilter[scim.Group](filter_))))
    assert f"using {index}" in plan or f"on {index}" in plan, plan
    assert "Index Cond" in plan
