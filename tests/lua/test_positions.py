from __future__ import annotations

import pytest

from booking_worker.domain.estimate import per_second
from booking_worker.domain.model import Held, Place, Rate, Status
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_many_at_once_in_the_order_of_the_question(stage: Stage, queue: BookingQueue):
    ids = await stage.join_many(5)
    places = await queue.positions(EVENT, [ids[4], "AAAAAAAAAAAA.concert", ids[0]])
    assert [place and (place.item_id, place.position) for place in places] == [
        (ids[4], 5), None, (ids[0], 1),
    ]  # fmt: skip


async def test_who_waits(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one()
    assert await queue.positions(EVENT, [item_id]) == [
        Place(
            item_id=item_id,
            user_id="ann",
            status=Status.WAITING,
            position=1,
            queue_length=1,
            admissions_per_second=0.0,
            message="",
            booking_id="",
            booking_reference="",
            pay_by_ms=0,
            remaining_ms=0,
        )
    ]


async def test_who_is_to_pay_hears_until_when(stage: Stage, queue: BookingQueue, clock: Clock):
    await stage.join_one("first")
    await stage.capacity(5)
    (lease,) = await stage.claim()
    await queue.settle_held(lease, Held("B", "REF", None))
    await stage.join_one("behind")
    await clock.advance(100_000)
    (place,) = await queue.positions(EVENT, [lease.item_id])
    assert place is not None
    assert (place.position, place.queue_length, place.status) == (0, 1, Status.AWAITING_PAYMENT)
    assert place.pay_by_ms == BEGINNING + LIMITS.payment_timeout_ms
    assert place.remaining_ms == LIMITS.payment_timeout_ms - 100_000
    assert (place.booking_id, place.booking_reference) == ("B", "REF")
    measured = Rate(1.0, BEGINNING, BEGINNING)
    assert place.admissions_per_second == per_second(measured, BEGINNING + 100_000)
    await clock.advance(LIMITS.payment_timeout_ms)
    (place,) = await queue.positions(EVENT, [lease.item_id])
    assert place is not None
    assert place.remaining_ms == 0


@pytest.mark.parametrize("status", list(Status))
async def test_the_place_of_an_item_in_any_status(
    stage: Stage, queue: BookingQueue, status: Status
):
    item_id = await stage.in_status(status)
    (place,) = await queue.positions(EVENT, [item_id])
    assert place is not None
    assert (place.status, place.user_id) == (status, "ann")
    assert place.position == (1 if status is Status.WAITING else 0)
    assert (place.pay_by_ms > 0) == (status is Status.AWAITING_PAYMENT)


async def test_whose_reserve_is_under_way_hears_that_the_cancel_was_noted(
    stage: Stage, queue: BookingQueue
):
    lease = await stage.processing()
    await queue.cancel(lease.item_id, "ann", "no", "test")
    (place,) = await queue.positions(EVENT, [lease.item_id])
    assert place is not None
    assert place.message == "cancel requested"


async def test_nobody_is_asked_for(queue: BookingQueue):
    assert await queue.positions(EVENT, []) == []


async def test_a_thousand_at_once(stage: Stage, queue: BookingQueue):
    ids = await stage.join_many(1000)
    places = await queue.positions(EVENT, ids)
    assert [place and place.position for place in places] == list(range(1, 1001))


async def test_who_was_lost_from_the_line_still_waits(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one()
    await stage.client.zrem(stage.key("positions"), item_id)
    (place,) = await queue.positions(EVENT, [item_id])
    assert place is not None
    assert (place.status, place.position) == (Status.WAITING, 0)
    await queue.sweep(EVENT)


async def test_nothing_is_written(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one()
    before = await stage.client.info("persistence")
    await queue.positions(EVENT, [item_id])
    after = await stage.client.info("persistence")
    assert after["rdb_changes_since_last_save"] == before["rdb_changes_since_last_save"]
