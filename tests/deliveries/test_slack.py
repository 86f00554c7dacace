"""Slack messages: what they name, what people cannot do with them, and the limits of Block Kit."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliveries import send, slack
from domain.deliveries import Contact, Outbound
from domain.events import Event
from domain.integrations import Target
from tests.deliveries.conftest import REQUEST_ID, MakeEnvelope
from tests.deliveries.receiver import Receiver, response

HOSTILE = "<!channel> @channel @HERE @everyone & <https://evil.test|Approve here> *bold* `code` ~gone~ _lean_ </quote>"


def texts(message: dict[str, Any]) -> list[str]:
    """All text of a message."""
    found: list[str] = [message["text"]]
    for block in message["blocks"]:
        parts = [block["text"]] if "text" in block else block["fields"]
        found += [part["text"] for part in parts]
    return found


@given(st.text(alphabet=st.sampled_from("ab &<🚑é*_\n"), max_size=60), st.integers(1, 60))
def test_is_cut_by_one_count_and_never_within_an_escape(text: str, limit: int) -> None:
    whole = slack.clipped(text, 10_000)
    cut = slack.clipped(text, limit)
    assert slack.length(cut) == length(cut) <= limit
    if length(whole) <= limit:
        assert cut == whole
    else:
        assert cut.endswith("…")
        assert whole.startswith(cut[:-1])
        assert not re.search(r"&(?!(amp|lt|gt);)", cut)
        # No longer piece would have fitted: an escape has four or five characters at most.
        assert length(cut) > limit - 5


def length(text: str) -> int:
    """As JavaScript counts."""
    return len(text.encode("utf-16-le")) // 2


async def test_names_what_a_decision_needs(receiver: Receiver, policy: Outbound, envelope: MakeEnvelope) -> None:
    attempt = await send(Target.SLACK, {}, {"url": receiver.url}, envelope(), recipient=None, role=None, policy=policy)
    assert attempt.delivered
    [received] = receiver.received
    assert received.headers["content-type"].startswith("application/json")
    message = json.loads(received.body)
    assert message["text"] == ("Access requested: Alice Ardent (alice@example.com) asks for Database read-only access.")
    fields = [field["text"] for block in message["blocks"] for field in block.get("fields", ())]
    assert fields == [
        "*Template*\nDatabase read-only access",
        "*Application*\nInternal DB",
        "*Requester*\nAlice Ardent (alice@example.com)",
        "*Duration*\n8 hours",
        "*Grants*\nDB read-only role",
        "*Approvers*\nBob Brown, Carol Castle",
    ]
    quote, link = [block["text"]["text"] for block in message["blocks"][-2:]]
    assert quote == "*Justification*\n> An incident: customers cannot pay"
    assert link == f"<https://access.example.com/requests/{REQUEST_ID}|Open the request>"


@pytest.mark.parametrize("event", Event)
def test_has_words_for_every_event(envelope: MakeEnvelope, event: Event) -> None:
    message = slack.message(envelope(event, ended_by="carol@example.com"))
    assert event not in message["text"]
    assert "Alice Ardent" in message["text"]
    assert "Database read-only access" in message["text"]


def test_leaves_out_what_there_is_not(envelope: MakeEnvelope) -> None:
    message = slack.message(envelope(justification="  ", approvers=[], mappings=[], link=None))
    assert not re.search(r"Justification|Approvers|Grants|Open", json.dumps(message))


@pytest.mark.parametrize("field", ["justification", "template_name", "app_name"])
def test_carries_no_mention_link_or_formatting_that_people_wrote(envelope: MakeEnvelope, field: str) -> None:
    message = slack.message(envelope(**{field: HOSTILE}))
    for text in texts(message):
        ours = text.replace(f"<https://access.example.com/requests/{REQUEST_ID}|Open the request>", "")
        assert "<" not in ours
        assert not re.search(r"@(channel|here|everyone)", ours, re.IGNORECASE)
        assert not re.search(r"&(?!(amp|lt|gt);)", ours)
        assert not re.search(r"[`~]\w|(?<!^)\*bold|_lean", ours)
    assert (message["parse"], message["link_names"]) == ("none", False)
    assert all(part["verbatim"] for block in message["blocks"] for part in _markdown(block))


def test_quotes_every_line(envelope: MakeEnvelope) -> None:
    message = slack.message(envelope(justification="one\n*Approved by*\nBob"))
    assert "> one\n> " in json.dumps(message, ensure_ascii=False).replace("\\n", "\n")


@pytest.mark.parametrize("text", ["&" * 10_000, "🚑" * 10_000, "a\n" * 5_000, "*" * 10_000], ids=["&", "🚑", "a", "*"])
def test_keeps_the_limits_of_block_kit(envelope: MakeEnvelope, text: str) -> None:
    crowd = [Contact(email=f"{number}@example.com", name="N" * 200) for number in range(300)]
    message = slack.message(
        envelope(
            Event.APPROVED,
            justification=text,
            decision_comment=text,
            template_name=text[:200].replace("\n", " "),
            app_name=text[:200].replace("\n", " "),
            approvers=crowd,
            mappings=["M" * 200] * 100,
        )
    )
    assert len(message["blocks"]) <= 50
    assert length(message["text"]) <= 4000
    for block in message["blocks"]:
        limit = {"header": 150, "section": 3000}[block["type"]]
        assert 1 <= length(block["text"]["text"]) <= limit if "text" in block else len(block["fields"]) <= 10
        assert all(length(field["text"]) <= 2000 for field in block.get("fields", ()))
    assert not any(re.search(r"&(?!(amp|lt|gt);)", part) for part in texts(message))


async def test_that_slack_refuses_says_why(receiver: Receiver, policy: Outbound, envelope: MakeEnvelope) -> None:
    receiver.answer = response(404, b"no_service")
    attempt = await send(Target.SLACK, {}, {"url": receiver.url}, envelope(), recipient=None, role=None, policy=policy)
    assert (attempt.response_status, attempt.response_head, attempt.retryable) == (404, "no_service", False)


async def test_never_tells_the_url(policy: Outbound, envelope: MakeEnvelope) -> None:
    for url in ("https://127.0.0.1/services/T000/B000/hush", "no url: hush", "https://[::1]:1/hush"):
        attempt = await send(Target.SLACK, {}, {"url": url}, envelope(), recipient=None, role=None, policy=policy)
        assert not attempt.delivered
        assert "hush" not in attempt.model_dump_json()


def _markdown(block: dict[str, Any]) -> list[dict[str, Any]]:
    parts = [block["text"]] if "text" in block else block["fields"]
    return [part for part in parts if part["type"] == "mrkdwn"]
