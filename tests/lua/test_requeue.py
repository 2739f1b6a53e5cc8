from __future__ import annotations

import pytest

from booking_worker.domain.errors import ItemNotFound, UserHasPlace, WrongStatus
from booking_worker.domain.model import Held, Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import Clock
from tests.support.stage import EVENT, LIMITS, Stage, a_join


async def test_a_reserve_is_back_at_its_old_place(stage: Stage, queue: BookingQueue, clock: Clock):
    dead = await stage.dead_letter(seats=2)
    later = await stage.join_one("ben")
    await clock.advance(LIMITS.queue_timeout_ms - 1)
    assert await queue.requeue(dead, "operator:eve") is Status.WAITING
    places = await queue.positions(EVENT, [dead, later])
    assert [place and place.position for place in places] == [1, 2]
    item = await stage.item(dead)
    assert (item.attempts, item.crashes, item.message) == (0, 0, "")
    assert item.deadline_ms == clock.now + LIMITS.queue_timeout_ms
    change = await stage.last_change()
    assert (change.actor, change.before, change.after) == ("operator:eve", "failed", "waiting")
    status = await stage.status()
    assert (status.failed, status.dead_letters, status.admitted) == (0, 0, 0)
    await stage.capacity(10)
    lease = await stage.claim_one()
    assert lease.item_id == dead
    assert (await stage.status()).admitted == 1


@pytest.mark.parametrize(
    "task, back", [(Task.CONFIRM, Status.CONFIRMING), (Task.RELEASE, Status.RELEASING)]
)
async def test_a_confirm_or_release_is_back_at_its_task(
    stage: Stage, queue: BookingQueue, task: Task, back: Status
):
    dead = await stage.dead_letter(task, seats=2)
    assert (await stage.status()).held_seats == 0
    assert await queue.requeue(dead, "operator:eve") is back
    assert (await stage.status()).held_seats == 2
    lease = await stage.claim_one(task)
    assert (lease.item_id, lease.attempts, lease.crashes) == (dead, 0, 0)
    assert lease.booking_id == "B-ann"
    if task is Task.CONFIRM:
        assert lease.payment_reference == "PAY-1"
        assert await queue.settle_confirmed(lease, "REF") is Status.COMPLETED
    else:
        assert lease.reason == "no"
        assert await queue.settle_released(lease) is Status.CANCELLED


async def test_a_release_does_not_give_back_seats_that_a_refresh_has_found_already(
    stage: Stage, queue: BookingQueue
):
    """The booking was cancelled although nobody heard: its seats are among the ten."""
    dead = await stage.dead_letter(Task.RELEASE, seats=2)
    await stage.capacity(10)
    await queue.requeue(dead, "operator:eve")
    await queue.settle_released(await stage.claim_one(Task.RELEASE))
    status = await stage.status()
    assert status.capacity == 10
    assert not status.capacity_exact


async def test_a_hold_that_was_back_gives_its_seats_to_nobody_until_a_refresh(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    dead = await stage.dead_letter(Task.CONFIRM, seats=2)
    await stage.capacity(8)
    await queue.requeue(dead, "operator:eve")
    await queue.settle_unconfirmed(await stage.claim_one(Task.CONFIRM), "no money")
    await clock.advance(LIMITS.payment_timeout_ms)
    await queue.expire(EVENT)
    await queue.settle_released(await stage.claim_one(Task.RELEASE))
    status = await stage.status()
    assert (status.capacity, status.total_seats, status.capacity_exact) == (8, 8, False)


async def test_whose_user_has_another_place_by_now_stays_aside(stage: Stage, queue: BookingQueue):
    dead = await stage.dead_letter(user_id="ann")
    again = await stage.join_one("ann")
    with pytest.raises(UserHasPlace):
        await queue.requeue(dead, "operator:eve")
    assert (await stage.item(dead)).status is Status.FAILED
    await queue.cancel(again, "ann", "", "test")
    assert await queue.requeue(dead, "operator:eve") is Status.WAITING


async def test_a_user_may_have_more_than_one_place(stage: Stage):
    stage.limit(places_per_user=2)
    dead = await stage.dead_letter(user_id="ann")
    await stage.join_one("ann")
    assert await stage.queue.requeue(dead, "operator:eve") is Status.WAITING
    (third,) = await stage.join(a_join("ann"))
    assert third.already_queued


async def test_a_cancel_that_was_asked_for_is_kept(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    await queue.cancel(lease.item_id, "ann", "changed my mind", "user:ann")
    while await queue.settle_retry(lease, 0, "down") is not Status.FAILED:
        await queue.expire(EVENT)
        lease = await stage.claim_one()
    await queue.requeue(lease.item_id, "operator:eve")
    await stage.capacity(10)
    again = await stage.claim_one()
    assert again.cancel_requested
    assert await queue.settle_held(again, Held("B", "", None)) is Status.RELEASING
    assert (await stage.claim_one(Task.RELEASE)).reason == "changed my mind"


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.FAILED])
async def test_only_dead_letters(stage: Stage, queue: BookingQueue, status: Status):
    item_id = await stage.in_status(status)
    with pytest.raises(WrongStatus) as caught:
        await queue.requeue(item_id, "operator:eve")
    assert caught.value.status == ("final" if status.is_final else status)
    assert (await stage.item(item_id)).status is status


async def test_an_unknown_item(queue: BookingQueue):
    with pytest.raises(ItemNotFound):
        await queue.requeue("AAAAAAAAAAAA.concert", "operator:eve")
