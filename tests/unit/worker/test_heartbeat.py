from __future__ import annotations

import pytest

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.worker.heartbeat import Heartbeat
from tests.support.api import on_one_engine
from tests.support.clock import Clock
from tests.support.wait import wait_until

pytestmark = on_one_engine


async def test_slots_of_all_replicas_are_counted(queue: BookingQueue):
    mine, other = Heartbeat(queue, "w1", 10), Heartbeat(queue, "w2", 5)
    assert mine.live_slots == 10
    await mine.run_once()
    await other.run_once()
    assert other.live_slots == 15


async def test_slots_that_are_not_heard_of_lapse(queue: BookingQueue, clock: Clock):
    mine, other = Heartbeat(queue, "w1", 10), Heartbeat(queue, "w2", 5)
    await other.run_once()
    await clock.advance(7_001)
    await mine.run_once()
    assert mine.live_slots == 10


async def test_a_heartbeat_that_stops_takes_leave(queue: BookingQueue):
    mine, other = Heartbeat(queue, "w1", 10), Heartbeat(queue, "w2", 5)
    await other.start()
    await mine.start()
    await wait_until(lambda: mine.live_slots == 15)
    await other.stop()
    await mine.run_once()
    assert mine.live_slots == 10
    await other.stop()
    await mine.stop()


async def test_it_beats_on_when_the_engine_is_away(
    queue: BookingQueue, monkeypatch: pytest.MonkeyPatch
):
    beats = []

    async def away(*_: object) -> int:
        beats.append(1)
        if len(beats) == 1:
            raise EngineUnavailable("away")
        if len(beats) == 2:
            raise ValueError("a defect")
        return 42

    monkeypatch.setattr(queue, "heartbeat", away)
    monkeypatch.setattr("booking_worker.worker.heartbeat._EVERY_SECONDS", 0)
    mine = Heartbeat(queue, "w1", 10)
    await mine.start()
    await mine.start()
    await wait_until(lambda: mine.live_slots == 42)
    await mine.stop()


async def test_leave_that_cannot_be_taken_is_no_error(
    queue: BookingQueue, monkeypatch: pytest.MonkeyPatch
):
    async def away(*_: object) -> int:
        raise EngineUnavailable("away")

    mine = Heartbeat(queue, "w1", 10)
    await mine.start()
    monkeypatch.setattr(queue, "heartbeat", away)
    await mine.stop()
