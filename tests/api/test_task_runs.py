"""Tasks on demand and at their own times, over HTTP with a real Temporal server."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from domain.actors import Permission
from tests.api.house import House, Somebody
from tests.api.problem import check_problem


async def a_task(house: House, by: Somebody, **values: Any) -> str:
    sent = {"name": f"task {uuid4()}", "script": "def run(): ...", **values}
    answer = await house.call("POST", "/scheduled-tasks", by, json=sent)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def next_runs(house: House, by: Somebody, task_id: str) -> list[str]:
    answer = await house.call("GET", f"/scheduled-tasks/{task_id}/next-runs", by)
    assert answer.status_code == 200, answer.text
    times: list[str] = answer.json()["items"]
    return times


async def manager(house: House) -> Somebody:
    return await house.person(f"tasks-{uuid4().hex[:8]}", Permission.TASKS)


async def test_a_task_runs_on_demand(stack: House) -> None:
    by = await manager(stack)
    task_id = await a_task(stack, by)
    answer = await stack.call("POST", f"/scheduled-tasks/{task_id}/run", by)
    assert answer.status_code == 201, answer.text
    run = answer.json()
    assert (run["cause"], run["status"], run["started_by"]) == ("manual", "queued", by.email)
    assert answer.headers["location"] == f"/api/v1/scheduled-tasks/{task_id}/runs/{run['id']}"

    async def begun() -> bool:
        now = (await stack.call("GET", f"/scheduled-tasks/{task_id}/runs/{run['id']}", by)).json()
        return bool(now["status"] == "running")

    # No script worker is here to take it: it was handed over.
    async with asyncio.timeout(60):
        while not await begun():
            await asyncio.sleep(0.05)


async def test_a_task_is_paused_and_resumed(stack: House) -> None:
    by = await manager(stack)
    task_id = await a_task(stack, by, schedule_type="cron", cron="0 6 * * *", time_zone="Europe/Berlin")
    times = await next_runs(stack, by, task_id)
    assert all(time[-15:] in {"T06:00:00+01:00", "T06:00:00+02:00"} for time in times)
    answer = await stack.call("POST", f"/scheduled-tasks/{task_id}/pause", by)
    assert (answer.status_code, answer.json()["paused"]) == (200, True)
    assert await next_runs(stack, by, task_id) == []
    answer = await stack.call("POST", f"/scheduled-tasks/{task_id}/resume", by)
    assert (answer.status_code, answer.json()["paused"]) == (200, False)
    assert await next_runs(stack, by, task_id)
    assert (await stack.call("DELETE", f"/scheduled-tasks/{task_id}", by)).status_code == 204
    check_problem(await stack.call("GET", f"/scheduled-tasks/{task_id}/next-runs", by), 404, "not_found")


async def test_a_task_without_times_has_no_next_one(stack: House) -> None:
    by = await manager(stack)
    assert await next_runs(stack, by, await a_task(stack, by)) == []


async def test_what_is_not_there_is_not_run(stack: House) -> None:
    by = await manager(stack)
    for action in ("run", "pause", "resume"):
        check_problem(await stack.call("POST", f"/scheduled-tasks/{uuid4()}/{action}", by), 404, "not_found")
