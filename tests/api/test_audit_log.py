"""The audit log over the API: everybody reads of what they manage, and nobody is named for what another did."""

from __future__ import annotations

from typing import Any

import pytest

from domain.actors import Permission
from domain.audit_log import READABLE_WITH, Kind
from tests.api.house import House, Somebody
from tests.api.problem import check_problem


async def something_of_each_permission(house: House) -> dict[Permission, str]:
    """Changes that the log has entries of; one id for each permission that reads them."""
    template = await house.template(name="Database access")
    task = await house.task(name="tell everybody")
    group = await house.group("a team")
    secret = await house.call("POST", "/secrets", house.admin, json={"name": "SLACK_WEBHOOK", "value": "hush"})
    assert secret.status_code == 201, secret.text
    return {
        Permission.REQUESTS: str(template.id),
        Permission.TASKS: str(task.id),
        Permission.DIRECTORY: str(group.id),
    }


async def listed(house: House, by: Somebody, query: str = "") -> list[dict[str, Any]]:
    answer = await house.call("GET", f"/audit-log?limit=200{query}", by)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_of_everything_else_nobody_reads_whatever_they_filter_by(house: House) -> None:
    changed = await something_of_each_permission(house)
    for permission in (Permission.REQUESTS, Permission.TASKS, Permission.DIRECTORY):
        reader = await house.person(f"reader.of.{permission.value}", permission)
        theirs = {kind.value for kind, needed in READABLE_WITH.items() if needed is permission}
        found = await listed(house, reader)
        assert found, permission
        assert {entry["kind"] for entry in found} <= theirs
        for needed, object_id in changed.items():
            assert bool(await listed(house, reader, f"&object_id={object_id}")) is (needed is permission)
        for actor in {entry["actor"] for entry in await listed(house, house.admin)}:
            assert {entry["kind"] for entry in await listed(house, reader, f"&actor={actor}")} <= theirs
        for kind in Kind:
            answer = await house.call("GET", f"/audit-log?kind={kind}", reader)
            if kind.value in theirs:
                assert {entry["kind"] for entry in answer.json()["items"]} <= {kind.value}
            else:
                check_problem(answer, 403, "forbidden")
        # One that is theirs does not open another.
        answer = await house.call(
            "GET", "/audit-log", reader, params=[("kind", min(theirs)), ("kind", "users,secrets")]
        )
        check_problem(answer, 422, "validation_error")


async def test_pages_lead_through_what_is_theirs_alone(house: House) -> None:
    await something_of_each_permission(house)
    reader = await house.person("reader", Permission.TASKS)
    seen: list[str] = []
    cursor = ""
    while True:
        answer = (await house.call("GET", f"/audit-log?limit=1{cursor}", reader)).json()
        seen += [entry["kind"] for entry in answer["items"]]
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    assert sorted(seen) == ["scheduled_tasks", "secrets"]


@pytest.mark.parametrize("forged", ["justiam.actor", "X-Actor", "X-Forwarded-User", "From"])
async def test_an_actor_is_who_called_whatever_they_send(house: House, forged: str) -> None:
    mallory = await house.person("mallory", Permission.DIRECTORY)
    headers = {forged: "root@example.com", "X-Request-Id": "a name that', 'could be an actor"}
    sent = {"name": "theirs"}
    answer = await house.call("POST", "/groups", mallory, json=sent, headers=headers)
    assert answer.status_code == 201, answer.text
    (entry,) = await listed(house, mallory, f"&object_id={answer.json()['id']}")
    assert entry["actor"] == mallory.email
    assert entry["request_id"] == answer.headers["X-Request-Id"] != headers["X-Request-Id"]
    refused = await house.call("POST", "/groups", mallory, json={"name": "another", "actor": "root@example.com"})
    check_problem(refused, 422, "validation_error")
