from __future__ import annotations

import pytest

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_for_another_task, refused_under_an_old_lease
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_the_user_may_pay_again_until_the_same_deadline(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    lease = await stage.confirming(seats=2)
    await clock.advance(1_000)
    assert await queue.settle_unconfirmed(lease, "card declined") is Status.AWAITING_PAYMENT
    item = await stage.item(lease.item_id)
    assert item.deadline_ms == item.pay_by_ms == BEGINNING + LIMITS.payment_timeout_ms
    assert (item.message, item.payment_reference) == ("card declined", "")
    assert (await stage.status()).held_seats == 2
    await queue.ask_confirm(lease.item_id, "ann", "PAY-2")
    again = await stage.claim_one(Task.CONFIRM)
    assert again.payment_reference == "PAY-2"
    assert (await stage.item(lease.item_id)).message == ""


async def test_when_the_deadline_has_passed_meanwhile_it_is_released(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    lease = await stage.confirming()
    await clock.advance(LIMITS.payment_timeout_ms)
    await queue.settle_unconfirmed(lease, "card declined")
    assert (await queue.expire(EVENT)).moved == 1
    assert (await stage.item(lease.item_id)).status is Status.RELEASING


async def test_an_old_lease_is_refused(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(
        stage, Task.CONFIRM, lambda lease: queue.settle_unconfirmed(lease, "no")
    )


@pytest.mark.parametrize("task", [Task.RESERVE, Task.RELEASE])
async def test_another_task_is_refused(stage: Stage, queue: BookingQueue, task: Task):
    await refused_for_another_task(stage, task, lambda lease: queue.settle_unconfirmed(lease, "no"))
