"""Text as people send it, checked once at the edge: it can be stored, it can be seen, and it stays in its place.

The rules, for every text alike (docs/api.md, Text):

* Text is kept in Unicode's composed form (NFC), so that what looks the same compares equal. A limit of characters holds
  for it too: some characters are composed into three. At most 30 combining marks follow each other, as in Unicode's
  Stream-Safe Text Format (UAX #15): the time that it takes to put marks in order is the square of their number.
* Characters that turn the direction of the text around them are refused: embeddings, overrides and isolates (UAX #9).
  Hebrew and Arabic need none of them; the marks of direction (LRM, RLM, ALM), which turn nothing else, are for text of
  several lines.
* A single line also has no character that is invisible or blank: default-ignorable code points and the blank pattern
  of Braille. ZWJ and ZWNJ are accepted where they change what is seen: in scripts that join (RFC 5892, ContextJ) and
  between emoji.
* In names, every run of white space becomes one space, and the variation selectors of emoji are dropped.
* What is required has at least one character that can be seen.

What is read from the database is not checked again (`STORED`): it may be older than a rule. `made_harmless` is for
showing it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

import idna
from pydantic import AfterValidator, StringConstraints, ValidationInfo

STORED: Final[dict[str, Any]] = {"text": "stored"}
"""The context of validation with which a model takes text from the database as it is."""

LONGEST_NAME: Final = 200
"""Characters of a name."""

LONGEST_FILTER: Final = 320
"""Characters of a text to look for."""

_MOST_MARKS: Final = 30
"""Combining marks that follow each other."""
_BREAKING: Final = frozenset({"Cc", "Zl", "Zp"})
"""Control characters, and Unicode's own separators of lines and paragraphs."""
_BEGINS_A_FORMULA: Final = frozenset("=+-@;\uff1d\uff0b\uff0d\uff20")
"""The last four are the first four in full width, which some spreadsheets take for the same."""
_BEGINS_A_CELL: Final = ("\t", "\r", "\n")
BEGINS_A_TABLE: Final = "\N{BYTE ORDER MARK}"
"""What a CSV file starts with, so that spreadsheets read it as UTF-8."""
_TURNING: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""LRE, RLE, PDF, LRO, RLO, LRI, RLI, FSI, PDI: what turns the direction of the text that follows."""
UNSEEN: Final = re.compile(
    # Default_Ignorable_Code_Point, of DerivedCoreProperties.txt of Unicode 17. The property covers reserved ranges, so
    # that it changes hardly ever: these are the ranges of Unicode 7 (2014) as well.
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    # Not ignorable by the standard, and blank all the same: Braille without a dot, a note without a head.
    "\u2800\U0001d159]"
)
"""A character that shows nothing: default-ignorable, or blank."""
_BETWEEN_CELLS: Final = re.compile(rf"[;\t\r\n][;\s{UNSEEN.pattern[1:-1]}]*")
"""What some spreadsheets take for the end of a cell, and all that they skip after it."""
_NOTHING_TO_SEE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp", "Mn", "Me"})
"""The categories whose characters show nothing by themselves: a mark needs something that it marks."""
_EMOJI_STYLE: Final = re.compile("[\ufe0e\ufe0f]")
"""The variation selectors that choose between the drawing and the coloured picture."""
_JOINERS: Final = "\u200c\u200d"
_PICTURES: Final = frozenset({"So", "Sk"})
"""The categories of emoji, and of their tones of skin."""


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


def made_harmless(value: str) -> str:
    """Return `value` with a mark in the place of what turns the direction of text: to show what was not checked."""
    return value if value.isascii() else _TURNING.sub("\N{REPLACEMENT CHARACTER}", value)


def unturned(value: str) -> str:
    """Return `value`.

    Raises:
        ValueError: it has a character that turns the direction of the text around it.
    """
    if not value.isascii() and (found := _TURNING.search(value)):
        raise ValueError(f"must not contain {_spelled(found)}, which turns the direction of text; remove it")
    return value


def composed(value: str) -> str:
    """Return `value` in composed form (NFC).

    Raises:
        ValueError: it has a character that turns the direction of the text around it, or too many combining marks in
            a row.
    """
    if value.isascii():
        return value
    marks = 0
    for char in unturned(value):
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks > _MOST_MARKS:
            raise ValueError(f"must not contain more than {_MOST_MARKS} combining marks in a row")
    return unicodedata.normalize("NFC", value)


def is_visible(value: str) -> bool:
    """Whether there is something to see in `value`."""
    return any(
        unicodedata.category(char) not in _NOTHING_TO_SEE and not UNSEEN.match(char) and not _is_no_character(char)
        for char in value
    )


def visible(value: str) -> str:
    """Return `value`.

    Raises:
        ValueError: there is nothing to see in it.
    """
    if not is_visible(value):
        raise ValueError("must have at least one character that can be seen")
    return value


def seen_whole(value: str) -> str:
    """Return `value`, a single line in composed form, if everything in it can be seen.

    Raises:
        ValueError: it is more than a line, or has a character that is invisible or turns the direction of text.
    """
    one_line(value)
    if value.isascii():
        return value
    value = composed(value)
    for found in UNSEEN.finditer(value):
        if not _joins(value, found.start()):
            raise ValueError(f"must not contain {_spelled(found)}, which cannot be seen; remove it")
    return value


def named(value: str) -> str:
    """Return `value` as a name is kept: as `seen_whole` has it, with single spaces, without the styles of emoji.

    Raises:
        ValueError: it is more than a line, has a character that cannot be seen, or has nothing else.
    """
    one_line(value)
    if not value.isascii():
        value = _EMOJI_STYLE.sub("", value)
    value = seen_whole(" ".join(value.split()))
    # Checked again: NFC replaces a few characters by several.
    return visible(_at_most(LONGEST_NAME, value))


def _at_most(limit: int, value: str) -> str:
    if len(value) > limit:
        raise ValueError(f"must have at most {limit} characters")
    return value


def _joins(value: str, at: int) -> bool:
    """Whether the character at `at` is a joiner in a place where it changes what is seen."""
    if value[at] not in _JOINERS:
        return False
    before, after = value[at - 1 : at], value[at + 1 : at + 2]
    if value[at] == "\N{ZERO WIDTH JOINER}" and _is_picture(before) and _is_picture(after):
        return True
    try:
        return idna.valid_contextj(value, at)
    except ValueError:
        # `idna` refuses to judge a joiner beside a character without a name.
        return False


def _is_picture(char: str) -> bool:
    return bool(char) and unicodedata.category(char) in _PICTURES


def _is_no_character(char: str) -> bool:
    """Whether Unicode has set `char` aside for no character at all."""
    return ord(char) & 0xFFFE == 0xFFFE or "\ufdd0" <= char <= "\ufdef"  # noqa: PLR2004 - the last two of each plane


def _spelled(found: re.Match[str]) -> str:
    char = found.group()
    return f"U+{ord(char):04X} {unicodedata.name(char, '')}".rstrip() + f" (character {found.start() + 1})"


def in_a_cell(value: str) -> str:
    """Return `value` for a table that a spreadsheet opens, with an apostrophe before what it would take for a formula.

    Also after semicolons, tabs and line breaks: where a comma is for decimals, spreadsheets take semicolons for the
    ends of cells, and do not see the quotation marks of a cell that is not the first.
    """
    value = _BETWEEN_CELLS.sub(_apart_from_a_formula, made_harmless(value))
    # Some spreadsheets skip blanks, and characters that cannot be seen.
    first = next((char for char in value if not (char.isspace() or UNSEEN.match(char))), "")
    return f"'{value}" if first in _BEGINS_A_FORMULA or value.startswith(_BEGINS_A_CELL) else value


def _apart_from_a_formula(found: re.Match[str]) -> str:
    after = found.string[found.end() : found.end() + 1]
    return f"{found.group()}'" if after and after in _BEGINS_A_FORMULA else found.group()


def _sought(value: str) -> str:
    return unicodedata.normalize("NFC", value)


def _unless_stored(check: Callable[[str], str]) -> AfterValidator:
    def checked(value: str, info: ValidationInfo) -> str:
        return value if info.context is STORED else check(value)

    return AfterValidator(checked)


def at_most(limit: int) -> AfterValidator:
    """Return a check of the number of characters for after a text was composed: some characters become three."""
    return _unless_stored(partial(_at_most, limit))


STORABLE = AfterValidator(storable)
UNTURNED = _unless_stored(unturned)
COMPOSED = _unless_stored(composed)
VISIBLE = _unless_stored(visible)
SEEN_WHOLE = _unless_stored(seen_whole)

Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_NAME),
    STORABLE,
    _unless_stored(named),
]
"""A display name: one line of 1 to 200 characters, all of which can be seen."""

ShortText = Annotated[str, StringConstraints(max_length=1000), STORABLE, COMPOSED, at_most(1000)]
"""Up to 1,000 characters."""

LongText = Annotated[str, StringConstraints(max_length=10_000), STORABLE, COMPOSED, at_most(10_000)]
"""Up to 10,000 characters: descriptions, justifications, comments, messages."""

FilterText = Annotated[str, StringConstraints(max_length=LONGEST_FILTER), STORABLE, AfterValidator(_sought)]
"""Text to look for, in the form in which names are kept."""
