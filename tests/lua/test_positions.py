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


@pytest.mark.parametrize("known, position", [(True, 1), (False, 0)])
async def test_who_was_lost_from_the_line_still_waits(
    stage: Stage, queue: BookingQueue, known: bool, position: int
):
    item_id = await stage.join_one()
    await stage.client.zrem(stage.key("positions"), item_id)
    if not known:
        await stage.client.hdel(stage.key("state"), "front")
    (place,) = await queue.positions(EVENT, [item_id])
    assert place is not None
    assert (place.status, place.position) == (Status.WAITING, position)
    await queue.sweep(EVENT)


async def positions_by_rank(stage: Stage) -> list[tuple[str, int]]:
    ids = await stage.client.zrange(stage.key("positions"), 0, -1)
    return [(id_.decode(), at) for at, id_ in enumerate(ids, 1)]


async def told(stage: Stage, ids: list[str]) -> list[tuple[str, int]]:
    places = [place for place in await stage.queue.positions(EVENT, ids) if place]
    return sorted(((p.item_id, p.position) for p in places if p.position), key=lambda one: one[1])


async def gaps(stage: Stage) -> list[int]:
    return [int(seq) for seq in await stage.client.zrange(stage.key("gaps"), 0, -1)]


async def test_counting_is_as_ranks_are_while_people_leave_and_come_back(stage: Stage):
    ids = await stage.join_many(40)
    for at in (0, 3, 4, 17, 39, 1):
        await stage.queue.cancel(ids[at], "", "", "operator:eve")
        assert await told(stage, ids) == await positions_by_rank(stage)
    assert await gaps(stage) == [4, 5, 18, 40]
    await stage.capacity(20)
    leases = await stage.claim(12)
    assert await told(stage, ids) == await positions_by_rank(stage)
    for lease in leases[::-3]:
        await stage.queue.hand_back(lease, asked=False)
        assert await told(stage, ids) == await positions_by_rank(stage)
    ids += await stage.join_many(5, name="later")
    assert await told(stage, ids) == await positions_by_rank(stage)


async def test_who_comes_back_beyond_the_front_fills_the_gap(stage: Stage, queue: BookingQueue):
    """The front moves once for each call, so it may be behind some who were admitted by it."""
    ids = await stage.join_many(5)
    await queue.cancel(ids[1], "", "", "operator:eve")
    await stage.capacity(20)
    leases = await stage.claim(2)
    assert await gaps(stage) == [2, 3]
    await queue.hand_back(leases[1], asked=False)
    assert await gaps(stage) == [2]
    assert await told(stage, ids) == [(ids[2], 1), (ids[3], 2), (ids[4], 3)]


async def test_the_gaps_are_gone_when_the_front_has_moved_on(stage: Stage):
    """By at most 64 at a time, so that no call takes long."""
    ids = await stage.join_many(110)
    left = [*ids[1:101], ids[0], *ids[104:107], *ids[101:104]]
    found = []
    for item_id in left:
        await stage.queue.cancel(item_id, "", "", "operator:eve")
        found.append(len(await gaps(stage)))
        assert await told(stage, ids) == await positions_by_rank(stage)
    assert found == [*range(1, 101), 100, 37, 2, 3, 3, 3, 3]
    assert await stage.client.hget(stage.key("state"), "front") == b"104"


async def test_a_new_line_begins_without_gaps(stage: Stage, queue: BookingQueue):
    ids = await stage.join_many(30)
    for item_id in reversed(ids):
        await queue.cancel(item_id, "", "", "operator:eve")
    assert len(await gaps(stage)) == 29
    last = await stage.join_one()
    assert await gaps(stage) == []
    assert await told(stage, [*ids, last]) == [(last, 1)]


async def test_without_a_known_front_ranks_are_told_until_the_line_was_empty(
    stage: Stage, queue: BookingQueue
):
    ids = await stage.join_many(6)
    await queue.cancel(ids[2], "", "", "operator:eve")
    await stage.client.delete(stage.key("gaps"))
    assert len(await told(stage, ids)) == 5
    assert await told(stage, ids) != await positions_by_rank(stage), "the gaps are what counts"
    await stage.client.hdel(stage.key("state"), "front")
    await queue.cancel(ids[4], "", "", "operator:eve")
    assert await told(stage, ids) == [(ids[0], 1), (ids[1], 2), (ids[3], 3), (ids[5], 4)]
    for at in (0, 1, 3, 5):
        await queue.cancel(ids[at], "", "", "operator:eve")
    assert await gaps(stage) == []
    ids = await stage.join_many(3)
    assert await stage.client.hget(stage.key("state"), "front") == b"6"
    assert await told(stage, ids) == await positions_by_rank(stage)


async def test_nothing_is_written(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one()
    before = await stage.client.info("persistence")
    await queue.positions(EVENT, [item_id])
    after = await stage.client.info("persistence")
    assert after["rdb_changes_since_last_save"] == before["rdb_changes_since_last_save"]
