"""The version of what is replaced as a whole, and the versions that a caller expects (RFC 9110, If-Match)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from domain.errors import ChangedMeanwhile, Invalid

_ELEMENT: Final = re.compile(r'[ \t]*(?:((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*)?(?:,|$)')
"""An element of a list of entity tags, up to the comma after it. Elements may be empty (RFC 9110, section 5.6.1)."""
_DIGITS: Final = 32
"""Hexadecimal digits that are kept of the hash: 128 bits, enough that two versions never have the same tag."""


def version_of(values: Mapping[str, Any]) -> str:
    """Return the entity tag of values: a quoted hash of their canonical JSON, the same for the same values.

    Args:
        values: JSON, in any order of keys.
    """
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return f'"{hashlib.sha256(canonical.encode()).hexdigest()[:_DIGITS]}"'


@dataclass(frozen=True)
class Expected:
    """The versions that a caller is prepared to replace or delete."""

    tags: frozenset[str] | None = None
    """Entity tags with their quotes; None: any version."""

    @classmethod
    def parse(cls, header: str) -> Self:
        """Read the value of If-Match: `*`, or a list of entity tags.

        Weak tags are read and never match, since If-Match compares strongly (RFC 9110, section 13.1.1).

        Raises:
            Invalid: it is neither.
        """
        if header.strip(" \t") == "*":
            return cls()
        tags: set[str] = set()
        position = 0
        while position < len(header):
            element = _ELEMENT.match(header, position)
            if element is None:
                raise _malformed()
            if element[1]:
                tags.add(element[1])
            position = element.end()
        if not tags:
            raise _malformed()
        return cls(frozenset(tag for tag in tags if not tag.startswith("W/")))

    def check(self, version: str) -> None:
        """Refuse to go on from another version than the caller expects.

        Args:
            version: of what is stored, read under the lock under which it is changed.

        Raises:
            ChangedMeanwhile: it is not among those that the caller expects.
        """
        if self.tags is not None and version not in self.tags:
            raise ChangedMeanwhile(
                "It was changed since you read it, and nothing was done. Read it again, and apply your change to what "
                "it says now."
            )


ANY_VERSION: Final = Expected()
"""For a caller that sends no version: any version may be replaced."""


def _malformed() -> Invalid:
    return Invalid(("If-Match", 'must be *, or ETags as they were answered, in double quotes: "0f3a…", "77b1…"'))
