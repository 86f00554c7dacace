"""Scheduled tasks over HTTP, and what came of their runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from db import integrations, secrets
from db.run_history import EXCERPT_CHARS
from domain.actors import Permission
from domain.integrations import IntegrationValues
from domain.secrets import NewSecret
from domain.states import Action
from tests.api.house import House, Somebody
from tests.api.problem import check_problem, fields

GO = 'package task\n\nfunc Run() (string, error) { return "", nil }\n'
PYTHON = "def run():\n    return 'done'\n"
SENT = {"name": "Access Request Event Logger", "script": GO}
DEFAULTS: dict[str, Any] = {
    "description": "",
    "task_type": "script",
    "schedule_type": "once",
    "interval_seconds": None,
    "cron": None,
    "time_zone": "UTC",
    "max_retries": 3,
    "timeout_seconds": 60,
    "secret_names": [],
    "network": True,
}
EVERYTHING = {
    "name": "Nightly report",
    "description": "Writes it.",
    "task_type": "script",
    "language": "python",
    "script": PYTHON,
    "schedule_type": "cron",
    "interval_seconds": None,
    "cron": "0 6 * * 1-5",
    "time_zone": "Europe/Berlin",
    "max_retries": 0,
    "timeout_seconds": 5,
    "secret_names": ["SLACK_WEBHOOK"],
    "network": False,
}


async def _secret(house: House, name: str = "SLACK_WEBHOOK") -> UUID:
    return (await secrets.create(house.db, house.app.state.vault, NewSecret(name=name, value=SecretStr("hush")))).id


async def _run(house: House, **columns: Any) -> UUID:
    """A run that is over, unless it is said otherwise."""
    run_id = uuid4()
    row = {
        "id": run_id,
        "task_name": "as it was called",
        "cause": "trigger",
        "failure_mode": "retry",
        "status": "succeeded",
        "attempt": 1,
        "output": "",
        "output_truncated": False,
        **columns,
    }
    names = ", ".join(row)
    async with house.db.connection() as connection:
        await connection.execute(
            f"INSERT INTO task_runs ({names}) VALUES ({', '.join(['%s'] * len(row))})",  # noqa: S608
            list(row.values()),
        )
    return run_id


async def _integration(house: House, task_id: UUID, name: str) -> None:
    values = IntegrationValues.model_validate(
        {"name": name, "target": "task", "events": ["access_request.submitted"], "task_id": task_id}
    )
    await integrations.create(house.db, house.app.state.vault, values)


class TestTasks:
    async def test_are_made_read_replaced_and_deleted(self, house: House) -> None:
        keeper = await house.person("keeper", Permission.TASKS)
        await _secret(house)
        answer = await house.call("POST", "/scheduled-tasks", keeper, json=SENT)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        path = f"/scheduled-tasks/{made['id']}"
        assert answer.headers["location"] == f"/api/v1{path}"
        assert made == {
            **DEFAULTS,
            **SENT,
            "id": made["id"],
            "language": "go",
            "language_inferred": True,
            "paused": False,
            "created_at": made["created_at"],
            "updated_at": made["created_at"],
        }
        assert (await house.call("GET", path, keeper)).json() == made
        assert (await house.call("GET", "/scheduled-tasks", keeper)).json()["items"] == [made]
        answer = await house.call("PUT", path, keeper, json=EVERYTHING)
        assert answer.status_code == 200, answer.text
        replaced = answer.json()
        assert replaced["updated_at"] > made["updated_at"]
        assert replaced == {**made, **EVERYTHING, "language_inferred": False, "updated_at": replaced["updated_at"]}
        assert (await house.call("GET", path, keeper)).json() == replaced
        assert (await house.call("DELETE", path, keeper)).status_code == 204
        for method in ("GET", "PUT", "DELETE"):
            check_problem(await house.call(method, path, keeper, json=SENT), 404, "not_found")

    async def test_in_go_have_its_library_compiled_when_they_are_saved(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prepared: list[str] = []

        async def prepare_go() -> None:
            prepared.append("go")

        monkeypatch.setattr(house.app.state.orchestrator, "prepare_go", prepare_go)
        made = (await house.call("POST", "/scheduled-tasks", house.admin, json={"name": "go", "script": GO})).json()
        assert prepared == ["go"]
        changed = {"name": "python", "script": PYTHON}
        await house.call("PUT", f"/scheduled-tasks/{made['id']}", house.admin, json=changed)
        assert prepared == ["go"]

    async def test_get_the_defaults_of_what_a_replacement_leaves_out(self, house: House) -> None:
        await _secret(house)
        made = (await house.call("POST", "/scheduled-tasks", house.admin, json=EVERYTHING)).json()
        answer = await house.call("PUT", f"/scheduled-tasks/{made['id']}", house.admin, json=SENT)
        assert {name: answer.json()[name] for name in DEFAULTS} == DEFAULTS
        assert (answer.json()["language"], answer.json()["language_inferred"]) == ("go", True)

    async def test_stay_paused_when_they_are_replaced(self, house: House) -> None:
        task = await house.task()
        async with house.db.connection() as connection:
            await connection.execute("UPDATE scheduled_tasks SET paused = true")
        answer = await house.call("PUT", f"/scheduled-tasks/{task.id}", house.admin, json=SENT)
        assert answer.json()["paused"] is True

    async def test_are_listed_newest_first_page_by_page(self, house: House) -> None:
        made = [str((await house.task()).id) for _ in range(5)]
        seen: list[str] = []
        path: str | None = "/scheduled-tasks?limit=2"
        while path:
            page = (await house.call("GET", path, house.admin)).json()
            seen += [item["id"] for item in page["items"]]
            path = page["next_cursor"] and f"/scheduled-tasks?limit=2&cursor={page['next_cursor']}"
        assert seen == made[::-1]

    async def test_have_a_name_of_their_own(self, house: House) -> None:
        await house.task(name=SENT["name"])
        other = await house.task()
        check_problem(await house.call("POST", "/scheduled-tasks", house.admin, json=SENT), 409, "in_use")
        check_problem(await house.call("PUT", f"/scheduled-tasks/{other.id}", house.admin, json=SENT), 409, "in_use")

    async def test_read_secrets_that_are_there(self, house: House) -> None:
        await _secret(house, "ONE")
        task = await house.task()
        sent = {**SENT, "secret_names": ["GONE", "ONE", "LOST"]}
        for method, path in (("POST", "/scheduled-tasks"), ("PUT", f"/scheduled-tasks/{task.id}")):
            answer = await house.call(method, path, house.admin, json=sent)
            assert fields(answer) == {"secret_names.0", "secret_names.2"}

    async def test_keep_the_secrets_that_they_read(self, house: House) -> None:
        secret_id = await _secret(house, "ONE")
        await house.task(name="Reader", secret_names=["ONE"])
        problem = check_problem(await house.call("DELETE", f"/secrets/{secret_id}", house.admin), 409, "in_use")
        assert "“Reader”" in problem["detail"]

    async def test_and_the_end_of_a_secret_at_the_same_moment_exclude_each_other(self, house: House) -> None:
        for number in range(8):
            secret_id = await _secret(house, f"S{number}")
            made, deleted = await asyncio.gather(
                house.call(
                    "POST",
                    "/scheduled-tasks",
                    house.admin,
                    json={"name": f"T{number}", "script": PYTHON, "secret_names": [f"S{number}"]},
                ),
                house.call("DELETE", f"/secrets/{secret_id}", house.admin),
            )
            assert (made.status_code, deleted.status_code) in {(201, 409), (422, 204)}

    @pytest.mark.parametrize(
        ("changed", "field"),
        [
            ({"name": ""}, "name"),
            ({"script": ""}, "script"),
            ({"script": "x" * 40_000 + "\x00"}, "script"),
            ({"script": None}, "script"),
            ({"language": "perl"}, "language"),
            ({"task_type": "http"}, "task_type"),
            ({"schedule_type": "hourly"}, "schedule_type"),
            ({"schedule_type": "interval"}, "body"),
            ({"interval_seconds": 60}, "body"),
            ({"schedule_type": "interval", "interval_seconds": 9}, "interval_seconds"),
            ({"schedule_type": "interval", "interval_seconds": "60"}, "interval_seconds"),
            ({"schedule_type": "cron"}, "body"),
            ({"schedule_type": "cron", "cron": "61 * * * *"}, "cron"),
            ({"schedule_type": "cron", "cron": "@daily"}, "cron"),
            ({"schedule_type": "cron", "cron": "0 0 30 2 *"}, "cron"),
            ({"time_zone": "Mars/Olympus"}, "time_zone"),
            ({"max_retries": 21}, "max_retries"),
            ({"timeout_seconds": 0}, "timeout_seconds"),
            ({"timeout_seconds": 3601}, "timeout_seconds"),
            ({"secret_names": ["lower"]}, "secret_names.0"),
            ({"secret_names": ["ONE", "ONE"]}, "secret_names"),
            ({"network": "maybe"}, "network"),
            ({"paused": True}, "paused"),
            ({"id": str(uuid4())}, "id"),
        ],
    )
    async def test_refuse_what_does_not_fit(self, standing_house: House, changed: dict[str, Any], field: str) -> None:
        sent = {**SENT, **changed}
        answer = await standing_house.call("POST", "/scheduled-tasks", standing_house.admin, json=sent)
        assert fields(answer) == {field}

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("def run(:", "line 1, column 9: invalid syntax"),
            ("import os\n", "must define a function run() at its top level"),
            ("package main\n\nfunc main() {}\n", "line 1, column 9: the package must be `task`, not `main`"),
        ],
    )
    async def test_a_script_that_cannot_run_is_refused_with_line_and_column(
        self, standing_house: House, script: str, message: str
    ) -> None:
        house, task = standing_house, await standing_house.task()
        for method, path in (("POST", "/scheduled-tasks"), ("PUT", f"/scheduled-tasks/{task.id}")):
            answer = await house.call(method, path, house.admin, json={**SENT, "script": script})
            problem = check_problem(answer, 422, "validation_error")
            assert problem["errors"] == [{"field": "script", "message": message}]

    async def test_a_script_of_before_that_cannot_run_keeps_nothing_else_from_changing(self, house: House) -> None:
        # Saved by a version that did not check, which this function of the record does not either.
        task = await house.task(script="def run(:")
        path = f"/scheduled-tasks/{task.id}"
        assert (await house.call("GET", path, house.admin)).json()["script"] == "def run(:"
        for step, status in (("pause", 200), ("resume", 200), ("run", 201)):
            assert (await house.call("POST", f"{path}/{step}", house.admin)).status_code == status
        same = {"name": task.name, "script": "def run(:", "timeout_seconds": 5}
        answer = await house.call("PUT", path, house.admin, json=same)
        assert (answer.status_code, answer.json()["timeout_seconds"]) == (200, 5)
        for changed in ({"script": "def run(::"}, {"language": "go"}):
            assert fields(await house.call("PUT", path, house.admin, json={**same, **changed})) == {"script"}
        check_problem(await house.call("PUT", f"/scheduled-tasks/{uuid4()}", house.admin, json=same), 404, "not_found")

    async def test_a_byte_order_mark_stays_in_what_is_stored(self, house: House) -> None:
        for script, language in (("\ufeff" + GO.replace("\n", "\r\n"), "go"), ("\ufeff" + PYTHON, "python")):
            sent = {"name": f"task {uuid4()}", "script": script}
            made = (await house.call("POST", "/scheduled-tasks", house.admin, json=sent)).json()
            assert (made["script"], made["language"]) == (script, language)

    @pytest.mark.parametrize(
        ("permissions", "may_read", "may_write"),
        [
            ([], False, False),
            ([Permission.DIRECTORY], False, False),
            ([Permission.REQUESTS], True, False),
            ([Permission.TASKS], True, True),
        ],
        ids=["nothing", "directory", "requests", "tasks"],
    )
    async def test_are_for_who_manages_them(
        self, house: House, permissions: list[Permission], *, may_read: bool, may_write: bool
    ) -> None:
        dana = await house.person("dana", *permissions)
        path = f"/scheduled-tasks/{(await house.task()).id}"
        for method, where, allowed in (
            ("GET", "/scheduled-tasks", may_read),
            ("GET", path, may_read),
            ("GET", f"{path}/runs", may_read),
            ("POST", "/scheduled-tasks", may_write),
            ("PUT", path, may_write),
            ("DELETE", path, may_write),
        ):
            sent = {**SENT, "name": f"{method} by dana"}
            answer = await house.call(method, where, dana, json=sent)
            if allowed:
                assert answer.is_success, answer.text
            else:
                check_problem(answer, 403, "forbidden")


class TestInUse:
    async def test_by_templates(self, house: House) -> None:
        task = await house.task()
        template = await house.template(name="Read it", trigger_task_id=task.id)
        await house.template(name="Bystander")
        path = f"/scheduled-tasks/{task.id}"
        problem = check_problem(await house.call("DELETE", path, house.admin), 409, "in_use")
        assert "“Read it”" in problem["detail"]
        assert "Bystander" not in problem["detail"]
        assert (await house.call("PUT", path, house.admin, json=SENT)).status_code == 200
        await house.call("DELETE", f"/access-request-templates/{template.id}", house.admin)
        assert (await house.call("DELETE", path, house.admin)).status_code == 204

    async def test_by_integrations(self, house: House) -> None:
        task, other = await house.task(), await house.task()
        await _integration(house, task.id, "Tell the DBAs")
        await _integration(house, other.id, "Bystander")
        answer = await house.call("DELETE", f"/scheduled-tasks/{task.id}", house.admin)
        problem = check_problem(answer, 409, "in_use")
        assert "“Tell the DBAs”" in problem["detail"]
        assert "Bystander" not in problem["detail"]

    @pytest.mark.parametrize(("mode", "status"), [("block", 409), ("ignore", 204), ("retry", 204)])
    async def test_by_the_approval_of_a_pending_request_that_waits_for_it(
        self, house: House, mode: str, status: int
    ) -> None:
        task = await house.task()
        template = await house.template(trigger_task_id=task.id, trigger_task_failure_mode=mode)
        request_id = await house.request(template, await house.person("dana"))
        answer = await house.call(
            "PUT",
            f"/access-request-templates/{template.id}",
            house.admin,
            json={"name": "X", "app_id": str(template.app_id)},
        )
        assert answer.status_code == 200, answer.text
        path = f"/scheduled-tasks/{task.id}"
        answer = await house.call("DELETE", path, house.admin)
        assert answer.status_code == status, answer.text
        if status == 409:
            assert str(request_id) in check_problem(answer, 409, "in_use")["detail"]
            await house.decide(request_id, Action.DENY, house.admin)
            assert (await house.call("DELETE", path, house.admin)).status_code == 204

    async def test_and_templates_made_at_the_same_moment_exclude_each_other(self, house: House) -> None:
        app_id = str((await house.application()).id)
        for number in range(8):
            task = await house.task()
            made, deleted = await asyncio.gather(
                house.call(
                    "POST",
                    "/access-request-templates",
                    house.admin,
                    json={"name": f"T{number}", "app_id": app_id, "trigger_task_id": str(task.id)},
                ),
                house.call("DELETE", f"/scheduled-tasks/{task.id}", house.admin),
            )
            assert (made.status_code, deleted.status_code) in {(201, 409), (422, 204)}


class TestRuns:
    async def test_say_why_when_and_what_came_of_it(self, house: House) -> None:
        task = await house.task()
        at = datetime(2030, 1, 1, 12, tzinfo=UTC)
        run_id = await _run(
            house,
            task_id=task.id,
            cause="manual",
            started_by="root@example.com",
            config=Jsonb({"request_id": "not shown"}),
            status="failed",
            attempt=2,
            created_at=at,
            started_at=at + timedelta(seconds=1),
            finished_at=at + timedelta(seconds=2),
            exit_code=3,
            duration_ms=998,
            output="some",
            output_truncated=True,
            error="ValueError: no",
            isolation="landlock",
            ticket_hash=b"ticket",
            holder="an attempt",
        )
        expected = {
            "id": str(run_id),
            "task_id": str(task.id),
            "task_name": "as it was called",
            "cause": "manual",
            "event": None,
            "request_id": None,
            "timeline_id": None,
            "integration_id": None,
            "started_by": "root@example.com",
            "failure_mode": "retry",
            "status": "failed",
            "attempt": 2,
            "created_at": "2030-01-01T12:00:00Z",
            "started_at": "2030-01-01T12:00:01Z",
            "finished_at": "2030-01-01T12:00:02Z",
            "next_attempt_at": None,
            "exit_code": 3,
            "duration_ms": 998,
            "output": "some",
            "output_truncated": True,
            "error": "ValueError: no",
            "isolation": "landlock",
        }
        path = f"/scheduled-tasks/{task.id}/runs"
        assert (await house.call("GET", path, house.admin)).json() == {"items": [expected], "next_cursor": None}
        assert (await house.call("GET", f"{path}/{run_id}", house.admin)).json() == expected

    @pytest.mark.parametrize(
        ("columns", "next_at"),
        [
            ({"status": "queued", "attempt": 1}, "2030-01-01T00:00:05Z"),
            ({"status": "queued", "attempt": 3}, "2030-01-01T00:00:20Z"),
            ({"status": "queued", "attempt": 0, "finished_at": None}, None),
            ({"status": "failed", "attempt": 3}, None),
            ({"status": "running", "attempt": 2, "finished_at": None}, None),
        ],
    )
    async def test_say_when_a_failed_one_is_tried_again(
        self, house: House, columns: dict[str, Any], next_at: str | None
    ) -> None:
        task = await house.task()
        await _run(house, task_id=task.id, **{"finished_at": datetime(2030, 1, 1, tzinfo=UTC), **columns})
        (run,) = (await house.call("GET", f"/scheduled-tasks/{task.id}/runs", house.admin)).json()["items"]
        assert run["next_attempt_at"] == next_at

    async def test_are_listed_newest_first_page_by_page(self, house: House) -> None:
        task, other = await house.task(), await house.task()
        at = datetime(2030, 1, 1, tzinfo=UTC)
        # Two of them at the same moment.
        made = [await _run(house, task_id=task.id, created_at=at + timedelta(days=day)) for day in (1, 2, 2, 3, 4)]
        await _run(house, task_id=other.id)
        seen: list[str] = []
        base = f"/scheduled-tasks/{task.id}/runs?limit=2"
        path: str | None = base
        while path:
            page = (await house.call("GET", path, house.admin)).json()
            seen += [item["id"] for item in page["items"]]
            path = page["next_cursor"] and f"{base}&cursor={page['next_cursor']}"
        newest, second, *same, oldest = made[4], made[3], *sorted(made[1:3], reverse=True), made[0]
        assert seen == [str(run_id) for run_id in (newest, second, *same, oldest)]

    @pytest.mark.parametrize(
        ("length", "shown", "truncated"),
        [(EXCERPT_CHARS, EXCERPT_CHARS, False), (EXCERPT_CHARS + 1, EXCERPT_CHARS, True)],
        ids=["fits", "too long"],
    )
    async def test_are_shortened_in_lists(self, house: House, length: int, shown: int, *, truncated: bool) -> None:
        task = await house.task()
        run_id = await _run(house, task_id=task.id, output="ü" * length)
        path = f"/scheduled-tasks/{task.id}/runs"
        [listed] = (await house.call("GET", path, house.admin)).json()["items"]
        assert (listed["output"], listed["output_truncated"]) == ("ü" * shown, truncated)
        whole = (await house.call("GET", f"{path}/{run_id}", house.admin)).json()
        assert (whole["output"], whole["output_truncated"]) == ("ü" * length, False)

    async def test_are_those_of_the_task_that_is_asked_for(self, house: House) -> None:
        task, other = await house.task(), await house.task()
        run_id = await _run(house, task_id=task.id)
        assert (await house.call("GET", f"/scheduled-tasks/{other.id}/runs", house.admin)).json()["items"] == []
        for path in (
            f"/scheduled-tasks/{other.id}/runs/{run_id}",
            f"/scheduled-tasks/{task.id}/runs/{uuid4()}",
            f"/scheduled-tasks/{uuid4()}/runs",
        ):
            check_problem(await house.call("GET", path, house.admin), 404, "not_found")


class TestRunsOfARequest:
    async def _fired(self, house: House) -> tuple[Somebody, UUID, UUID]:
        """A request whose submission fired a task, which has run."""
        task = await house.task(name="Logger")
        template = await house.template(trigger_task_id=task.id)
        dana = await house.person("dana")
        request_id = await house.request(template, dana)
        async with house.db.connection() as connection:
            await connection.execute(
                "UPDATE task_runs SET status = 'failed', output = 'told', error = 'no' WHERE request_id = %s",
                [request_id],
            )
        return dana, request_id, task.id

    async def test_are_for_whoever_may_read_it(self, house: House) -> None:
        dana, request_id, task_id = await self._fired(house)
        path = f"/access-requests/{request_id}/runs"
        [run] = (await house.call("GET", path, house.admin)).json()["items"]
        assert (run["task_id"], run["task_name"], run["request_id"]) == (str(task_id), "Logger", str(request_id))
        assert (run["cause"], run["event"], run["output"]) == ("trigger", "created", "told")
        assert (await house.call("GET", path, dana)).status_code == 200
        stranger = await house.person("stranger", Permission.TASKS)
        check_problem(await house.call("GET", path, stranger), 403, "forbidden")
        check_problem(await house.call("GET", f"/access-requests/{uuid4()}/runs", house.admin), 404, "not_found")

    @pytest.mark.parametrize(
        ("permissions", "output"),
        [([], None), ([Permission.DIRECTORY], None), ([Permission.TASKS], "told"), ([Permission.REQUESTS], "told")],
        ids=["nobody", "directory", "tasks", "requests"],
    )
    async def test_show_their_output_to_who_manages_tasks_or_requests(
        self, house: House, permissions: list[Permission], output: str | None
    ) -> None:
        dana, request_id, _ = await self._fired(house)
        if permissions:
            await house.group("more", dana, permissions=permissions)
        answer = await house.call("GET", f"/access-requests/{request_id}/runs", dana)
        [run] = answer.json()["items"]
        assert (run["output"], run["error"], run["status"]) == (output, "no", "failed")
        assert run["output_truncated"] is (output is None)
        assert ("told" in answer.text) == (output is not None)

    @pytest.mark.parametrize(
        ("permissions", "error"),
        [([], "It ended with exit code 1."), ([Permission.TASKS], "ValueError: no route to db7")],
        ids=["nobody", "tasks"],
    )
    async def test_show_what_a_script_said_at_last_to_nobody_else_either(
        self, house: House, permissions: list[Permission], error: str
    ) -> None:
        dana, request_id, _ = await self._fired(house)
        if permissions:
            await house.group("more", dana, permissions=permissions)
        async with house.db.connection() as connection:
            await connection.execute(
                "UPDATE task_runs SET exit_code = 1, error = 'ValueError: no route to db7' WHERE request_id = %s",
                [request_id],
            )
        [run] = (await house.call("GET", f"/access-requests/{request_id}/runs", dana)).json()["items"]
        assert (run["error"], run["exit_code"]) == (error, 1)

    async def test_stay_with_it_when_their_task_is_deleted(self, house: House) -> None:
        _, request_id, task_id = await self._fired(house)
        async with house.db.connection() as connection:
            await connection.execute("UPDATE access_request_templates SET trigger_task_id = NULL")
        assert (await house.call("DELETE", f"/scheduled-tasks/{task_id}", house.admin)).status_code == 204
        [run] = (await house.call("GET", f"/access-requests/{request_id}/runs", house.admin)).json()["items"]
        assert (run["task_id"], run["task_name"]) == (None, "Logger")

    async def test_are_named_by_the_entry_of_the_timeline_that_made_them(self, house: House) -> None:
        dana, request_id, task_id = await self._fired(house)
        await house.decide(request_id, Action.DENY, house.admin)
        entries = (await house.call("GET", f"/access-requests/{request_id}/timeline", dana)).json()["items"]
        runs = (await house.call("GET", f"/access-requests/{request_id}/runs", dana)).json()["items"]
        by_kind = {entry["kind"]: entry for entry in entries}
        assert {run["event"]: [run["id"]] for run in runs} == {
            "created": by_kind["submitted"]["run_ids"],
            "denied": by_kind["denied"]["run_ids"],
        }
        assert {run["timeline_id"] for run in runs} == {by_kind["submitted"]["id"], by_kind["denied"]["id"]}
        # Another of the same entry, made later.
        submitted = by_kind["submitted"]
        later = await _run(
            house,
            task_id=task_id,
            request_id=request_id,
            timeline_id=submitted["id"],
            created_at=datetime(2040, 1, 1, tzinfo=UTC),
        )
        entries = (await house.call("GET", f"/access-requests/{request_id}/timeline", dana)).json()["items"]
        assert entries[-1]["run_ids"] == [*submitted["run_ids"], str(later)]
