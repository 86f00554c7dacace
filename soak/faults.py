"""What goes wrong, when, and how: planned beforehand by chance, carried out one after the other."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Final

from soak.stack import Stack


class Fault(StrEnum):
    """One way in which things go wrong."""

    WORKER_KILLED = "worker killed"
    WORKER_RESTARTED = "worker restarted"
    WORKER_FROZEN = "worker frozen"
    WORKERS_KILLED = "all workers killed"
    API_KILLED = "API killed"
    API_RESTARTED = "API restarted"
    API_FROZEN = "API frozen"
    SCRIPT_WORKER_KILLED = "script worker killed"
    POSTGRES_FAST = "PostgreSQL stopped (fast)"
    POSTGRES_IMMEDIATE = "PostgreSQL stopped (immediate)"
    POSTGRES_KILLED = "PostgreSQL killed"
    TEMPORAL_KILLED = "Temporal killed"
    TEMPORAL_RESTARTED = "Temporal restarted"
    MOST_KILLED = "worker, API and Temporal killed"


_HARD: Final = {
    Fault.POSTGRES_FAST: ("PostgreSQL", signal.SIGINT),
    Fault.POSTGRES_IMMEDIATE: ("PostgreSQL", signal.SIGQUIT),
    Fault.POSTGRES_KILLED: ("PostgreSQL", signal.SIGKILL),
    Fault.TEMPORAL_KILLED: ("Temporal", signal.SIGKILL),
    Fault.TEMPORAL_RESTARTED: ("Temporal", signal.SIGTERM),
    Fault.SCRIPT_WORKER_KILLED: ("script worker", signal.SIGKILL),
}
_OF_COPIES: Final = {
    Fault.WORKER_KILLED: (("worker",), signal.SIGKILL),
    Fault.WORKER_RESTARTED: (("worker",), signal.SIGTERM),
    Fault.API_KILLED: (("API",), signal.SIGKILL),
    Fault.API_RESTARTED: (("API",), signal.SIGTERM),
    Fault.MOST_KILLED: (("worker", "API"), signal.SIGKILL),
}
_FROZEN: Final = {Fault.WORKER_FROZEN: "worker", Fault.API_FROZEN: "API"}
_FIRST_FOR_SHORT_RUNS: Final = (
    # What a worker had in hand is noticed after two minutes: early, so that a short run ends soon.
    Fault.WORKER_KILLED,
    Fault.POSTGRES_IMMEDIATE,
    Fault.TEMPORAL_KILLED,
    Fault.API_KILLED,
)
"""A run with time for few has these."""


_EARLY: Final = (Fault.WORKERS_KILLED, Fault.SCRIPT_WORKER_KILLED)
"""They hit what has to live later, and every long run has them."""


@dataclass(frozen=True)
class Planned:
    """One fault of a run."""

    at: float
    """Seconds from the start."""
    fault: Fault
    copy: int
    """Which of the copies it hits, where there are several."""
    lasts: float
    """Seconds until what was ended is started again."""


def plan(chance: Random, secs: float) -> list[Planned]:
    """Faults for a run of this length: each kind in turn, in any order, between a tenth and four fifths of it.

    The second copies of API and worker are left alone after the first quarter, and the script worker before the half of
    it, so that something lives long enough to show whether it grows.
    """
    gap = min(14.0, max(5.0, secs / 9))
    planned: list[Planned] = []
    waiting: list[Fault] = list(_FIRST_FOR_SHORT_RUNS) if secs < len(Fault) * gap else []
    at = secs / 10
    while at < secs * 0.8:
        if not waiting:
            waiting = list(Fault)
            chance.shuffle(waiting)
        fault = waiting.pop(0)
        early = at < secs / 4
        if (fault is Fault.WORKERS_KILLED and not early) or (fault is Fault.SCRIPT_WORKER_KILLED and at > secs * 0.4):
            # They hit what has to live now.
            fault = Fault.WORKER_KILLED
        copy = chance.choice((1, 2)) if early else 1
        planned.append(Planned(at, fault, copy, chance.uniform(0.0, min(6.0, gap / 3))))
        at += gap * chance.uniform(0.7, 1.3)
    if secs >= len(Fault) * gap:
        for fault in _EARLY:
            if all(each.fault is not fault for each in planned):
                place = next(place for place, each in enumerate(planned) if each.fault not in _EARLY)
                planned[place] = replace(planned[place], fault=fault)
    return planned


async def carry_out(stack: Stack, planned: Planned, say: Callable[[str], None]) -> None:
    """Break it, wait, and have it work again.

    Raises:
        DevStackError: what was ended cannot be started again.
    """
    fault, copy = planned.fault, planned.copy
    if fault in _FROZEN:
        name = f"{_FROZEN[fault]} {copy}"
        secs = planned.lasts + 5.0
        say(f"{name} stands still for {secs:.0f} s")
        stack.freeze(name)
        try:
            await asyncio.sleep(secs)
        finally:
            stack.thaw(name)
        return
    victims, how = _victims(fault, copy)
    say(f"{' and '.join(victims)}: {how.name}, away for {planned.lasts:.1f} s")
    try:
        await asyncio.gather(*(stack.end(name, how) for name in victims))
        await asyncio.sleep(planned.lasts)
    finally:
        # Together: a worker is not ready before Temporal is.
        await asyncio.gather(*(stack.revive(name) for name in victims))


def _victims(fault: Fault, copy: int) -> tuple[list[str], signal.Signals]:
    if fault is Fault.WORKERS_KILLED:
        return ["worker 1", "worker 2"], signal.SIGKILL
    if fault in _HARD:
        name, how = _HARD[fault]
        return [name], how
    kinds, how = _OF_COPIES[fault]
    names = [f"{kind} {copy}" for kind in kinds]
    return [*names, "Temporal"] if fault is Fault.MOST_KILLED else names, how
