"""With a key, Temporal keeps nothing that people wrote in a way that its operators could read."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DefaultFailureConverterWithEncodedAttributes
from temporalio.worker import Replayer

from domain.errors import AccessError
from domain.states import Action, Status
from payloads import EncryptedPayloads, PayloadUnreadable
from tests.workflows.world import World, open_world
from workflows.access_request import AccessRequestWorkflow

OLD, NEW = SecretStr("the key of the first year, long enough"), SecretStr("the key of the second year, long enough")
COMMENT = "Because the auditors come on Monday"


def with_keys(client: Client, *keys: SecretStr) -> Client:
    config = client.config()
    config["data_converter"] = dataclasses.replace(
        pydantic_data_converter,
        payload_codec=EncryptedPayloads(keys),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )
    return Client(**config)


@pytest.fixture
async def encrypted(database_url: str, temporal_client: Client) -> AsyncIterator[World]:
    async with open_world(database_url, with_keys(temporal_client, OLD)) as world:
        yield world


async def test_nothing_that_people_wrote_is_in_the_history(encrypted: World, temporal_client: Client) -> None:
    world = encrypted
    cast = await world.record.cast()
    request_id = await world.request(cast)
    await world.decide(request_id, Action.APPROVE, cast.approver, comment=COMMENT)
    with pytest.raises(AccessError) as refused:
        await world.decide(request_id, Action.DENY, cast.second_approver, comment=COMMENT)
    await world.signal(request_id, Action.REVOKE, cast.requester, comment=COMMENT)
    await world.ends(request_id)
    handle = temporal_client.get_workflow_handle(world.handle(request_id).id)
    history = await handle.fetch_history()
    clear = b"".join(event.SerializeToString() for event in history.events)
    # Those whom operators search requests by stay readable, as search attributes: requester, template, application.
    for written in (COMMENT, cast.approver.email, refused.value.detail):
        assert written.encode() not in clear, written
    assert cast.requester.email.encode() in clear
    # Yet it is all there for who has the key.
    await Replayer(workflows=[AccessRequestWorkflow], data_converter=world.client.data_converter).replay_workflow(
        history
    )
    assert (await world.state(request_id)).status is Status.REVOKED  # type: ignore[union-attr]


async def test_keys_change_while_requests_are_open(database_url: str, temporal_client: Client) -> None:
    async with open_world(database_url, with_keys(temporal_client, OLD)) as world:
        cast = await world.record.cast()
        request_id = await world.request(cast)
        await world.stop_worker()
        world.client = with_keys(temporal_client, NEW, OLD)
        await world.start_worker()
        state = await world.decide(request_id, Action.APPROVE, cast.approver)
        assert state.status is Status.APPROVED
        history = await temporal_client.get_workflow_handle(world.handle(request_id).id).fetch_history()
        used = {
            payload.metadata["encryption-key-id"]
            for event in history.events
            for payload in event.workflow_execution_started_event_attributes.input.payloads
            or event.workflow_execution_update_accepted_event_attributes.accepted_request.input.args.payloads
        }
        assert len(used) == 2


async def test_requests_from_before_encryption_go_on_with_it(database_url: str, temporal_client: Client) -> None:
    async with open_world(database_url, temporal_client) as world:
        cast = await world.record.cast()
        request_id = await world.request(cast)
        await world.stop_worker()
        world.client = with_keys(temporal_client, NEW)
        await world.start_worker()
        assert (await world.decide(request_id, Action.APPROVE, cast.approver)).status is Status.APPROVED


async def test_a_signal_of_a_script_without_the_key_counts(encrypted: World, temporal_client: Client) -> None:
    """`temporal workflow signal` encrypts nothing, and need not."""
    cast = await encrypted.record.cast()
    request_id = await encrypted.request(cast)
    proof = encrypted.record.proof(request_id, Action.APPROVE, cast.approver, now=await encrypted.now())
    await temporal_client.get_workflow_handle(encrypted.handle(request_id).id).signal("approve", {"proof": proof})
    await encrypted.status_is(request_id, Status.APPROVED)


PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'"why"')


async def test_what_was_changed_is_refused() -> None:
    codec = EncryptedPayloads([OLD])
    (sealed,) = await codec.encode([PLAIN])
    assert await codec.decode([sealed]) == [PLAIN]
    assert b"why" not in sealed.SerializeToString()
    for place in (0, 12, len(sealed.data) - 1):
        changed = Payload()
        changed.CopyFrom(sealed)
        data = bytearray(sealed.data)
        data[place] ^= 1
        changed.data = bytes(data)
        with pytest.raises(PayloadUnreadable, match="changed"):
            await codec.decode([changed])


async def test_a_key_that_is_missing_is_named() -> None:
    (sealed,) = await EncryptedPayloads([OLD]).encode([PLAIN])
    with pytest.raises(PayloadUnreadable, match="JUSTIAM_TEMPORAL_ENCRYPTION_KEYS"):
        await EncryptedPayloads([NEW]).decode([sealed])


async def test_the_same_words_look_different_each_time() -> None:
    codec = EncryptedPayloads([OLD])
    first, second = await codec.encode([PLAIN, PLAIN])
    assert first.data != second.data


async def test_what_was_never_encrypted_is_read_as_it_is() -> None:
    assert await EncryptedPayloads([OLD]).decode([PLAIN]) == [PLAIN]
