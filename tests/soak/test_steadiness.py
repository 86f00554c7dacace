"""A leak is found, and what only goes up and down is none."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from soak.steadiness import Bounds, Finding, trend
from soak.verdict import FILES, MEMORY

MIB = 1024 * 1024
EVERY_SECS = 2.0
BOUNDS = Bounds(warm_up_secs=60, least_secs=120, absolute=20, relative=0.1)


def series(secs: float, of: object) -> list[tuple[float, float]]:
    assert callable(of)
    return [(1_000 + number * EVERY_SECS, float(of(number * EVERY_SECS))) for number in range(int(secs / EVERY_SECS))]


def test_a_leak_of_memory_is_found_in_the_ten_minutes_of_a_run() -> None:
    """Five MiB a minute, under the noise of a program that works."""
    noise = Random(1)
    found = trend(series(600, lambda at: 200 * MIB + 5 * MIB * at / 60 + noise.uniform(-8, 8) * MIB), MEMORY)
    assert found.finding is Finding.GROWS
    assert found.growth > 24 * MIB


def test_a_leak_of_files_is_found() -> None:
    assert trend(series(600, lambda at: 40 + at / 12), FILES).finding is Finding.GROWS


def test_what_is_gathered_first_counts_for_nothing() -> None:
    def caches(at: float) -> float:
        return 100 + 3 * min(at, 60)

    assert trend(series(300, caches), BOUNDS).finding is Finding.STEADY


def test_a_tooth_of_a_saw_is_no_growth_and_a_saw_that_climbs_is() -> None:
    assert trend(series(600, lambda at: 100 + at % 40), BOUNDS).finding is Finding.STEADY
    assert trend(series(600, lambda at: 100 + at % 40 + at / 10), BOUNDS).finding is Finding.GROWS


def test_a_step_that_stays_is_growth_and_a_peak_that_passes_is_none() -> None:
    assert trend(series(600, lambda at: 100 if at < 400 else 160), BOUNDS).finding is Finding.GROWS
    assert trend(series(600, lambda at: 900 if 500 < at < 540 else 100), BOUNDS).finding is Finding.STEADY


def test_a_short_life_says_nothing() -> None:
    assert trend([], BOUNDS).finding is Finding.TOO_SHORT
    assert trend(series(100, lambda at: at * 50), BOUNDS).finding is Finding.TOO_SHORT
    assert trend([(0, 1), (300, 900)], BOUNDS).finding is Finding.TOO_SHORT


@given(st.floats(1, 1e9), st.integers(0, 2**32), st.floats(0.0, 0.09))
def test_noise_around_a_level_is_never_growth(level: float, seed: int, noise: float) -> None:
    chance = Random(seed)
    samples = series(400, lambda _: level * (1 + chance.uniform(-noise / 2, noise / 2)))
    assert trend(samples, BOUNDS).finding is Finding.STEADY


@given(st.floats(1, 1e6), st.integers(0, 2**32), st.floats(0.3, 10))
def test_growth_beyond_the_bounds_is_always_found(level: float, seed: int, leak: float) -> None:
    """A leak that takes the last third past what is allowed, however much the figure trembles beside it."""
    chance = Random(seed)
    per_sec = leak * max(BOUNDS.absolute, BOUNDS.relative * level) / 60
    samples = series(600, lambda at: level + per_sec * at + chance.uniform(0, 0.01 * level))
    assert trend(samples, BOUNDS).finding is Finding.GROWS


@given(st.floats(0, 1e6), st.floats(0, 1e3))
def test_a_figure_that_falls_is_steady(level: float, slope: float) -> None:
    found = trend(series(600, lambda at: level - slope * at), BOUNDS)
    assert found.finding is Finding.STEADY
    assert found.growth <= 0 or math.isclose(found.growth, 0)
