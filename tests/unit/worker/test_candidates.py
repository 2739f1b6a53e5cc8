from __future__ import annotations

import pytest

from booking_worker.worker.candidates import Candidates


def candidates(*event_ids: str) -> Candidates:
    made = Candidates()
    for event_id in event_ids:
        made.add(event_id)
    return made


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 7, 10, 100])
@pytest.mark.parametrize("events", [1, 2, 3, 10, 250])
def test_claims_together_are_never_for_more_than_the_free_slots(slots: int, events: int):
    made = candidates(*(f"e{at}" for at in range(events)))
    taken, each = made.take(slots)
    assert 1 <= len(taken) * each <= slots


def test_one_event_gets_all_slots():
    assert candidates("a").take(10) == (["a"], 10)


def test_events_share_the_slots():
    assert candidates("a", "b", "c").take(10) == (["a", "b", "c"], 3)


def test_events_that_get_none_are_next():
    made = candidates("a", "b", "c")
    assert made.take(2) == (["a", "b"], 1)
    made.answered("a", is_full=True, is_blocked=False)
    made.answered("b", is_full=True, is_blocked=False)
    assert made.take(2) == (["c", "a"], 1)


def test_an_event_with_nothing_more_is_no_candidate():
    made = candidates("a")
    made.take(5)
    made.answered("a", is_full=False, is_blocked=False)
    assert made.take(5) == ([], 0)


def test_an_event_that_was_woken_while_it_was_asked_is_asked_again():
    made = candidates("a")
    made.take(5)
    made.add("a")
    made.answered("a", is_full=False, is_blocked=False)
    assert made.take(5) == (["a"], 5)


def test_a_blocked_event_is_asked_again_when_one_of_its_tasks_has_ended():
    made = candidates("a")
    made.take(5)
    made.answered("a", is_full=False, is_blocked=True)
    made.add_if_blocked("b")
    assert len(made) == 0
    made.add_if_blocked("a")
    assert made.take(5) == (["a"], 5)


def test_blocked_events_are_remembered_until_they_are_not():
    made = candidates("a", "b")
    made.take(5)
    made.answered("a", is_full=False, is_blocked=True)
    made.answered("b", is_full=False, is_blocked=True)
    made.answered("b", is_full=False, is_blocked=False)
    made.add_blocked()
    assert made.take(5) == (["a"], 5)


def test_without_slots_nobody_is_taken():
    made = candidates("a")
    assert made.take(0) == ([], 0)
    assert len(made) == 1
