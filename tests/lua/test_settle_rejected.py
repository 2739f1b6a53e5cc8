from __future__ import annotations

import pytest

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_for_another_task, refused_under_an_old_lease
from tests.support.stage import EVENT, Stage


async def test_the_message_is_the_services_and_the_line_moves_on(stage: Stage, queue: BookingQueue):
    first, second = await stage.join_many(2, seats=2)
    await stage.capacity(2)
    lease = await stage.claim_one()
    assert (await stage.claimed()).blocked
    assert await queue.settle_rejected(lease, "seat A1 is taken") is Status.REJECTED
    item = await stage.item(first)
    assert (item.status, item.message) == (Status.REJECTED, "seat A1 is taken")
    status = await stage.status()
    assert (status.capacity, status.processing_seats, status.rejected) == (2, 0, 1)
    assert status.capacity_exact
    assert (await stage.claim_one()).item_id == second


async def test_somebody_is_woken_for_the_seats(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    async with stage.wakes() as woken_for:
        await queue.settle_rejected(lease, "no")
        assert await woken_for() == [EVENT]


async def test_who_asked_for_a_cancel_is_cancelled(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    await queue.cancel(lease.item_id, "ann", "changed my mind", "user:ann")
    assert await queue.settle_rejected(lease, "taken") is Status.CANCELLED
    assert (await stage.item(lease.item_id)).message == "changed my mind"


async def test_its_user_may_choose_other_seats(stage: Stage):
    item_id = await stage.in_status(Status.REJECTED)
    assert await stage.join_one("ann") != item_id


async def test_an_old_lease_is_refused(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(
        stage, Task.RESERVE, lambda lease: queue.settle_rejected(lease, "no")
    )


@pytest.mark.parametrize("task", [Task.CONFIRM, Task.RELEASE])
async def test_another_task_is_refused(stage: Stage, queue: BookingQueue, task: Task):
    await refused_for_another_task(stage, task, lambda lease: queue.settle_rejected(lease, "no"))
