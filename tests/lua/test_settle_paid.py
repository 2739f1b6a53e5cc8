from __future__ import annotations

import pytest

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_for_another_task, refused_under_an_old_lease
from tests.support.clock import Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_what_was_paid_directly_is_not_taken_away(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    item_id = await stage.held_item(seats=2)
    await clock.advance(LIMITS.payment_timeout_ms)
    await queue.expire(EVENT)
    lease = await stage.claim_one(Task.RELEASE)
    assert await queue.settle_paid(lease, "REF") is Status.COMPLETED
    item = await stage.item(item_id)
    assert (item.booking_reference, item.message) == ("REF", "paid directly")
    status = await stage.status()
    assert (status.confirmed_seats, status.held_seats, status.capacity) == (2, 0, 8)


async def test_the_seats_are_no_more_on_their_way_back(stage: Stage, queue: BookingQueue):
    await queue.settle_paid(await stage.releasing(seats=2), "REF")
    await stage.capacity(8)
    status = await stage.status()
    assert (status.capacity, status.capacity_exact) == (8, True)


async def test_an_old_lease_is_refused(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(
        stage, Task.RELEASE, lambda lease: queue.settle_paid(lease, "REF")
    )


@pytest.mark.parametrize("task", [Task.RESERVE, Task.CONFIRM])
async def test_another_task_is_refused(stage: Stage, queue: BookingQueue, task: Task):
    await refused_for_another_task(stage, task, lambda lease: queue.settle_paid(lease, "REF"))
