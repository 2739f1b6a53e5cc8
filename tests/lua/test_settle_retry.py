from __future__ import annotations

import pytest

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_under_an_old_lease
from tests.support.clock import Clock
from tests.support.stage import EVENT, LIMITS, Stage

BUSY = {
    Task.RESERVE: Status.PROCESSING,
    Task.CONFIRM: Status.CONFIRMING,
    Task.RELEASE: Status.RELEASING,
}


@pytest.mark.parametrize("task", list(Task))
async def test_it_comes_again_after_the_backoff_and_keeps_its_seats_and_number(
    stage: Stage, queue: BookingQueue, clock: Clock, task: Task
):
    lease = await stage.lease_of(task, seats=2)
    assert await queue.settle_retry(lease, 4_000, "it is down") is BUSY[task]
    item = await stage.item(lease.item_id)
    assert (item.deadline_ms, item.attempts, item.token) == (clock.now + 4_000, 1, 0)
    await clock.advance(3_999)
    await queue.expire(EVENT)
    assert await stage.claim() == []
    await clock.advance(1)
    await queue.expire(EVENT)
    again = await stage.claim_one(task)
    assert (again.item_id, again.seq, again.attempts) == (lease.item_id, lease.seq, 1)
    status = await stage.status()
    assert status.processing_seats + status.held_seats == 2
    assert status.total_seats == 10


@pytest.mark.parametrize("task", list(Task))
async def test_after_the_last_attempt_it_is_a_dead_letter(
    stage: Stage, queue: BookingQueue, task: Task
):
    lease = await stage.lease_of(task, seats=2)
    for attempt in range(1, LIMITS.max_retries + 1):
        assert await queue.settle_retry(lease, 0, "down") is BUSY[task]
        await queue.expire(EVENT)
        lease = await stage.claim_one(task)
        assert lease.attempts == attempt
    assert await queue.settle_retry(lease, 0, "still down") is Status.FAILED
    item = await stage.item(lease.item_id)
    assert (item.status, item.task, item.message) == (Status.FAILED, task, "still down")
    assert item.attempts == LIMITS.max_retries + 1
    change = await stage.last_change()
    assert (change.before, change.after, change.why) == (BUSY[task], "failed", "still down")
    status = await stage.status()
    assert (status.dead_letters, status.failed) == (1, 1)
    assert status.processing == status.awaiting_payment == 0


@pytest.mark.parametrize("task", list(Task))
async def test_the_seats_of_a_dead_letter_are_nowhere_until_a_refresh(stage: Stage, task: Task):
    """Whether its last call took effect is not known, so nobody else may have them yet."""
    await stage.dead_letter(task, seats=2)
    status = await stage.status()
    assert (status.capacity, status.total_seats, status.capacity_exact) == (8, 8, False)
    await stage.capacity(10)
    status = await stage.status()
    assert (status.capacity, status.total_seats, status.capacity_exact) == (10, 10, True)


async def test_without_retries_the_first_failure_is_the_last(stage: Stage):
    stage.limit(max_retries=0)
    lease = await stage.processing()
    assert await stage.queue.settle_retry(lease, 5_000, "down") is Status.FAILED


@pytest.mark.parametrize("task", list(Task))
async def test_one_that_waits_for_a_service_uses_up_no_attempt(
    stage: Stage, queue: BookingQueue, clock: Clock, task: Task
):
    lease = await stage.lease_of(task)
    for _ in range(LIMITS.max_retries + 2):
        assert await queue.settle_retry(lease, 700, "away", uses_up=False) is BUSY[task]
        await clock.advance(699)
        await queue.expire(EVENT)
        assert await stage.claim() == []
        await clock.advance(1)
        await queue.expire(EVENT)
        lease = await stage.claim_one(task)
    assert (lease.attempts, lease.crashes) == (0, 0)


async def test_a_reserve_that_waited_is_not_handed_back_to_the_line(
    stage: Stage, queue: BookingQueue
):
    await queue.settle_retry(await stage.processing(), 0, "away", uses_up=False)
    await queue.expire(EVENT)
    assert await queue.hand_back(await stage.claim_one(), asked=False) is Status.PROCESSING


async def test_fewer_retries_than_it_had_do_not_end_one_that_waits(
    stage: Stage, queue: BookingQueue
):
    lease = await stage.processing()
    await queue.settle_retry(lease, 0, "down")
    await queue.expire(EVENT)
    lease = await stage.claim_one()
    stage.limit(max_retries=0)
    assert await stage.queue.settle_retry(lease, 0, "away", uses_up=False) is Status.PROCESSING


async def test_its_user_may_join_again(stage: Stage):
    dead = await stage.dead_letter()
    assert await stage.join_one("ann") != dead


async def test_an_old_lease_is_refused(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(
        stage, Task.RESERVE, lambda lease: queue.settle_retry(lease, 0, "down")
    )
