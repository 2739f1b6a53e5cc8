from __future__ import annotations

from booking_worker.queue.booking_queue import BookingQueue
from tests.support.guards import scripts_without
from tests.support.stage import EVENT, LIMITS, Stage


async def test_the_holder_saves_and_lets_go_of_what_was_told_long_ago(
    stage: Stage, queue: BookingQueue
):
    for at in range(300):
        await stage.join_one(f"user-{at}")
    token, _ = await queue.take_over(EVENT)
    entries = await stage.client.xrange(stage.key("changes"))
    last = entries[-1][0].decode()
    assert await queue.save_cursor(EVENT, token, entries[9][0].decode(), "0-0")
    assert await stage.client.xlen(stage.key("changes")) == 300
    assert await queue.save_cursor(EVENT, token, last, last)
    assert 1 <= await stage.client.xlen(stage.key("changes")) < 200
    assert (await queue.take_over(EVENT)).cursor == last
    await stage.client.flushall()


async def stopped_for_too_long(stage: Stage, queue: BookingQueue) -> bool:
    """An earlier holder goes on when the next one is further already."""
    old, _ = await queue.take_over(EVENT)
    new, _ = await queue.take_over(EVENT)
    assert await queue.save_cursor(EVENT, new, "9-0", "0-0")
    return await queue.save_cursor(EVENT, old, "5-0", "0-0")


async def test_an_earlier_holder_moves_nothing(stage: Stage, queue: BookingQueue):
    assert not await stopped_for_too_long(stage, queue)
    assert (await queue.take_over(EVENT)).cursor == "9-0"


async def test_it_would_move_the_cursor_back_without_the_fence(stage: Stage):
    unfenced = BookingQueue(stage.client, LIMITS, scripts_without("the fence of the feed"))
    assert await stopped_for_too_long(stage, unfenced)
    assert (await unfenced.take_over(EVENT)).cursor == "5-0"


async def test_who_never_took_over_saves_nothing(queue: BookingQueue):
    assert not await queue.save_cursor(EVENT, 7, "9-0", "0-0")
