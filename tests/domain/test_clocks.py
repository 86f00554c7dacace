"""Next runs where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from domain.clocks import next_runs
from domain.tasks import time_zones

SINCE = datetime(2026, 12, 1, tzinfo=UTC)
UNTIL = datetime(2027, 12, 1, tzinfo=UTC)


# What the runs are follows from Temporal; tests/workflows/test_schedules.py asks it.
@pytest.mark.parametrize(
    ("cron", "zone", "changes"),
    [
        (
            "30 2 * * *",
            "Europe/Berlin",
            [
                ("2027-03-28T03:00:00+02:00", "2027-03-28T02:30", "skipped"),
                ("2027-10-31T02:00:00+01:00", "2027-10-31T02:30", "once"),
            ],
        ),
        ("30 2 * * sat", "Europe/Berlin", []),
        ("0 6 * * 1-5", "Europe/Berlin", []),
        ("30 1 * * 7", "America/New_York", [("2027-11-07T01:00:00-05:00", "2027-11-07T01:30", "once")]),
        ("30 2 * * *", "UTC", []),
        ("30 2 * * *", "Asia/Kolkata", []),
        ("30 2 * * *", "localtime", []),
        (None, "Europe/Berlin", []),
    ],
)
def test_say_which_times_are_skipped_or_come_twice(
    cron: str | None, zone: str, changes: list[tuple[str, str, str]]
) -> None:
    told = next_runs(cron, zone, [SINCE, UNTIL], SINCE)
    assert [(each.at.isoformat(), each.local, each.effect) for each in told.clock_changes] == changes
    assert told.items == [SINCE, UNTIL]


def test_say_which_times_are_moved() -> None:
    zone = ZoneInfo("Australia/Lord_Howe")
    moved = datetime(2027, 10, 3, 2, 45, tzinfo=zone)
    told = next_runs("15 2 * 10 sun", zone.key, [moved], SINCE)
    [change] = told.clock_changes
    assert (change.local, change.effect) == ("2027-10-03T02:15", "moved")
    assert told.items[0].isoformat() == "2027-10-03T02:45:00+11:00"


def test_are_looked_at_only_until_the_last() -> None:
    assert next_runs("30 2 * * *", "Europe/Berlin", [SINCE + timedelta(days=5)], SINCE).clock_changes == []
    assert next_runs("30 2 * * *", "Europe/Berlin", [], SINCE).items == []


def test_are_in_any_time_zone_that_a_task_can_have() -> None:
    for name in time_zones().values():
        assert ZoneInfo(name).key == name


@pytest.mark.parametrize(
    ("stored", "offset"), [("europe/berlin", 1), ("posix/Europe/Berlin", 0), ("localtime", 0), ("Factory", 0)]
)
def test_are_said_for_time_zones_that_earlier_versions_stored(stored: str, offset: int) -> None:
    found = next_runs("0 9 * * *", stored, [SINCE], SINCE)
    assert [run.utcoffset() for run in found.items] == [timedelta(hours=offset)]
