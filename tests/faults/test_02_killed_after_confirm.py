"""Fault 2: a worker is killed (-9) after ConfirmBooking took effect, before the settle."""

from __future__ import annotations

import asyncio

from booking_worker.domain.model import Status
from tests.support.shop import Shop
from tests.support.wait import wait_until

PAYMENT_MS = 60_000
LEASE_SECONDS = 5


async def killed_after_confirm(shop: Shop, *without: str) -> list[str]:
    """Three have paid and been confirmed, nobody heard, and then their holds' time is up."""
    await shop.clock.start()
    settings = {"moves_clock": True, "worker_lease_seconds": LEASE_SECONDS}
    other = await shop.open(*without, **settings)
    doomed = await shop.open(*without, **settings)
    ids = await shop.join_many(3)
    await shop.until(Status.AWAITING_PAYMENT)
    other.freeze()
    shop.sandbox.booking_faults.lost_answer_rate = 1
    shop.sandbox.booking_faults.hang_share = 1
    payments = [asyncio.ensure_future(shop.pay(item_id, via=doomed)) for item_id in ids]
    await wait_until(lambda: shop.ledger().confirmed == 3)
    await doomed.kill()
    # Cut off, or, on a slow machine, told after three seconds that it is not done yet.
    assert all(
        isinstance(one, BaseException) or one.status == "confirming"
        for one in await asyncio.gather(*payments, return_exceptions=True)
    )
    shop.sandbox.booking_faults.lost_answer_rate = 0
    await shop.clock.advance(PAYMENT_MS)
    other.thaw()
    return ids


async def test_it_is_found_confirmed_and_neither_charged_twice_nor_expired(shop: Shop):
    ids = await killed_after_confirm(shop)
    await shop.until(Status.COMPLETED)
    ledger = shop.ledger()
    assert (ledger.confirmed, ledger.confirmed_twice) == (3, 0)
    for item_id in ids:
        place = (await shop.places([item_id]))[item_id]
        assert place is not None
        booking = shop.sandbox.ledger.get(place.booking_id).booking
        assert booking is not None
        assert booking.payment_reference == f"pay-{item_id}"
        assert (await shop.pay(item_id)).booking_reference == booking.reference
    await shop.kept()


async def test_who_paid_is_left_without_a_ticket_when_confirms_are_not_protected_from_expiry(
    shop: Shop,
):
    await killed_after_confirm(shop, "a confirm's protection from expiry")
    await shop.until(Status.EXPIRED)
    assert any("is confirmed; its item" in one for one in await shop.broken())
