"""The plan of what fails is the same for a seed, has every kind in a long run, and leaves something alive."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soak.faults import Fault, plan


@given(st.integers(0, 2**32), st.floats(20, 3_600))
def test_faults_are_within_the_run_and_end_before_it_does(seed: int, secs: float) -> None:
    planned = plan(Random(seed), secs)
    assert planned
    assert planned == plan(Random(seed), secs)
    assert all(secs / 10 <= each.at < secs * 0.8 for each in planned)
    assert [each.at for each in planned] == sorted(each.at for each in planned)


@given(st.integers(0, 2**32))
def test_a_run_of_ten_minutes_has_every_kind_of_fault(seed: int) -> None:
    assert {each.fault for each in plan(Random(seed), 600)} == set(Fault)


@given(st.integers(0, 2**32))
def test_the_second_copies_live_from_the_first_quarter_to_the_end(seed: int) -> None:
    """What is killed again and again never shows whether it grows."""
    late = [each for each in plan(Random(seed), 600) if each.at >= 150]
    assert all(each.copy == 1 and each.fault is not Fault.WORKERS_KILLED for each in late)


@pytest.mark.parametrize("secs", [30, 45])
def test_a_short_run_kills_one_of_each(secs: float) -> None:
    kinds = [each.fault for each in plan(Random(1), secs)]
    assert {Fault.POSTGRES_IMMEDIATE, Fault.WORKER_KILLED, Fault.TEMPORAL_KILLED, Fault.API_KILLED} <= set(kinds)
