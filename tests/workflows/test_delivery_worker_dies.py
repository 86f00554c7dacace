"""A worker that dies in the middle of an attempt at a delivery: the attempt is made again, soon."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities import heartbeats
from activities.deliveries import DeliveryActivities
from db import integrations
from db.database import Database
from db.secrets import SecretVault
from domain.deliveries import DeliveryInput, DeliveryNext, Outbound
from domain.integrations import IntegrationValues
from settings import Settings
from tests.deliveries.receiver import receiving
from tests.record import SECRET, Record
from workflows import delivery, names


async def test_silence_is_noticed_long_before_an_attempt_has_to_be_over(
    temporal_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Were it not, the second attempt would come after two minutes, and this test would have no time left.
    monkeypatch.setattr(delivery, "_ALIVE", timedelta(seconds=1))
    attempts = 0

    @activity.defn(name=names.DELIVER)
    async def deliver(_: DeliveryInput) -> DeliveryNext:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            # As from a worker that died: not a word.
            await asyncio.Event().wait()
        return DeliveryNext()

    queue = f"deliveries-{uuid4()}"
    async with Worker(
        temporal_client,
        task_queue=queue,
        workflows=[delivery.DeliveryWorkflow],
        activities=[deliver],
        # It has the module as the test has changed it.
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        await temporal_client.execute_workflow(
            names.DELIVERY_WORKFLOW, DeliveryInput(delivery_id=uuid4()), id=queue, task_queue=queue
        )
    assert attempts == 2


async def test_an_attempt_says_that_it_goes_on_while_its_target_takes_its_time(
    db: Database, database_url: str, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "EVERY_SECS", 0.02)
    settings = Settings.model_validate({"database_url": database_url, "secret_key": SECRET})
    vault = SecretVault(settings.secret_key, settings.encryption_keys)
    async with receiving() as receiver:
        receiver.answer, receiver.hold = b"", True
        values = {"name": "slow", "events": ["access_request.submitted"], "target": "webhook", "url": receiver.url}
        await integrations.create(db, vault, IntegrationValues.model_validate(values))
        cast = await record.cast()
        request_id = await record.submit(cast.template, cast.requester)
        (row,) = await record.query("SELECT id FROM deliveries WHERE request_id = %s", request_id)
        policy = Outbound(allowed_internal_hosts=frozenset({receiver.authority}), timeout_secs=0.5)
        beats: list[object] = []
        environment = ActivityEnvironment()
        environment.on_heartbeat = lambda *details: beats.append(details)
        following = await environment.run(
            DeliveryActivities(db, vault, policy, None).deliver, DeliveryInput(delivery_id=row["id"])
        )
        assert receiver.received
    assert following.pause_seconds is not None
    assert len(beats) > 2
