"""Cron expressions, as Temporal reads them: what it would refuse is refused where it is typed."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

_MONTHS: Final = tuple(name.lower() for name in calendar.month_name[1:])
_DAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_NUMBER: Final = re.compile(r"[0-9]{1,2}", re.ASCII)
_STEP: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
_LEAP_YEAR: Final = 2000


@dataclass(frozen=True)
class _Field:
    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()
    """What the numbers from `first` on may be called."""
    shortest_name: int = 3


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS, 2),
)


def checked_cron(expression: str) -> str:
    """`expression`, with single spaces, if Temporal understands it and it comes at some time.

    Raises:
        ValueError: it does not; the message says which field and why.
    """
    parts = expression.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(
            "must have five fields, as in 0 6 * * 1-5: minute, hour, day of month, month, day of week; "
            f"these are {len(parts)}"
        )
    _, _, days, months, _ = (_values(field, part) for field, part in zip(_FIELDS, parts, strict=True))
    if min(days) > max(calendar.monthrange(_LEAP_YEAR, month)[1] for month in months):
        raise ValueError("never comes: no such month has such a day")
    return " ".join(parts)


def fits(expression: str, local: datetime) -> bool:
    """Return whether a local time is one of those of `expression`, which `checked_cron` has returned."""
    there = (local.minute, local.hour, local.day, local.month)
    *values, weekdays = (_values(field, part) for field, part in zip(_FIELDS, expression.split(), strict=True))
    return all(each in some for each, some in zip(there, values, strict=True)) and not weekdays.isdisjoint(
        # Sunday is 0 and 7.
        {local.isoweekday(), local.isoweekday() % 7}
    )


def _values(field: _Field, text: str) -> set[int]:
    values: set[int] = set()
    for part in text.split(","):
        wanted, slash, step = part.partition("/")
        if slash and (not _STEP.fullmatch(step) or int(step) == 0):
            raise _wrong(field, text, "after / comes a number from 1 on")
        first, dash, last = wanted.partition("-")
        if wanted == "*":
            start, end = field.first, field.last
        elif dash:
            start, end = _value(field, text, first), _value(field, text, last)
            if end < start:
                raise _wrong(field, text, "a range goes from the smaller to the larger")
        else:
            start = _value(field, text, first)
            # As Temporal has it: 5/10 is 5, 15, 25 … up to the end.
            end = field.last if slash else start
        values.update(range(start, end + 1, int(step or 1)))
    return values


def _value(field: _Field, text: str, word: str) -> int:
    if _NUMBER.fullmatch(word):
        value = int(word)
        if field.first <= value <= field.last:
            return value
    elif len(word) >= field.shortest_name:
        for offset, name in enumerate(field.names):
            if name.startswith(word.lower()):
                return field.first + offset
    raise _wrong(field, text, f"it takes {field.first} to {field.last}{', or names' if field.names else ''}")


def _wrong(field: _Field, text: str, why: str) -> ValueError:
    return ValueError(f"{field.name} “{text[:40]}” cannot be read: {why}")
