"""The results: one line for each quantity, with its range over the repetitions and its ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_DIGITS_FROM: Final = 100
_TO: Final = "\N{EN DASH}"


@dataclass
class Line:
    """One quantity, measured once in each repetition."""

    what: str
    unit: str
    values: list[float] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    """The values of the bare servers in the same repetitions, where they do the same work."""
    controls: list[float] = field(default_factory=list)
    """The values of the control in the same repetitions, where it does the same work."""

    @property
    def middle(self) -> float:
        """Return the median over the repetitions."""
        return statistics.median(self.values)

    def ratio(self, others: list[float]) -> float | None:
        """Return the median of the ratios within each repetition; None where there is nothing to compare with."""
        return statistics.median(map(_divided, self.values, others)) if others else None


def _divided(value: float, by: float) -> float:
    return value / by if by else float("inf")


class Table:
    """The lines of one column: one kind of servers, several repetitions."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}

    def note(
        self, what: str, value: float, unit: str, *, floor: float | None = None, control: float | None = None
    ) -> None:
        """Add the value of one repetition."""
        line = self.lines.setdefault(what, Line(what, unit))
        line.values.append(value)
        if floor is not None:
            line.floors.append(floor)
        if control is not None:
            line.controls.append(control)

    def as_json(self) -> list[dict[str, Any]]:
        """Return all values, for a file."""
        return [
            vars(line) | {"of_floor": line.ratio(line.floors), "of_control": line.ratio(line.controls)}
            for line in self.lines.values()
        ]


def printed(tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield the lines of a table with a column for each kind of servers."""
    names = list(dict.fromkeys(name for table in tables.values() for name in table.lines))
    head = "".join(f"{column:>30}{'of floor':>10}{'of control':>12}" for column in tables)
    yield f"{'':<52}{head}"
    for name in names:
        cells = "".join(_cells(table.lines.get(name)) for table in tables.values())
        yield f"{name:<52}{cells}"


def _cells(line: Line | None) -> str:
    if line is None:
        return " " * 52
    span = f" ({_number(min(line.values))}{_TO}{_number(max(line.values))})" if len(line.values) > 1 else ""
    value = f"{_number(line.middle)}{span} {line.unit}"
    ratios = [line.ratio(line.floors), line.ratio(line.controls)]
    return f"{value:>30}{_ratio(ratios[0]):>10}{_ratio(ratios[1]):>12}"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= _DIGITS_FROM else f"{value:.1f}"
