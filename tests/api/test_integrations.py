"""Integrations over HTTP: what they are made of, what nobody reads back, and what comes of trying them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from standardwebhooks import Webhook

from domain.actors import Permission
from domain.events import Event
from domain.states import Action
from tests.api.house import House, Somebody
from tests.api.problem import check_problem, fields
from tests.deliveries.receiver import Receiver, receiving, response

SLACK_URL = "https://hooks.slack.com/services/T0/B0/hush-hush"


def webhook(**changed: Any) -> dict[str, Any]:
    return {
        "name": "Audit log",
        "target": "webhook",
        "events": ["access_request.approved"],
        "url": "https://audit.example.com/hooks",
        **changed,
    }


def slack(**changed: Any) -> dict[str, Any]:
    values = {"name": "DBAs", "target": "slack", "events": ["access_request.submitted"], "slack_url": SLACK_URL}
    return {**values, **changed}


def email(**changed: Any) -> dict[str, Any]:
    return {"name": "Mail", "target": "email", "events": [event.value for event in Event], **changed}


@pytest.fixture
async def tasks(house: House) -> Somebody:
    return await house.person("tess", Permission.TASKS)


@pytest.fixture
async def receiver(house: House) -> AsyncIterator[Receiver]:
    """A receiver that the operator allows."""
    usual = house.app.state.settings
    async with receiving() as receiver:
        house.app.state.settings = usual.model_copy(update={"allowed_internal_hosts": (receiver.authority,)})
        try:
            yield receiver
        finally:
            house.app.state.settings = usual


async def make(house: House, by: Somebody, values: dict[str, Any]) -> dict[str, Any]:
    answer = await house.call("POST", "/integrations", by, json=values)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def delivered(house: House, integration: dict[str, Any], count: int) -> list[str]:
    """Deliveries, newest first."""
    template = await house.template()
    request_id = await house.request(template, await house.person(f"asker{uuid4().hex}"))
    made = []
    async with house.db.connection() as connection:
        for number in range(count):
            rows = await connection.execute(
                """
                INSERT INTO deliveries (id, integration_id, target, event, payload, request_id, status, attempts,
                    latency_ms, response_status, response_head, error, dispatch_at, created_at, finished_at)
                VALUES (gen_random_uuid(), %s, 'webhook', 'access_request.approved', '{}', %s, 'parked', 3, 12, 404,
                        'gone', 'It answered 404.', NULL, now() - make_interval(mins => %s), now())
                RETURNING id
                """,
                [integration["id"], request_id, number],
            )
            row = await rows.fetchone()
            assert row is not None
            made.append(str(row["id"]))
    return made


class TestIntegrations:
    async def test_are_created_read_replaced_and_deleted(self, house: House, tasks: Somebody) -> None:
        answer = await house.call("POST", "/integrations", tasks, json=webhook())
        assert answer.status_code == 201, answer.text
        made = answer.json()
        path = f"/integrations/{made['id']}"
        assert answer.headers["location"] == f"/api/v1{path}"
        assert {name: made[name] for name in webhook()} == webhook()
        secret = made.pop("signing_secret")
        assert secret.startswith("whsec_")
        assert (await house.call("GET", path, tasks)).json() == made
        assert (await house.call("GET", "/integrations", tasks)).json()["items"] == [made]
        changed = webhook(name="Other", enabled=False, events=["access_request.expired", "access_request.denied"])
        replaced = await house.call("PUT", path, tasks, json=changed)
        assert replaced.status_code == 200, replaced.text
        assert replaced.json() == {
            **made,
            **changed,
            "events": ["access_request.denied", "access_request.expired"],
            "updated_at": replaced.json()["updated_at"],
        }
        assert (await house.call("GET", path, tasks)).json() == replaced.json()
        assert (await house.call("DELETE", path, tasks)).status_code == 204
        check_problem(await house.call("GET", path, tasks), 404, "not_found")

    async def test_that_are_not_there_are_not_found(self, house: House, tasks: Somebody) -> None:
        path = f"/integrations/{uuid4()}"
        for method, rest, body in (
            ("GET", "", None),
            ("PUT", "", webhook()),
            ("DELETE", "", None),
            ("POST", "/rotate-secret", None),
            ("POST", "/test", None),
            ("GET", "/deliveries", None),
            ("POST", f"/deliveries/{uuid4()}/redeliver", None),
        ):
            check_problem(await house.call(method, path + rest, tasks, json=body), 404, "not_found")

    async def test_have_a_name_of_their_own(self, house: House, tasks: Somebody) -> None:
        await make(house, tasks, webhook())
        other = await make(house, tasks, slack())
        check_problem(await house.call("POST", "/integrations", tasks, json=email(name="DBAs")), 409, "in_use")
        renamed = slack(name="Audit log")
        check_problem(await house.call("PUT", f"/integrations/{other['id']}", tasks, json=renamed), 409, "in_use")

    async def test_of_a_template_go_with_it(self, house: House, tasks: Somebody) -> None:
        template = await house.template()
        made = await make(house, tasks, webhook(template_id=str(template.id), app_id=str(template.app_id)))
        deleted = await house.call("DELETE", f"/access-request-templates/{template.id}", house.admin)
        assert deleted.status_code == 204
        check_problem(await house.call("GET", f"/integrations/{made['id']}", tasks), 404, "not_found")

    @pytest.mark.parametrize("field", ["template_id", "app_id"])
    async def test_are_for_what_exists(self, house: House, tasks: Somebody, field: str) -> None:
        answer = await house.call("POST", "/integrations", tasks, json=webhook(**{field: str(uuid4())}))
        assert fields(answer) == {field}

    async def test_run_a_task_that_exists(self, house: House, tasks: Somebody) -> None:
        values = {"name": "Script", "target": "task", "events": ["access_request.approved"], "task_id": str(uuid4())}
        answer = await house.call("POST", "/integrations", tasks, json=values)
        assert fields(answer) == {"task_id"}

    async def test_keep_their_target(self, house: House, tasks: Somebody) -> None:
        made = await make(house, tasks, webhook())
        answer = await house.call("PUT", f"/integrations/{made['id']}", tasks, json=slack())
        assert fields(answer) == {"target"}

    @pytest.mark.parametrize(
        "values",
        [
            webhook(url=None),
            webhook(url=""),
            webhook(slack_url=SLACK_URL),
            webhook(roles=["approver"]),
            webhook(task_id=str(UUID(int=1))),
            webhook(events=[]),
            webhook(events=["access_request.exploded"]),
            webhook(events=["access_request.ending"]),
            webhook(target="carrier pigeon"),
            webhook(enabled="yes"),
            webhook(sealed="x"),
            webhook(signing_secret="whsec_mine"),
            webhook(name=" "),
            webhook(url="https://audit.example.com/\n"),
            slack(slack_url=None),
            slack(slack_url=""),
            slack(slack_url="https://hooks.slack.com/\x00"),
            slack(url="https://audit.example.com/"),
            email(roles=[]),
            email(roles=["everybody"]),
            email(url="https://audit.example.com/"),
            {"name": "Script", "target": "task", "events": ["access_request.approved"]},
        ],
        ids=str,
    )
    async def test_that_make_no_sense_are_refused(self, house: House, tasks: Somebody, values: dict[str, Any]) -> None:
        answer = await house.call("POST", "/integrations", tasks, json=values)
        check_problem(answer, 422, "validation_error")
        assert "hush" not in answer.text

    @pytest.mark.parametrize(
        "url",
        [
            "http://audit.example.com/",
            "https://127.0.0.1/",
            "https://10.0.0.1:8443/",
            "https://[::1]/",
            "https://user:password@audit.example.com/",
            "file:///etc/passwd",
            "nowhere",
        ],
    )
    async def test_lead_out_of_the_house(self, house: House, tasks: Somebody, url: str) -> None:
        for values, field in ((webhook(url=url), "url"), (slack(slack_url=url), "slack_url")):
            answer = await house.call("POST", "/integrations", tasks, json=values)
            assert fields(answer) == {field}
        made = await make(house, tasks, webhook())
        answer = await house.call("PUT", f"/integrations/{made['id']}", tasks, json=webhook(url=url))
        assert fields(answer) == {"url"}

    async def test_write_to_everybody_unless_it_is_said(self, house: House, tasks: Somebody) -> None:
        assert (await make(house, tasks, email()))["roles"] == ["approver", "requester", "handled", "reminder"]
        made = await make(house, tasks, email(name="Some", roles=["requester", "approver", "requester"]))
        assert made["roles"] == ["approver", "requester"]


class TestSecrets:
    async def test_of_slack_are_never_read_back(self, house: House, tasks: Somebody) -> None:
        made = await house.call("POST", "/integrations", tasks, json=slack())
        assert made.json()["signing_secret"] is None
        path = f"/integrations/{made.json()['id']}"
        answers = [
            made,
            await house.call("GET", path, tasks),
            await house.call("GET", "/integrations", tasks),
            await house.call("PUT", path, tasks, json=slack(slack_url=f"{SLACK_URL}-2")),
        ]
        assert all("hush" not in answer.text for answer in answers)

    async def test_of_slack_stay_where_none_is_given(self, house: House, tasks: Somebody, receiver: Receiver) -> None:
        made = await make(house, tasks, slack(slack_url=receiver.url))
        left_out = {name: value for name, value in slack(name="Renamed").items() if name != "slack_url"}
        replaced = await house.call("PUT", f"/integrations/{made['id']}", tasks, json=left_out)
        assert replaced.status_code == 200, replaced.text
        tried = await house.call("POST", f"/integrations/{made['id']}/test", tasks)
        assert tried.json()["delivered"], tried.text

    async def test_are_shown_once_and_rotated_with_overlap(
        self, house: House, tasks: Somebody, receiver: Receiver
    ) -> None:
        made = await make(house, tasks, webhook(url=receiver.url))
        path = f"/integrations/{made['id']}"
        answer = await house.call("POST", f"{path}/rotate-secret", tasks)
        assert answer.status_code == 201
        rotated = answer.json()
        assert rotated["signing_secret"] != made["signing_secret"]
        for answer in (await house.call("GET", path, tasks), await house.call("GET", "/integrations", tasks)):
            assert "whsec_" not in answer.text
        await house.call("PUT", path, tasks, json=webhook(url=receiver.url, name="Renamed"))
        await house.call("POST", f"{path}/test", tasks)
        [received] = receiver.received
        for secret in (made["signing_secret"], rotated["signing_secret"]):
            Webhook(secret).verify(received.body, received.headers)

    async def test_are_the_business_of_webhooks_only(self, house: House, tasks: Somebody) -> None:
        for values in (slack(), email()):
            made = await make(house, tasks, values)
            answer = await house.call("POST", f"/integrations/{made['id']}/rotate-secret", tasks)
            assert fields(answer) == {"target"}


class TestTrying:
    async def test_sends_a_sample_and_answers_what_came_of_it(
        self, house: House, tasks: Somebody, receiver: Receiver
    ) -> None:
        made = await make(house, tasks, webhook(url=receiver.url))
        answer = await house.call("POST", f"/integrations/{made['id']}/test", tasks)
        assert answer.status_code == 200, answer.text
        attempt = answer.json()
        assert (attempt["delivered"], attempt["response_status"], attempt["response_head"]) == (True, 200, "ok")
        [received] = receiver.received
        event = Webhook(made["signing_secret"]).verify(received.body, received.headers)
        assert event["type"] == "access_request.approved"
        assert event["data"] == {
            "request_id": str(UUID(int=0)),
            "template_name": "Test of the integration",
            "requester_email": tasks.email,
            "decided_by": tasks.email,
        }
        listed = await house.call("GET", f"/integrations/{made['id']}/deliveries", tasks)
        assert listed.json() == {"items": [], "next_cursor": None}

    async def test_answers_a_failure_as_well(self, house: House, tasks: Somebody, receiver: Receiver) -> None:
        receiver.answer = response(404, b"no_service")
        made = await make(house, tasks, slack(slack_url=receiver.url))
        attempt = (await house.call("POST", f"/integrations/{made['id']}/test", tasks)).json()
        assert (attempt["delivered"], attempt["response_status"], attempt["response_head"]) == (
            False,
            404,
            "no_service",
        )

    @pytest.mark.parametrize("event", Event)
    async def test_has_a_sample_of_every_event(
        self, house: House, tasks: Somebody, receiver: Receiver, event: Event
    ) -> None:
        made = await make(house, tasks, slack(slack_url=receiver.url, events=[event.value]))
        await house.call("POST", f"/integrations/{made['id']}/test", tasks)
        [received] = receiver.received
        assert "This is a test" in json.dumps(json.loads(received.body))

    async def test_a_disabled_one_is_allowed(self, house: House, tasks: Somebody, receiver: Receiver) -> None:
        made = await make(house, tasks, webhook(url=receiver.url, enabled=False))
        assert (await house.call("POST", f"/integrations/{made['id']}/test", tasks)).json()["delivered"]

    async def test_mail_without_a_mail_server_says_so(self, house: House, tasks: Somebody) -> None:
        made = await make(house, tasks, email())
        attempt = (await house.call("POST", f"/integrations/{made['id']}/test", tasks)).json()
        assert (attempt["delivered"], "JUSTIAM_SMTP_HOST" in attempt["error"]) == (False, True)

    async def test_reaches_nothing_inside_that_came_to_be_forbidden(
        self, house: House, tasks: Somebody, receiver: Receiver
    ) -> None:
        made = await make(house, tasks, webhook(url=receiver.url.replace("http:", "https:")))
        allowing = house.app.state.settings
        house.app.state.settings = allowing.model_copy(update={"allowed_internal_hosts": ()})
        attempt = (await house.call("POST", f"/integrations/{made['id']}/test", tasks)).json()
        assert (attempt["delivered"], attempt["retryable"], receiver.connections) == (False, False, 0)


class TestDeliveries:
    async def test_are_listed_newest_first_page_by_page(self, house: House, tasks: Somebody) -> None:
        made = await make(house, tasks, webhook())
        expected = await delivered(house, made, 5)
        path, found, cursor = f"/integrations/{made['id']}/deliveries?limit=2", [], None
        for size in (2, 2, 1):
            page = (await house.call("GET", path + (f"&cursor={cursor}" if cursor else ""), tasks)).json()
            assert len(page["items"]) == size
            found += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert (found, cursor) == (expected, None)

    async def test_say_how_the_last_attempt_went(self, house: House, tasks: Somebody) -> None:
        made = await make(house, tasks, webhook())
        [delivery_id] = await delivered(house, made, 1)
        [item] = (await house.call("GET", f"/integrations/{made['id']}/deliveries", tasks)).json()["items"]
        said = {name: item[name] for name in ("id", "status", "event", "attempts", "latency_ms", "error")}
        assert said == {
            "id": delivery_id,
            "status": "parked",
            "event": "access_request.approved",
            "attempts": 3,
            "latency_ms": 12,
            "error": "It answered 404.",
        }
        assert (item["response_status"], item["response_head"], item["recipient"]) == (404, "gone", None)

    async def test_are_made_again_on_demand(self, house: House, tasks: Somebody) -> None:
        made = await make(house, tasks, webhook())
        [delivery_id] = await delivered(house, made, 1)
        path = f"/integrations/{made['id']}/deliveries/{delivery_id}/redeliver"
        answer = await house.call("POST", path, tasks)
        assert answer.status_code == 200, answer.text
        again = answer.json()
        assert (again["id"], again["status"], again["attempts"]) == (delivery_id, "pending", 0)
        assert again["finished_at"] is None
        async with house.db.connection() as connection:
            rows = await connection.execute("SELECT dispatch_at <= now() AS due FROM deliveries")
            assert [row["due"] for row in await rows.fetchall()] == [True]

    async def test_of_another_integration_are_not_found(self, house: House, tasks: Somebody) -> None:
        one, other = await make(house, tasks, webhook()), await make(house, tasks, slack())
        [delivery_id] = await delivered(house, one, 1)
        path = f"/integrations/{other['id']}/deliveries/{delivery_id}/redeliver"
        check_problem(await house.call("POST", path, tasks), 404, "not_found")

    async def test_come_with_what_happens(self, house: House, tasks: Somebody) -> None:
        made = await make(house, tasks, webhook(events=["access_request.submitted", "access_request.denied"]))
        request_id = await house.request(await house.template(), await house.person("dana"))
        await house.decide(request_id, Action.DENY, house.admin)
        items = (await house.call("GET", f"/integrations/{made['id']}/deliveries", tasks)).json()["items"]
        assert [(item["event"], item["status"], item["request_id"]) for item in items] == [
            ("access_request.denied", "pending", str(request_id)),
            ("access_request.submitted", "pending", str(request_id)),
        ]

    async def test_go_with_their_integration(self, house: House, tasks: Somebody) -> None:
        made = await make(house, tasks, webhook())
        await delivered(house, made, 2)
        assert (await house.call("DELETE", f"/integrations/{made['id']}", tasks)).status_code == 204
