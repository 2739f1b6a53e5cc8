"""Fault 12: a payment against the end of its hold, at -1, 0 and +1 ms, and after the ticket went on.

The rule for the exact instant: a hold is over at its deadline, not after it. At that very
millisecond expiry has won.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final

import pytest

from booking_worker.domain.errors import WrongStatus
from booking_worker.domain.model import Status
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.shop import EVENT, Shop
from tests.support.wait import wait_until

HOLD_MS: Final = 60_000
BUYERS: Final = 350
PAYERS: Final = 50
ROUNDS: Final = 3


async def held(shop: Shop, number: int, name: str) -> list[str]:
    """So many people at the till, whose holds end in the same millisecond."""
    ids = await shop.join_many(number, name=name)
    await shop.until(Status.AWAITING_PAYMENT, ids)
    return ids


async def pay(shop: Shop, hand: BookingQueue, item_id: str) -> bool:
    """Whether the payment was taken; the other hears that it was too late."""
    try:
        status = await hand.ask_confirm(item_id, shop.owners[item_id], f"pay-{item_id}")
    except WrongStatus as error:
        assert error.status == Status.EXPIRED  # noqa: PT017 - the fact that counts
        return False
    assert status in {Status.CONFIRMING, Status.COMPLETED}
    return True


async def race(
    shop: Shop, hand: BookingQueue, ids: Sequence[str], steps: Sequence[int] = ()
) -> list[bool]:
    """Payments and expiry interleaved at random, while the clock makes these steps."""
    rng = random.Random(len(shop.owners))
    order = list(ids)
    rng.shuffle(order)
    heard: dict[str, bool] = {}
    later = list(steps)

    async def payer() -> None:
        while order:
            item_id = order.pop()
            heard[item_id] = await pay(shop, hand, item_id)
            if rng.random() < 0.1:
                await hand.expire(EVENT, rng.randint(1, 40))
            if later and len(heard) > len(ids) * (len(steps) - len(later) + 1) / (len(steps) + 1):
                await shop.clock.advance(later.pop(0))

    await asyncio.gather(*(payer() for _ in range(PAYERS)))
    await hand.expire(EVENT)
    return [heard[item_id] for item_id in ids]


async def as_they_heard(shop: Shop, ids: Sequence[str], heard: Sequence[bool]) -> list[str]:
    """Who ended otherwise than they heard."""
    places = await shop.places(ids)
    wanted = {True: Status.COMPLETED, False: Status.EXPIRED}
    return [
        f"{item_id}: {place and place.status}, heard {taken}"
        for (item_id, place), taken in zip(places.items(), heard, strict=True)
        if place is None or place.status is not wanted[taken]
    ]


@pytest.mark.parametrize("tickets", [10_000])
async def test_exactly_one_wins_and_the_other_hears_of_it(shop: Shop):
    await shop.clock.start()
    await shop.open(moves_clock=True, worker_pool_size=50, worker_lease_seconds=20)
    for offset, payment_wins in ((-1, True), (0, False), (1, False)):
        ids = await held(shop, BUYERS, f"at{offset}")
        await shop.clock.advance(HOLD_MS + offset)
        heard = await race(shop, shop.queue, ids)
        assert heard == [payment_wins] * BUYERS
        await shop.until({Status.COMPLETED, Status.EXPIRED}, ids)
        assert await as_they_heard(shop, ids, heard) == []
    for number in range(ROUNDS):
        ids = await held(shop, BUYERS, f"round-{number}")
        await shop.clock.advance(HOLD_MS - 2)
        heard = await race(shop, shop.queue, ids, steps=[1, 1, 1, 1])
        assert set(heard) == {True, False}
        await shop.until({Status.COMPLETED, Status.EXPIRED}, ids)
        assert await as_they_heard(shop, ids, heard) == []
    await shop.kept()


async def test_after_the_deadline_a_payment_is_taken_without_the_check_of_it(shop: Shop):
    await shop.clock.start()
    replica = await shop.open("the deadline", moves_clock=True)
    ids = await held(shop, 20, "late")
    replica.freeze()
    await shop.clock.advance(HOLD_MS + 1)
    heard = await asyncio.gather(*(pay(shop, shop.hand("the deadline"), one) for one in ids))
    assert any(heard)


async def test_who_heard_of_success_gets_nothing_without_the_check_of_the_status(shop: Shop):
    await shop.clock.start()
    await shop.open("the check of the status", moves_clock=True)
    hand = shop.hand("the check of the status")
    ids = await held(shop, 20, "buyer")
    shop.sandbox.booking_faults.latency_ms = 300
    await shop.clock.advance(HOLD_MS)
    # Given back already, but the workers have not heard of it yet.
    await wait_until(lambda: shop.ledger().cancelled)
    heard = await race(shop, hand, ids)
    shop.sandbox.booking_faults.latency_ms = 0
    await shop.clock.advance(2_000)
    await shop.until({Status.COMPLETED, Status.EXPIRED}, ids)
    assert await as_they_heard(shop, ids, heard)


@pytest.mark.parametrize("tickets", [3])
async def test_a_payment_after_the_ticket_went_on_is_refused(shop: Shop):
    await shop.clock.start()
    await shop.open(moves_clock=True)
    late = await held(shop, 3, "late")
    others = await shop.join_many(3, name="next")
    await shop.clock.advance(HOLD_MS)
    await shop.until(Status.AWAITING_PAYMENT, others)
    assert (
        await asyncio.gather(*(pay(shop, shop.queue, item_id) for item_id in late)) == [False] * 3
    )
    await shop.sell()
    assert await shop.statuses(late) == [Status.EXPIRED] * 3
    assert await shop.statuses(others) == [Status.COMPLETED] * 3
    await shop.kept()
