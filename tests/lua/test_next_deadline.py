from __future__ import annotations

from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_nobody_has_a_deadline(queue: BookingQueue):
    assert await queue.next_deadline(EVENT) is None


async def test_the_first_of_all_deadlines_counts(stage: Stage, queue: BookingQueue, clock: Clock):
    await stage.join_one("ann")
    await clock.advance(5)
    await stage.join_one("ben")
    assert await queue.next_deadline(EVENT) == LIMITS.queue_timeout_ms - 5
    await stage.capacity(5)
    await stage.claim_one()
    assert await queue.next_deadline(EVENT) == LIMITS.lease_ms < LIMITS.queue_timeout_ms - 5


async def test_it_says_since_when_a_deadline_has_passed(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    await stage.join_one()
    await clock.advance(LIMITS.queue_timeout_ms)
    assert await queue.next_deadline(EVENT) == 0
    await clock.advance(3)
    assert await queue.next_deadline(EVENT) == -3
    await queue.expire(EVENT)
    assert await queue.next_deadline(EVENT) is None
