from __future__ import annotations

import pytest

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_for_another_task, refused_under_an_old_lease
from tests.support.clock import Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_the_seats_go_to_the_next_in_line(stage: Stage, queue: BookingQueue, clock: Clock):
    await stage.held_item("ann", 2)
    await stage.capacity(0)
    waiting = await stage.join_one("ben", 2)
    await clock.advance(LIMITS.payment_timeout_ms)
    await queue.expire(EVENT)
    lease = await stage.claim_one(Task.RELEASE)
    assert await queue.settle_released(lease) is Status.EXPIRED
    item = await stage.item(lease.item_id)
    assert (item.status, item.message) == (Status.EXPIRED, "not paid in time")
    status = await stage.status()
    assert (status.capacity, status.held_seats, status.capacity_exact) == (2, 0, True)
    assert (await stage.claim_one()).item_id == waiting


async def test_who_cancelled_is_cancelled_for_the_reason_given(stage: Stage, queue: BookingQueue):
    lease = await stage.releasing(reason="changed my mind")
    assert await queue.settle_released(lease) is Status.CANCELLED
    assert (await stage.item(lease.item_id)).message == "changed my mind"
    assert (await stage.status()).capacity == 10


async def test_somebody_is_woken_for_the_seats(stage: Stage, queue: BookingQueue):
    lease = await stage.releasing()
    async with stage.wakes() as woken_for:
        await queue.settle_released(lease)
        assert await woken_for() == [EVENT]


async def test_an_old_lease_is_refused(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(stage, Task.RELEASE, queue.settle_released)


@pytest.mark.parametrize("task", [Task.RESERVE, Task.CONFIRM])
async def test_another_task_is_refused(stage: Stage, queue: BookingQueue, task: Task):
    await refused_for_another_task(stage, task, queue.settle_released)
