from __future__ import annotations

from typing import Any

import pytest

from booking_worker.domain.model import Lease, Task
from booking_worker.peers.breaker import Breaker
from booking_worker.worker.gate import ALL_TASKS, Gate


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def booking(time: Time) -> Breaker:
    return Breaker("booking", 2, open_seconds=10, clock=time, rand=lambda: 0.0)


@pytest.fixture
def ticket(time: Time) -> Breaker:
    return Breaker("ticket", 2, open_seconds=10, clock=time, rand=lambda: 0.0)


@pytest.fixture
def gate(booking: Breaker, ticket: Breaker) -> Gate:
    return Gate(booking, ticket)


def trip(breaker: Breaker) -> None:
    breaker.record_failure()
    breaker.record_failure()


def lease(item_id: str) -> Any:
    return Lease(
        Task.RESERVE,
        item_id,
        "e",
        "u",
        1,
        1,
        1,
        0,
        b"",
        0,
        0,
        False,
        "",
        "",
        "",
        "",
        False,
        "",
        "w",
        "engine",
    )


def test_with_closed_breakers_everything_may_be_claimed(gate: Gate):
    assert gate.allowed() == (ALL_TASKS, False)
    assert gate.waits_for == ""
    assert gate.seconds_until_trial == 0


def test_while_the_booking_service_is_left_alone_nothing_may(gate: Gate, booking: Breaker):
    trip(booking)
    assert gate.allowed() == (frozenset(), False)
    assert gate.waits_for == "booking"
    assert gate.seconds_until_trial == 10


def test_when_its_time_is_over_one_trial_may(gate: Gate, booking: Breaker, time: Time):
    trip(booking)
    time.now += 10
    assert gate.allowed() == (ALL_TASKS, True)
    assert gate.waits_for == "booking"
    booking.admit()
    assert gate.allowed() == (frozenset(), False)
    booking.record_success()
    assert gate.allowed() == (ALL_TASKS, False)


def test_without_the_ticket_service_nothing_is_released(gate: Gate, ticket: Breaker, time: Time):
    trip(ticket)
    assert gate.allowed() == ({Task.RESERVE, Task.CONFIRM}, False)
    time.now += 10
    assert gate.allowed() == ({Task.RESERVE, Task.CONFIRM}, False)
    ticket.admit()
    ticket.record_success()
    assert gate.allowed() == (ALL_TASKS, False)


def test_where_there_is_no_ticket_service_none_is_waited_for(booking: Breaker):
    assert Gate(booking, None).allowed() == (ALL_TASKS, False)


def test_an_item_that_failed_as_the_trial_is_not_the_next_one(
    gate: Gate, booking: Breaker, time: Time
):
    trip(booking)
    time.now += 10
    assert gate.wanted_for_trial == 1
    poison, other, third = lease("poison"), lease("other"), lease("third")
    assert gate.choose_trial([poison]) is poison
    assert gate.wanted_for_trial == 2
    assert gate.choose_trial([poison, other]) is other
    assert gate.wanted_for_trial == 3
    assert gate.choose_trial([poison, other, third]) is third


def test_when_all_have_been_tried_it_begins_anew(gate: Gate):
    poison, other = lease("poison"), lease("other")
    gate.choose_trial([poison])
    gate.choose_trial([poison, other])
    assert gate.choose_trial([poison, other]) is poison
    assert gate.wanted_for_trial == 2


def test_never_many_are_wanted(gate: Gate):
    leases = [lease(f"item-{at}") for at in range(10)]
    for _ in range(20):
        gate.choose_trial(leases[: gate.wanted_for_trial])
        assert gate.wanted_for_trial <= 5


def test_a_service_that_is_back_makes_it_forget(gate: Gate):
    gate.choose_trial([lease("poison")])
    gate.allowed()
    assert gate.wanted_for_trial == 1
