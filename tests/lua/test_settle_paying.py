from __future__ import annotations

import pytest

from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_for_another_task, refused_under_an_old_lease
from tests.support.clock import Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def late(stage: Stage) -> str:
    item_id = await stage.held_item(seats=2)
    await stage.clock.advance(LIMITS.payment_timeout_ms)
    await stage.queue.expire(EVENT)
    return item_id


async def test_the_deadline_moves_by_the_grace_time_from_now(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    item_id = await late(stage)
    await clock.advance(500)
    lease = await stage.claim_one(Task.RELEASE)
    assert await queue.settle_paying(lease) is Status.AWAITING_PAYMENT
    item = await stage.item(item_id)
    assert item.deadline_ms == item.pay_by_ms == clock.now + LIMITS.payment_grace_ms
    assert (await stage.status()).held_seats == 2
    await clock.advance(LIMITS.payment_grace_ms - 1)
    assert await queue.ask_confirm(item_id, "ann", "PAY") is Status.CONFIRMING


async def test_once_and_no_more(stage: Stage, queue: BookingQueue, clock: Clock):
    item_id = await late(stage)
    await queue.settle_paying(await stage.claim_one(Task.RELEASE))
    await clock.advance(LIMITS.payment_grace_ms)
    await queue.expire(EVENT)
    lease = await stage.claim_one(Task.RELEASE)
    assert (lease.item_id, lease.grace_used) == (item_id, True)
    with pytest.raises(Fenced):
        await queue.settle_paying(lease)
    assert await queue.settle_released(lease) is Status.EXPIRED
    assert (await stage.status()).capacity == 10


async def test_a_cancel_may_be_asked_for_again(stage: Stage, queue: BookingQueue):
    lease = await stage.releasing(reason="first")
    await queue.settle_paying(lease)
    assert await queue.cancel(lease.item_id, "ann", "second", "user:ann") is Status.RELEASING
    again = await stage.claim_one(Task.RELEASE)
    assert again.reason == "second"
    assert await queue.settle_released(again) is Status.CANCELLED


async def test_an_old_lease_is_refused(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(stage, Task.RELEASE, queue.settle_paying)


@pytest.mark.parametrize("task", [Task.RESERVE, Task.CONFIRM])
async def test_another_task_is_refused(stage: Stage, queue: BookingQueue, task: Task):
    await refused_for_another_task(stage, task, queue.settle_paying)
