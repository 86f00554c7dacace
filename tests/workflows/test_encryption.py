"""With a key, Temporal keeps nothing that people wrote in a way that its operators could read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from google.protobuf.message import Message
from pydantic import SecretStr, ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

import script_worker
from activities import schedules, scripts
from api.app import create_app
from domain.custom_fields import CustomField, FieldType
from domain.errors import AccessError
from domain.states import Action, Status
from payloads import EncryptedPayloads, PayloadUnreadable
from settings import ScriptWorkerSettings
from temporal_client import data_converter
from tests.servers import TestingTemporal
from tests.workflows import histories
from tests.workflows.test_scripts import fired, over
from tests.workflows.test_tasks import a_task
from tests.workflows.world import World, eventually, open_world
from workflows import names
from workflows.access_request import AccessRequestWorkflow

OLD, NEW = SecretStr("the key of the first year, long enough"), SecretStr("the key of the second year, long enough")
REASON, ANSWER, COMMENT = "The ledger does not balance", "INC-4711", "Because the auditors come on Monday"
STORED = histories.stored()


def settings(*keys: SecretStr) -> ScriptWorkerSettings:
    return ScriptWorkerSettings(temporal_encryption_keys=keys)


def with_keys(client: Client, *keys: SecretStr) -> Client:
    """The same connection, writing and reading as a program of the service with these keys."""
    config = client.config()
    config["data_converter"] = data_converter(settings(*keys))
    return Client(**config)


@pytest.fixture
async def encrypted(database_url: str, temporal_client: Client) -> AsyncIterator[World]:
    async with open_world(database_url, with_keys(temporal_client, OLD)) as world:
        yield world


def within(message: Message, path: str = "") -> Iterator[tuple[str, Message]]:
    """Every message in this one, with the names of the fields that lead to it."""
    yield path, message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = [part for part in value.values() if isinstance(part, Message)]
        else:
            inner = [value] if isinstance(value, Message) else list(value)
        for part in inner:
            yield from within(part, f"{path}.{field.name}")


def readable(history: WorkflowHistory) -> list[str]:
    """What who has no key reads in a history, beside ids, names, times and search attributes."""
    found = []
    for event in history.events:
        for path, message in within(event):
            if isinstance(message, Payload):
                # A search attribute, or what the SDK's core notes of a local activity: its type and its times.
                expected = ".search_attributes." in path or b'"activity_type":' in message.data
                if message.metadata["encoding"] != b"binary/encrypted" and not expected:
                    found.append(f"{path}: {message.data!r}")
            elif isinstance(message, Failure):
                found += [
                    text for text in (message.message, message.stack_trace) if text not in {"", "Encoded failure"}
                ]
    return found


def said(history: WorkflowHistory) -> bytes:
    return b"".join(event.SerializeToString() for event in history.events)


async def a_whole_life(world: World) -> tuple[WorkflowHistory, dict[str, str]]:
    """The history of a request with everything that people write, and what they wrote."""
    field = CustomField(label="Ticket", type=FieldType.TEXT)
    cast = await world.record.cast(custom_fields=[field])
    answers = {str(cast.template.custom_fields[0].id): ANSWER}
    request_id = await world.record.submit(cast.template, cast.requester, justification=REASON, custom_answers=answers)
    await world.start(request_id)
    await world.has_looked(request_id)
    with pytest.raises(AccessError) as refused:
        await world.decide(request_id, Action.APPROVE, cast.requester)
    await world.decide(request_id, Action.APPROVE, cast.approver, comment=COMMENT)
    await world.signal(request_id, Action.REVOKE, cast.requester, comment=COMMENT)
    await world.ends(request_id)
    assert (await world.state(request_id)).status is Status.REVOKED  # type: ignore[union-attr]
    written = {"comment": COMMENT, "decider": cast.approver.email, "refusal": refused.value.detail}
    return await world.handle(request_id).fetch_history(), {**written, "reason": REASON, "answer": ANSWER}


async def test_nothing_that_people_wrote_is_in_the_history(encrypted: World) -> None:
    history, written = await a_whole_life(encrypted)
    assert readable(history) == []
    for text in written.values():
        assert text.encode() not in said(history), text
    # Yet it is all there for who has the key.
    await Replayer(workflows=[AccessRequestWorkflow], data_converter=data_converter(settings(OLD))).replay_workflow(
        history
    )


async def test_without_a_key_it_is(database_url: str, temporal_client: Client) -> None:
    """Were this to pass with nothing to be found, the test above would prove nothing."""
    async with open_world(database_url, with_keys(temporal_client)) as world:
        history, written = await a_whole_life(world)
    assert readable(history)
    assert {name for name, text in written.items() if text.encode() in said(history)} == {
        "comment",
        "decider",
        "refusal",
    }


class TestScripts:
    """A script worker has the keys of what Temporal hands it, and no others."""

    @pytest.fixture(params=[(OLD,), ()], ids=["encrypted", "clear"])
    async def world(
        self, database_url: str, temporal_client: Client, request: pytest.FixtureRequest
    ) -> AsyncIterator[World]:
        client = with_keys(temporal_client, *request.param)
        async with open_world(database_url, client, temporal_encryption_keys=request.param) as world:
            yield world

    async def run(
        self, world: World, keys: Sequence[SecretStr], api: httpx.AsyncClient, cache: Path
    ) -> tuple[str, WorkflowHistory]:
        """Have a script worker with these keys run a script: what the record says of it, and Temporal."""
        client = with_keys(world.client, *keys)
        async with script_worker.worker(client, api, ScriptWorkerSettings(script_cache_dir=cache)):
            _, request_id = await fired(world, "def run():\n    return 'what the script found'")
            run = await over(world, request_id, "created")
        handle = world.client.get_workflow_handle(names.delivery_id(run["id"]))
        return str(run["error"] or run["output"]), await handle.fetch_history()

    async def test_what_a_script_said_is_as_secret(
        self, world: World, temporal: TestingTemporal, tmp_path: Path
    ) -> None:
        app = create_app(world.settings.model_copy(update={"temporal_address": temporal.address}))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api.test") as api,
        ):
            keys = world.settings.temporal_encryption_keys
            output, history = await self.run(world, keys, api, tmp_path)
        assert output == "what the script found\n"
        assert (b"what the script found" in said(history)) == (not keys)
        assert bool(readable(history)) == (not keys)

    async def test_so_are_failures_with_their_stack_traces(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scripts, "_REDEEM_PAUSE_SECS", 0)
        keys = world.settings.temporal_encryption_keys
        async with httpx.AsyncClient(base_url="http://127.0.0.1:1", trust_env=False) as nowhere:
            error, history = await self.run(world, keys, nowhere, tmp_path)
        assert "The API could not be reached" in error
        for text in (b"The API could not be reached", b"activities/scripts.py"):
            assert (text in said(history)) == (not keys)
        assert bool(readable(history)) == (not keys)

    async def test_a_script_worker_without_the_key_says_so(self, encrypted: World, tmp_path: Path) -> None:
        async with httpx.AsyncClient(base_url="http://127.0.0.1:1", trust_env=False) as nowhere:
            error, _ = await self.run(encrypted, (), nowhere, tmp_path)
        assert "JUSTIAM_TEMPORAL_ENCRYPTION_KEYS" in error


async def test_keys_change_while_requests_are_open(database_url: str, temporal_client: Client) -> None:
    async with open_world(database_url, with_keys(temporal_client, OLD)) as world:
        cast = await world.record.cast()
        request_id = await world.request(cast)
        await world.stop_worker()
        world.client = with_keys(temporal_client, NEW, OLD)
        await world.start_worker()
        state = await world.decide(request_id, Action.APPROVE, cast.approver)
        assert state.status is Status.APPROVED
        await world.decide(request_id, Action.REVOKE, cast.requester)
        await world.ends(request_id)
        used = {
            message.metadata["encryption-key-id"].decode()
            for event in (await world.handle(request_id).fetch_history()).events
            for _, message in within(event)
            if isinstance(message, Payload) and "encryption-key-id" in message.metadata
        }
        assert used == {EncryptedPayloads([key]).key_id for key in (OLD, NEW)}


async def test_what_comes_under_a_key_too_early_waits_for_the_key(encrypted: World, temporal_client: Client) -> None:
    """Whoever changes keys in the wrong order loses nothing."""
    cast = await encrypted.record.cast()
    request_id = await encrypted.request(cast)
    worker_has, encrypted.client = encrypted.client, with_keys(temporal_client, NEW, OLD)
    await encrypted.signal(request_id, Action.APPROVE, cast.approver)

    async def held_up() -> bool:
        return "WORKFLOW_TASK_FAILED" in await encrypted.events(request_id)

    await eventually(held_up)
    history = await encrypted.handle(request_id).fetch_history()
    failed = next(event for event in history.events if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED)
    why = await worker_has.data_converter.decode(
        [failed.workflow_task_failed_event_attributes.failure.encoded_attributes]
    )
    assert "JUSTIAM_TEMPORAL_ENCRYPTION_KEYS" in why[0]["message"]
    await encrypted.stop_worker()
    await encrypted.start_worker()
    await encrypted.status_is(request_id, Status.APPROVED)


async def test_an_answer_under_a_key_that_a_program_lacks_is_none(encrypted: World, temporal_client: Client) -> None:
    """The API says 503 then, as where Temporal does not answer, and the decision may be repeated."""
    cast = await encrypted.record.cast()
    request_id = await encrypted.request(cast)
    encrypted.client = with_keys(temporal_client)
    with pytest.raises(RuntimeError, match="JUSTIAM_TEMPORAL_ENCRYPTION_KEYS"):
        await encrypted.decide(request_id, Action.APPROVE, cast.approver)
    await encrypted.status_is(request_id, Status.APPROVED)


async def test_schedules_follow_the_keys(database_url: str, temporal_client: Client) -> None:
    """They outlive every history: left as they are, they would need the first key for ever."""
    async with open_world(database_url, with_keys(temporal_client)) as world:
        task_id = await a_task(world, schedule_type="interval", interval_seconds=3600)
        handle = temporal_client.get_schedule_handle(names.schedule_id(task_id))

        async def listed() -> bool:
            return any([schedule.id == handle.id async for schedule in await temporal_client.list_schedules()])

        try:
            # From none to the first, on to the second with the first gone already, and back to none.
            for keys in ((), (OLD,), (NEW, OLD), (NEW,), ()):
                client = with_keys(temporal_client, *keys)
                changed = keys != (NEW,)
                mended = await schedules.ensure_all(world.db, client)
                assert (handle.id in mended) == changed, keys
                await eventually(listed)
                assert handle.id not in await schedules.ensure_all(world.db, client), keys
                (argument,) = (await handle.describe()).schedule.action.args  # type: ignore[attr-defined]
                key_id = argument.metadata.get("encryption-key-id", b"").decode()
                assert key_id == EncryptedPayloads(keys).key_id
            await handle.trigger()

            async def made() -> list[dict[str, object]]:
                return await world.record.query("SELECT * FROM task_runs WHERE task_id = %s", task_id)

            assert await eventually(made)
        finally:
            await handle.delete()


@pytest.mark.parametrize("name", STORED)
async def test_histories_from_before_encryption_replay_with_it(name: str) -> None:
    replayer = Replayer(workflows=[AccessRequestWorkflow], data_converter=data_converter(settings(NEW)))
    await replayer.replay_workflow(STORED[name])


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
    cut = Payload(metadata=sealed.metadata, data=sealed.data[:11])
    with pytest.raises(PayloadUnreadable, match="changed"):
        await codec.decode([cut])


async def test_what_says_another_key_than_its_own_is_refused() -> None:
    codec = EncryptedPayloads([NEW, OLD])
    (sealed,) = await EncryptedPayloads([OLD]).encode([PLAIN])
    assert await codec.decode([sealed]) == [PLAIN]
    sealed.metadata["encryption-key-id"] = codec.key_id.encode()
    with pytest.raises(PayloadUnreadable, match="changed"):
        await codec.decode([sealed])
    del sealed.metadata["encryption-key-id"]
    with pytest.raises(PayloadUnreadable, match="JUSTIAM_TEMPORAL_ENCRYPTION_KEYS"):
        await codec.decode([sealed])


async def test_what_says_that_it_is_not_encrypted_is_not_decrypted() -> None:
    """And not believed either: it is no JSON."""
    (sealed,) = await EncryptedPayloads([OLD]).encode([PLAIN])
    sealed.metadata["encoding"] = b"json/plain"
    with pytest.raises(ValidationError, match="Invalid JSON"):
        await data_converter(settings(OLD)).decode([sealed])


async def test_a_key_that_is_missing_is_named() -> None:
    (sealed,) = await EncryptedPayloads([OLD]).encode([PLAIN])
    for others in ([NEW], []):
        with pytest.raises(PayloadUnreadable, match="JUSTIAM_TEMPORAL_ENCRYPTION_KEYS"):
            await EncryptedPayloads(others).decode([sealed])


async def test_the_same_words_look_different_each_time() -> None:
    codec = EncryptedPayloads([OLD])
    first, second = await codec.encode([PLAIN, PLAIN])
    assert first.data != second.data


async def test_what_was_never_encrypted_is_read_as_it_is() -> None:
    assert await EncryptedPayloads([OLD]).decode([PLAIN]) == [PLAIN]
