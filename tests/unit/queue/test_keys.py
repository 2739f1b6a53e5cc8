from __future__ import annotations

import re

import pytest

from booking_worker.queue import keys


@pytest.mark.parametrize("event_id", ["concert", "100%", "%s", "a:b", "ü-💃"])
def test_all_keys_of_an_event_live_in_one_slot(event_id: str):
    named = keys.of_event(event_id)
    for name, key in named.items():
        if name != "workers":
            assert re.findall(r"\{(.*?)\}", key) == [event_id]


def test_no_two_keys_are_the_same():
    named = keys.of_event("concert")
    assert len(set(named.values())) == len(named)


def test_the_names_that_the_design_fixes():
    named = keys.of_event("E")
    assert named["queue"] == "booking-queue:{E}"
    assert named["positions"] == "booking-queue-positions:{E}"
    assert named["timeouts"] == "booking-timeouts:{E}"


def test_the_workers_are_of_no_event():
    assert keys.of_event("a")["workers"] == keys.of_event("b")["workers"] == keys.WORKERS
