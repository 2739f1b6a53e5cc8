from __future__ import annotations

import asyncio

import pytest

from booking_worker.domain.errors import LayoutTooNew
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.queue.layout import LOST, VERSION
from tests.support.clock import BEGINNING, MOVED_BY_TESTS, Clock
from tests.support.stage import LIMITS, Stage


def another(stage: Stage) -> BookingQueue:
    """That of another replica."""
    return BookingQueue(stage.client, LIMITS, MOVED_BY_TESTS)


async def test_a_fresh_engine_gets_a_record_once(stage: Stage, queue: BookingQueue, clock: Clock):
    first, *others = await asyncio.gather(
        queue.read_layout(), *(another(stage).read_layout() for _ in range(5))
    )
    assert (first.version, first.created_at_ms) == (VERSION, BEGINNING)
    assert (first.paused, first.paused_by, first.paused_at_ms) == ("", "", 0)
    assert others == [first] * 5
    await clock.advance(1000)
    assert await queue.read_layout() == first


async def test_an_engine_that_lost_its_record_admits_nobody_and_says_why(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    before = await queue.read_layout()
    await stage.client.delete(keys.LAYOUT)
    await clock.advance(1000)
    after = await queue.read_layout()
    assert after.id != before.id
    assert (after.paused, after.paused_by) == (LOST, "system")
    assert after.paused_at_ms == after.created_at_ms == clock.now
    assert await queue.read_layout() == after
    assert await another(stage).read_layout() == after


async def test_who_starts_on_a_wiped_engine_is_stopped_by_who_knew_it(
    stage: Stage, queue: BookingQueue
):
    await queue.read_layout()
    await stage.client.delete(keys.LAYOUT)
    newcomer = another(stage)
    fresh = await newcomer.read_layout()
    assert not fresh.paused
    seen = await queue.read_layout()
    assert (seen.id, seen.paused) == (fresh.id, LOST)
    assert (await newcomer.read_layout()).paused == LOST


async def test_who_hears_of_it_after_the_operator_spoke_does_not_say_it_again(
    stage: Stage, queue: BookingQueue
):
    late = another(stage)
    await queue.read_layout()
    await late.read_layout()
    await stage.client.delete(keys.LAYOUT)
    await queue.read_layout()
    await queue.resume("")
    assert not (await late.read_layout()).paused
    assert not (await queue.read_layout()).paused


async def test_a_second_loss_is_told_too(stage: Stage, queue: BookingQueue):
    for _ in range(2):
        await queue.read_layout()
        await stage.client.delete(keys.LAYOUT)
        assert (await queue.read_layout()).paused == LOST
        await queue.resume("")


async def test_a_later_layout_is_not_read(stage: Stage, queue: BookingQueue):
    await queue.read_layout()
    await stage.client.hset(keys.LAYOUT, "version", VERSION + 1)
    with pytest.raises(LayoutTooNew, match="run the later version again"):
        await another(stage).read_layout()
