"""Fault 3: a worker is stopped for longer than its lease, and goes on when another has its task.

With the engine that several replicas share comes the rest of it; the guard is here already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import Held, Joined, Lease, Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.replica import Replica
from tests.support.shop import EVENT, Shop
from tests.support.stage import a_join
from tests.support.wait import wait_until

Answer = Callable[[BookingQueue, Lease], Awaitable[object]]

ANSWERS: dict[str, Answer] = {
    "extend": lambda queue, lease: queue.extend(lease),
    "hand back": lambda queue, lease: queue.hand_back(lease, asked=False),
    "retry": lambda queue, lease: queue.settle_retry(lease, 0, "no answer"),
    "held": lambda queue, lease: queue.settle_held(lease, Held("B-other", "REF", None)),
    "short": lambda queue, lease: queue.settle_short(lease, "sold"),
    "rejected": lambda queue, lease: queue.settle_rejected(lease, "taken"),
}


async def zombie(shop: Shop, *without: str) -> tuple[BookingQueue, Lease]:
    """The old lease of a task that another worker has in hand by now: its booking is made."""
    hand = shop.hand(*without)
    replica = await shop.open(*without, moves_clock=True)
    replica.freeze()
    await shop.clock.start()
    (joined,) = await shop.queue.join(EVENT, [a_join("ann")])
    assert isinstance(joined, Joined)
    shop.took(joined.item_id, "ann")
    await hand.set_capacity(EVENT, await hand.ask_capacity(EVENT), 100)
    (lease,) = (await hand.claim(EVENT, "zombie", 1, frozenset({Task.RESERVE}))).leases
    shop.sandbox.booking_faults.latency_ms = 800
    await shop.clock.advance(2_000)
    replica.thaw()
    await wait_until(lambda: shop.ledger().creates == 1)
    return hand, lease


async def test_every_answer_under_the_old_lease_is_refused(shop: Shop):
    hand, lease = await zombie(shop)
    for answer in ANSWERS.values():
        with pytest.raises(Fenced):
            await answer(hand, lease)
    assert await shop.statuses() == [Status.PROCESSING]
    shop.sandbox.booking_faults.latency_ms = 0
    await shop.sell()
    assert await shop.statuses() == [Status.COMPLETED]
    await shop.kept()


async def test_the_zombies_word_counts_without_the_fencing_token(shop: Shop):
    hand, lease = await zombie(shop, "fencing")
    assert await ANSWERS["rejected"](hand, lease) is Status.REJECTED
    shop.sandbox.booking_faults.latency_ms = 0
    await shop.sell()
    assert any("holds tickets of" in one for one in await shop.broken())


async def leased(shop: Shop) -> dict[str, int]:
    """The tokens of all that is being reserved."""
    items = await shop.queue.list_items(EVENT, "admitted", 0, 500)
    return {item.item_id: item.token for item in items if item.status is Status.PROCESSING}


async def has_moved_on(shop: Shop, in_hand: dict[str, int]) -> bool:
    """Whether no lease of that time is left."""
    return not in_hand.items() & (await leased(shop)).items()


async def stop_for_longer_than_its_lease(shop: Shop, stopped: Replica, other: Replica) -> None:
    in_hand = await wait_until(lambda: leased(shop))
    stopped.freeze()
    selling = asyncio.ensure_future(shop.sell(via=other))
    await wait_until(lambda: has_moved_on(shop, in_hand), timeout=5)
    selling.cancel()
    await asyncio.gather(selling, return_exceptions=True)
    stopped.thaw()


async def test_stopped_processes_that_go_on_change_nothing(shop: Shop):
    """Really stopped, at whatever they were doing, while a lease is all that they have."""
    first = await shop.open(worker_lease_seconds=1, peer_timeout_seconds=0.5, worker_pool_size=10)
    second = await shop.open(worker_lease_seconds=1, peer_timeout_seconds=0.5, worker_pool_size=10)
    shop.sandbox.booking_faults.latency_ms = 250
    await shop.join_many(120)
    for stopped in (first, second):
        await stop_for_longer_than_its_lease(shop, stopped, second if stopped is first else first)
    shop.sandbox.booking_faults.latency_ms = 0
    await shop.sell()
    await shop.kept()
