"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import durations


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("8h", 480),
        ("90m", 90),
        ("1d", 1440),
        ("1h30m", 90),
        ("480", 480),
        (" 1D 2h 3MIN ", 1563),
        ("1h 30m", 90),
        ("007", 7),
    ],
)
def test_what_is_understood(text: str, minutes: int) -> None:
    assert durations.parse(text) == minutes


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "0h", "-1", "1.5h", "8 hours", "30m1h", "1h1h", "1w", "1 0", "h", "٣h", "9" * 5000, "1e3", "+5"],
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 8h, 90m|a minute is the least"):
        durations.parse(text)


@given(st.integers(min_value=1, max_value=525_600))
def test_what_is_spelled_is_understood(minutes: int) -> None:
    assert durations.parse(durations.spell(minutes)) == minutes
    assert durations.parse(str(minutes)) == minutes


@given(st.text(alphabet="0123456789dhm in", max_size=12) | st.text())
def test_nothing_else_happens(text: str) -> None:
    try:
        minutes = durations.parse(text)
    except ValueError:
        return
    assert minutes >= 1


@given(st.integers(min_value=0, max_value=10**9))
def test_a_remaining_time_is_never_shown_longer_than_it_is(seconds: int) -> None:
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    shown = sum(int(part[:-1]) * units[part[-1]] for part in durations.spell_seconds(seconds).split())
    assert shown <= seconds
    assert seconds - shown < max(seconds / 10, 1) or seconds - shown < 60


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (59.9, "59s"), (61, "1m 1s"), (605, "10m"), (28_799, "7h 59m"), (90_000, "1d 1h")],
)
def test_a_remaining_time(seconds: float, text: str) -> None:
    assert durations.spell_seconds(seconds) == text
