from __future__ import annotations

import json
from typing import Any

import pytest

from booking_worker.sandbox import journal
from booking_worker.sandbox.journal import read_lines


def written(change_id: str = "1-0.0", **facts: Any) -> str:
    line = {
        "at": "2026-01-01T00:00:00.000Z",
        "at_ms": 1000,
        "who": "user:ann",
        "item_id": "a.concert",
        "event_id": "concert",
        "user_id": "ann",
        "from": "",
        "to": "waiting",
        "why": "joined",
        "seats": 2,
        "seq": 1,
        "booking_id": "",
        "change_id": change_id,
    }
    return json.dumps(line | facts, separators=(",", ":")) + "\n"


def test_a_change_that_was_written_again_is_read_once():
    lines = [written("1-0.0"), written("1-0.1", item_id="b.concert"), written("1-0.0")]
    assert [line.change_id for line in read_lines(lines)] == ["1-0.0", "1-0.1"]


def test_changes_come_in_the_order_in_which_they_happened():
    ids = ["9-0.0", "10-0.0", "10-0.10", "10-0.9", "10-2.0", "10-1.0"]
    lines = [written(change_id) for change_id in ids]
    assert [line.change_id for line in read_lines(lines)] == [
        "9-0.0", "10-0.0", "10-0.9", "10-0.10", "10-1.0", "10-2.0",
    ]  # fmt: skip


def test_events_have_change_ids_of_their_own():
    lines = [written("1-0.0"), written("1-0.0", event_id="play")]
    assert [line.event_id for line in read_lines(lines)] == ["concert", "play"]


@pytest.mark.parametrize("cut", [1, 5, 40, 150])
def test_a_line_that_a_killed_service_began_does_not_hide_the_next(cut: int):
    whole = written("1-0.1")
    torn = written("1-0.0")[:cut]
    assert [line.change_id for line in read_lines([torn + whole])] == ["1-0.1"]


@pytest.mark.parametrize("cut", [0, 1, 5, 40, 150])
def test_a_line_cut_off_at_the_end_of_the_log_is_not_a_change(cut: int):
    assert read_lines([written("1-0.0")[:cut]]) == []


def test_what_changed_no_item_is_left_out():
    refusal = '{"at":"2026","at_ms":1,"who":"user:eve","refused":"cancel","item_id":"a.concert"}\n'
    sold_out = written("1-0.3", item_id="", to="sold_out")
    assert read_lines([refusal, sold_out]) == []


@pytest.mark.parametrize("line", ["Traceback (most recent call last):\n", "[1, 2]\n"])
def test_something_else_is_no_audit_log(line: str):
    with pytest.raises(ValueError, match="not a line of an audit log"):
        read_lines([line])


def test_a_line_without_a_fact_is_no_audit_log():
    facts = json.loads(written())
    del facts["seq"]
    with pytest.raises(ValueError, match="seq"):
        read_lines([json.dumps(facts, separators=(",", ":"))])


def test_histories_are_told_apart_and_in_order():
    lines = read_lines(
        [
            written("1", item_id="a"),
            written("2", item_id="b", at_ms=2000),
            written("3", item_id="b", **{"from": "waiting"}, to="processing", at_ms=2500),
            written("4", item_id="a", **{"from": "waiting"}, to="processing", at_ms=4000),
            written("5", item_id="b", **{"from": "processing"}, to="waiting", at_ms=5000),
            written("6", item_id="b", **{"from": "waiting"}, to="processing", at_ms=9000),
            written("7", item_id="a", **{"from": "processing"}, to="rejected", at_ms=9000),
        ]
    )
    histories = journal.by_item(lines)
    assert [line.change_id for line in histories["b"]] == ["2", "3", "5", "6"]
    assert journal.is_final(histories["a"])
    assert not journal.is_final(histories["b"])
    assert journal.seconds_to_admission(histories.values()) == [0.5, 3.0]
