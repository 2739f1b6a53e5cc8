from __future__ import annotations

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_for_another_task, refused_under_an_old_lease
from tests.support.clock import Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_a_confirm_of_a_booking_that_is_no_more(stage: Stage, queue: BookingQueue):
    lease = await stage.confirming(seats=2)
    assert await queue.settle_gone(lease, "the booking ran out") is Status.EXPIRED
    item = await stage.item(lease.item_id)
    assert (item.status, item.message) == (Status.EXPIRED, "the booking ran out")


async def test_its_seats_are_nowhere_until_a_refresh(stage: Stage, queue: BookingQueue):
    await queue.settle_gone(await stage.confirming(seats=2), "gone")
    status = await stage.status()
    assert (status.capacity, status.held_seats, status.total_seats) == (8, 0, 8)
    assert not status.capacity_exact
    await stage.capacity(10)
    assert (await stage.status()).total_seats == 10


async def test_a_release_that_its_user_asked_for(stage: Stage, queue: BookingQueue):
    lease = await stage.releasing()
    assert await queue.settle_gone(lease, "gone") is Status.CANCELLED


async def test_a_release_for_lateness(stage: Stage, queue: BookingQueue, clock: Clock):
    await stage.held_item()
    await clock.advance(LIMITS.payment_timeout_ms)
    await queue.expire(EVENT)
    assert await queue.settle_gone(await stage.claim_one(Task.RELEASE), "gone") is Status.EXPIRED


async def test_an_old_lease_is_refused(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(
        stage, Task.RELEASE, lambda lease: queue.settle_gone(lease, "gone")
    )


async def test_a_reserve_is_refused(stage: Stage, queue: BookingQueue):
    await refused_for_another_task(
        stage, Task.RESERVE, lambda lease: queue.settle_gone(lease, "gone")
    )
