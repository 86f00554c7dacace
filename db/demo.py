"""The demo: people, groups, an application and the specification's two templates to try the service with."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from uuid import UUID

from db import applications, groups, templates, tokens, users
from db.administrators import ADMINISTRATORS, OPERATOR
from db.database import Database
from db.paging import Position
from domain.directory import ApplicationValues, GroupValues, MappingValues, UserValues
from domain.templates import TemplateValues

_PEOPLE: Final = {
    "admin": "Amelia Novak",
    "alice": "Alice Moreau",
    "bob": "Bob Okafor",
    "carol": "Carol Lindqvist",
    "erin": "Erin Takahashi",
}
_GROUPS: Final = {
    ADMINISTRATORS.name: (ADMINISTRATORS, ["admin"]),
    "dba_team": (GroupValues(name="dba_team", description="Runs the databases."), ["bob", "carol"]),
    "engineering_managers": (GroupValues(name="engineering_managers", description="Decides what waits."), ["erin"]),
}


def load(database_url: str, known: dict[str, Any]) -> dict[str, Any]:
    """Load what is missing; what is there already stays as somebody may have changed it meanwhile.

    Args:
        database_url: the record, with this version's schema.
        known: what an earlier call returned; a token in it that still works is kept.

    Returns:
        For each of the five people, by first name: id, email and token.
    """
    return asyncio.run(_load(database_url, known))


async def _load(database_url: str, known: dict[str, Any]) -> dict[str, Any]:
    async with Database(database_url, max_connections=2) as db:
        ids = {who: await _person(db, who, name) for who, name in _PEOPLE.items()}
        group_ids = {name: await _group(db, name, ids) for name in _GROUPS}
        await _templates(db, group_ids)
        return {
            who: {"id": str(user_id), "email": _email(who), "token": await _token(db, user_id, known.get(who))}
            for who, user_id in ids.items()
        }


def _email(who: str) -> str:
    return f"{who}@example.com"


async def _find(db: Database, table: str, column: str, value: str) -> UUID | None:
    async with db.connection() as connection:
        # The identifiers are those written below.
        rows = await connection.execute(f"SELECT id FROM {table} WHERE lower({column}) = lower(%s)", [value])
        row = await rows.fetchone()
    return None if row is None else row["id"]


async def _person(db: Database, who: str, name: str) -> UUID:
    found = await _find(db, "users", "email", _email(who))
    return found or (await users.create(db, UserValues(email=_email(who), name=name))).id


async def _group(db: Database, name: str, people: dict[str, UUID]) -> UUID:
    values, members = _GROUPS[name]
    group_id = await _find(db, "groups", "name", name) or (await groups.create(db, OPERATOR, values)).id
    # An empty group was made by a start that was interrupted here.
    if not (await groups.list_members(db, group_id, Position(1))).items:
        for who in members:
            await groups.add_member(db, OPERATOR, group_id, people[who])
    return group_id


async def _templates(db: Database, group_ids: dict[str, UUID]) -> None:
    app_id = await _find(db, "applications", "name", "Internal DB")
    if app_id is None:
        values = ApplicationValues(name="Internal DB", description="The database behind the product.")
        app_id = (await applications.create_application(db, values)).id
    mappings = (await applications.list_mappings(db, Position(1), app_id=app_id)).items
    if not mappings:
        mapping = MappingValues(app_id=app_id, name="DB read-only role", claim="roles", value="db_readonly")
        mappings = [await applications.create_mapping(db, mapping)]
    granting = {"app_id": app_id, "mapping_ids": [mappings[0].id], "approver_group_ids": [group_ids["dba_team"]]}
    for template in (
        TemplateValues.model_validate({"name": "Database Read Access", **granting}),
        TemplateValues.model_validate(
            {
                "name": "Database read-only access",
                "description": "Grants read-only database credentials for up to 8 hours.",
                "allowed_durations": [60, 240, 480],
                "escalation_after_mins": 30,
                "escalation_group_id": group_ids["engineering_managers"],
                **granting,
            }
        ),
    ):
        if await _find(db, "access_request_templates", "name", template.name) is None:
            await templates.create(db, template, longest_mins=max(template.allowed_durations, default=0))


async def _token(db: Database, user_id: UUID, known: dict[str, str] | None) -> str:
    token = (known or {}).get("token", "")
    person = await tokens.authenticate(db, token)
    if person is not None and person.id == user_id:
        return token
    if not (await users.get(db, user_id)).active:
        # Somebody tried out what deactivation does; the token works again when it is undone.
        return token
    return (await tokens.create_token(db, user_id, "demo", lifetime=None)).token
