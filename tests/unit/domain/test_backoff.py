from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from booking_worker.domain.backoff import full_jitter


@pytest.mark.parametrize("attempt, ceiling", [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (9, 60)])
def test_the_ceiling_doubles_up_to_the_cap(attempt: int, ceiling: float):
    assert full_jitter(attempt, 5, 60, rand=lambda: 1.0) == ceiling
    assert full_jitter(attempt, 5, 60, rand=lambda: 0.5) == ceiling / 2
    assert full_jitter(attempt, 5, 60, rand=lambda: 0.0) == 0


@given(st.integers(1, 10**9), st.floats(0.001, 3600), st.floats(0.001, 3600))
def test_any_attempt_waits_between_nothing_and_the_cap(attempt: int, base: float, cap: float):
    assert 0 <= full_jitter(attempt, base, cap) <= cap


def test_those_who_failed_together_do_not_come_back_together():
    assert len({full_jitter(3, 5, 60) for _ in range(20)}) > 1
