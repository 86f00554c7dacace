"""What a change of the clocks does to a schedule, as Temporal's Schedules treat it.

Where clocks go forward, some local times do not exist: a run at such a time is left out or, where clocks go forward by
less than an hour, moved. Where they go back, some local times come twice: a run at such a time comes once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field

from domain.cron import fits
from domain.tasks import time_zones

_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)


class Effect(StrEnum):
    """What becomes of runs at a local time that does not exist, or comes twice."""

    SKIPPED = "skipped"
    MOVED = "moved"
    ONCE = "once"


class ClockChange(BaseModel):
    """A change of the clocks that concerns a schedule."""

    at: datetime = Field(description="When the clocks change, with the offset from then on.")
    local: str = Field(
        description="The first time of the schedule that it concerns, as a clock on the wall shows it.",
        examples=["2027-03-28T02:30"],
    )
    effect: Effect = Field(
        description="`skipped`: the time does not exist, and the task does not run; `moved`: it does not exist, and "
        "the task runs a little later; `once`: the time comes twice, and the task runs at one of the two."
    )


class NextRuns(BaseModel):
    """When a task runs next by itself. Times have the offset that the time zone of the task has then."""

    items: list[datetime] = Field(description="The soonest first; empty where it has no times, or is paused.")
    clock_changes: list[ClockChange] = Field(
        default_factory=list, description="Changes of the clocks until the last of them that concern it."
    )


def next_runs(cron: str | None, time_zone: str, runs: Sequence[datetime], since: datetime) -> NextRuns:
    """Return when a task runs next, with what changes of the clocks do to its times.

    Args:
        cron: the expression, as `domain.cron.checked_cron` returns it; None for an interval, which no clock concerns.
        time_zone: what it is read in, in upper or lower case: earlier versions stored `europe/berlin`.
            A name that is none any more is taken for UTC.
        runs: as Temporal has them, the soonest first.
        since: where to begin.
    """
    zone = ZoneInfo(time_zones().get(time_zone.lower(), "UTC"))
    changes = [] if cron is None else _clock_changes(cron, zone, runs, since)
    return NextRuns(items=[run.astimezone(zone) for run in runs], clock_changes=changes)


def _clock_changes(cron: str, zone: ZoneInfo, runs: Sequence[datetime], since: datetime) -> list[ClockChange]:
    found = []
    for at in _transitions(zone, since, runs[-1]) if runs else ():
        before, after = (at - _MINUTE).astimezone(zone).utcoffset(), at.astimezone(zone).utcoffset()
        if before is None or after is None or before == after:
            continue
        forward = after > before
        first = (at + min(before, after)).replace(tzinfo=None)
        minutes = int(abs(after - before) / _MINUTE)
        local = next((each for each in (first + n * _MINUTE for n in range(minutes)) if fits(cron, each)), None)
        if local is not None:
            effect = (
                (Effect.MOVED if _is_moved(cron, zone, runs, local) else Effect.SKIPPED) if forward else Effect.ONCE
            )
            shown = local.isoformat(timespec="minutes")
            found.append(ClockChange(at=at.astimezone(zone), local=shown, effect=effect))
    return found


def _transitions(zone: ZoneInfo, since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield when the offset of `zone` changes, to the minute, in UTC."""
    early = since.astimezone(UTC).replace(second=0, microsecond=0)
    while early < until:
        late = early + _DAY
        if early.astimezone(zone).utcoffset() != late.astimezone(zone).utcoffset():
            low, high = early, late
            while high - low > _MINUTE:
                middle = low + int((high - low) / _MINUTE) // 2 * _MINUTE
                if middle.astimezone(zone).utcoffset() == early.astimezone(zone).utcoffset():
                    low = middle
                else:
                    high = middle
            yield high
        early = late


def _is_moved(cron: str, zone: ZoneInfo, runs: Sequence[datetime], missing: datetime) -> bool:
    shown = (run.astimezone(zone).replace(tzinfo=None) for run in runs)
    return any(each.date() == missing.date() and not fits(cron, each) for each in shown)
