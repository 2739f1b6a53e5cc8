from __future__ import annotations

import pytest

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue, Expired
from tests.support.clock import Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_nothing_is_due_where_nobody_is(queue: BookingQueue):
    assert await queue.expire(EVENT) == Expired(0, more=False, next_in_ms=None)


async def test_who_waits_too_long_leaves_the_line(stage: Stage, queue: BookingQueue, clock: Clock):
    item_id = await stage.join_one()
    await clock.advance(LIMITS.queue_timeout_ms - 1)
    assert await queue.expire(EVENT) == Expired(0, more=False, next_in_ms=1)
    await clock.advance(1)
    assert await queue.expire(EVENT) == Expired(1, more=False, next_in_ms=None)
    item = await stage.item(item_id)
    assert (item.status, item.message) == (Status.EXPIRED, "waited longer than the queue allows")
    change = await stage.last_change()
    assert (change.actor, change.before) == ("timeouts", "waiting")
    assert await stage.join_one() != item_id


async def test_an_unpaid_hold_is_released(stage: Stage, queue: BookingQueue, clock: Clock):
    item_id = await stage.held_item(seats=2)
    await clock.advance(LIMITS.payment_timeout_ms)
    assert (await queue.expire(EVENT)).moved == 1
    assert (await stage.item(item_id)).status is Status.RELEASING
    lease = await stage.claim_one(Task.RELEASE)
    assert (lease.item_id, lease.reason) == (item_id, "not paid in time")
    assert await queue.settle_released(lease) is Status.EXPIRED


@pytest.mark.parametrize("task", list(Task))
async def test_a_lease_that_ends_makes_the_task_ready_for_another(
    stage: Stage, queue: BookingQueue, clock: Clock, task: Task
):
    lease = await stage.lease_of(task)
    await clock.advance(LIMITS.lease_ms - 1)
    assert (await queue.expire(EVENT)).moved == 0
    await clock.advance(1)
    assert (await queue.expire(EVENT)).moved == 1
    again = await stage.claim_one(task)
    assert (again.item_id, again.seq, again.crashes, again.attempts) == (
        lease.item_id, lease.seq, 1, 0,
    )  # fmt: skip


@pytest.mark.parametrize("task", list(Task))
async def test_who_kills_its_worker_three_times_is_a_dead_letter(
    stage: Stage, queue: BookingQueue, clock: Clock, task: Task
):
    lease = await stage.lease_of(task, seats=2)
    for _ in range(2):
        await clock.advance(LIMITS.lease_ms)
        await queue.expire(EVENT)
        await stage.claim_one(task)
    await clock.advance(LIMITS.lease_ms)
    await queue.expire(EVENT)
    item = await stage.item(lease.item_id)
    assert (item.status, item.task) == (Status.FAILED, task)
    assert item.message == "its worker never answered, 3 times"
    status = await stage.status()
    assert (status.dead_letters, status.failed, status.capacity_exact) == (1, 1, False)
    assert status.processing_seats == status.held_seats == 0
    assert status.total_seats == status.capacity == 8


async def test_a_backoff_that_is_over_uses_up_no_crash(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    lease = await stage.processing()
    await queue.settle_retry(lease, 700, "down")
    await clock.advance(699)
    assert await queue.expire(EVENT) == Expired(0, more=False, next_in_ms=1)
    await clock.advance(1)
    assert (await queue.expire(EVENT)).moved == 1
    again = await stage.claim_one()
    assert (again.attempts, again.crashes) == (1, 0)


async def test_the_earliest_go_first_and_the_rest_later(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    first = await stage.join_many(2, name="first")
    await clock.advance(10)
    await stage.join_many(1, name="second")
    await clock.advance(LIMITS.queue_timeout_ms)
    assert await queue.expire(EVENT, limit=2) == Expired(2, more=True, next_in_ms=0)
    assert [(await stage.item(item_id)).status for item_id in first] == [Status.EXPIRED] * 2
    assert await queue.expire(EVENT, limit=2) == Expired(1, more=False, next_in_ms=None)


async def test_a_thousand_holds_end_at_once(stage: Stage, queue: BookingQueue, clock: Clock):
    await stage.join_many(1000)
    await stage.capacity(1000)
    for lease in await stage.claim(1000):
        await stage.client.zadd(stage.key("timeouts"), {lease.item_id: clock.now})
    moved = 0
    while (expired := await queue.expire(EVENT)).moved:
        moved += expired.moved
        assert expired.moved <= 500
    assert moved == 1000
    assert len(await stage.claim(1000)) == 1000


async def test_a_clock_that_steps_back_only_prolongs(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    item_id = await stage.join_one()
    await clock.advance(-5_000)
    assert (await queue.expire(EVENT)).next_in_ms == LIMITS.queue_timeout_ms + 5_000
    assert (await stage.item(item_id)).status is Status.WAITING


async def test_a_deadline_of_nobody_is_dropped(stage: Stage, queue: BookingQueue):
    dead = await stage.dead_letter()
    await stage.client.zadd(stage.key("timeouts"), {"AAAAAAAAAAAA.concert": 1, dead: 2})
    assert (await queue.expire(EVENT)).moved == 2
    assert await stage.client.zcard(stage.key("timeouts")) == 0
    assert (await stage.item(dead)).status is Status.FAILED


async def test_the_list_of_arrivals_does_not_grow_by_who_waited_too_long(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    for _ in range(6):
        await stage.join_many(20)
        await clock.advance(LIMITS.queue_timeout_ms)
        await queue.expire(EVENT)
        assert await stage.client.llen(stage.key("queue")) < 40


async def test_only_what_passed_long_enough_ago_is_acted_on(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    item_id = await stage.join_one()
    await clock.advance(LIMITS.queue_timeout_ms + 999)
    assert (await queue.expire(EVENT, overdue_ms=1_000)).moved == 0
    await clock.advance(1)
    assert (await queue.expire(EVENT, overdue_ms=1_000)).moved == 1
    assert (await stage.item(item_id)).status is Status.EXPIRED
