from __future__ import annotations

from booking_worker.domain.model import Held, Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.stage import EVENT, Stage


async def test_who_has_a_booking_is_admitted_again_whatever_is_left(
    stage: Stage, queue: BookingQueue
):
    ids = await stage.join_many(4, seats=2)
    await stage.capacity(0)
    assert await queue.readmit(EVENT, ids[1:3]) == 2
    books = await stage.status()
    assert (books.processing_seats, books.capacity, books.total_seats) == (4, 0, 4)
    assert (books.admitted, books.waiting) == (2, 2)
    leases = await stage.claim(9)
    assert [lease.item_id for lease in leases] == ids[1:3]
    for lease in leases:
        assert lease.task is Task.RESERVE
        await queue.settle_held(lease, Held(f"B-{lease.item_id}", "", None))
    await stage.capacity(0)
    books = await stage.status()
    assert (books.held_seats, books.total_seats, books.capacity_exact) == (4, 4, True)


async def test_they_take_nothing_from_what_is_left(stage: Stage, queue: BookingQueue):
    """The answer of the Ticket Service has their bookings taken off already."""
    ids = await stage.join_many(3)
    await stage.capacity(1)
    assert await queue.readmit(EVENT, ids[:2]) == 2
    assert [lease.item_id for lease in await stage.claim(9)] == ids
    assert (await stage.status()).capacity == 0


async def test_who_does_not_wait_stays_where_they_are(stage: Stage, queue: BookingQueue):
    held, unknown = await stage.held_item("ann"), "AAAAAAAAAAAA.concert"
    final = await stage.in_status(Status.REJECTED, "ben")
    waiting = await stage.join_one("eve")
    before = await stage.status()
    assert await queue.readmit(EVENT, [held, final, unknown]) == 0
    assert await stage.status() == before
    assert (await stage.item(waiting)).position == 1


async def test_they_are_not_asked_to_be_first_again_when_handed_back(
    stage: Stage, queue: BookingQueue
):
    """Their booking exists: they keep their seats, as whoever was asked for does."""
    item_id = await stage.join_one()
    await queue.readmit(EVENT, [item_id])
    lease = await stage.claim_one()
    assert await queue.hand_back(lease, asked=False) is Status.PROCESSING


async def test_the_feed_says_why(stage: Stage, queue: BookingQueue):
    await queue.readmit(EVENT, [await stage.join_one()])
    change = await stage.last_change()
    assert (change.before, change.after) == ("waiting", "processing")
    assert "before the engine was replaced" in change.why


async def test_workers_are_woken(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one()
    async with stage.wakes() as woken_for:
        await queue.readmit(EVENT, [item_id])
        assert await woken_for() == [EVENT]
