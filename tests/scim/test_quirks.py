"""What clients send beside a deactivation, or spell in ways of their own, does not keep it from being carried out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import pytest
from scim2_models import SCIMException

from api.scim import read_replacement, read_user_patch
from domain import scim
from domain.errors import Invalid
from tests.scim.provider import ENTERPRISE_USER, PATCH, USER, Provider, user

OFF: Final[dict[str, Any]] = {"op": "replace", "path": "active", "value": False}


def _dana() -> scim.User:
    return scim.user(
        UUID(int=1),
        email="dana@example.com",
        name="Dana",
        active=True,
        user_name="dana",
        external_id="x",
        profile={"name": {"givenName": "Dana"}, "email": {"type": "work"}},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def _patched(*operations: Any, **envelope: Any) -> scim.Account:
    document = {"schemas": [PATCH], "Operations": list(operations), **envelope}
    return scim.account(read_user_patch(document)(_dana()))


@pytest.mark.parametrize(
    "beside",
    [
        # Entra: a value in a remove of what has one value.
        {"op": "Remove", "path": "title", "value": "Dr"},
        {"op": "Remove", "path": "displayName", "value": "Dana"},
        {"op": "Remove", "path": "name.honorificPrefix", "value": "Dr"},
        {"op": "Remove", "path": f"{USER}:externalId", "value": "x"},
        {"op": "Remove", "path": f"{ENTERPRISE_USER}:department", "value": "IT"},
        {"op": "Remove", "path": 'phoneNumbers[type eq "work"].value', "value": "1"},
        {"op": "Remove", "path": 'emails[type eq "home"].value', "value": "h@example.com"},
        # Values that are named, of what has several and is not kept.
        {"op": "remove", "path": "phoneNumbers", "value": [{"value": "1"}]},
        {"op": "remove", "path": 'roles[value eq "x"]'},
        {"op": "Add", "path": "roles", "value": [{"value": '{"id": 1}'}]},
        {"op": "Replace", "path": 'roles[primary eq "True"].value', "value": "x"},
        # Extensions, and a manager as a text.
        {"op": "Add", "path": f"{ENTERPRISE_USER}:manager", "value": "abc"},
        {"op": "Add", "path": ENTERPRISE_USER, "value": {"manager": {"value": "abc"}}},
        {"op": "Add", "value": {"urn:example:2.0:User": {"a": 1}, f"{ENTERPRISE_USER}:manager": "abc"}},
        # No value, or none at all.
        {"op": "Replace", "path": "title"},
        {"op": "Replace", "path": "title", "value": None},
        {"op": "Replace", "path": "displayName", "value": None},
        # Paths as names of a value, as Entra writes them without a path.
        {"op": "replace", "value": {"name.givenName": "D", 'emails[type eq "work"].value': "d@example.com"}},
        {"op": "Replace", "path": 'emails[type eq "other"].value', "value": "o@example.com"},
        {"op": "Add", "path": "emails", "value": ["second@example.com"]},
        # The resource as it was read.
        {"op": "replace", "value": {"id": "1", "schemas": [USER], "meta": {"resourceType": "User"}, "groups": []}},
        {"op": "replace", "value": {USER: {"id": "1"}, "password": "x"}},
        # The address is cleared in the same call.
        {"op": "Remove", "path": "emails"},
        {"op": "Replace", "path": 'emails[type eq "work"].value', "value": ""},
        {"op": "Replace", "path": "emails", "value": []},
        {"op": "replace", "path": "emails", "value": ""},
        {"op": "replace", "path": "emails", "value": [{"value": "", "type": "work", "primary": True}]},
        {"op": "replace", "path": "emails", "value": [{"type": "work"}]},
        {"op": "replace", "value": {"emails": []}},
        {"op": "replace", "value": {"userName": None, "Emails": [{"value": None}], "displayName": "Dana"}},
        {"op": "replace", "path": None, "value": {USER: {"userName": ""}}},
        {"op": "Replace", "path": "userName", "value": None},
    ],
    ids=str,
)
def test_what_is_superfluous_beside_it(beside: dict[str, Any]) -> None:
    for operations in ((beside, OFF), (OFF, beside)):
        account = _patched(*operations)
        assert not account.active
        assert account.email in {"dana@example.com", "d@example.com"}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "Replace", "path": "active", "value": "False"},
        {"op": "REPLACE", "path": "active", "value": "false"},
        {"op": "add", "path": "active", "value": False},
        *({"op": "replace", "path": "active", "value": value} for value in (0, 0.0, "0", "off", "F", "n", "No")),
        {"Op": "replace", "Path": "Active", "Value": False},
        {"op": "replace", "path": f"{USER}:active", "value": False},
        {"op": "replace", "path": USER, "value": {"active": False}},
        {"op": "replace", "path": "active", "value": [{"$ref": None, "value": "False"}]},
        {"op": "replace", "path": "active", "value": [False]},
        {"op": "replace", "path": "active", "value": {"active": False}},
        {"op": "replace", "value": {"Active": "False"}},
        {"op": "replace", "path": None, "value": {USER: {"active": False}}},
        {"op": "replace", "path": "", "value": {f"{USER}:active": False}},
    ],
    ids=str,
)
def test_each_spelling_of_it(operation: dict[str, Any]) -> None:
    assert not _patched(operation).active
    # The address may be cleared beside any of them.
    assert _patched({"op": "remove", "path": "emails"}, operation).email == "dana@example.com"


@pytest.mark.parametrize("envelope", [{"schemas": []}, {"id": "1", "meta": {}}, {"Operations": OFF}], ids=str)
def test_an_envelope_that_is_not_as_it_should_be(envelope: dict[str, Any]) -> None:
    assert not _patched(OFF, **envelope).active


@pytest.mark.parametrize(
    "invalid",
    [
        {"op": "frob", "path": "title", "value": 1},
        {"op": "frob", "value": {"emails": []}},
        {"op": "replace", "path": "title[", "value": 1},
        {"op": "remove"},
        {"op": "replace", "path": "displayName", "value": 5},
        {"op": "add", "path": "displayName"},
        {"op": "replace", "path": "id", "value": "x"},
        {"op": "replace", "path": 'emails[type eq "work"].value', "value": "no address"},
        {"op": "replace", "path": "name", "value": "Dana"},
    ],
    ids=str,
)
def test_what_is_invalid_refuses_the_whole(invalid: dict[str, Any]) -> None:
    with pytest.raises((SCIMException, Invalid)):
        _patched(OFF, invalid)


def test_an_address_is_not_cleared_of_who_stays_active() -> None:
    with pytest.raises((SCIMException, Invalid)):
        _patched(OFF, {"op": "remove", "path": "emails"}, {"op": "replace", "path": "active", "value": True})


@pytest.mark.parametrize(
    "changed",
    [
        {"active": "False"},
        {"active": [{"value": False}]},
        {"active": False, "emails": []},
        {"active": False, "emails": None, "userName": None},
        {"active": False, "emails": ""},
        {"active": False, "emails": [{"value": "", "type": "work", "primary": True}, {"type": "home"}], "userName": ""},
        {"active": False, "emails": ["dana@example.com"]},
        {"active": False, "id": "2", "meta": {"version": "x"}, "groups": [{"value": "1"}]},
        {"active": False, "title": None, "roles": "x", ENTERPRISE_USER: {"manager": "abc"}},
    ],
    ids=str,
)
def test_a_put_deactivates_as_well(changed: dict[str, Any]) -> None:
    account = scim.account(read_replacement({**user("dana"), "userName": "dana", **changed})(_dana()))
    assert (account.active, account.email) == (False, "dana@example.com")


async def test_a_patch_with_a_value_in_a_remove_is_carried_out_as_a_whole(standing_provider: Provider) -> None:
    made = await standing_provider.make("leaver", title="Dr")
    answer = await standing_provider.patch(
        f"/Users/{made['id']}",
        {"op": "Remove", "path": "title", "value": "Dr"},
        {"op": "Replace", "path": "displayName", "value": "Leaver"},
        {"op": "Replace", "path": "active", "value": "False"},
    )
    assert (answer.status_code, answer.json()["active"], answer.json()["displayName"]) == (200, False, "Leaver")
    team = await standing_provider.make_group("team of the leaver", made["id"])
    answer = await standing_provider.patch(
        f"/Groups/{team['id']}",
        {"op": "Remove", "path": "externalId", "value": "x"},
        {"op": "Remove", "path": "members", "value": [{"value": made["id"]}]},
    )
    assert (answer.status_code, await standing_provider.members(team["id"])) == (204, [])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("user_name", "da\u200bna@example.com"),
        ("email", "da\u200bna@example.com"),
        ("email", "d" * 70 + "@example.com"),
        ("name", "Dana\u202e"),
        ("external_id", "\u3164"),
    ],
)
async def test_what_was_stored_before_a_rule_does_not_keep_anybody(provider: Provider, column: str, value: str) -> None:
    dana = await provider.make("dana")
    path = f"/Users/{dana['id']}"
    async with provider.house.db.connection() as connection:
        await connection.execute(f"UPDATE users SET {column} = %s WHERE id = %s", [value, dana["id"]])  # noqa: S608
    answer = await provider.patch(path, OFF)
    assert (answer.status_code, answer.json()["active"]) == (200, False)
    read = await provider.get(path)
    answer = await provider.send("PUT", path, {**read, "active": True})
    assert (answer.status_code, answer.json()["active"]) == (200, True)
    # What is new is held to the rules.
    refused = await provider.send("PUT", path, {**read, "displayName": "Dana\u200b"})
    assert refused.status_code == 400


async def test_a_name_from_before_a_rule_does_not_keep_members_in_a_group(provider: Provider) -> None:
    dana = await provider.make("dana")
    crew = await provider.make_group("crew", dana["id"])
    async with provider.house.db.connection() as connection:
        await connection.execute("UPDATE groups SET name = 'crew\u200b' WHERE id = %s", [crew["id"]])
    gone = {"op": "remove", "path": f'members[value eq "{dana["id"]}"]'}
    assert (await provider.patch(f"/Groups/{crew['id']}", gone)).status_code == 204
    assert await provider.members(crew["id"]) == []
