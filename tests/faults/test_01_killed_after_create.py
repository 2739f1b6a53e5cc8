"""Fault 1: a worker is killed (-9) after the Booking Service made the booking, before the settle."""

from __future__ import annotations

import time

import pytest

from booking_worker.domain.model import Status
from tests.support.shop import Shop
from tests.support.wait import wait_until

LEASE_SECONDS = 1.5
SETTINGS = {"worker_lease_seconds": LEASE_SECONDS, "peer_timeout_seconds": 1}
ACTED_ON_WITHIN_SECONDS = 1.0
SLACK_SECONDS = 1.5  # of a machine that is busy with other things


async def killed_after_create(shop: Shop, *without: str) -> tuple[list[str], float]:
    """Three bookings are made, and nobody hears of it; another worker is there.

    Answers who is in line, and when the worker was killed.
    """
    other = await shop.open(*without, **SETTINGS)
    other.freeze()
    doomed = await shop.open(*without, **SETTINGS, worker_pool_size=3)
    shop.sandbox.booking_faults.lost_answer_rate = 1
    shop.sandbox.booking_faults.hang_share = 1
    ids = await shop.join_many(5, via=doomed)
    await wait_until(lambda: shop.ledger().creates == 3)
    await doomed.kill()
    killed_at = time.monotonic()
    shop.sandbox.booking_faults.lost_answer_rate = 0
    other.thaw()
    return ids, killed_at


@pytest.mark.parametrize("tickets", [3])
async def test_another_worker_finds_the_booking_that_was_made(shop: Shop):
    ids, killed_at = await killed_after_create(shop)
    await shop.until(Status.AWAITING_PAYMENT, ids[:3])
    seconds = time.monotonic() - killed_at
    assert seconds < LEASE_SECONDS + ACTED_ON_WITHIN_SECONDS + SLACK_SECONDS
    ledger = shop.ledger()
    assert (ledger.creates, ledger.repeats, ledger.refusals) == (3, 3, 0)
    await shop.sell()
    assert await shop.statuses() == ["completed"] * 3 + ["sold_out"] * 2
    await shop.kept()


async def test_it_books_twice_without_the_idempotency_key(shop: Shop):
    ids, _ = await killed_after_create(shop, "the idempotency key")
    await shop.until(Status.AWAITING_PAYMENT, ids)
    await shop.sell()
    assert any("one booking each" in one for one in await shop.broken())


async def test_it_is_stuck_without_the_end_of_its_lease(shop: Shop):
    ids, _ = await killed_after_create(shop, "the lease's end")
    await shop.until(Status.AWAITING_PAYMENT, ids[3:])
    with pytest.raises(AssertionError, match="processing"):
        await shop.until(
            Status.AWAITING_PAYMENT, ids, timeout=LEASE_SECONDS + ACTED_ON_WITHIN_SECONDS
        )
