"""What identity providers send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import httpx

from domain.actors import Permission
from tests.api.house import House, Somebody

USER: Final = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP: Final = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE_USER: Final = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
PATCH: Final = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
LIST: Final = "urn:ietf:params:scim:api:messages:2.0:ListResponse"


@dataclass(frozen=True)
class Provider:
    """An identity provider, with the token of a service account."""

    house: House
    account: Somebody
    owner: Somebody

    @classmethod
    async def of(cls, house: House, *permissions: Permission) -> Provider:
        owner = await house.person(f"keeper.{uuid4().hex[:8]}")
        held = permissions or (Permission.DIRECTORY,)
        return cls(house, await house.person(f"idp.{uuid4().hex[:8]}", *held, owner=owner), owner)

    async def send(self, method: str, path: str, document: Any = None, **request: Any) -> httpx.Response:
        headers = {"Content-Type": "application/scim+json"}
        body = {} if document is None else {"json": document, "headers": headers}
        return await self.house.call(method, f"/scim/v2{path}", self.account, **body, **request)

    async def make(self, name: str, /, **values: Any) -> dict[str, Any]:
        """A User of this name."""
        return await self._made("/Users", user(name, **values))

    async def make_group(self, name: str, /, *members: str, **values: Any) -> dict[str, Any]:
        """A Group of this name, with these people in it."""
        return await self._made("/Groups", group(name, *members, **values))

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        answer = await self.send("GET", path, params=query)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def find(self, path: str, filter: str, **query: Any) -> list[dict[str, Any]]:  # noqa: A002 - SCIM's word
        """What a filter finds, whole."""
        found = await self.get(path, filter=filter, **query)
        assert found["totalResults"] == len(found.get("Resources", []))
        resources: list[dict[str, Any]] = found.get("Resources", [])
        return resources

    async def patch(self, path: str, *operations: dict[str, Any]) -> httpx.Response:
        return await self.send("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)})

    async def members(self, group_id: str) -> list[str]:
        """The ids of a Group's members, in the order in which they joined."""
        return [member["value"] for member in (await self.get(f"/Groups/{group_id}")).get("members", [])]

    async def _made(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        answer = await self.send("POST", path, document)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


def user(name: str, /, **values: Any) -> dict[str, Any]:
    """A User, as a provider sends one."""
    return {
        "schemas": [USER],
        "userName": f"{name}@example.com",
        "name": {"givenName": name.title(), "familyName": "Fischer"},
        "emails": [{"value": f"{name}@example.com", "type": "work", "primary": True}],
        "displayName": f"{name.title()} Fischer",
        "active": True,
        **values,
    }


def group(name: str, /, *members: str, **values: Any) -> dict[str, Any]:
    """A Group, as a provider sends one."""
    return {"schemas": [GROUP], "displayName": name, "members": [{"value": member} for member in members], **values}
