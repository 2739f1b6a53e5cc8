from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from booking_worker.queue.acknowledge import Acknowledge


def test_by_default_nothing_is_waited_for():
    assert not Acknowledge().waits
    assert Acknowledge(replicas=1).waits
    assert Acknowledge(aof=True).waits


def test_the_commands():
    assert Acknowledge(replicas=2).commands == [("WAIT", 2, 800)]
    assert Acknowledge(replicas=2, aof=True).commands == [("WAIT", 2, 400), ("WAITAOF", 1, 2, 400)]
    assert Acknowledge(aof=True).commands == [("WAITAOF", 1, 0, 800)]


@pytest.mark.parametrize(
    "asked, answer, missing",
    [
        (Acknowledge(1), 1, None),
        (Acknowledge(1), 2, None),
        (Acknowledge(2), 1, "1 replicas have it in time, 2 must"),
        (Acknowledge(1, aof=True), [1, 1], None),
        (Acknowledge(0, aof=True), [1, 0], None),
        (Acknowledge(1, aof=True), [1, 0], "0 replicas"),
        (Acknowledge(1, aof=True), [0, 1], "append-only file"),
        (Acknowledge(1), ResponseError("unknown command"), "unknown command"),
    ],
)
def test_a_shortfall(asked: Acknowledge, answer: Any, missing: str | None):
    found = asked.shortfall(answer)
    assert (missing or "None") in str(found)
