from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from booking_worker.domain.estimate import RATE_WINDOW_MS, per_second, wait_seconds
from booking_worker.domain.model import Rate

NOTHING = Rate(0.0, 0, 0)
START_MS = 1_763_925_000_000


def admitted(per_s: float, seconds: float) -> Rate:
    """What the engine would have counted at an even rate of admissions."""
    weight, step_ms = 0.0, 100
    for _ in range(round(seconds * 1000 / step_ms)):
        weight = weight * math.exp(-step_ms / RATE_WINDOW_MS) + per_s * step_ms / 1000
    return Rate(weight, START_MS + round(seconds * 1000), START_MS)


def test_nothing_measured_is_no_rate_and_no_estimate():
    assert per_second(NOTHING, START_MS) == 0.0
    assert wait_seconds(1, 0.0) == -1


@pytest.mark.parametrize("seconds", [1, 2, 10, 60, 600])
def test_an_even_rate_is_measured_from_the_first_second_on(seconds: float):
    rate = admitted(50, seconds)
    assert per_second(rate, rate.at_ms) == pytest.approx(50, rel=0.02)


def test_a_rate_that_nothing_feeds_fades():
    rate = admitted(50, 600)
    half = rate.at_ms + round(RATE_WINDOW_MS * math.log(2))
    assert per_second(rate, half) == pytest.approx(25, rel=0.02)
    assert wait_seconds(10, per_second(rate, rate.at_ms + 20 * RATE_WINDOW_MS)) == -1


def test_one_admission_at_once_is_not_thousands_a_second():
    assert per_second(Rate(1.0, START_MS, START_MS), START_MS) == pytest.approx(1, rel=0.05)


def test_a_clock_that_steps_back_does_not_make_the_rate_grow():
    rate = admitted(50, 600)
    assert per_second(rate, rate.at_ms - 5_000) == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize("position", [0, -1])
def test_who_is_admitted_waits_no_more(position: int):
    assert wait_seconds(position, 0.0) == 0


@pytest.mark.parametrize("position, seconds", [(1, 1), (50, 1), (51, 2), (500, 10), (5001, 101)])
def test_the_wait_is_the_position_over_the_rate_rounded_up(position: int, seconds: int):
    assert wait_seconds(position, 50.0) == seconds


@given(st.integers(-5, 10**15), st.floats(0, 1e9), st.integers(-(10**6), 10**9))
def test_the_wait_always_fits_an_int32(position: int, weight: float, later_ms: int):
    rate = per_second(Rate(weight, START_MS, START_MS), START_MS + later_ms)
    assert -1 <= wait_seconds(position, rate) < 2**31
