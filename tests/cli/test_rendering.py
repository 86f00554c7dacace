"""What others wrote, shown without harm."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.people import rendering
from cli.people.documents import TimelineEntry
from cli.people.watching import Pauses


@given(st.text())
def test_no_text_steers_the_terminal(text: str) -> None:
    shown = rendering.plain(text)
    assert not {char for char in shown if unicodedata.category(char) in {"Cc", "Cs"}} - {"\n", "\t"}
    assert len(rendering.excerpt(text)) <= 60
    assert "\n" not in rendering.plain(text, lines=False)


def test_an_escape_sequence_and_reversed_text_are_made_visible() -> None:
    assert rendering.plain("a\x1b[2Jb\u202ec") == "a\ufffd[2Jb\ufffdc"
    assert rendering.plain("नमस्ते می‌خواهم 👩‍💻") == "नमस्ते می‌خواهم 👩‍💻", "what only joins letters stays"


def entry(kind: str, actor: str = "bob@example.com", **detail: str | bool) -> TimelineEntry:
    return {"id": 1, "at": "2026-07-14T14:30:00Z", "kind": kind, "actor": actor, "verified": True, "detail": {**detail}}


@pytest.mark.parametrize(
    ("happened", "words"),
    [
        (entry("submitted"), "submitted by bob@example.com"),
        (entry("approved", comment="ok\nthen"), "approved by bob@example.com: “ok then”"),
        (entry("approved", "system:auto"), "approved by auto-approval"),
        (entry("revoked", cancelled=True), "cancelled by bob@example.com"),
        (entry("revoked"), "revoked by bob@example.com"),
        (entry("expired", "system:expiry"), "expired by the end of its time"),
        (entry("escalated", "system:escalation", asked="administrators"), "escalated: administrators may decide now"),
        (entry("refused", action="approve", reason="No."), "refused: bob@example.com wanted to approve: No."),
        (entry("something new"), "something new by bob@example.com"),
        ({**entry("denied"), "verified": False}, "denied by bob@example.com (unverified)"),
    ],
)
def test_a_timeline_entry_is_one_line(happened: TimelineEntry, words: str) -> None:
    assert rendering.timeline_entry(happened).plain.endswith(f"  {words}")


@given(st.lists(st.floats(min_value=0, max_value=3600) | st.none(), max_size=30))
def test_pauses_grow_to_a_bound_and_end_when_something_is_due(deadlines: list[float | None]) -> None:
    pauses = Pauses(first=0.5, longest=10)
    for deadline in deadlines:
        pause = pauses.take(deadline)
        assert 0 < pause <= 10
        assert deadline is None or pause <= deadline + 0.2
    pauses.restart()
    assert pauses.take() == 0.5
