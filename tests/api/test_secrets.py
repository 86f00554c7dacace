"""Secrets over HTTP: set, and never read back."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from uuid import uuid4

import pytest

from db import secrets
from domain.actors import Permission
from domain.secrets import LONGEST_VALUE_CHARS
from tests.api.house import House, Somebody
from tests.api.problem import check_problem, fields

VALUE = "hush-hush"
SENT = {"name": "SLACK_WEBHOOK", "value": VALUE, "description": "Where the logger posts"}


async def _revealed(house: House, *names: str) -> dict[str, str]:
    async with house.db.connection() as connection:
        return await secrets.reveal(connection, house.app.state.vault, names)


async def _made(house: House, **values: Any) -> dict[str, Any]:
    answer = await house.call("POST", "/secrets", house.admin, json={**SENT, **values})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def _task(house: House, name: str, *secret_names: str) -> None:
    async with house.db.connection() as connection:
        await connection.execute(
            """
            INSERT INTO scheduled_tasks (id, name, description, task_type, language, language_given, script,
                                         schedule_type, time_zone, max_retries, timeout_seconds, secret_names, network,
                                         paused)
            VALUES (%s, %s, '', 'script', 'python', false, 'x', 'once', 'UTC', 3, 60, %s, true, false)
            """,
            [uuid4(), name, list(secret_names)],
        )


class TestSecrets:
    async def test_are_made_read_changed_and_deleted_without_their_value(self, house: House) -> None:
        keeper = await house.person("keeper", Permission.TASKS)
        answer = await house.call("POST", "/secrets", keeper, json=SENT)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert made.keys() == {"id", "name", "description", "created_at", "updated_at"}
        assert (made["name"], made["description"]) == ("SLACK_WEBHOOK", "Where the logger posts")
        path = f"/secrets/{made['id']}"
        assert answer.headers["location"] == f"/api/v1{path}"
        assert (await house.call("GET", path, keeper)).json() == made
        assert (await house.call("GET", "/secrets", keeper)).json()["items"] == [made]
        assert await _revealed(house, "SLACK_WEBHOOK") == {"SLACK_WEBHOOK": VALUE}
        assert (await house.call("DELETE", path, keeper)).status_code == 204
        for method in ("GET", "PUT", "DELETE"):
            check_problem(await house.call(method, path, keeper, json={}), 404, "not_found")

    @pytest.mark.parametrize(
        ("sent", "value", "description"),
        [
            ({"value": "new"}, "new", SENT["description"]),
            ({"description": ""}, VALUE, ""),
            ({"value": "new", "description": "other"}, "new", "other"),
            ({"value": None, "description": None}, VALUE, SENT["description"]),
            ({}, VALUE, SENT["description"]),
        ],
        ids=["value", "description", "both", "nulls", "nothing"],
    )
    async def test_keep_what_is_left_out_of_a_change(
        self, house: House, sent: dict[str, Any], value: str, description: str
    ) -> None:
        made = await _made(house)
        answer = await house.call("PUT", f"/secrets/{made['id']}", house.admin, json=sent)
        assert answer.status_code == 200, answer.text
        assert answer.json()["updated_at"] > made["updated_at"]
        assert answer.json() == {**made, "description": description, "updated_at": answer.json()["updated_at"]}
        assert await _revealed(house, "SLACK_WEBHOOK") == {"SLACK_WEBHOOK": value}

    async def test_are_listed_newest_first_page_by_page(self, house: House) -> None:
        made = [await _made(house, name=f"S{number}") for number in range(5)]
        seen: list[dict[str, Any]] = []
        path: str | None = "/secrets?limit=2"
        while path:
            page = (await house.call("GET", path, house.admin)).json()
            seen += page["items"]
            path = page["next_cursor"] and f"/secrets?limit=2&cursor={page['next_cursor']}"
        assert seen == made[::-1]

    async def test_have_a_name_of_their_own(self, house: House) -> None:
        await _made(house)
        check_problem(await house.call("POST", "/secrets", house.admin, json=SENT), 409, "in_use")
        assert await _revealed(house, "SLACK_WEBHOOK") == {"SLACK_WEBHOOK": VALUE}

    async def test_stay_while_a_task_reads_them(self, house: House) -> None:
        made = await _made(house)
        await _task(house, "Access logger", "OTHER", "SLACK_WEBHOOK")
        await _task(house, "Bystander", "OTHER")
        problem = check_problem(await house.call("DELETE", f"/secrets/{made['id']}", house.admin), 409, "in_use")
        assert "“Access logger”" in problem["detail"]
        assert "Bystander" not in problem["detail"]

    async def test_deleted_twice_at_once_are_gone_once(self, house: House) -> None:
        path = f"/secrets/{(await _made(house))['id']}"
        answers = await asyncio.gather(*(house.call("DELETE", path, house.admin) for _ in range(2)))
        assert sorted(answer.status_code for answer in answers) == [204, 404]

    @pytest.mark.parametrize("permissions", [[], [Permission.REQUESTS], [Permission.DIRECTORY]], ids=str)
    async def test_are_for_who_manages_tasks(self, house: House, permissions: list[Permission]) -> None:
        dana = await house.person("dana", *permissions)
        path = f"/secrets/{(await _made(house))['id']}"
        for method, where, sent in (
            ("GET", "/secrets", None),
            ("GET", path, None),
            ("POST", "/secrets", SENT),
            ("PUT", path, {}),
            ("DELETE", path, None),
        ):
            check_problem(await house.call(method, where, dana, json=sent), 403, "forbidden")


class TestValues:
    @pytest.mark.parametrize(
        "value",
        ["a", "multiple\nlines\r\n\tand Grüße 🔑", " spaces ", "x" * LONGEST_VALUE_CHARS, "'; --", '{"json": 1}'],
        ids=["short", "lines", "spaces", "long", "sql", "json"],
    )
    async def test_reach_scripts_as_they_were_sent(self, house: House, value: str) -> None:
        await _made(house, value=value)
        assert await _revealed(house, "SLACK_WEBHOOK") == {"SLACK_WEBHOOK": value}

    @pytest.mark.parametrize(
        ("changed", "field"),
        [
            ({"value": ""}, "value"),
            ({"value": VALUE + "x" * LONGEST_VALUE_CHARS}, "value"),
            ({"value": f"{VALUE}\x00"}, "value"),
            ({"value": f"{VALUE}\ud800"}, "value"),
            ({"value": [VALUE]}, "value"),
            ({"value": {VALUE: VALUE}}, "value"),
            ({"value": 7}, "value"),
            ({"name": "lower"}, "name"),
            ({"name": "WITH SPACE"}, "name"),
            ({"name": "LINE\n"}, "name"),
            ({"name": "1ST"}, "name"),
            ({"name": "A" * 101}, "name"),
            ({"surprise": VALUE}, "surprise"),
        ],
        ids=lambda each: each if isinstance(each, str) else "sent",
    )
    async def test_are_not_repeated_by_a_refusal(
        self, standing_house: House, changed: dict[str, Any], field: str
    ) -> None:
        # Not by the client's own encoder, which refuses lone surrogates.
        body = json.dumps({**SENT, **changed}).encode()
        answer = await standing_house.call(
            "POST", "/secrets", standing_house.admin, content=body, headers={"Content-Type": "application/json"}
        )
        assert fields(answer) == {field}
        assert VALUE not in answer.text

    async def test_are_in_no_answer_and_no_log(self, house: House, caplog: pytest.LogCaptureFixture) -> None:
        async def call(method: str, path: str, by: Somebody | None = house.admin, **sent: Any) -> str:
            return (await house.call(method, path, by, **sent)).text

        with caplog.at_level(logging.DEBUG):
            path = f"/secrets/{(await _made(house))['id']}"
            answers = [
                await call("GET", path),
                await call("GET", "/secrets"),
                await call("POST", "/secrets", json=SENT),
                await call("POST", "/secrets", None, json=SENT),
                await call("PUT", path, json={"value": VALUE}),
                await call("PUT", path, json={"value": VALUE, "name": "OTHER"}),
                await call("PUT", f"/secrets/{uuid4()}", json={"value": VALUE}),
                await call("DELETE", path),
            ]
        assert all(VALUE not in text for text in answers)
        assert VALUE not in caplog.text
        # The message of a record, however it would be formatted.
        assert all(VALUE not in str(record.__dict__) for record in caplog.records)
