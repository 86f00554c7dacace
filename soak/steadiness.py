"""Whether a figure that was sampled for a while stays where it is, or grows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_FEWEST_SAMPLES: Final = 12


class Finding(StrEnum):
    """What came of looking at a figure."""

    STEADY = "steady"
    GROWS = "grows"
    TOO_SHORT = "too short to tell"


@dataclass(frozen=True)
class Bounds:
    """What counts as steady."""

    warm_up_secs: float
    """What a program gathers first (caches, pools, compiled code) is not looked at."""
    least_secs: float
    """A shorter time after that says nothing."""
    absolute: float
    """Growth from the first to the last third of the time that is allowed in any case."""
    relative: float
    """The same as a share of the first third, where that is more."""


@dataclass(frozen=True)
class Trend:
    """How a figure went after the warm-up."""

    finding: Finding
    before: float = 0.0
    """Median of the first third."""
    after: float = 0.0
    """Median of the last third."""
    secs: float = 0.0
    """How long it was looked at."""

    @property
    def growth(self) -> float:
        """From the first third to the last."""
        return self.after - self.before


def trend(samples: Sequence[tuple[float, float]], bounds: Bounds) -> Trend:
    """Compare the medians of the first and the last third of what comes after the warm-up.

    A median does not see a peak that passes, such as a garbage collection that is due or a burst of calls; what leaks
    is still there in the last third. A jump that stays counts as growth.

    Args:
        samples: instants in seconds with the figure at each, in order.
        bounds: what counts as steady.
    """
    if not samples:
        return Trend(Finding.TOO_SHORT)
    steady = [(at, value) for at, value in samples if at >= samples[0][0] + bounds.warm_up_secs]
    secs = steady[-1][0] - steady[0][0] if steady else 0.0
    if secs < bounds.least_secs or len(steady) < _FEWEST_SAMPLES:
        return Trend(Finding.TOO_SHORT, secs=secs)
    third = secs / 3
    before = statistics.median(value for at, value in steady if at <= steady[0][0] + third)
    after = statistics.median(value for at, value in steady if at >= steady[-1][0] - third)
    allowed = max(bounds.absolute, bounds.relative * before)
    return Trend(Finding.GROWS if after - before > allowed else Finding.STEADY, before, after, secs)
