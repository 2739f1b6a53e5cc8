"""Fault 13: payments that come twice, replayed, and out of order: the first counts."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest

from booking_worker.domain.model import Status
from tests.support.shop import Shop

PAYMENT_MS = 60_000


async def payment_of(shop: Shop, item_id: str) -> str:
    """The payment that the Booking Service was told of."""
    (place,) = (await shop.places([item_id])).values()
    assert place is not None
    booking = shop.sandbox.ledger.get(place.booking_id).booking
    assert booking is not None
    return booking.payment_reference


async def refused(shop: Shop, item_id: str, reference: str) -> bool:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shop.pay(item_id, reference)
    return caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_many_payments_at_once_and_again_are_one_with_one_answer(shop: Shop):
    replicas = [await shop.open(), await shop.open()]
    item_id = await shop.join("ann")
    await shop.until(Status.AWAITING_PAYMENT)
    answers = await asyncio.gather(
        *(
            shop.pay(item_id, f"payment-{number % 5}", via=replicas[number % 2])
            for number in range(40)
        )
    )
    first = await payment_of(shop, item_id)
    answers += [await shop.pay(item_id, "payment-9"), await shop.pay(item_id, first)]
    assert {answer.status for answer in answers} == {Status.COMPLETED}
    (_,) = {answer.booking_reference for answer in answers}
    assert await payment_of(shop, item_id) == first
    ledger = shop.ledger()
    assert (ledger.confirmed, ledger.confirmed_twice) == (1, 0)
    await shop.kept()


@pytest.mark.parametrize("tickets", [1])
async def test_a_payment_out_of_order_has_no_effect(shop: Shop):
    await shop.clock.start()
    await shop.open(moves_clock=True)
    late = await shop.join("late")
    early = await shop.join("early")
    await shop.until(Status.AWAITING_PAYMENT, [late])
    assert await refused(shop, early, "before its turn")
    await shop.clock.advance(PAYMENT_MS)
    await shop.until(Status.AWAITING_PAYMENT, [early])
    assert await refused(shop, late, "after its time")
    assert (await shop.pay(early, "in time")).status == Status.COMPLETED
    assert await payment_of(shop, early) == "in time"
    assert await shop.statuses([late, early]) == [Status.EXPIRED, Status.COMPLETED]
    await shop.kept()


async def first_and_second(shop: Shop, *without: str) -> str:
    """Which of two payments counts that were announced before a worker could look."""
    replica = await shop.open()
    item_id = await shop.join("ann")
    await shop.until(Status.AWAITING_PAYMENT)
    replica.freeze()
    hand = shop.hand(*without)
    for reference in ("first", "second"):
        assert await hand.ask_confirm(item_id, "ann", reference) is Status.CONFIRMING
    replica.thaw()
    await shop.until(Status.COMPLETED)
    return await payment_of(shop, item_id)


async def test_the_first_payment_counts(shop: Shop):
    assert await first_and_second(shop) == "first"
    await shop.kept()


async def test_the_last_payment_counts_without_the_guard(shop: Shop):
    assert await first_and_second(shop, "the first payment") == "second"
