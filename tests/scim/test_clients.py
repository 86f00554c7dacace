"""What Okta and Entra send, one call after the other, as their documentation has it; written anew for these tests."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

from tests.api.house import House
from tests.api.problem import check_problem
from tests.scim.provider import ENTERPRISE_USER, GROUP, LIST, PATCH, USER, Provider

OKTA: Final = {"Content-Type": "application/scim+json; charset=utf-8", "Accept": "application/scim+json"}
ENTRA: Final = {"Content-Type": "application/scim+json", "Accept": "application/scim+json, application/json"}


class TestOkta:
    """Assigns people to the application, changes them, pushes a group, takes the assignment back."""

    async def _send(self, provider: Provider, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        answer = await provider.house.call(method, f"/scim/v2{path}", provider.account, json=document, headers=OKTA)
        return answer.status_code, answer.json() if answer.content else None

    async def test_keeps_people_and_groups(self, house: House, provider: Provider) -> None:
        # "Test API Credentials", and the look for somebody before they are made.
        assert (await self._send(provider, "GET", "/Users?startIndex=1&count=2"))[0] == 200
        look = "/Users?filter=userName%20eq%20%22isaac.brock%40example.com%22&startIndex=1&count=100"
        status, found = await self._send(provider, "GET", look)
        assert (status, found["schemas"], found["totalResults"]) == (200, [LIST], 0)
        assert found.get("Resources", []) == []

        status, made = await self._send(
            provider,
            "POST",
            "/Users",
            {
                "schemas": [USER],
                "userName": "isaac.brock@example.com",
                "name": {"givenName": "Isaac", "familyName": "Brock"},
                "emails": [{"primary": True, "value": "isaac.brock@example.com", "type": "work"}],
                "displayName": "Isaac Brock",
                "locale": "en-US",
                "externalId": "00ujl29u0le5T6Aj10h7",
                "groups": [],
                "password": "1mz050nq",
                "active": True,
            },
        )
        assert (status, made["userName"], made["active"]) == (201, "isaac.brock@example.com", True)
        assert "password" not in made
        here = f"/Users/{made['id']}"
        assert (await self._send(provider, "GET", here)) == (200, made)

        # Somebody who was there before is found, taken over, and kept by PUT.
        status, found = await self._send(provider, "GET", look)
        assert [each["id"] for each in found["Resources"]] == [made["id"]]
        whole = {**made, "name": {"givenName": "Isaac", "familyName": "Brook"}, "displayName": "Isaac Brook"}
        status, replaced = await self._send(provider, "PUT", here, {**whole, "groups": [], "locale": "en-US"})
        assert replaced["meta"].pop("version") != whole["meta"].pop("version")
        assert (status, replaced) == (200, whole)

        # A group that is pushed, renamed, filled and emptied.
        members = [{"value": made["id"], "display": "isaac.brock@example.com"}]
        status, group = await self._send(
            provider, "POST", "/Groups", {"schemas": [GROUP], "displayName": "Test SCIMv2", "members": members}
        )
        assert (status, [each["value"] for each in group["members"]]) == (201, [made["id"]])
        there = f"/Groups/{group['id']}"
        rename = {"op": "replace", "value": {"id": group["id"], "displayName": "Test SCIMv3"}}
        empty = {"op": "remove", "path": f'members[value eq "{made["id"]}"]'}
        fill = {"op": "add", "path": "members", "value": members}
        push = {"op": "replace", "path": "members", "value": members}
        for operations, left in (
            ([rename], [made["id"]]),
            ([empty], []),
            ([fill], [made["id"]]),
            ([empty, push], None),
        ):
            patch = {"schemas": [PATCH], "Operations": operations}
            assert (await self._send(provider, "PATCH", there, patch))[0] in {200, 204}
            assert await provider.members(group["id"]) == ([made["id"]] if left is None else left)
        assert (await provider.get(there))["displayName"] == "Test SCIMv3"
        assert (await self._send(provider, "GET", "/Groups?startIndex=1&count=100"))[0] == 200

        # Unassigned, or deactivated in Okta.
        off = {"schemas": [PATCH], "Operations": [{"op": "replace", "value": {"active": False}}]}
        status, gone = await self._send(provider, "PATCH", here, off)
        assert (status, gone["active"]) == (200, False)
        assert (await house.call("GET", f"/users/{made['id']}", house.admin)).json()["active"] is False

        # Assigned again: found by name, and activated.
        on = {"schemas": [PATCH], "Operations": [{"op": "replace", "value": {"active": True}}]}
        assert (await self._send(provider, "PATCH", here, on))[1]["active"] is True
        assert (await self._send(provider, "DELETE", there)) == (204, None)


class TestEntra:
    """Provisions people and groups that are in its scope, and takes back who no longer is."""

    async def _send(self, provider: Provider, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        answer = await provider.house.call(method, f"/scim/v2{path}", provider.account, json=document, headers=ENTRA)
        return answer.status_code, answer.json() if answer.content else None

    async def test_keeps_people_and_groups(self, house: House, provider: Provider) -> None:
        # "Test Connection": somebody whom there cannot be.
        status, found = await self._send(provider, "GET", f'/Users?filter=userName eq "{uuid4()}"')
        assert (status, found["totalResults"]) == (200, 0)
        assert (
            await self._send(provider, "GET", f'/Groups?excludedAttributes=members&filter=displayName eq "{uuid4()}"')
        )[0] == 200
        assert (await self._send(provider, "GET", "/Schemas"))[0] == 200

        # The user principal name is not the address.
        status, made = await self._send(
            provider,
            "POST",
            "/Users",
            {
                "schemas": [USER, ENTERPRISE_USER],
                "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef",
                "userName": "adele.vance@contoso.onmicrosoft.com",
                "active": True,
                "displayName": "Adele Vance",
                "emails": [{"primary": True, "type": "work", "value": "adele@example.com"}],
                "meta": {"resourceType": "User"},
                "name": {"formatted": "Adele Vance", "familyName": "Vance", "givenName": "Adele"},
                "roles": [],
                ENTERPRISE_USER: {"department": "Sales"},
            },
        )
        assert (status, made["userName"]) == (201, "adele.vance@contoso.onmicrosoft.com")
        account = (await house.call("GET", f"/users/{made['id']}", house.admin)).json()
        assert (account["email"], account["name"]) == ("adele@example.com", "Adele Vance")
        here = f"/Users/{made['id']}"
        for filter_ in (
            'userName eq "adele.vance@contoso.onmicrosoft.com"',
            'externalId eq "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef"',
            'emails[type eq "work"].value eq "adele@example.com"',
        ):
            assert (await self._send(provider, "GET", f"/Users?filter={filter_}"))[1]["Resources"] == [made]

        # With and without the flag for standard PATCH, changes come capitalised, in several pieces, and for attributes
        # that nobody keeps.
        status, changed = await self._send(
            provider,
            "PATCH",
            here,
            {
                "schemas": [PATCH],
                "Operations": [
                    {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "adele.v@example.com"},
                    {"op": "Replace", "path": "name.familyName", "value": "Vance-Smith"},
                    {"op": "Add", "path": "displayName", "value": "Adele Vance-Smith"},
                    {"op": "Add", "path": f"{ENTERPRISE_USER}:department", "value": "Support"},
                    {"op": "Add", "path": 'phoneNumbers[type eq "work"].value', "value": "+1 555 0100"},
                    {"op": "Remove", "path": "title"},
                ],
            },
        )
        assert status == 200
        assert changed["emails"] == [{"primary": True, "type": "work", "value": "adele.v@example.com"}]
        assert (changed["displayName"], changed["name"]["familyName"]) == ("Adele Vance-Smith", "Vance-Smith")

        # A group without members, which come one after the other.
        status, group = await self._send(
            provider,
            "POST",
            "/Groups",
            {
                "schemas": [GROUP, "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"],
                "externalId": "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159",
                "displayName": "Contoso DBAs",
                "meta": {"resourceType": "Group"},
            },
        )
        assert status == 201
        there = f"/Groups/{group['id']}"
        add = {"op": "Add", "path": "members", "value": [{"value": made["id"]}]}
        remove = {"op": "Remove", "path": "members", "value": [{"value": made["id"]}]}
        assert await self._send(provider, "PATCH", there, {"schemas": [PATCH], "Operations": [add]}) == (204, None)
        check = f'/Groups?filter=id eq "{group["id"]}" and members eq "{made["id"]}"&excludedAttributes=members'
        assert (await self._send(provider, "GET", check))[1]["totalResults"] == 1
        assert "members" not in (await self._send(provider, "GET", f"{there}?excludedAttributes=members"))[1]
        rename = {"op": "Replace", "path": "displayName", "value": "Contoso DBA team"}
        assert (await self._send(provider, "PATCH", there, {"schemas": [PATCH], "Operations": [rename]}))[0] == 204
        assert (await self._send(provider, "PATCH", there, {"schemas": [PATCH], "Operations": [remove]}))[0] == 204
        assert (await self._send(provider, "GET", check))[1]["totalResults"] == 0

        # Out of scope: a text where the standard has a boolean.
        off = {"schemas": [PATCH], "Operations": [{"op": "Replace", "path": "active", "value": "False"}]}
        status, gone = await self._send(provider, "PATCH", here, off)
        assert (status, gone["active"]) == (200, False)
        # Restored in Entra.
        on = {"schemas": [PATCH], "Operations": [{"op": "Replace", "path": "active", "value": "True"}]}
        assert (await self._send(provider, "PATCH", here, on))[1]["active"] is True
        # Deleted for good, thirty days later.
        assert await self._send(provider, "DELETE", here) == (204, None)
        assert (await self._send(provider, "GET", here))[0] == 404
        assert await self._send(provider, "DELETE", there) == (204, None)
        account = (await house.call("GET", f"/users/{made['id']}", house.admin)).json()
        assert account["active"] is False

    async def test_is_told_of_a_conflict_in_a_way_that_it_understands(self, provider: Provider) -> None:
        await provider.make("adele")
        answer = await provider.send("POST", "/Users", {"schemas": [USER], "userName": "Adele@example.com"})
        error = check_problem(answer, 409)
        assert error["scimType"] == "uniqueness"
