"""JSON from outside, in which every name says one thing."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final

_LONGEST_NAME: Final = 100
"""Characters of a repeated name that the error tells."""


class RepeatedName(ValueError):
    """An object has the same name twice, of which parsers keep the one or the other (RFC 8259, section 4)."""

    def __init__(self, name: str) -> None:
        super().__init__(f"has the name {json.dumps(name[:_LONGEST_NAME])} more than once in one object; give it once")
        self.name = name


def parsed(text: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return the value of a JSON text.

    Raises:
        RepeatedName: an object has a name more than once.
        ValueError: it is not JSON.
        RecursionError: it is nested too deep to be parsed.
    """
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Counted in one pass: a body can have tens of thousands of names, and all callers wait meanwhile.
        counts = Counter(name for name, _ in pairs)
        raise RepeatedName(next(name for name, count in counts.items() if count > 1))
    return found
