"""What SCIM clients replace has a version, and nothing changed meanwhile is overwritten (RFC 7644, section 3.14)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.house import House
from tests.scim.provider import PATCH, Provider, group, user

RENAME = {"schemas": [PATCH], "Operations": [{"op": "replace", "path": "displayName", "value": "renamed"}]}


def _refused(answer: Any) -> bool:
    if answer.status_code != 412:
        return False
    assert answer.headers["content-type"].startswith("application/scim+json")
    assert answer.json()["status"] == "412"
    return True


async def test_the_service_says_that_it_has_versions(provider: Provider) -> None:
    assert (await provider.get("/ServiceProviderConfig"))["etag"] == {"supported": True}


@pytest.mark.parametrize("kind", ["/Users", "/Groups"])
async def test_what_was_changed_meanwhile_is_not_overwritten(provider: Provider, kind: str) -> None:
    sent = user("dana") if kind == "/Users" else group("crew")
    made = await provider.send("POST", kind, sent)
    path, read = f"{kind}/{made.json()['id']}", made.headers["etag"]
    assert read == made.json()["meta"]["version"] == (await provider.send("GET", path)).headers["etag"]
    assert [each["meta"]["version"] for each in (await provider.get(kind))["Resources"] if each["id"] in path] == [read]

    changed = await provider.send("PUT", path, {**sent, "displayName": "changed"})
    assert changed.headers["etag"] != read
    for method, document in (("PUT", sent), ("PATCH", RENAME), ("DELETE", None)):
        for stale in (read, f"W/{changed.headers['etag']}"):
            headers = {"If-Match": stale, "Content-Type": "application/scim+json"}
            assert _refused(
                await provider.house.call(
                    method,
                    f"/scim/v2{path}",
                    provider.account,
                    headers=headers,
                    **({"json": document} if document else {}),
                )
            ), method
    assert (await provider.get(path))["displayName"] == "changed"

    headers = {"If-Match": f'"other", {changed.headers["etag"]}', "Content-Type": "application/scim+json"}
    answer = await provider.house.call("PATCH", f"/scim/v2{path}", provider.account, headers=headers, json=RENAME)
    assert answer.status_code in {200, 204}
    assert (await provider.get(path))["displayName"] == "renamed"
    garbled = await provider.send("DELETE", path, headers={"If-Match": "unquoted"})
    assert (garbled.status_code, "If-Match" in garbled.json()["detail"]) == (400, True)
    now = (await provider.send("GET", path)).headers["etag"]
    assert (await provider.send("DELETE", path, headers={"If-Match": now})).status_code == 204


async def test_what_an_administrator_changed_is_another_version(house: House, provider: Provider) -> None:
    made = await provider.make("dana")
    path = f"/users/{made['id']}"
    values = {"email": "dana@example.com", "name": "Dana Fischer", "active": False}
    assert (await house.call("PUT", path, house.admin, json=values)).status_code == 200
    headers = {"If-Match": made["meta"]["version"], "Content-Type": "application/scim+json"}
    answer = await house.call(
        "PUT", f"/scim/v2/Users/{made['id']}", provider.account, json=user("dana"), headers=headers
    )
    assert _refused(answer)
    assert (await house.call("GET", path, house.admin)).json()["active"] is False


class TestMembers:
    """A PUT replaces them with their Group, so that they are a part of its version."""

    async def test_make_another_version(self, provider: Provider) -> None:
        dana, erin = await provider.make("dana"), await provider.make("erin")
        made = await provider.make_group("crew", dana["id"])
        path = f"/Groups/{made['id']}"
        adds = {"op": "add", "path": "members", "value": [{"value": erin["id"]}]}
        assert (await provider.patch(path, adds)).status_code == 204
        for method, document in (
            ("PUT", group("crew", dana["id"])),
            # About one member, while others make the version too.
            ("PATCH", {"schemas": [PATCH], "Operations": [{**adds, "value": [{"value": dana["id"]}]}]}),
        ):
            headers = {"If-Match": made["meta"]["version"], "Content-Type": "application/scim+json"}
            answer = await provider.house.call(
                method, f"/scim/v2{path}", provider.account, json=document, headers=headers
            )
            assert _refused(answer), method
        assert await provider.members(made["id"]) == [dana["id"], erin["id"]]

    async def test_that_are_not_shown_leave_no_version(self, provider: Provider) -> None:
        made = await provider.make_group("crew")
        answer = await provider.send("GET", f"/Groups/{made['id']}", params={"excludedAttributes": "members"})
        assert "etag" not in answer.headers
        assert "version" not in answer.json()["meta"]
