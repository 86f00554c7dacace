"""Which of several things somebody means who typed a name, part of a name or part of an id."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_SHORTEST_ID_PART: Final = 4
"""Characters of an id that are taken for a part of it: fewer would match by accident."""
_WORDS: Final = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Named:
    """Something that can be meant."""

    id: str
    name: str


class NotOne(Exception):
    """Nothing or several things are meant."""

    def __init__(self, meant: Sequence[Named]) -> None:
        super().__init__(f"{len(meant)} match")
        self.meant = list(meant)
        """What could be meant; empty where nothing could."""


def folded(text: str) -> str:
    """Return `text` so that it is the same in any case; folding takes some letters apart."""
    return unicodedata.normalize("NFC", text.strip().casefold())


def slug(name: str) -> str:
    """`name` in a form that needs no quotes in a shell: `Database read-only access` is database-read-only-access."""
    return "-".join(_WORDS.findall(folded(name)))


def choose(wanted: str, among: Sequence[Named]) -> Named:
    """The one thing that `wanted` means.

    The first of these that matches anything decides: the id; the name in any case; the name as a slug; the beginning
    of name, slug or id.

    Raises:
        NotOne: nothing matches, or several things do.
    """
    text, as_slug = folded(wanted), slug(wanted)
    rules: list[Callable[[Named], bool]] = [
        lambda thing: thing.id.casefold() == text,
        lambda thing: folded(thing.name) == text,
        lambda thing: bool(as_slug) and slug(thing.name) == as_slug,
        lambda thing: _begins(thing, text, as_slug),
    ]
    for rule in rules:
        matches = [thing for thing in among if rule(thing)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise NotOne(matches)
    raise NotOne([])


def _begins(thing: Named, text: str, as_slug: str) -> bool:
    if not text:
        return False
    in_name = folded(thing.name).startswith(text) or (bool(as_slug) and slug(thing.name).startswith(as_slug))
    return in_name or (len(text) >= _SHORTEST_ID_PART and thing.id.casefold().startswith(text))
