from __future__ import annotations

import pytest

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_for_another_task, refused_under_an_old_lease
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_nobodys_choice_was_wrong_so_it_is_back_at_its_place(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    first, second = await stage.join_many(2, seats=2)
    await stage.capacity(3)
    lease = await stage.claim_one()
    await clock.advance(100)
    assert await queue.settle_short(lease, "none are left") is Status.WAITING
    places = await queue.positions(EVENT, [first, second])
    assert [place and place.position for place in places] == [1, 2]
    item = await stage.item(first)
    assert item.deadline_ms == BEGINNING + LIMITS.queue_timeout_ms
    assert item.attempts == 0
    change = await stage.last_change()
    assert (change.before, change.after, change.why) == ("processing", "waiting", "none are left")


async def test_it_is_no_suspect_any_more(stage: Stage, queue: BookingQueue, clock: Clock):
    """Its worker has answered, and in the line it stands among others."""
    await stage.processing()
    for _ in range(2):
        await stage.claim()
        await clock.advance(LIMITS.lease_ms)
        await queue.expire(EVENT)
    await queue.settle_short(await stage.claim_one(), "none are left")
    await stage.capacity(5)
    assert [lease.crashes for lease in (await stage.claimed()).leases] == [0]


async def test_its_seats_are_nowhere_until_a_refresh(stage: Stage, queue: BookingQueue):
    lease = await stage.processing(seats=9)
    await queue.settle_short(lease, "none are left")
    status = await stage.status()
    assert status.rate.weight == 0  # nobody was served
    assert (status.capacity, status.total_seats, status.capacity_exact) == (1, 1, False)
    assert (status.processing, status.admitted, status.waiting) == (0, 0, 1)
    claimed = await stage.claimed()
    assert (claimed.leases, claimed.blocked, claimed.needs_refresh) == ([], True, True)


async def test_when_it_could_never_fit_it_is_told_after_the_refresh(
    stage: Stage, queue: BookingQueue
):
    lease = await stage.processing(seats=2)
    await queue.settle_short(lease, "none are left")
    await stage.capacity(1)
    await stage.claim()
    assert (await stage.item(lease.item_id)).status is Status.SOLD_OUT


async def test_who_asked_for_a_cancel_is_cancelled(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    await queue.cancel(lease.item_id, "ann", "changed my mind", "user:ann")
    assert await queue.settle_short(lease, "none are left") is Status.CANCELLED


async def test_an_old_lease_is_refused(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(
        stage, Task.RESERVE, lambda lease: queue.settle_short(lease, "none")
    )


@pytest.mark.parametrize("task", [Task.CONFIRM, Task.RELEASE])
async def test_another_task_is_refused(stage: Stage, queue: BookingQueue, task: Task):
    await refused_for_another_task(stage, task, lambda lease: queue.settle_short(lease, "none"))
