"""Tasks, integrations, secrets and tokens on pages: made, changed, tried, refused; and nothing secret shown twice."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from api.orchestrator import Orchestrator
from db import tasks
from db.paging import LARGEST_LIMIT, Position
from domain.actors import Permission
from tests.api.house import House
from tests.web.conftest import Visitor, shown, visitor

SECRET = "what nobody reads back"
TASK: dict[str, Any] = {
    "language": "",
    "script": "def run():\r\n    return '<b>'",
    "schedule_type": "once",
    "interval_seconds": "",
    "cron": "",
    "time_zone": "",
    "max_retries": "2",
    "timeout_seconds": "30",
}


async def _kept(root: Visitor) -> str:
    name = f"SECRET_{uuid4().hex.upper()}"
    answer = await root.post("/admin/secrets", {"name": name, "value": SECRET, "description": "For the tests"})
    assert f"{name} is kept." in shown(await root.follow(answer))
    return name


async def test_a_task_is_written_changed_run_paused_and_deleted(house: House, root: Visitor) -> None:
    name, secret = f"task {uuid4()}", await _kept(root)
    answer = await root.post("/admin/tasks/new", {**TASK, "name": name, "secret_names": [secret], "network": "true"})
    here = answer.headers["location"]
    page = await root.follow(answer)
    assert "return &#39;&lt;b&gt;&#39;" in page.text
    (view,) = [each for each in (await tasks.list_tasks(house.db, Position(LARGEST_LIMIT))).items if each.name == name]
    assert (view.language, view.language_inferred, view.network, view.secret_names) == ("python", True, True, [secret])
    assert view.script == "def run():\n    return '<b>'"
    changed = {**TASK, "name": name, "schedule_type": "cron", "cron": "0 9 * * 1-5", "time_zone": "Europe/Berlin"}
    assert (await root.post(f"{here}/edit", changed)).status_code == 303
    view = await tasks.get(house.db, view.id)
    assert (view.cron, view.time_zone, view.network, view.secret_names) == ("0 9 * * 1-5", "Europe/Berlin", False, [])
    editor = await root.get(f"{here}/edit")
    assert 'value="0 9 * * 1-5"' in editor.text
    for step, said in (("run", "It runs now"), ("pause", "Paused: its times"), ("resume", "at its times again")):
        assert said in shown(await root.follow(await root.post(f"{here}/{step}")))
    page = await root.get(here)
    assert "Manual by root@example.com" in shown(page)
    run = page.text.partition(f"{here}/runs/")[2].partition('"')[0]
    assert "It printed nothing so far." in shown(await root.get(f"{here}/runs/{run}"))
    assert "there is no such button" in shown(await root.follow(await root.post(f"{here}/fly")))
    template = await house.template(trigger_task_id=view.id)
    assert template.name in shown(await root.follow(await root.post(f"{here}/delete")))
    async with house.db.connection() as connection:
        await connection.execute("DELETE FROM access_request_templates WHERE id = %s", [template.id])
    assert "The task is deleted." in shown(await root.follow(await root.post(f"{here}/delete")))


async def test_a_run_that_waits_for_its_next_attempt_has_failed(house: House, root: Visitor) -> None:
    here = f"/admin/tasks/{(await house.task()).id}"
    assert (await root.post(f"{here}/run")).status_code == 303
    person = await house.person(f"asker-{uuid4()}")
    request_id = await house.request(await house.template(), person)
    async with house.db.connection() as connection:
        await connection.execute(
            "UPDATE task_runs SET attempt = 1, error = 'ValueError: no', finished_at = '2030-01-01 12:00Z',"
            " request_id = %s WHERE task_id = %s",
            [request_id, here.rpartition("/")[2]],
        )
    page = await root.get(here)
    run = page.text.partition(f"{here}/runs/")[2].partition('"')[0]
    for path in (here, f"{here}/runs/{run}", f"/requests/{request_id}"):
        said = shown(await root.get(path))
        assert "Failed, tried again at 01 Jan 2030, 12:00 UTC" in said, path
        assert "Queued" not in said


@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        ({"name": ""}, "name", "at least 1 character"),
        ({"script": "def run():\r\n    return [1\r\n"}, "script", "Line 2, column 12: '[' was never closed."),
        ({"max_retries": "often"}, "max_retries", "Must be a whole number."),
        ({"timeout_seconds": "0"}, "timeout_seconds", "greater than or equal"),
        ({"schedule_type": "interval", "interval_seconds": "1e3"}, "interval_seconds", "Must be a whole number."),
    ],
)
async def test_what_is_wrong_with_a_task_is_told_beside_its_field(
    root: Visitor, wrong: dict[str, str], field: str, says: str
) -> None:
    answer = await root.post("/admin/tasks/new", {**TASK, "name": f"task {uuid4()}", **wrong})
    assert answer.status_code == 422
    assert says in shown(answer)
    assert f'id="{field}-error"' in answer.text
    assert "def run():" in answer.text


async def test_a_task_says_which_of_its_times_the_clocks_skip_or_repeat(
    root: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    times = [datetime(2030, month, day, 2, 30, tzinfo=berlin) for month, day in ((3, 30), (4, 1), (10, 27))]

    async def next_runs(*_: object) -> list[datetime]:
        return [time.astimezone(UTC) for time in times]

    monkeypatch.setattr(Orchestrator, "next_runs", next_runs)
    values = {"schedule_type": "cron", "cron": "30 2 * * *", "time_zone": "Europe/Berlin"}
    page = shown(await root.follow(await root.post("/admin/tasks/new", {**TASK, "name": f"task {uuid4()}", **values})))
    assert "02:30 UTC+01:00" in page
    assert "02:30 UTC+02:00" in page
    assert "2030-03-31, 02:30 does not exist: no run" in page
    assert "2030-10-27, 02:30 comes twice: it runs once" in page


async def test_who_may_only_see_tasks_sees_no_buttons(house: House, root: Visitor) -> None:
    reader = await visitor(house, await house.person(f"reader-{uuid4()}", Permission.REQUESTS))
    task = await house.task()
    here = f"/admin/tasks/{task.id}"
    page = await reader.get(here)
    assert page.status_code == 200
    assert page.text.count('method="post"') == 1
    assert (await root.get(here)).text.count('method="post"') > 3
    for path in (f"{here}/run", f"{here}/edit", "/admin/tasks/new"):
        assert (await reader.post(path)).status_code == 403
    assert (await reader.get("/admin/secrets")).status_code == 403


async def test_a_secret_goes_in_and_never_comes_out(house: House, root: Visitor) -> None:
    name = await _kept(root)
    page = await root.get("/admin/secrets")
    assert name in page.text
    assert SECRET not in page.text
    wrong = await root.post("/admin/secrets", {"name": "lower case", "value": SECRET, "description": "kept"})
    assert wrong.status_code == 422
    assert SECRET not in wrong.text
    assert "kept" in wrong.text
    assert 'id="name-error"' in wrong.text
    here = "/admin/secrets/" + page.text.partition(name)[2].partition("/admin/secrets/")[2].partition("/")[0]
    assert "has another value" in shown(await root.follow(await root.post(f"{here}/value", {"value": " x \r\n y "})))
    assert "nothing was changed" in shown(await root.follow(await root.post(f"{here}/value", {"value": ""})))
    task = await house.task(secret_names=[name])
    assert task.name in shown(await root.follow(await root.post(f"{here}/delete")))
    await tasks.delete(house.db, task.id)
    assert "The secret is deleted." in shown(await root.follow(await root.post(f"{here}/delete")))


async def test_a_webhook_shows_its_signing_secret_once(root: Visitor) -> None:
    form = {"name": f"hook {uuid4()}", "target": "webhook", "enabled": "true", "url": "https://hooks.example.com/x"}
    none = await root.post("/admin/integrations/new", form)
    assert none.status_code == 422
    assert 'id="events-error"' in none.text
    inside = await root.post(
        "/admin/integrations/new", form | {"events": ["access_request.approved"], "url": "https://127.0.0.1/x"}
    )
    assert inside.status_code == 422
    assert 'id="url-error"' in inside.text
    made = await root.post("/admin/integrations/new", form | {"events": ["access_request.approved"]})
    assert made.status_code == 200
    assert "whsec_" in made.text
    here = made.text.partition('action="/admin/integrations/')[2].partition("/")[0]
    here = f"/admin/integrations/{here}"
    page = await root.get(here)
    assert "whsec_" not in page.text
    assert "Nothing was sent yet." in shown(page)
    rotated = await root.post(f"{here}/rotate-secret")
    assert "whsec_" in rotated.text
    assert rotated.text.partition("whsec_")[2][:20] != made.text.partition("whsec_")[2][:20]
    changed = {**form, "events": ["access_request.denied", "access_request.expired"], "enabled": ""}
    assert (await root.post(f"{here}/edit", {k: v for k, v in changed.items() if v})).status_code == 303
    assert "Disabled" in shown(await root.get(here))
    assert "is deleted" in shown(await root.follow(await root.post(f"{here}/delete")))


async def test_the_address_of_a_slack_channel_is_not_shown(root: Visitor) -> None:
    url = "https://hooks.slack.com/services/T0/B0/hush"
    form = {"name": f"slack {uuid4()}", "target": "slack", "events": ["access_request.submitted"], "slack_url": url}
    answer = await root.post("/admin/integrations/new", form)
    assert answer.status_code == 303
    here = answer.headers["location"]
    for path in (here, f"{here}/edit"):
        assert "hush" not in (await root.get(path)).text
    again = await root.post("/admin/integrations/new", form)
    assert again.status_code == 422
    assert "hush" not in again.text


async def test_a_parked_delivery_is_sent_again(house: House, root: Visitor) -> None:
    answer = await root.post(
        "/admin/integrations/new",
        {
            "name": f"mail {uuid4()}",
            "target": "email",
            "events": ["access_request.submitted"],
            "roles": ["approver"],
            "enabled": "1",
        },
    )
    here = answer.headers["location"]
    person = await house.person(f"asker-{uuid4()}")
    approver = await house.person(f"approver-{uuid4()}")
    team = await house.group(f"team {uuid4()}", approver)
    await house.request(await house.template(approver_group_ids=[team.id]), person)
    async with house.db.connection() as connection:
        await connection.execute(
            "UPDATE deliveries SET status = 'parked', error = '<i>gone</i>', attempts = 9, dispatch_at = NULL,"
            " finished_at = now() WHERE integration_id = %s",
            [here.rpartition("/")[2]],
        )
    page = await root.get(here)
    assert "&lt;i&gt;gone&lt;/i&gt;" in page.text
    assert approver.email in page.text
    path = page.text.partition(f'action="{here}/deliveries/')[2].partition('"')[0]
    assert "sent again within seconds" in shown(await root.follow(await root.post(f"{here}/deliveries/{path}")))
    assert "Pending" in shown(await root.get(here))


async def test_a_token_is_shown_once_works_and_is_revoked(house: House) -> None:
    person = await house.person(f"owner-{uuid4()}")
    bot = await house.person(f"bot-{uuid4()}", owner=person)
    stranger = await visitor(house, await house.person(f"stranger-{uuid4()}"))
    browser = await visitor(house, person)
    for user_id, expected in (("", person.email), (str(bot.id), bot.email)):
        form = {"name": f"laptop {expected}", "expires_in_days": "30", "user_id": user_id}
        made = await browser.post("/tokens", form)
        token = made.text.partition('<p class="claim">')[2].partition("<")[0]
        answer = await house.client.get("/api/v1/users/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.json()["email"] == expected
        page = await browser.get("/tokens")
        assert token not in page.text
        token_id = page.text.partition(f"laptop {expected}")[2].partition("/tokens/")[2].partition("/")[0]
        assert (await stranger.post(f"/tokens/{token_id}/revoke")).status_code == 404
        assert "it stopped working" in shown(await browser.follow(await browser.post(f"/tokens/{token_id}/revoke")))
        answer = await house.client.get("/api/v1/users/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401
    for wrong in ({"name": "", "expires_in_days": "30"}, {"name": "x", "expires_in_days": "9999"}):
        assert (await browser.post("/tokens", wrong)).status_code == 422
    foreign = await browser.post("/tokens", {"name": "x", "expires_in_days": "7", "user_id": str(house.admin.id)})
    assert foreign.status_code == 422
    assert "for oneself and for a service account that one owns" in shown(foreign)
    assert (await browser.get("/admin/tokens")).status_code == 403
