"""Lengths of time as people write and read them. Access is measured in whole minutes."""

from __future__ import annotations

import re
from typing import Final

_MINUTES_PER_DAY: Final = 24 * 60
_PARTS: Final = re.compile(
    r"(?:(?P<days>\d{1,7})\s*d)?\s*(?:(?P<hours>\d{1,7})\s*h)?\s*(?:(?P<minutes>\d{1,9})\s*m(?:in)?)?",
    re.ASCII | re.IGNORECASE,
)
_PLAIN: Final = re.compile(r"\d{1,9}", re.ASCII)


def parse(text: str) -> int:
    """The minutes that `8h`, `90m`, `1d`, `1h30m` or `480` stand for.

    Raises:
        ValueError: it is none of these, or no time at all; the message says what would be understood.
    """
    trimmed = text.strip()
    if _PLAIN.fullmatch(trimmed):
        minutes = int(trimmed)
    elif trimmed and (parts := _PARTS.fullmatch(trimmed)):
        days, hours, rest = (int(part or 0) for part in parts.group("days", "hours", "minutes"))
        minutes = days * _MINUTES_PER_DAY + hours * 60 + rest
    else:
        raise ValueError(f"{text!r} is no duration; write 8h, 90m, 1d, 1h30m, or minutes as in 480")
    if minutes < 1:
        raise ValueError("a minute is the least that can be asked for")
    return minutes


def spell(minutes: int) -> str:
    """`minutes` in the form that `parse` reads: `8h`, `1h30m`, `1d`."""
    days, rest = divmod(minutes, _MINUTES_PER_DAY)
    hours, mins = divmod(rest, 60)
    return "".join(f"{count}{unit}" for count, unit in ((days, "d"), (hours, "h"), (mins, "m")) if count) or "0m"


def spell_seconds(seconds: float) -> str:
    """How long something still takes or took, to the precision that matters: `3d 4h`, `7h 59m`, `45s`."""
    total = max(int(seconds), 0)
    units = ((24 * 3600, "d"), (3600, "h"), (60, "m"), (1, "s"))
    counts = []
    for size, unit in units:
        count, total = divmod(total, size)
        counts.append((count, unit))
    first = next((index for index, (count, _) in enumerate(counts) if count), len(counts) - 1)
    # Seconds beside minutes only tell something while few minutes are left.
    shown = counts[first : first + 2]
    if shown[-1][1] == "s" and len(shown) > 1 and shown[0][0] >= 10:  # noqa: PLR2004 - ten minutes
        shown = shown[:1]
    return " ".join(f"{count}{unit}" for index, (count, unit) in enumerate(shown) if count or index == 0)
