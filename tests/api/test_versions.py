"""What is replaced as a whole has a version, and nobody overwrites unseen what was changed meanwhile."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from bench.statements import counted
from db.applications import MappingView
from db.groups import GroupView
from db.integrations import IntegrationView
from db.secrets import SecretView
from db.tasks import TaskView
from db.templates import TemplateView
from db.users import UserView
from db.views import Versioned
from domain.versions import Expected, version_of
from tests.api.house import House
from tests.api.problem import check_problem, fields
from tests.api.test_adversarial import OPENAPI, ROUTES

AT_ONCE: Final = 4


async def _template(house: House) -> dict[str, Any]:
    app = await house.application(f"application {uuid4()}")
    return {"name": "Read", "app_id": str(app.id)}


async def _mapping(house: House) -> dict[str, Any]:
    app = await house.application(f"application {uuid4()}")
    return {"app_id": str(app.id), "name": f"m {uuid4()}", "claim": "roles", "value": "reader"}


def _named(**values: Any) -> Callable[[House], Awaitable[dict[str, Any]]]:
    async def body(_: House) -> dict[str, Any]:
        return {"name": f"n {uuid4()}", **values}

    return body


async def _user(_: House) -> dict[str, Any]:
    return {"email": f"u-{uuid4()}@example.com", "name": "Dana"}


async def _secret(_: House) -> dict[str, Any]:
    return {"name": f"S_{uuid4().hex.upper()}", "value": "hidden"}


KINDS: Final[dict[str, tuple[Callable[[House], Awaitable[dict[str, Any]]], str]]] = {
    "/access-request-templates": (_template, "description"),
    "/groups": (_named(), "description"),
    "/users": (_user, "name"),
    "/applications": (_named(), "description"),
    "/app-mappings": (_mapping, "value"),
    "/scheduled-tasks": (_named(script="def run(): ..."), "description"),
    "/integrations": (
        _named(target="webhook", events=["access_request.denied"], url="https://one.example.com/hook"),
        "url",
    ),
    "/secrets": (_secret, "description"),
}
"""Each kind of thing with a body that makes one, and the field that these tests change."""
EACH_KIND: Final = pytest.mark.parametrize("kind", KINDS)


class Thing:
    """Something that was made over HTTP."""

    def __init__(self, house: House, kind: str, made: Any, body: dict[str, Any]) -> None:
        self._house = house
        self._path = f"{kind}/{made.json()['id']}"
        self._field = KINDS[kind][1]
        self._body = {name: value for name, value in body.items() if kind != "/secrets" or name != "name"}
        self.tag: str = made.headers["etag"]

    @classmethod
    async def make(cls, house: House, kind: str) -> Thing:
        body = await KINDS[kind][0](house)
        made = await house.call("POST", kind, house.admin, json=body)
        assert made.status_code == 201, made.text
        return cls(house, kind, made, body)

    async def call(self, method: str, expected: str | None, **request: Any) -> Any:
        headers = {} if expected is None else {"If-Match": expected}
        return await self._house.call(method, self._path, self._house.admin, headers=headers, **request)

    async def put(self, text: str, expected: str | None = None) -> Any:
        return await self.call("PUT", expected, json={**self._body, self._field: f"https://{text}.example.com/"})

    async def current(self) -> str:
        """Its version, as it is read."""
        answer = await self.call("GET", None)
        assert answer.status_code == 200
        return str(answer.headers["etag"])


@EACH_KIND
async def test_what_is_answered_has_the_version_that_is_read(standing_house: House, kind: str) -> None:
    thing = await Thing.make(standing_house, kind)
    assert re.fullmatch(r'"[0-9a-f]{32}"', thing.tag)
    assert await thing.current() == thing.tag
    changed = await thing.put("one", thing.tag)
    assert changed.status_code == 200, changed.text
    assert changed.headers["etag"] == await thing.current() != thing.tag


@EACH_KIND
async def test_the_second_of_two_who_read_the_same_is_refused(standing_house: House, kind: str) -> None:
    thing = await Thing.make(standing_house, kind)
    assert (await thing.put("first", thing.tag)).status_code == 200
    after = await thing.current()
    refused = await thing.put("second", thing.tag)
    check_problem(refused, 412, "changed_meanwhile")
    assert "Read it again" in refused.json()["detail"]
    assert await thing.current() == after
    assert (await thing.put("second", after)).status_code == 200


@EACH_KIND
async def test_of_several_at_once_exactly_one_wins(standing_house: House, kind: str) -> None:
    thing = await Thing.make(standing_house, kind)
    answers = await asyncio.gather(*(thing.put(f"writer{number}", thing.tag) for number in range(AT_ONCE)))
    assert sorted(answer.status_code for answer in answers) == [200, *[412] * (AT_ONCE - 1)]
    [winner] = [answer for answer in answers if answer.status_code == 200]
    assert await thing.current() == winner.headers["etag"]


@EACH_KIND
async def test_the_condition_is_read_as_its_standard_says(standing_house: House, kind: str) -> None:
    thing = await Thing.make(standing_house, kind)
    for expected in (f'"other",, {thing.tag} ', "*", None):
        answer = await thing.put("same", expected)
        assert answer.status_code == 200, expected
        thing.tag = answer.headers["etag"]
    for expected in (f"W/{thing.tag}", '"other"', '"a,b"'):
        check_problem(await thing.put("other", expected), 412, "changed_meanwhile")
    for expected in ("", thing.tag.strip('"'), f"{thing.tag} {thing.tag}", f"*, {thing.tag}", '"', "w/" + thing.tag):
        refused = await thing.put("other", expected)
        check_problem(refused, 422, "validation_error")
        assert fields(refused) == {"If-Match"}
    assert await thing.current() == thing.tag


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "/users"])
async def test_what_was_changed_is_not_deleted_unseen(standing_house: House, kind: str) -> None:
    thing = await Thing.make(standing_house, kind)
    assert (await thing.put("changed")).status_code == 200
    check_problem(await thing.call("DELETE", thing.tag), 412, "changed_meanwhile")
    assert (await thing.call("DELETE", await thing.current())).status_code == 204
    check_problem(await thing.call("DELETE", "*"), 404, "not_found")


@EACH_KIND
async def test_the_condition_costs_no_statement(standing_house: House, kind: str) -> None:
    thing = await Thing.make(standing_house, kind)
    # Once before, so that no call is the one that notes the use of the token.
    await thing.current()
    with counted() as without:
        assert (await thing.put("one")).status_code == 200
    tag = await thing.current()
    with counted() as conditional:
        assert (await thing.put("two", tag)).status_code == 200
    # The groups of a mapping are rows of their own, which a replacement reads only to answer.
    assert len(conditional) == len(without) + (kind == "/app-mappings")


async def test_a_list_may_come_in_several_lines(standing_house: House) -> None:
    thing = await Thing.make(standing_house, "/groups")
    answer = await standing_house.client.put(
        f"/api/v1{thing._path}",
        json={"name": f"renamed {uuid4()}"},
        headers=[
            ("Authorization", f"Bearer {standing_house.admin.token}"),
            ("If-Match", '"other"'),
            ("If-Match", thing.tag),
        ],
    )
    assert answer.status_code == 200, answer.text


def test_every_put_that_takes_a_body_is_conditional() -> None:
    puts = {path for method, path, operation in ROUTES if method == "PUT" and "requestBody" in operation}
    assert {path.rpartition("/")[0] for path in puts} == {*KINDS, "/scim/v2/Users", "/scim/v2/Groups"}
    for method, path, operation in ROUTES:
        conditional = any(each["name"] == "If-Match" for each in operation.get("parameters", []))
        assert conditional == (path in puts and method in {"PUT", "PATCH", "DELETE"}), f"{method} {path}"
        assert conditional == ("412" in operation["responses"])
        if path in puts and method == "GET":
            assert "ETag" in operation["responses"]["200"]["headers"]


@pytest.mark.parametrize(
    ("view", "body", "unseen"),
    [
        (TemplateView, "TemplateValues", set()),
        (GroupView, "GroupValues", set()),
        (UserView, "UserReplacement", set()),
        (MappingView, "MappingValues", set()),
        (TaskView, "TaskValues", set()),
        (IntegrationView, "IntegrationReplacement", {"slack_url"}),
        (SecretView, "SecretChange", {"value"}),
    ],
)
def test_a_version_covers_all_that_a_replacement_sets(view: type[Versioned], body: str, unseen: set[str]) -> None:
    sets = OPENAPI["components"]["schemas"][body]["properties"].keys()
    assert sets - unseen <= view.VERSIONED
    # What no answer shows has a time instead.
    assert not unseen or "updated_at" in view.VERSIONED


class TestVersion:
    """What does not belong to a replacement does not make it fail, and what belongs to it does."""

    async def test_of_a_template_is_not_its_applications(self, standing_house: House) -> None:
        template = await standing_house.template()
        before = template.version
        renamed = {"name": f"renamed {uuid4()}"}
        await standing_house.call("PUT", f"/applications/{template.app_id}", standing_house.admin, json=renamed)
        answer = await standing_house.call("GET", f"/access-request-templates/{template.id}", standing_house.admin)
        assert answer.json()["app_name"] == renamed["name"]
        assert answer.headers["etag"] == before

    async def test_of_a_group_is_its_permissions_and_not_its_members(self, standing_house: House) -> None:
        house = standing_house
        group = await house.group(f"group {uuid4()}")
        path = f"/groups/{group.id}"
        assert (await house.call("PUT", f"{path}/members/{house.admin.id}", house.admin)).status_code == 204
        assert (await house.call("GET", path, house.admin)).headers["etag"] == group.version
        given = {"name": group.name, "permissions": ["tasks.manage"]}
        assert (await house.call("PUT", path, house.admin, json=given)).headers["etag"] != group.version

    async def test_of_a_mapping_has_its_groups(self, standing_house: House) -> None:
        house = standing_house
        mapping = await house.mapping((await house.application(f"application {uuid4()}")).id)
        path, group = f"/app-mappings/{mapping.id}", await house.group(f"group {uuid4()}")
        assert (await house.call("PUT", f"{path}/groups/{group.id}", house.admin)).status_code == 204
        check_problem(
            await house.call("DELETE", path, house.admin, headers={"If-Match": mapping.version}),
            412,
            "changed_meanwhile",
        )
        assert (await house.call("DELETE", f"{path}/groups/{group.id}", house.admin)).status_code == 204
        assert (await house.call("GET", path, house.admin)).headers["etag"] == mapping.version

    async def test_of_a_task_is_not_whether_it_is_paused(self, standing_house: House) -> None:
        task = await standing_house.task()
        path = f"/scheduled-tasks/{task.id}"
        assert (await standing_house.call("POST", f"{path}/pause", standing_house.admin)).json()["paused"]
        assert (await standing_house.call("GET", path, standing_house.admin)).headers["etag"] == task.version

    async def test_of_a_secret_changes_with_its_value(self, standing_house: House) -> None:
        thing = await Thing.make(standing_house, "/secrets")
        assert (await thing.call("PUT", thing.tag, json={"value": "another"})).status_code == 200
        check_problem(await thing.call("PUT", thing.tag, json={"value": "a third"}), 412, "changed_meanwhile")

    def test_is_the_same_in_any_order_of_keys(self) -> None:
        assert version_of({"a": 1, "b": [1, 2]}) == version_of({"b": [1, 2], "a": 1})
        assert version_of({"a": [1, 2]}) != version_of({"a": [2, 1]})
        assert version_of({"a": ""}) != version_of({"a": None})

    def test_of_a_long_list_is_read_in_time(self) -> None:
        tags = frozenset(f'"{number}"' for number in range(5_000))
        assert Expected.parse(" , ".join(tags)).tags == tags


class TestSwitches:
    """What was switched off is switched on only where somebody says so."""

    async def test_a_deactivated_user_stays_so(self, house: House) -> None:
        dana = await house.person("dana")
        path, values = f"/users/{dana.id}", {"email": dana.email, "name": "Dana"}
        answer = await house.call("PUT", path, house.admin, json={**values, "active": False})
        assert answer.json()["active"] is False
        for given in ({}, {"active": None}):
            renamed = await house.call("PUT", path, house.admin, json={**values, "name": "Dana F.", **given})
            assert renamed.status_code == 200, renamed.text
            assert (renamed.json()["name"], renamed.json()["active"]) == ("Dana F.", False)
        answer = await house.call("PUT", path, house.admin, json={**values, "active": True})
        assert answer.json()["active"] is True
        assert (await house.call("PUT", path, house.admin, json=values)).json()["active"] is True

    async def test_a_new_user_is_active(self, house: House) -> None:
        made = await house.call("POST", "/users", house.admin, json={"email": "erin@example.com", "name": "Erin"})
        assert made.json()["active"] is True
        check_problem(
            await house.call("POST", "/users", house.admin, json={"email": "f@x.org", "name": "F", "active": None}),
            422,
            "validation_error",
        )

    async def test_a_disabled_integration_stays_so(self, house: House) -> None:
        values = {"name": "mail", "target": "email", "events": ["access_request.denied"]}
        made = await house.call("POST", "/integrations", house.admin, json={**values, "enabled": False})
        path = f"/integrations/{UUID(made.json()['id'])}"
        assert (await house.call("PUT", path, house.admin, json=values)).json()["enabled"] is False
        assert (await house.call("PUT", path, house.admin, json={**values, "enabled": True})).json()["enabled"] is True
        assert (await house.call("PUT", path, house.admin, json=values)).json()["enabled"] is True
        made = await house.call("POST", "/integrations", house.admin, json={**values, "name": "other"})
        assert made.json()["enabled"] is True
