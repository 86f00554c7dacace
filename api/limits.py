"""How much one caller may ask for, so that a script that went wild leaves the service to everybody else.

Counted for each person, service accounts with their owners, and by each process for itself: what it protects is that
process. Whoever calls without a known token is refused before anything is counted, at the cost of one indexed look.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from uuid import UUID

from domain.errors import TooManyCalls

_BURST_SECS: Final = 10
"""A page with all its parts, or a script's first calls, come at once: as many as in this time are taken together."""
_MOST_CALLERS: Final = 50_000
"""Those who called last are remembered; whoever is forgotten may send a burst."""


class CallLimit:
    """A bucket of calls for each caller, which fills again as time goes by."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_second = per_minute / 60
        self._most = max(1.0, self._a_second * _BURST_SECS)
        self._clock = clock
        self._left: OrderedDict[UUID, tuple[float, float]] = OrderedDict()

    def take(self, caller: UUID) -> None:
        """Count a call.

        Args:
            caller: the person behind the account that calls.

        Raises:
            TooManyCalls: there is no call left.
        """
        now = self._clock()
        left, since = self._left.pop(caller, (self._most, now))
        left = min(self._most, left + (now - since) * self._a_second)
        enough = left >= 1
        self._left[caller] = (left - 1 if enough else left, now)
        if len(self._left) > _MOST_CALLERS:
            self._left.popitem(last=False)
        if not enough:
            wait = math.ceil((1 - left) / self._a_second)
            raise TooManyCalls(
                "You send more calls than are taken from one caller. "
                f"Try again in {wait} second{'' if wait == 1 else 's'}.",
                wait,
            )
