"""Cron expressions: what Temporal takes is taken, what it refuses is explained."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.cron import checked_cron

TAKEN = [
    "* * * * *",
    "0 6 * * 1-5",
    "*/15 0-23/2 1,15 * *",
    "59 23 31 12 7",
    "0 0 1 jan sun",
    "0 0 * Sept,MARCH mon-fri",
    "0 0 * * tu,th",
    "5/10 3 * * *",
    "0 0 29 2 *",
    "0 0 31 4,5 *",
    "00 06 * * *",
    "0 0 * * 5-7",
]
REFUSED = {
    "": "must have five fields",
    "0 6 * *": "these are 4",
    "0 0 6 * * *": "these are 6",
    "@daily": "must have five fields",
    "@every 5m": "must have five fields",
    "CRON_TZ=UTC 0 6 * * *": "these are 6",
    "60 * * * *": "minute “60” cannot be read: it takes 0 to 59",
    "* 24 * * *": "hour “24”",
    "* * 0 * *": "day of month “0”",
    "* * * 13 *": "month “13” cannot be read: it takes 1 to 12, or names",
    "* * * * 8": "day of week “8”",
    "a * * * *": "minute “a”",
    "? * * * *": "minute “?”",
    "* * L * *": "day of month “L”",
    "* * * * 5#2": "day of week “5#2”",
    "* * * ja *": "month “ja”",
    "* * * * m": "day of week “m”",
    "* * * * monx": "day of week “monx”",
    "*/0 * * * *": "after / comes a number",
    "*/-1 * * * *": "after / comes a number",
    "*/ * * * *": "after / comes a number",
    "*/2/2 * * * *": "after / comes a number",
    "1-2-3 * * * *": "minute “1-2-3”",
    "5-1 * * * *": "from the smaller to the larger",
    "* * * * fri-sun": "from the smaller to the larger",
    "1,,2 * * * *": "minute “1,,2”",
    ", * * * *": "minute “,”",
    "-1 * * * *": "minute “-1”",
    "+1 * * * *": "minute “+1”",
    "1e1 * * * *": "minute “1e1”",
    "٣ * * * *": "minute “٣”",
    "0 0 30 2 *": "never comes",
    "0 0 31 4,6,9,11 *": "never comes",
    "0 0 30-31 feb *": "never comes",
}


@pytest.mark.parametrize("expression", TAKEN)
def test_is_taken_as_it_is(expression: str) -> None:
    assert checked_cron(expression) == expression


def test_has_single_spaces() -> None:
    assert checked_cron("  0\t6  * *\n1-5 ") == "0 6 * * 1-5"


@pytest.mark.parametrize(("expression", "complaint"), REFUSED.items(), ids=[repr(each) for each in REFUSED])
def test_is_refused_with_what_would_be_taken(expression: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        checked_cron(expression)


@given(st.text(alphabet="0123456789*/-, ajsunfebM\n@#?", max_size=30))
def test_is_taken_or_explained(expression: str) -> None:
    with contextlib.suppress(ValueError):
        taken = checked_cron(expression)
        assert checked_cron(taken) == taken
