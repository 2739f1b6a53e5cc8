from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

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
    monkeypatch.setattr("booking_worker.worker.heartbeat._AGAIN_SECONDS", 0.05)
    mine = Heartbeat(queue, "w1", 10)
    with capture_logs() as lines:
        await mine.start()
        await mine.start()
        await wait_until(lambda: mine.refused == "away")
        await wait_until(lambda: mine.refused == "ValueError: a defect")
        await wait_until(lambda: mine.live_slots == 42)
        assert mine.refused == ""
        await mine.stop()
    told = [(line["log_level"], line["event"]) for line in lines if "write" in line["event"]]
    assert told == [
        ("warning", "the engine did not take a write; trying again"),
        ("info", "the engine takes writes again"),
    ]


async def test_a_beat_that_is_refused_is_remembered_until_one_is_taken(
    queue: BookingQueue, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("booking_worker.worker.heartbeat._EVERY_SECONDS", 0.05)
    mine = Heartbeat(queue, "w1", 10)
    await mine.start()
    await redis_client.config_set("min-replicas-to-write", 1)
    try:
        await wait_until(lambda: "NOREPLICAS" in mine.refused)
        assert (await queue.status("e")).waiting == 0, "reads are answered"
    finally:
        await redis_client.config_set("min-replicas-to-write", 0)
    async with asyncio.timeout(1.5):  # sooner than the next beat of one that goes well
        await wait_until(lambda: not mine.refused)
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
