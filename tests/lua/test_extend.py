from __future__ import annotations

import pytest

from booking_worker.domain.model import Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_under_an_old_lease
from tests.support.clock import Clock
from tests.support.stage import EVENT, LIMITS, Stage


@pytest.mark.parametrize("task", list(Task))
async def test_a_lease_begins_anew(stage: Stage, queue: BookingQueue, clock: Clock, task: Task):
    lease = await stage.lease_of(task)
    await clock.advance(LIMITS.lease_ms - 1)
    assert await queue.extend(lease) == clock.now + LIMITS.lease_ms
    await clock.advance(LIMITS.lease_ms - 1)
    assert (await queue.expire(EVENT)).moved == 0
    await clock.advance(1)
    assert (await queue.expire(EVENT)).moved == 1


async def test_a_lease_whose_time_is_up_can_be_kept_until_somebody_notices(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    lease = await stage.processing()
    await clock.advance(LIMITS.lease_ms)
    await queue.extend(lease)
    assert (await queue.expire(EVENT)).moved == 0


async def test_an_old_lease_is_not_kept(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(stage, Task.RESERVE, queue.extend)
