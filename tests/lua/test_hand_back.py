from __future__ import annotations

import pytest

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_under_an_old_lease
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_a_reserve_that_nobody_was_asked_for_is_back_at_its_place(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    first, second = await stage.join_many(2, seats=2)
    await stage.capacity(10)
    lease, other = await stage.claim(2)
    await clock.advance(500)
    assert await queue.hand_back(other, asked=False) is Status.WAITING
    assert await queue.hand_back(lease, asked=False) is Status.WAITING
    places = await queue.positions(EVENT, [first, second])
    assert [place and place.position for place in places] == [1, 2]
    status = await stage.status()
    assert (status.capacity, status.processing_seats, status.admitted) == (10, 0, 0)
    assert (await stage.item(first)).deadline_ms == BEGINNING + LIMITS.queue_timeout_ms
    change = await stage.last_change()
    assert (change.before, change.after, change.actor) == ("processing", "waiting", "worker:w")
    assert [lease.item_id for lease in await stage.claim(2)] == [first, second]
    assert (await stage.status()).admitted == 2


async def test_a_breakers_trials_make_up_no_rate(stage: Stage, queue: BookingQueue, clock: Clock):
    """Nobody is told a wait by admissions that were undone."""
    await stage.join_many(2)
    await stage.capacity(10)
    (served,) = await stage.claim(1)
    before = (await stage.status()).rate
    for _ in range(5):
        (lease,) = await stage.claim(1)
        await queue.hand_back(lease, asked=False)
    assert (await stage.status()).rate == before
    await queue.hand_back(served, asked=True)  # goes on: it was admitted
    assert (await stage.status()).rate == before
    (again,) = await stage.claim(1)
    assert again.item_id == served.item_id
    await clock.advance(60_000)
    (lease,) = await stage.claim(1)
    await clock.advance(1_000)
    await queue.hand_back(lease, asked=False)
    assert 0 <= (await stage.status()).rate.weight < before.weight


async def test_who_came_later_does_not_get_past(stage: Stage, queue: BookingQueue):
    lease = await stage.processing("ann")
    later = await stage.join_one("ben")
    await queue.hand_back(lease, asked=False)
    assert [again.item_id for again in await stage.claim(2)] == [lease.item_id, later]


async def test_a_reserve_that_may_have_taken_effect_keeps_its_seats(
    stage: Stage, queue: BookingQueue
):
    lease = await stage.processing(seats=2)
    assert await queue.hand_back(lease, asked=True) is Status.PROCESSING
    assert (await stage.status()).processing_seats == 2
    again = await stage.claim_one()
    assert (again.attempts, again.crashes) == (0, 0)
    # The next worker did not ask, but the one before did.
    assert await queue.hand_back(again, asked=False) is Status.PROCESSING


@pytest.mark.parametrize("how", ["failed", "crashed", "requeued"])
async def test_a_reserve_that_was_tried_before_keeps_its_seats(
    stage: Stage, queue: BookingQueue, clock: Clock, how: str
):
    if how == "requeued":
        await queue.requeue(await stage.dead_letter(), "operator:eve")
    else:
        lease = await stage.processing()
        if how == "failed":
            await queue.settle_retry(lease, 0, "down")
        else:
            await clock.advance(LIMITS.lease_ms)
        await queue.expire(EVENT)
    assert await queue.hand_back(await stage.claim_one(), asked=False) is Status.PROCESSING


@pytest.mark.parametrize("task", [Task.CONFIRM, Task.RELEASE])
@pytest.mark.parametrize("asked", [True, False])
async def test_a_confirm_or_release_is_ready_for_the_next(
    stage: Stage, queue: BookingQueue, task: Task, asked: bool
):
    lease = await stage.lease_of(task)
    status = (await stage.item(lease.item_id)).status
    assert await queue.hand_back(lease, asked=asked) is status
    again = await stage.claim_one(task)
    assert (again.item_id, again.attempts, again.crashes) == (lease.item_id, 0, 0)


async def test_a_deploy_uses_up_nobodys_attempts(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    for _ in range(10):
        await queue.hand_back(lease, asked=True)
        lease = await stage.claim_one()
    assert (lease.attempts, lease.crashes) == (0, 0)


@pytest.mark.parametrize("asked, expected", [(False, Status.CANCELLED), (True, Status.PROCESSING)])
async def test_who_asked_for_a_cancel_meanwhile_is_cancelled_if_nobody_was_asked(
    stage: Stage, queue: BookingQueue, asked: bool, expected: Status
):
    lease = await stage.processing(seats=2)
    await queue.cancel(lease.item_id, "ann", "changed my mind", "user:ann")
    assert await queue.hand_back(lease, asked=asked) is expected
    item = await stage.item(lease.item_id)
    assert item.status is expected
    assert (await stage.status()).capacity == (8 if asked else 10)


async def test_the_list_of_arrivals_does_not_grow_by_going_back_and_forth(
    stage: Stage, queue: BookingQueue
):
    await stage.join_many(3)
    await stage.capacity(10)
    for _ in range(20):
        for lease in await stage.claim(2):
            await queue.hand_back(lease, asked=False)
    assert await stage.client.llen(stage.key("queue")) <= 5


async def test_an_old_lease_is_refused(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(
        stage, Task.RESERVE, lambda lease: queue.hand_back(lease, asked=False)
    )
