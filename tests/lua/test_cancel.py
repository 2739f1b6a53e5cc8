from __future__ import annotations

import pytest

from booking_worker.domain.errors import ItemNotFound, NotYourItem, WrongStatus
from booking_worker.domain.model import Held, Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import Clock
from tests.support.stage import EVENT, Stage, a_join


async def test_who_waits_is_cancelled_at_once(stage: Stage, queue: BookingQueue):
    ann, ben, cem = await stage.join_many(3)
    assert await queue.cancel(ben, "user-1", "too late for me", "user:user-1") is Status.CANCELLED
    assert [place and place.position for place in await queue.positions(EVENT, [ann, ben, cem])] == [
        1, 0, 2,
    ]  # fmt: skip
    item = await stage.item(ben)
    assert (item.status, item.message) == (Status.CANCELLED, "too late for me")
    change = await stage.last_change()
    assert (change.actor, change.before, change.after, change.why) == (
        "user:user-1", "waiting", "cancelled", "too late for me",
    )  # fmt: skip


async def test_who_cancelled_may_join_again_at_the_end(stage: Stage, queue: BookingQueue):
    first = await stage.join_one("ann")
    ben = await stage.join_one("ben")
    await queue.cancel(first, "ann", "", "user:ann")
    again = await stage.join_one("ann")
    places = await queue.positions(EVENT, [ben, again])
    assert [place and place.position for place in places] == [1, 2]


async def test_while_a_reserve_is_under_way_the_item_is_marked(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    before = await stage.changes()
    assert await queue.cancel(lease.item_id, "ann", "no", "user:ann") is Status.PROCESSING
    assert await queue.cancel(lease.item_id, "ann", "again", "user:ann") is Status.PROCESSING
    assert (await stage.item(lease.item_id)).cancel_requested
    assert await stage.changes() == before
    assert await queue.settle_held(lease, Held("B", "", None)) is Status.RELEASING
    release = await stage.claim_one(Task.RELEASE)
    assert release.reason == "no"
    assert await queue.settle_released(release) is Status.CANCELLED
    assert (await stage.status()).capacity == 10


async def test_a_reserve_that_backs_off_is_marked_and_tried_again(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    lease = await stage.processing()
    await queue.settle_retry(lease, 5_000, "down")
    assert await queue.cancel(lease.item_id, "ann", "no", "user:ann") is Status.PROCESSING
    assert await stage.claim() == []
    await clock.advance(5_000)
    await queue.expire(EVENT)
    again = await stage.claim_one()
    assert again.cancel_requested
    assert await queue.settle_held(again, Held("B", "", None)) is Status.RELEASING


async def test_a_hold_is_released(stage: Stage, queue: BookingQueue):
    item_id = await stage.held_item(seats=2)
    assert await queue.cancel(item_id, "ann", "no", "user:ann") is Status.RELEASING
    assert await queue.cancel(item_id, "ann", "no", "user:ann") is Status.RELEASING
    assert (await stage.status()).held_seats == 2
    release = await stage.claim_one(Task.RELEASE)
    assert (release.item_id, release.booking_id, release.reason) == (item_id, "B-ann", "no")


async def test_cancelling_what_is_cancelled_is_cancelling(stage: Stage, queue: BookingQueue):
    item_id = await stage.in_status(Status.CANCELLED)
    before = await stage.changes()
    assert await queue.cancel(item_id, "ann", "again", "user:ann") is Status.CANCELLED
    assert await stage.changes() == before


@pytest.mark.parametrize(
    "status",
    [
        Status.CONFIRMING,
        Status.COMPLETED,
        Status.EXPIRED,
        Status.SOLD_OUT,
        Status.REJECTED,
        Status.FAILED,
    ],
)
async def test_paid_or_ended_it_cannot_be_cancelled(
    stage: Stage, queue: BookingQueue, status: Status
):
    item_id = await stage.in_status(status)
    with pytest.raises(WrongStatus) as caught:
        await queue.cancel(item_id, "ann", "no", "user:ann")
    assert (caught.value.status, caught.value.wanted) == (status, "cancel")
    assert (await stage.item(item_id)).status is status


async def test_a_hold_released_for_lateness_can_no_more_be_cancelled(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    item_id = await stage.held_item()
    await clock.advance(stage.limits.payment_timeout_ms)
    await queue.expire(EVENT)
    with pytest.raises(WrongStatus, match="cannot cancel while the item is expired"):
        await queue.cancel(item_id, "ann", "no", "user:ann")


async def test_what_was_found_paid_cannot_be_cancelled_although_that_was_asked_before(
    stage: Stage, queue: BookingQueue
):
    lease = await stage.releasing()
    await queue.settle_paid(lease, "REF")
    with pytest.raises(WrongStatus, match="completed"):
        await queue.cancel(lease.item_id, "ann", "no", "user:ann")


async def test_an_operator_cancels_for_whoever_owns_it(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one()
    assert await queue.cancel(item_id, "", "fraud", "operator:eve") is Status.CANCELLED
    assert (await stage.last_change()).actor == "operator:eve"


@pytest.mark.parametrize("status", [Status.WAITING, Status.PROCESSING, Status.CANCELLED])
async def test_nobody_cancels_for_somebody_else(stage: Stage, queue: BookingQueue, status: Status):
    item_id = await stage.in_status(status)
    with pytest.raises(NotYourItem):
        await queue.cancel(item_id, "ben", "haha", "user:ben")
    assert not (await stage.item(item_id)).cancel_requested


async def test_an_unknown_item_is_not_found(queue: BookingQueue):
    with pytest.raises(ItemNotFound):
        await queue.cancel("AAAAAAAAAAAA.concert", "ann", "", "user:ann")


async def test_the_list_of_arrivals_does_not_grow_by_who_comes_and_goes(
    stage: Stage, queue: BookingQueue
):
    for _ in range(5):
        for item_id in await stage.join_many(10):
            await queue.cancel(item_id, "", "", "test")
    assert await stage.client.llen(stage.key("queue")) == 0


async def test_the_list_of_arrivals_loses_who_left_from_behind_when_the_head_has_gone(
    stage: Stage, queue: BookingQueue
):
    head, *others, last = await stage.join_many(10)
    for item_id in others:
        await queue.cancel(item_id, "", "", "test")
    assert await stage.client.llen(stage.key("queue")) == 10
    await queue.cancel(head, "", "", "test")
    for _ in range(4):
        (joined,) = await stage.join(a_join())
        await queue.cancel(joined.item_id, "", "", "test")
    assert await stage.client.lrange(stage.key("queue"), 0, 0) == [last.encode()]
