"""Where script workers come with their tickets: the ticket is the credential, and works once."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
import pytest

from db import runs
from db.secrets import SecretVault
from db.tables import ScheduledTask, Secret
from domain.tasks import REDEEM_PATH, Attempt, RunCause, ScriptOrder
from tests.api.house import House, settings
from tests.api.problem import check_problem


async def redeem(house: House, ticket: object) -> httpx.Response:
    return await house.client.post(REDEEM_PATH, json={"ticket": ticket})


async def ordered(house: House, *, request_id: UUID | None = None, secret_names: list[str]) -> ScriptOrder:
    """An attempt that has begun, for a request where one is given."""
    task = ScheduledTask(
        name=f"task {uuid4()}", language="python", script="def run(): ...", secret_names=secret_names, network=False
    )
    async with house.db.session() as session:
        session.add(task)
    async with house.db.connection() as connection:
        run_id = await runs.make_on_its_own(connection, task.id, RunCause.MANUAL)
        await connection.execute("UPDATE task_runs SET request_id = %s WHERE id = %s", [request_id, run_id])
    order = await runs.begin(house.db, Attempt(run_id=run_id, holder="a worker", at=datetime.now(UTC)))
    assert order is not None
    return order


async def keep(house: House, name: str, value: str) -> None:
    secret = Secret(name=name, sealed=b"")
    chosen = settings("postgresql://nowhere/x")
    vault = SecretVault(chosen.secret_key, chosen.encryption_keys)
    secret.sealed = vault.seal(f"secret:{name}:{secret.id}", value)
    async with house.db.session() as session:
        session.add(secret)


async def test_a_ticket_brings_what_the_script_needs_and_nothing_more(house: House) -> None:
    await keep(house, "SLACK_WEBHOOK", "https://hooks.example.com/T0/B0")
    await keep(house, "ANOTHER", "not for this task")
    order = await ordered(house, secret_names=["SLACK_WEBHOOK"])
    answer = await redeem(house, order.ticket)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "run_id": str(order.run_id),
        "language": "python",
        "script": "def run(): ...",
        "config": {"run_id": str(order.run_id)},
        "approvers": [],
        "secrets": {"SLACK_WEBHOOK": "https://hooks.example.com/T0/B0"},
        "timeout_seconds": 60,
        "network": False,
    }


async def test_it_names_the_approvers_of_its_request(house: House) -> None:
    bob, alice = await house.person("bob"), await house.person("alice")
    team = await house.group("team", bob)
    application = await house.application("Internal DB")
    template = await house.template(app_id=application.id, approver_group_ids=[team.id])
    request_id = await house.request(template, alice)
    order = await ordered(house, request_id=request_id, secret_names=[])
    approvers = (await redeem(house, order.ticket)).json()["approvers"]
    assert approvers == [{"id": str(bob.id), "email": bob.email, "name": "Bob"}]


async def test_a_ticket_works_once(house: House) -> None:
    order = await ordered(house, secret_names=[])
    assert (await redeem(house, order.ticket)).status_code == 200
    check_problem(await redeem(house, order.ticket), 401, "unauthenticated")


@pytest.mark.parametrize("ticket", ["", "justiam_run_guess", "x" * 200])
async def test_what_is_no_ticket_is_refused(house: House, ticket: str) -> None:
    check_problem(await redeem(house, ticket), 401, "unauthenticated")


@pytest.mark.parametrize("ticket", [None, 1, ["a"], "x" * 201, "\x00"])
async def test_what_cannot_be_a_ticket_is_refused(house: House, ticket: object) -> None:
    answer = await redeem(house, ticket)
    assert answer.status_code in {401, 422}


async def test_a_token_of_a_person_is_no_ticket(house: House) -> None:
    alice = await house.person("alice")
    check_problem(await redeem(house, alice.token), 401, "unauthenticated")


async def test_a_secret_that_was_deleted_is_named(house: House) -> None:
    order = await ordered(house, secret_names=["GONE"])
    answer = await redeem(house, order.ticket)
    check_problem(answer, 404, "not_found")
    assert "GONE" in answer.json()["detail"]


async def test_nobody_has_a_body_looked_at_that_holds_more_than_a_ticket_could(house: House) -> None:
    """Anybody may call, uncounted: what a call costs must not be up to them."""
    answer = await house.client.post(REDEEM_PATH, json={f"field{number}": 1 for number in range(3_000)})
    problem = check_problem(answer, 422, "validation_error")
    assert problem["errors"] == [{"field": "body", "message": "has more than 200 fields"}]
