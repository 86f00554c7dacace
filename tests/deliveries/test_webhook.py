"""Webhooks: what a receiver gets, how it verifies it, and what its answer means."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from deliveries import send
from domain.deliveries import Attempt, Envelope, Outbound
from domain.events import Event
from domain.integrations import Target
from tests.deliveries.conftest import DELIVERY_ID, REQUEST_ID, MakeEnvelope
from tests.deliveries.receiver import Receiver, response

CURRENT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PREVIOUS = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


async def deliver(receiver: Receiver, envelope: Envelope, policy: Outbound, *secrets: str) -> Attempt:
    return await send(
        Target.WEBHOOK,
        {"url": receiver.url},
        {"signing_secrets": list(secrets or [CURRENT])},
        envelope,
        recipient=None,
        role=None,
        policy=policy,
    )


async def test_is_a_cloud_event_with_the_payload_of_the_specification(
    receiver: Receiver, policy: Outbound, envelope: MakeEnvelope
) -> None:
    attempt = await deliver(receiver, envelope(Event.APPROVED), policy)
    assert (attempt.delivered, attempt.response_status, attempt.response_head, attempt.error) == (True, 200, "ok", None)
    [received] = receiver.received
    assert received.line == "POST /hooks?team=dba HTTP/1.1"
    assert received.headers["host"] == receiver.authority
    assert received.headers["content-type"] == "application/cloudevents+json"
    assert json.loads(received.body) == {
        "specversion": "1.0",
        "id": str(DELIVERY_ID),
        "source": "https://access.example.com",
        "type": "access_request.approved",
        "subject": str(REQUEST_ID),
        "time": "2026-03-01T12:30:00Z",
        "datacontenttype": "application/json",
        "data": {
            "request_id": str(REQUEST_ID),
            "template_name": "Database read-only access",
            "requester_email": "alice@example.com",
            "decided_by": "bob@example.com",
        },
    }


async def test_is_verified_with_the_library_of_the_receiver(
    receiver: Receiver, policy: Outbound, envelope: MakeEnvelope
) -> None:
    await deliver(receiver, envelope(template_name="Zugriff für Ärzte 🚑"), policy)
    [received] = receiver.received
    verified = Webhook(CURRENT).verify(received.body, received.headers)
    assert verified["id"] == received.headers["webhook-id"] == str(DELIVERY_ID)
    with pytest.raises(WebhookVerificationError):
        Webhook(PREVIOUS).verify(received.body, received.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(CURRENT).verify(received.body.replace(b"alice", b"mallo"), received.headers)


@pytest.mark.parametrize("secret", [CURRENT, PREVIOUS], ids=["current", "previous"])
async def test_is_verified_with_either_secret_during_a_rotation(
    receiver: Receiver, policy: Outbound, envelope: MakeEnvelope, secret: str
) -> None:
    await deliver(receiver, envelope(), policy, CURRENT, PREVIOUS)
    [received] = receiver.received
    Webhook(secret).verify(received.body, received.headers)


async def test_is_the_same_event_when_it_is_repeated(
    receiver: Receiver, policy: Outbound, envelope: MakeEnvelope
) -> None:
    for _ in range(2):
        await deliver(receiver, envelope(), policy)
    first, second = receiver.received
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_is_delivered_by_any_success(
    receiver: Receiver, policy: Outbound, envelope: MakeEnvelope, status: int
) -> None:
    receiver.answer = response(status)
    attempt = await deliver(receiver, envelope(), policy)
    assert (attempt.delivered, attempt.response_status, attempt.retryable) == (True, status, False)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_is_repeated_where_that_can_help(
    receiver: Receiver, policy: Outbound, envelope: MakeEnvelope, status: int
) -> None:
    receiver.answer = response(status, b"later")
    attempt = await deliver(receiver, envelope(), policy)
    assert (attempt.delivered, attempt.response_status, attempt.retryable) == (False, status, True)
    assert attempt.response_head == "later"
    assert attempt.error is not None


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 404, 409, 410, 413, 422])
async def test_is_not_repeated_where_it_cannot(
    receiver: Receiver, policy: Outbound, envelope: MakeEnvelope, status: int
) -> None:
    receiver.answer = response(status, b"no", f"Location: http://{receiver.authority}/elsewhere")
    attempt = await deliver(receiver, envelope(), policy)
    assert (attempt.delivered, attempt.response_status, attempt.retryable) == (False, status, False)
    assert len(receiver.received) == 1


CUT = {
    "shorter than said": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok",
    "chunks that end early": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    "chunks that are none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
    "no gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
    "longer than is kept": b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\nok" + b"x" * 2000,
    "no such charset": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=x\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("answer", CUT.values(), ids=CUT)
@pytest.mark.parametrize("target", [Target.WEBHOOK, Target.SLACK])
async def test_is_delivered_by_the_status_whatever_comes_of_the_body(
    receiver: Receiver, policy: Outbound, envelope: MakeEnvelope, target: Target, answer: bytes
) -> None:
    receiver.answer = answer
    attempt = await send(
        target,
        {"url": receiver.url},
        {"signing_secrets": [CURRENT], "url": receiver.url},
        envelope(),
        recipient=None,
        role=None,
        policy=policy,
    )
    assert (attempt.delivered, attempt.response_status, attempt.error) == (True, 200, None)
    assert (attempt.response_head or "").startswith("ok")


@pytest.mark.parametrize(("status", "delivered"), [(200, True), (503, False), (404, False)])
async def test_is_judged_by_the_status_where_the_body_never_ends(
    receiver: Receiver, policy: Outbound, envelope: MakeEnvelope, status: int, delivered: bool
) -> None:
    receiver.answer = f"HTTP/1.1 {status} X\r\nContent-Length: 9\r\nRetry-After: 7\r\n\r\nok".encode()
    receiver.hold = True
    attempt = await deliver(receiver, envelope(), policy.model_copy(update={"timeout_secs": 0.3}))
    assert (attempt.delivered, attempt.response_status, attempt.response_head) == (delivered, status, "ok")
    assert (attempt.retryable, attempt.retry_after_secs) == (status == 503, 7)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("120", 120),
            ("0", 0),
            ("99999999999999", 86_400),
            ("soon", None),
            ("-5", None),
            ("Tue, 99 Foo", None),
            ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
            ("Mon, 01 Jan 2026 00:00:00 +99999999999999", None),
        ],
        ids=["seconds", "now", "for ever", "a word", "negative", "no date", "no year", "no time zone"],
    )
    async def test_is_handed_on_in_seconds(
        self, receiver: Receiver, policy: Outbound, envelope: MakeEnvelope, value: str, seconds: int | None
    ) -> None:
        receiver.answer = response(503, b"", f"Retry-After: {value}")
        attempt = await deliver(receiver, envelope(), policy)
        assert attempt.retry_after_secs == seconds

    @pytest.mark.parametrize(("ahead", "most"), [(3600, 3600), (-3600, 0)], ids=["ahead", "over"])
    async def test_may_be_a_date(
        self, receiver: Receiver, policy: Outbound, envelope: MakeEnvelope, ahead: int, most: int
    ) -> None:
        moment = datetime.now(UTC) + timedelta(seconds=ahead)
        receiver.answer = response(503, b"", f"Retry-After: {moment:%a, %d %b %Y %H:%M:%S} GMT")
        attempt = await deliver(receiver, envelope(), policy)
        assert attempt.retry_after_secs is not None
        assert 0 <= attempt.retry_after_secs <= most


class TestAnswer:
    async def test_is_kept_to_its_first_kibibyte(
        self, receiver: Receiver, policy: Outbound, envelope: MakeEnvelope
    ) -> None:
        receiver.answer = response(200, b"x" * 100_000)
        attempt = await deliver(receiver, envelope(), policy)
        assert attempt.response_head == "x" * 1024

    async def test_that_never_ends_ends_the_attempt(
        self, receiver: Receiver, policy: Outbound, envelope: MakeEnvelope
    ) -> None:
        receiver.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"
        receiver.hold = True
        attempt = await deliver(receiver, envelope(), policy.model_copy(update={"timeout_secs": 0.2}))
        assert (attempt.delivered, attempt.retryable) == (False, True)
        assert attempt.error == "There was no answer within 0.2 seconds."

    async def test_with_what_cannot_be_stored_can_be_stored(
        self, receiver: Receiver, policy: Outbound, envelope: MakeEnvelope
    ) -> None:
        receiver.answer = response(500, b"\x00\xff\xfe caf\xc3\xa9")
        attempt = await deliver(receiver, envelope(), policy)
        assert attempt.response_head == "\ufffd\ufffd\ufffd café"

    @pytest.mark.parametrize(
        "answer",
        [b"", b"220 mail.example.com ESMTP\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000],
        ids=["nothing", "another protocol", "an endless header"],
    )
    async def test_that_is_none_is_a_failure(
        self, receiver: Receiver, policy: Outbound, envelope: MakeEnvelope, answer: bytes
    ) -> None:
        receiver.answer = answer
        attempt = await deliver(receiver, envelope(), policy)
        assert (attempt.delivered, attempt.response_status, attempt.retryable) == (False, None, True)
        assert attempt.error == "It does not speak HTTP."
