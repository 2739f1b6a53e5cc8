from __future__ import annotations

from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import Clock
from tests.support.stage import Stage


async def test_the_slots_of_all_live_workers_add_up(queue: BookingQueue):
    assert await queue.heartbeat("w1", 10, 3_000) == 10
    assert await queue.heartbeat("w2", 5, 3_000) == 15
    assert await queue.heartbeat("w2", 7, 3_000) == 17


async def test_who_says_nothing_any_more_is_forgotten(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    await queue.heartbeat("w1", 10, 3_000)
    await clock.advance(2_999)
    assert await queue.heartbeat("w2", 5, 3_000) == 15
    await clock.advance(1)
    assert await queue.heartbeat("w2", 5, 3_000) == 5
    assert list(await stage.client.hgetall(keys.WORKERS)) == [b"w2"]


async def test_who_leaves_is_forgotten_at_once(queue: BookingQueue):
    await queue.heartbeat("w1", 10, 3_000)
    await queue.heartbeat("w2", 5, 3_000)
    assert await queue.heartbeat("w1", 0, 3_000) == 5
    assert await queue.heartbeat("w2", 0, 3_000) == 0


async def test_the_dead_do_not_live_on_when_the_clock_is_set_back(
    queue: BookingQueue, clock: Clock
):
    await queue.heartbeat("dead", 10, 3_000)
    await queue.heartbeat("w2", 5, 3_000)
    await clock.advance(-600_000)
    assert await queue.heartbeat("w2", 5, 3_000) == 5
