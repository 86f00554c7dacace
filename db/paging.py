"""Keyset pagination: newest first, a cursor that names the last row seen, never an offset."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Select, tuple_
from sqlalchemy.orm import Mapped

from domain.errors import Invalid

T = TypeVar("T")
Query = TypeVar("Query", bound=Select[*tuple[Any, ...]])

DEFAULT_LIMIT: Final = 50
LARGEST_LIMIT: Final = 200
_NUMBERS_END: Final = 2**63 - 1


@dataclass(frozen=True)
class Position:
    """Which page of a list to read."""

    limit: int = DEFAULT_LIMIT
    before: tuple[datetime, UUID] | None = None
    """Creation time and id of the last row of the page before, in lists ordered by these."""
    before_number: int = _NUMBERS_END
    """Id of that row, in lists ordered by number."""

    @classmethod
    def of(cls, limit: int, cursor: str | None) -> Position:
        """The page that a client asks for.

        Raises:
            Invalid: the cursor is none of ours.
        """
        if cursor is None:
            return cls(limit)
        try:
            first, _, second = base64.urlsafe_b64decode(cursor.encode("ascii")).decode("ascii").partition("|")
            if not second:
                number = int(first)
                if not 0 <= number <= _NUMBERS_END:
                    raise OverflowError  # noqa: TRY301 - answered like every other cursor that is none of ours
                return cls(limit, before_number=number)
            moment = datetime.fromisoformat(first)
            if moment.tzinfo is None:
                raise ValueError  # noqa: TRY301
            return cls(limit, before=(moment, UUID(second)))
        except (ValueError, OverflowError, binascii.Error, UnicodeError):
            raise Invalid(
                ("cursor", "is not a next_cursor of this list; leave it out to start at the newest")
            ) from None

    @property
    def parameters(self) -> dict[str, Any]:
        """For SQL; one row more than wanted, to know whether a page follows."""
        before_at, before_id = self.before or (None, None)
        return {"limit": self.limit + 1, "before_at": before_at, "before_id": before_id}


class Page(BaseModel, Generic[T]):
    """A part of a list, newest first."""

    items: list[T]
    next_cursor: Annotated[
        str | None, Field(description="Pass as `cursor` for the page that follows; null at the end.")
    ]

    @classmethod
    def dated(cls, rows: list[T], position: Position, key: Callable[[T], tuple[datetime, UUID]]) -> Page[T]:
        """A page of a list ordered by creation time and id, from up to one row more than its limit."""
        return cls._of(rows, position, lambda row: "{}|{}".format(*_text(*key(row))))

    @classmethod
    def numbered(cls, rows: list[T], position: Position, key: Callable[[T], int]) -> Page[T]:
        """A page of a list ordered by number, from up to one row more than its limit."""
        return cls._of(rows, position, lambda row: str(key(row)))

    @classmethod
    def _of(cls, rows: list[T], position: Position, name: Callable[[T], str]) -> Page[T]:
        items = rows[: position.limit]
        more = len(rows) > position.limit
        return cls(
            items=items, next_cursor=base64.urlsafe_b64encode(name(items[-1]).encode()).decode() if more else None
        )


def _text(moment: datetime, identity: UUID) -> tuple[str, str]:
    return moment.isoformat(), str(identity)


def newest_first(query: Query, position: Position, created_at: Mapped[datetime], key: Mapped[UUID]) -> Query:
    """`query` for the page at `position` of a list ordered by creation time and id."""
    if position.before is not None:
        query = query.where(tuple_(created_at, key) < tuple_(*position.before))
    return query.order_by(created_at.desc(), key.desc()).limit(position.limit + 1)
