from __future__ import annotations

from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import Stage


async def test_it_is_listed_by_the_engines_clock(stage: Stage, queue: BookingQueue, clock: Clock):
    await queue._remember("a")
    await clock.advance(1_999)
    await queue._remember("b")
    assert await stage.client.zrange(keys.EVENTS, 0, -1, withscores=True) == [
        (b"a", BEGINNING / 1_000),
        (b"b", BEGINNING / 1_000 + 1),
    ]
