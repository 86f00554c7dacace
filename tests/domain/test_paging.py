"""Cursors: what a page gives as `next_cursor` leads to the page after it, and nothing else leads anywhere."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.paging import Page, Position
from domain.errors import Invalid

Row = tuple[datetime, UUID]

offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=offsets)  # noqa: DTZ001 - by `timezones`
rows = st.lists(st.tuples(moments, st.uuids()), min_size=1, max_size=9)


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def itself(row: Row) -> Row:
    return row


class TestDated:
    @given(rows, st.integers(1, 9))
    def test_a_cursor_names_the_last_row_shown(self, stored: list[Row], limit: int) -> None:
        page = Page.dated(stored[: limit + 1], Position(limit), itself)
        assert page.items == stored[:limit]
        if page.next_cursor is None:
            assert len(stored) <= limit
        else:
            following = Position.of(limit, page.next_cursor)
            assert (following.limit, following.before) == (limit, page.items[-1])

    def test_a_cursor_keeps_microseconds(self) -> None:
        row = (datetime(2026, 11, 23, 12, 0, 0, 1, tzinfo=UTC), uuid4())
        cursor = Page.dated([row, row], Position(1), itself).next_cursor
        assert Position.of(1, cursor).before == row

    def test_one_row_more_than_wanted_is_read_and_not_shown(self) -> None:
        assert Position(50).parameters["limit"] == 51
        full = [(datetime.now(UTC), uuid4()) for _ in range(50)]
        assert Page.dated(full, Position(50), itself).next_cursor is None


class TestNumbered:
    @given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=9), st.integers(1, 9))
    def test_a_cursor_names_the_last_row_shown(self, stored: list[int], limit: int) -> None:
        page = Page.numbered(stored[: limit + 1], Position(limit), lambda number: number)
        if page.next_cursor is None:
            assert len(stored) <= limit
        else:
            assert Position.of(limit, page.next_cursor).before_number == page.items[-1]


class TestGarbage:
    @pytest.mark.parametrize(
        "text",
        [
            f"2026-11-23T12:00:00|{UUID(int=1)}",  # of no time zone: it would mean another moment on another server
            "2026-11-23T12:00:00+00:00|",
            "2026-11-23T12:00:00+00:00|1",
            f"yesterday|{UUID(int=1)}",
            f"|{UUID(int=1)}",
            "-1",
            str(2**63),
            "1.5",
            "9" * 5000,
        ],
    )
    def test_is_refused_by_its_field(self, text: str) -> None:
        with pytest.raises(Invalid) as raised:
            Position.of(50, encoded(text))
        assert [field for field, _ in raised.value.errors] == ["cursor"]

    def test_leaving_it_out_starts_at_the_newest(self) -> None:
        start = Position.of(7, None)
        assert (start.limit, start.before, start.before_number) == (7, None, 2**63 - 1)
