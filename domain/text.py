"""Text as people send it, checked once at the edge so that no layer below meets what it cannot store."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints

_BREAKING: Final = frozenset({"Cc", "Zl", "Zp"})
"""Control characters, and Unicode's own separators of lines and paragraphs."""
_BEGINS_A_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def storable(value: str) -> str:
    """`value`, if PostgreSQL can store it and UTF-8 can carry it.

    Raises:
        ValueError: it has a NUL or a lone surrogate.
    """
    # PostgreSQL refuses NUL in text, and UTF-8 has no lone surrogates; JSON can carry both.
    if "\x00" in value:
        msg = "must not contain the NUL character"
        raise ValueError(msg)
    try:
        value.encode()
    except UnicodeEncodeError:
        msg = "must be valid Unicode (it has a lone surrogate)"
        raise ValueError(msg) from None
    return value


def made_storable(value: str) -> str:
    """`value` with a mark in the place of everything that `storable` refuses: for what is only reported."""
    return value.encode(errors="replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")


def one_line(value: str) -> str:
    """`value`, if it is a single line.

    Raises:
        ValueError: it has a line break or another control character.
    """
    if any(unicodedata.category(char) in _BREAKING for char in value):
        msg = "must be a single line without control characters"
        raise ValueError(msg)
    return value


def in_a_cell(value: str) -> str:
    """`value` for a table that a spreadsheet opens, which would take some of what people write for a formula."""
    return f"'{value}" if value.startswith(_BEGINS_A_FORMULA) else value


STORABLE = AfterValidator(storable)

Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    STORABLE,
    AfterValidator(one_line),
]
"""A display name: one line, 1 to 200 characters."""

ShortText = Annotated[str, StringConstraints(max_length=1000), STORABLE]
"""Up to 1,000 characters."""

LongText = Annotated[str, StringConstraints(max_length=10_000), STORABLE]
"""Up to 10,000 characters: descriptions, justifications, comments, messages."""

FilterText = Annotated[str, StringConstraints(max_length=320), STORABLE]
"""What somebody types into a filter."""
