"""Fault 15: a thousand holds expire at once, and a worker is killed in the midst of it."""

from __future__ import annotations

from typing import Any, Final

import pytest

from booking_worker.domain.model import Status
from booking_worker.sandbox import answering
from tests.support.shop import Shop
from tests.support.wait import wait_until

HOLD_MS: Final = 60_000
LEASE_SECONDS: Final = 20
SLOTS: Final = 40
OTHERS: Final = 4
"""Calls that no slot makes: questions for what is left, and notifications."""


async def all_holds_expire(
    shop: Shop, holds: int, *without: str, kill: bool = False, more: int = 0
) -> list[str]:
    """All tickets are held, and all holds end in one millisecond; others wait for two each.

    And more behind them, for whom nothing is left.
    """
    await shop.clock.start()
    settings: dict[str, Any] = {
        "moves_clock": True,
        "worker_lease_seconds": LEASE_SECONDS,
        "worker_pool_size": SLOTS,
    }
    doomed = await shop.open(*without, **settings)
    await shop.open(*without, **settings)
    shop.sandbox.ledger._reservations = not more
    late = await shop.join_many(holds, name="late")
    await shop.until(Status.AWAITING_PAYMENT, late)
    others = await shop.join_many(holds // 2, seats=2, name="next")
    await shop.join_many(more, name="more")
    if more:
        # What is left is heard late: until then only the books say how many may be let in.
        shop.sandbox.ticket_faults.latency_ms = 1_500
    await shop.clock.advance(HOLD_MS)
    if kill:
        await wait_until(lambda: shop.ledger().cancelled > holds // 4, every=0.001)
        await doomed.kill()
        await wait_until(lambda: _only_leases_are_left(shop))
        await shop.clock.advance(LEASE_SECONDS * 1000)
    await shop.until(Status.EXPIRED, late)
    return others


async def _only_leases_are_left(shop: Shop) -> bool:
    """Whether all is done that the one who lives can do before the leases of the dead end."""
    before = shop.ledger()
    events = await shop.queue.status("concert")
    return before.pending > 0 and events.processing <= SLOTS and before == shop.ledger()


@pytest.fixture
def most_at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The calls to the stand-ins that were under way at once, whenever there were more."""
    most = [0]
    now = 0
    begin, end = answering.Answering.begin, answering.Answering.end

    async def counted_begin(*arguments: Any) -> Any:
        nonlocal now
        now += 1
        most.append(max(now, most[-1]))
        return await begin(*arguments)

    async def counted_end(*arguments: Any) -> Any:
        nonlocal now
        try:
            return await end(*arguments)
        finally:
            now -= 1

    monkeypatch.setattr(answering.Answering, "begin", counted_begin)
    monkeypatch.setattr(answering.Answering, "end", counted_end)
    return most


@pytest.mark.parametrize("tickets", [1000])
async def test_every_seat_goes_to_exactly_the_next_in_order(
    shop: Shop, most_at_once: list[int], tickets: int
):
    others = await all_holds_expire(shop, tickets, kill=True)
    await shop.until(Status.AWAITING_PAYMENT, others)
    ledger = shop.ledger()
    assert (ledger.held, ledger.refusals, ledger.unreleased) == (tickets, 0, 0)
    assert ledger.creates == tickets + len(others)
    booked = [item_id for item_id, status in shop.booked().items() if status == "pending"]
    assert sorted(booked) == sorted(others)
    # The load is spread: never more at once than there are slots.
    assert 1 < most_at_once[-1] <= 2 * SLOTS + OTHERS
    await shop.sell()
    await shop.kept()


@pytest.mark.parametrize("tickets", [100])
async def test_more_are_admitted_than_can_be_sold_without_the_one_release(shop: Shop, tickets: int):
    await all_holds_expire(shop, tickets, "one release", more=50)
    await wait_until(lambda: shop.ledger().refusals)


@pytest.mark.parametrize("tickets", [100])
async def test_nobody_is_admitted_in_vain_with_it(shop: Shop, tickets: int):
    others = await all_holds_expire(shop, tickets, more=50)
    await shop.until(Status.AWAITING_PAYMENT, others)
    shop.sandbox.ticket_faults.latency_ms = 0
    await shop.sell()
    assert shop.ledger().refusals == 0
    await shop.kept()
