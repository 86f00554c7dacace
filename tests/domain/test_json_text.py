"""JSON from outside, in which every name says one thing."""

from __future__ import annotations

import pytest

from domain.json_text import RepeatedName, _object, parsed


class _Counted(str):
    """A name that counts how often names are compared."""

    __slots__ = ()
    __hash__ = str.__hash__
    compared = 0

    def __eq__(self, other: object) -> bool:
        _Counted.compared += 1
        return super().__eq__(other)


def test_the_first_name_that_comes_again_is_told() -> None:
    with pytest.raises(RepeatedName, match='"b" more than once'):
        parsed('{"a": {"a": 1}, "b": 1, "c": 2, "c": 3, "b": 4}')


def test_the_time_to_find_a_repeated_name_grows_with_the_names_and_not_with_their_square() -> None:
    names = [_Counted(number) for number in range(2_000)]
    with pytest.raises(RepeatedName):
        _object([(name, None) for name in [*names, _Counted(1_999)]])
    assert _Counted.compared < 10 * len(names)
