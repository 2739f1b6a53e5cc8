from __future__ import annotations

import re

import pytest

from booking_worker.queue import keys


@pytest.mark.parametrize("event_id", ["concert", "100%", "%s", "a:b", "ü-💃"])
def test_all_keys_of_an_event_live_in_one_slot(event_id: str):
    named = keys.of_event(event_id)
    for name, key in named.items():
        if name not in {"workers", "events", "layout"}:
            assert re.findall(r"\{(.*?)\}", key) == [event_id]


def test_no_two_keys_are_the_same():
    named = dict(keys.of_event("concert"))
    assert named.pop("gate") == named["state"]
    assert len(set(named.values())) == len(named)


def test_the_names_that_the_design_fixes():
    named = keys.of_event("E")
    assert named["queue"] == "booking-queue:{E}"
    assert named["positions"] == "booking-queue-positions:{E}"
    assert named["timeouts"] == "booking-timeouts:{E}"
    assert named["lock"] == "booking-lock:{E}"


@pytest.mark.parametrize(
    "name, key", [("workers", keys.WORKERS), ("events", keys.EVENTS), ("layout", keys.LAYOUT)]
)
def test_some_are_of_no_event(name: str, key: str):
    assert keys.of_event("a")[name] == keys.of_event("b")[name] == key


def test_the_gate_of_all_events_is_in_the_record_of_the_layout():
    assert keys.of_event("")["gate"] == keys.LAYOUT
