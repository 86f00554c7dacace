"""The demo: people, groups, applications and templates to try the service with, the specification's two among them."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from uuid import UUID

from db import applications, groups, templates, tokens, users
from db.administrators import ADMINISTRATORS, OPERATOR
from db.database import Database
from db.paging import LARGEST_LIMIT, Position
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


def emails() -> list[str]:
    """Return the email addresses of the five people of the demo."""
    return [_email(who) for who in _PEOPLE]


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


async def _find(db: Database, table: str, column: str, value: str, fold: str = "folded_name") -> UUID | None:
    async with db.connection() as connection:
        # The identifiers are those written below.
        rows = await connection.execute(f"SELECT id FROM {table} WHERE {fold}({column}) = {fold}(%s)", [value])
        row = await rows.fetchone()
    return None if row is None else row["id"]


async def _person(db: Database, who: str, name: str) -> UUID:
    found = await _find(db, "users", "email", _email(who), "folded_address")
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
    # The specification's own come last: lists begin with what was made last.
    cluster = await _grantable(
        db, "Kubernetes", "The clusters that the product runs on.", "Cluster admin", "groups:admin"
    )
    staging = await _mapping(db, cluster[0], "Staging developer", "groups:staging")
    payroll = await _grantable(db, "Payroll", "Salaries and their reports.", "Payroll reader", "roles:payroll_read")
    database = await _grantable(
        db, "Internal DB", "The database behind the product.", "DB read-only role", "roles:db_readonly"
    )
    for values in (
        {
            "name": "Payroll reports",
            "description": "To look into one report. Administrators decide.",
            "app_id": payroll[0],
            "mapping_ids": [payroll[1]],
            "allowed_durations": [120],
        },
        {
            "name": "Staging cluster",
            "description": "Deploy and debug on staging.",
            "app_id": cluster[0],
            "mapping_ids": [staging],
            "allowed_durations": [240, 480, 1440],
            "auto_approve": True,
            "require_justification": False,
        },
        {
            "name": "Production cluster, break glass",
            "description": "Full access to production during an incident.",
            "app_id": cluster[0],
            "mapping_ids": [cluster[1]],
            "allowed_durations": [30, 60, 120],
            "approver_group_ids": [group_ids["engineering_managers"]],
            "escalation_after_mins": 15,
            "custom_fields": [
                {"label": "Incident", "type": "text", "required": True, "placeholder": "INC-1234"},
                {"label": "Severity", "type": "select", "required": True, "options": ["SEV 1", "SEV 2", "SEV 3"]},
                {"label": "Services", "type": "multi_select", "options": ["checkout", "search", "accounts"]},
                {"label": "What you are going to do", "type": "textarea"},
                {"label": "Somebody else is on the call", "type": "checkbox", "required": True},
            ],
        },
        {
            "name": "Database Read Access",
            "app_id": database[0],
            "mapping_ids": [database[1]],
            "approver_group_ids": [group_ids["dba_team"]],
        },
        {
            "name": "Database read-only access",
            "description": "Grants read-only database credentials for up to 8 hours.",
            "app_id": database[0],
            "mapping_ids": [database[1]],
            "allowed_durations": [60, 240, 480],
            "approver_group_ids": [group_ids["dba_team"]],
            "escalation_after_mins": 30,
            "escalation_group_id": group_ids["engineering_managers"],
        },
    ):
        template = TemplateValues.model_validate(values)
        if await _find(db, "access_request_templates", "name", template.name) is None:
            await templates.create(db, template, longest_mins=max(template.allowed_durations, default=0))


async def _grantable(db: Database, name: str, description: str, mapping: str, claim: str) -> tuple[UUID, UUID]:
    """An application, and something that it grants."""
    app_id = await _find(db, "applications", "name", name)
    if app_id is None:
        app_id = (await applications.create_application(db, ApplicationValues(name=name, description=description))).id
    return app_id, await _mapping(db, app_id, mapping, claim)


async def _mapping(db: Database, app_id: UUID, name: str, granted: str) -> UUID:
    for mapping in (await applications.list_mappings(db, Position(LARGEST_LIMIT), app_id=app_id)).items:
        if mapping.name == name:
            return mapping.id
    claim, _, value = granted.partition(":")
    values = MappingValues(app_id=app_id, name=name, claim=claim, value=value)
    return (await applications.create_mapping(db, values)).id


async def _token(db: Database, user_id: UUID, known: dict[str, str] | None) -> str:
    token = (known or {}).get("token", "")
    bearer = await tokens.authenticate(db, token)
    if bearer is not None and bearer.person.id == user_id:
        return token
    if not (await users.get(db, user_id)).active:
        # No token can be made for a deactivated account. The next start after its reactivation makes one.
        return token
    return (await tokens.create_token(db, user_id, "demo", lifetime=None)).token
