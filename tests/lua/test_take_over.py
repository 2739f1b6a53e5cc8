from __future__ import annotations

from booking_worker.queue.booking_queue import BookingQueue, TakenOver
from tests.support.stage import EVENT, Stage


async def test_the_first_begins_at_the_beginning(queue: BookingQueue):
    assert await queue.take_over(EVENT) == TakenOver(1, "")


async def test_each_gets_a_greater_token_and_goes_on_where_the_last_one_was(
    stage: Stage, queue: BookingQueue
):
    first = await queue.take_over(EVENT)
    await queue.save_cursor(EVENT, first.token, "5-1", "0-0")
    assert await queue.take_over(EVENT) == TakenOver(2, "5-1")
    assert await queue.take_over("theatre") == TakenOver(1, "")
