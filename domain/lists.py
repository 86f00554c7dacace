"""Lists as people send them, checked once at the edge."""

from __future__ import annotations

from typing import Final, TypeVar

T = TypeVar("T")

DISTINCT: Final = {"uniqueItems": True}
"""What JSON Schema says of a list that `distinct` accepts."""


def distinct(values: list[T]) -> list[T]:
    """`values`, if none of them is there twice.

    Raises:
        ValueError: one is.
    """
    if len(set(values)) != len(values):
        msg = "must not name the same value twice"
        raise ValueError(msg)
    return values
