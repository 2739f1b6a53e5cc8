from __future__ import annotations

from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import Stage

SECONDS = BEGINNING // 1_000


async def test_it_is_listed_no_more(stage: Stage, queue: BookingQueue):
    await queue._remember("a")
    await queue._remember("b")
    assert await queue._unlist("a", SECONDS)
    assert await stage.listed() == ["b"]


async def test_one_that_was_listed_anew_stays(stage: Stage, queue: BookingQueue, clock: Clock):
    await queue._remember("a")
    await clock.advance(1_000)
    queue._remembered.clear()
    await queue._remember("a")
    assert not await queue._unlist("a", SECONDS)
    assert await stage.listed() == ["a"]


async def test_one_that_another_took_off_is_off(stage: Stage, queue: BookingQueue):
    assert not await queue._unlist("a", SECONDS)
