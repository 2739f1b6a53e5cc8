from __future__ import annotations

import pytest

from booking_worker.peers.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("b", failure_threshold=3, open_seconds=2.0, clock=clock, rand=lambda: 0.0)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.admit()
        breaker.record_failure()


def test_closed_lets_everything_through(breaker: Breaker) -> None:
    assert breaker.state == "closed"
    assert breaker.allows
    assert all(breaker.admit() for _ in range(100))
    assert breaker.seconds_until_trial == 0.0


def test_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
    assert not breaker.allows
    assert not breaker.admit()
    assert breaker.seconds_until_trial == 2.0


def test_a_success_in_between_starts_the_count_again(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.record_success()
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_half_open_lets_one_trial_through(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.99
    assert breaker.state == "open"
    assert breaker.seconds_until_trial == pytest.approx(0.01)
    clock.now += 0.01
    assert breaker.state == "half_open"
    assert breaker.seconds_until_trial == 0.0
    assert breaker.allows
    assert breaker.allows  # looking takes nothing
    assert breaker.admit()
    assert breaker.state == "half_open"
    assert not breaker.allows
    assert not breaker.admit()


def test_a_good_trial_closes_it_and_forgets(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 2
    assert breaker.admit()
    breaker.record_failure()
    assert breaker.seconds_until_trial == 4.0
    clock.now += 4
    assert breaker.admit()
    breaker.record_success()
    assert breaker.state == "closed"
    fail(breaker, 3)
    assert breaker.seconds_until_trial == 2.0  # not 4 or 8


def test_bad_trials_double_the_time_up_to_its_cap(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    waits = []
    for _ in range(6):
        waits.append(breaker.seconds_until_trial)
        clock.now += waits[-1]
        assert breaker.admit()
        breaker.record_failure()
    assert waits == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_an_abandoned_trial_leaves_the_next_call_to_be_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 2
    assert breaker.admit()
    breaker.abandon()
    assert breaker.state == "half_open"
    assert breaker.admit()
    assert not breaker.admit()


def test_late_failures_of_earlier_calls_do_not_prolong_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1
    for _ in range(50):
        breaker.record_failure()
    assert breaker.seconds_until_trial == 1.0


def test_a_late_success_of_an_earlier_call_closes_it(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.record_success()
    assert breaker.state == "closed"
    assert breaker.admit()


@pytest.mark.parametrize("drawn, seconds", [(0.0, 2.0), (0.5, 1.5), (0.999999, 1.000001)])
def test_jitter_shortens_the_time_by_up_to_half(clock: Clock, drawn: float, seconds: float) -> None:
    breaker = Breaker("b", 1, 2.0, clock=clock, rand=lambda: drawn)
    fail(breaker, 1)
    assert breaker.seconds_until_trial == pytest.approx(seconds)


def test_the_default_is_five_failures_and_at_most_two_seconds() -> None:
    breaker = Breaker("b")
    fail(breaker, 4)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert 0.9 < breaker.seconds_until_trial <= 2.0
