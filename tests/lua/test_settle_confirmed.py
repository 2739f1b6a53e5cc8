from __future__ import annotations

import pytest

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_for_another_task, refused_under_an_old_lease
from tests.support.clock import Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_the_happy_end(stage: Stage, queue: BookingQueue):
    lease = await stage.confirming(seats=2)
    assert await queue.settle_confirmed(lease, "REF-1") is Status.COMPLETED
    item = await stage.item(lease.item_id)
    assert (item.status, item.booking_reference, item.message) == (
        Status.COMPLETED, "REF-1", "paid",
    )  # fmt: skip
    status = await stage.status()
    assert (status.confirmed_seats, status.held_seats, status.capacity) == (2, 0, 8)
    assert (status.completed, status.awaiting_payment) == (1, 0)
    change = await stage.last_change()
    assert (change.before, change.after, change.booking_reference) == (
        "confirming", "completed", "REF-1",
    )  # fmt: skip


async def test_the_reference_of_the_hold_stays_when_no_other_is_given(
    stage: Stage, queue: BookingQueue
):
    item_id = await stage.held_item(booking_reference="REF-0")
    await queue.ask_confirm(item_id, "ann", "PAY")
    await queue.settle_confirmed(await stage.claim_one(Task.CONFIRM), "")
    assert (await stage.item(item_id)).booking_reference == "REF-0"


async def test_it_is_readable_for_a_while(stage: Stage):
    item_id = await stage.in_status(Status.COMPLETED)
    assert 0 < await stage.client.pttl(stage.key("results") + item_id) <= LIMITS.result_ttl_ms


async def test_a_confirm_that_comes_back_after_the_deadline_still_counts(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    lease = await stage.confirming()
    await clock.advance(LIMITS.payment_timeout_ms * 2)
    await queue.expire(EVENT)
    again = await stage.claim_one(Task.CONFIRM)
    assert again.crashes == lease.crashes + 1
    assert await queue.settle_confirmed(again, "REF") is Status.COMPLETED


async def test_an_old_lease_is_refused(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(
        stage, Task.CONFIRM, lambda lease: queue.settle_confirmed(lease, "REF")
    )


@pytest.mark.parametrize("task", [Task.RESERVE, Task.RELEASE])
async def test_another_task_is_refused(stage: Stage, queue: BookingQueue, task: Task):
    await refused_for_another_task(stage, task, lambda lease: queue.settle_confirmed(lease, "REF"))
