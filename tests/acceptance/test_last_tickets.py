"""A hundred slots in parallel, and far fewer tickets than people."""

from __future__ import annotations

from collections import Counter

import pytest

from booking_worker.domain.model import Status
from tests.support.shop import EVENT, Shop
from tests.support.wait import wait_until

SLOTS = 100
BUYERS = 1_000


async def one_hundred_slots(shop: Shop, people: int, *without: str) -> list[str]:
    """All join, and only then the slots of two replicas fall upon them."""
    shop.sandbox.booking_faults.latency_ms = 20
    replicas = [await shop.open(*without, worker_pool_size=SLOTS // 2) for _ in range(2)]
    replicas[1].freeze()
    ids = await shop.join_many(people, via=replicas[0])
    replicas[1].thaw()
    return ids


@pytest.mark.parametrize("tickets", [10])
async def test_exactly_the_first_ten_in_line_get_the_last_ten_tickets(shop: Shop):
    ids = await one_hundred_slots(shop, 200)
    await shop.until(Status.AWAITING_PAYMENT, ids[:10])
    assert shop.booked().keys() == set(ids[:10])
    await shop.sell()
    assert await shop.statuses() == ["completed"] * 10 + ["sold_out"] * 190
    assert shop.ledger().refusals == 0
    await shop.kept()


@pytest.mark.parametrize("tickets", [10])
async def test_many_more_are_let_in_without_the_capacity_step(shop: Shop):
    await one_hundred_slots(shop, 200, "the capacity step")
    await wait_until(lambda: shop.ledger().refusals)


@pytest.mark.parametrize("tickets", [100])
async def test_of_a_thousand_people_900_are_told_that_it_is_sold_out(shop: Shop):
    await shop.open(worker_pool_size=SLOTS)
    ids = await shop.join_many(BUYERS)
    await shop.until(Status.AWAITING_PAYMENT, ids[:100])
    # While holds are open the line is kept.
    assert set(await shop.statuses(ids[100:])) == {Status.WAITING}
    await shop.sell()
    assert Counter(await shop.statuses(ids[:100])) == {Status.COMPLETED: 100}
    assert Counter(await shop.statuses(ids[100:])) == {Status.SOLD_OUT: 900}
    assert shop.ledger().refusals == 0
    await shop.kept()
    # One broadcast for the event, and not a call for each of the 900.
    told = shop.sandbox.notices
    assert [told.type for told in told.to_room(f"event:{EVENT}")] == ["booking:sold_out"]
    assert sum(told.counts.values()) == 1 + 100 + 100


@pytest.mark.parametrize("tickets", [100])
async def test_an_unpaid_ticket_goes_to_the_next_in_line_before_anybody_is_sent_home(shop: Shop):
    await shop.clock.start()
    await shop.open(moves_clock=True, worker_lease_seconds=30)
    ids = await shop.join_many(BUYERS)
    await shop.until(Status.AWAITING_PAYMENT, ids[:100])
    for item_id in ids[:50]:
        await shop.pay(item_id)
    await shop.clock.advance(60_000)
    await shop.until(Status.AWAITING_PAYMENT, ids[100:150])
    await shop.sell()
    assert Counter(await shop.statuses()) == {
        Status.COMPLETED: 100,
        Status.EXPIRED: 50,
        Status.SOLD_OUT: 850,
    }
    await shop.kept()
