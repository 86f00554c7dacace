"""The codec server: the Temporal UI shows what is encrypted to those who may see every request, and to nobody else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import pytest
from google.protobuf import json_format
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload, Payloads

import temporal_client
from api.app import create_app
from db import runs
from domain.actors import Permission
from domain.tasks import REDEEM_PATH, Attempt, Begun, RunCause
from payloads import EncryptedPayloads
from tests.api import house as houses
from tests.api.house import House

KEY = SecretStr("a key for the histories, long enough")
UI = "https://temporal.example.com"
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'{"comment": "why"}')


@pytest.fixture(scope="module")
async def encrypted_house(new_database: Callable[[], AbstractContextManager[str]]) -> AsyncIterator[House]:
    with new_database() as url:
        settings = houses.settings(url).model_copy(
            update={"temporal_encryption_keys": (KEY,), "temporal_ui_url": f"{UI}/ui"}
        )
        async with houses.open_house(url, create_app(settings)) as house:
            yield house


def as_the_ui_sends(*payloads: Payload) -> dict[str, object]:
    sent: dict[str, object] = json.loads(json_format.MessageToJson(Payloads(payloads=payloads)))
    return sent


async def test_an_administrator_sees_what_was_said(encrypted_house: House) -> None:
    admin = await encrypted_house.person("codec.admin", Permission.REQUESTS)
    sealed = await EncryptedPayloads([KEY]).encode([PLAIN])
    answer = await encrypted_house.call("POST", "/temporal-codec/decode", admin, json=as_the_ui_sends(*sealed, PLAIN))
    assert answer.status_code == 200, answer.text
    assert list(json_format.Parse(answer.text, Payloads()).payloads) == [PLAIN, PLAIN]


async def test_what_the_ui_sends_encrypted_is_read_by_workers(encrypted_house: House) -> None:
    admin = await encrypted_house.person("codec.admin2", Permission.REQUESTS)
    answer = await encrypted_house.call("POST", "/temporal-codec/encode", admin, json=as_the_ui_sends(PLAIN))
    sealed = json_format.Parse(answer.text, Payloads()).payloads
    assert sealed[0].metadata["encoding"] == b"binary/encrypted"
    assert await EncryptedPayloads([KEY]).decode(list(sealed)) == [PLAIN]


async def test_nobody_else_does(encrypted_house: House) -> None:
    somebody = await encrypted_house.person("codec.other", Permission.TASKS, Permission.DIRECTORY)
    sent = as_the_ui_sends(*await EncryptedPayloads([KEY]).encode([PLAIN]))
    for path in ("decode", "encode"):
        assert (await encrypted_house.call("POST", f"/temporal-codec/{path}", somebody, json=sent)).status_code == 403
        assert (await encrypted_house.call("POST", f"/temporal-codec/{path}", json=sent)).status_code == 401


async def test_a_ticket_that_may_not_be_redeemed_yet_is_shown_to_nobody(encrypted_house: House) -> None:
    """It is the way to secrets, which whoever manages requests is not to learn."""
    reader = await encrypted_house.person("codec.reader", Permission.REQUESTS)
    task = await encrypted_house.task()
    async with encrypted_house.db.connection() as connection:
        run_id = await runs.make_on_its_own(connection, task.id, RunCause.MANUAL)
    attempt = Attempt(run_id=run_id, holder="a worker", at=datetime.now(UTC))
    order = await runs.begin(encrypted_house.db, attempt)
    assert order is not None
    # As a worker says it, in whatever is around it.
    converter = temporal_client.data_converter(houses.settings(encrypted_house.url))
    said = await converter.encode([order, Begun(run_id=run_id, order=order), {"tickets": [order.ticket] * 2}])
    sealed = await EncryptedPayloads([KEY]).encode(said)
    answer = await encrypted_house.call("POST", "/temporal-codec/decode", reader, json=as_the_ui_sends(*sealed))
    assert answer.status_code == 200, answer.text
    shown = [payload.data for payload in json_format.Parse(answer.text, Payloads()).payloads]
    assert order.ticket.encode() in b"".join(payload.data for payload in said)
    assert json.loads(shown[0])["ticket"] == "justiam_run_(hidden)"
    assert json.loads(shown[0])["run_id"] == str(run_id)
    assert json.loads(shown[2]) == {"tickets": ["justiam_run_(hidden)"] * 2}
    assert order.ticket.removeprefix("justiam_run_").encode() not in b"".join(shown)
    redeemed = await encrypted_house.client.post(REDEEM_PATH, json={"ticket": json.loads(shown[0])["ticket"]})
    assert redeemed.status_code == 401


async def test_a_payload_that_was_changed_is_said_to_be(encrypted_house: House) -> None:
    admin = await encrypted_house.person("codec.admin3", Permission.REQUESTS)
    (sealed,) = await EncryptedPayloads([KEY]).encode([PLAIN])
    sealed.data = sealed.data[:-1] + bytes([sealed.data[-1] ^ 1])
    answer = await encrypted_house.call("POST", "/temporal-codec/decode", admin, json=as_the_ui_sends(sealed))
    assert answer.status_code == 422
    assert "changed" in answer.text


async def test_a_browser_is_let_in_from_the_temporal_ui_alone(encrypted_house: House) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        # As the UI sends them; in a preflight, sorted.
        "Access-Control-Request-Headers": "authorization,authorization-extras,content-type,x-namespace",
    }
    path = "/temporal-codec/decode"
    theirs = await encrypted_house.call("OPTIONS", path, headers={"Origin": UI, **asked})
    assert theirs.status_code == 200
    assert theirs.headers["Access-Control-Allow-Origin"] == UI
    assert "Access-Control-Allow-Credentials" not in theirs.headers
    other = await encrypted_house.call("OPTIONS", path, headers={"Origin": "https://evil.example.com", **asked})
    assert "Access-Control-Allow-Origin" not in other.headers
    elsewhere = await encrypted_house.call("OPTIONS", "/access-requests", headers={"Origin": UI, **asked})
    assert "Access-Control-Allow-Origin" not in elsewhere.headers
