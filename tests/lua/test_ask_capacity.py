from __future__ import annotations

from booking_worker.domain.model import Held
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.stage import EVENT, Stage


async def test_nothing_has_moved_in_an_event_that_nobody_joined(queue: BookingQueue):
    assert (await queue.ask_capacity(EVENT))[:3] == (0, 0, 0)


async def test_it_tells_the_seats_settled_and_the_moves_made_so_far(
    stage: Stage, queue: BookingQueue
):
    lease = await stage.processing("ann", 3)
    assert (await queue.ask_capacity(EVENT))[:3] == (0, 1, 1)
    await queue.settle_held(lease, Held("B", "", None))
    assert (await queue.ask_capacity(EVENT))[:3] == (3, 2, 1)


async def test_seats_written_off_a_reserve_count_as_settled(stage: Stage, queue: BookingQueue):
    await stage.dead_letter(seats=2)
    assert (await queue.ask_capacity(EVENT)).settled_seats == 2


async def test_it_tells_which_engine_this_is_and_whose_the_books_are(
    stage: Stage, queue: BookingQueue
):
    fresh = await queue.ask_capacity(EVENT)
    assert (fresh.epoch, fresh.born) == ("", "")
    first, _ = await stage.join_many(2)
    await stage.capacity(5)
    asked = await queue.ask_capacity(EVENT)
    assert asked.engine == asked.epoch == fresh.engine != ""
    assert asked.born == first


async def test_the_event_is_listed_under_an_engine_that_may_have_lost_it(
    stage: Stage, queue: BookingQueue
):
    await stage.join_one()
    await stage.client.delete(keys.EVENTS)
    await queue.ask_capacity(EVENT)
    assert await stage.listed() == [EVENT]
    await stage.capacity(5)
    await stage.client.delete(keys.EVENTS)
    await queue.ask_capacity(EVENT)
    assert await stage.listed() == []
    await stage.client.zadd(keys.EVENTS, {EVENT: 1})
