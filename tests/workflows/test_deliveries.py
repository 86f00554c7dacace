"""Deliveries from the change that causes them to their targets: real receivers, and the real server between."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from temporalio.client import Client

from activities import dispatching
from db import deliveries as records
from db import integrations
from db.integrations import NewIntegration
from db.secrets import SecretVault
from domain import deliveries
from domain.integrations import IntegrationValues
from domain.states import Action, Status
from tests.conftest import Databases
from tests.deliveries.receiver import Receiver, receiving, response
from tests.deliveries.test_mail import Server, serving
from tests.workflows.world import World, eventually, open_world


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def mailbox() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
async def told(
    new_database: Databases,
    temporal_client: Client,
    receiver: Receiver,
    mailbox: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    """A world whose messages reach the receiver and the mailbox, and whose patience is short."""
    monkeypatch.setattr(deliveries, "PAUSES", (timedelta(milliseconds=100),) * 4)
    monkeypatch.setattr(deliveries, "MOST_ATTEMPTS", 5)
    chosen: dict[str, Any] = {
        "allowed_internal_hosts": f"127.0.0.1:{receiver.port}",
        "smtp_host": "127.0.0.1",
        "smtp_port": mailbox.port,
        "smtp_tls": "none",
        "smtp_from": "JustIAM <access@example.com>",
    }
    with new_database() as url:
        async with open_world(url, temporal_client, **chosen) as world:
            yield world


async def bind(world: World, **values: Any) -> NewIntegration:
    vault = SecretVault(world.settings.secret_key, world.settings.encryption_keys)
    given = {"name": "told", "events": ["access_request.submitted"], **values}
    return await integrations.create(world.db, vault, IntegrationValues.model_validate(given))


async def of(world: World, request_id: UUID) -> list[dict[str, Any]]:
    return await world.record.query(
        "SELECT * FROM deliveries WHERE request_id = %s ORDER BY created_at, recipient", request_id
    )


async def are_over(world: World, request_id: UUID) -> list[dict[str, Any]]:
    async def over() -> list[dict[str, Any]] | None:
        await dispatching.dispatch(world.db, world.client)
        rows = [row for row in await of(world, request_id) if row["role"] != "reminder"]
        return rows if rows and all(row["status"] != "pending" for row in rows) else None

    return await eventually(over)


async def test_a_webhook_is_told_again_until_it_takes_it(told: World, receiver: Receiver) -> None:
    receiver.answer = response(503)
    await bind(told, target="webhook", url=receiver.url)
    cast = await told.record.cast()
    request_id = await told.submit(cast)

    async def refused_once() -> bool:
        await dispatching.dispatch(told.db, told.client)
        return bool(receiver.received)

    await eventually(refused_once)
    receiver.answer = response(204)
    (row,) = await are_over(told, request_id)
    assert (row["status"], row["response_status"]) == ("delivered", 204)
    assert row["attempts"] == len(receiver.received) >= 2
    told_of = [json.loads(received.body) for received in receiver.received]
    assert {event["id"] for event in told_of} == {told_of[0]["id"]}, "a receiver can drop what it has seen"
    assert told_of[0]["data"]["request_id"] == str(request_id)


async def test_what_waits_for_hours_is_delivered_at_once_when_somebody_wants_it(
    told: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "PAUSES", (timedelta(hours=8),) * 4)
    receiver.answer = response(503)
    binding = await bind(told, target="webhook", url=receiver.url)
    cast = await told.record.cast()
    request_id = await told.submit(cast)

    async def waits() -> bool:
        await dispatching.dispatch(told.db, told.client)
        return any(row["response_status"] == 503 for row in await of(told, request_id))

    await eventually(waits)
    receiver.answer = response(204)
    (row,) = await of(told, request_id)
    async with told.db.connection() as connection:
        await records.redeliver(connection, binding.id, row["id"])
    assert (await are_over(told, request_id))[0]["status"] == "delivered"


async def test_a_dead_target_holds_up_neither_another_nor_the_request(told: World, receiver: Receiver) -> None:
    await bind(told, name="dead", target="webhook", url="https://dead.invalid/hook")
    await bind(told, name="alive", target="webhook", url=receiver.url)
    cast = await told.record.cast()
    request_id = await told.request(cast)
    assert (await told.decide(request_id, Action.APPROVE, cast.approver)).status is Status.APPROVED
    rows = await are_over(told, request_id)
    assert sorted(row["status"] for row in rows) == ["delivered", "parked"]


async def test_people_are_told_what_concerns_them(told: World, mailbox: Server) -> None:
    events = [f"access_request.{kind}" for kind in ("submitted", "approved", "revoked")]
    await bind(told, target="email", events=events)
    cast = await told.record.cast()
    request_id = await told.request(cast)
    await told.decide(request_id, Action.APPROVE, cast.approver)
    rows = await are_over(told, request_id)
    assert {(row["event"], row["recipient"], row["role"]) for row in rows} == {
        ("access_request.submitted", cast.approver.email, "approver"),
        ("access_request.submitted", cast.second_approver.email, "approver"),
        ("access_request.approved", cast.requester.email, "requester"),
        ("access_request.approved", cast.second_approver.email, "handled"),
    }
    (reminder,) = [row for row in await of(told, request_id) if row["role"] == "reminder"]
    expires_at = (await told.record.row(request_id))["expires_at"]
    assert expires_at - reminder["not_before"] == timedelta(minutes=15)

    # Before its time the access is given back: nobody needs the reminder any more.
    await told.decide(request_id, Action.REVOKE, cast.requester)
    await told.record.execute(
        "UPDATE deliveries SET not_before = now(), dispatch_at = now() WHERE id = %s", reminder["id"]
    )

    async def dropped() -> bool:
        await dispatching.dispatch(told.db, told.client)
        return {row["status"] for row in await of(told, request_id) if row["role"] == "reminder"} == {"dropped"}

    await eventually(dropped)
    # Who was asked before the decision, and not told in time, is not asked any more.
    delivered = {row["recipient"] for row in rows if row["status"] == "delivered"}
    assert {to for envelope in mailbox.received for to in envelope.rcpt_tos} >= delivered
    assert {cast.requester.email, cast.second_approver.email} <= delivered
