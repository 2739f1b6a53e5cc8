"""Fault 8: two indexes disagree, as entries of them were removed by hand."""

from __future__ import annotations

from typing import Any, Final

import pytest

from booking_worker.domain.model import FINAL, Status
from booking_worker.queue import keys
from tests.support import queue_audit
from tests.support.replica import Replica
from tests.support.shop import EVENT, Shop
from tests.support.stage import a_join
from tests.support.wait import wait_until

KEYS: Final = keys.of_event(EVENT)
SETTINGS: Final[dict[str, Any]] = {
    "worker_lease_seconds": 0.8,
    "peer_timeout_seconds": 0.3,
    "queue_cleanup_interval": 0.2,
    # Longer than the lock of the replica that dies: nothing has changed by itself until the sweep.
    "payment_timeout_seconds": 6,
}
DAMAGES: Final = 9


@pytest.fixture
def tickets() -> int:
    return 4


class Damaged:
    """A sale of which every index lost an entry, and holds one that it shouldn't."""

    def __init__(self, shop: Shop, replica: Replica) -> None:
        self.shop = shop
        self.replica = replica
        self.leased = self.unpaid = self.paying = self.unlisted = ""
        self.next = self.impatient = self.forgotten = ""


async def damaged(shop: Shop, *without: str) -> Damaged:
    """Bring four people to their tickets, and three behind them; then spoil the indexes."""
    client = shop.client
    doomed = await shop.open(*without, **SETTINGS)
    sale = Damaged(shop, doomed)
    sale.unpaid, sale.paying, sale.unlisted = await shop.join_many(3, name="held")
    await shop.until(Status.AWAITING_PAYMENT)
    # One is being reserved by a worker that dies over it.
    shop.sandbox.booking_faults.latency_ms = 5_000
    sale.leased = await shop.join("leased")
    await shop.until(Status.PROCESSING, [sale.leased])
    await doomed.kill()
    shop.sandbox.booking_faults.latency_ms = 0
    for name in ("next", "impatient", "forgotten"):
        join = a_join(name)
        await shop.queue.join(EVENT, [join])
        setattr(sale, name, shop.took(join.item_id, name))
    await shop.queue.ask_confirm(sale.paying, shop.owners[sale.paying], "paid")

    assert await client.zrem(KEYS["timeouts"], sale.leased, sale.unpaid, sale.forgotten) == 3
    assert await client.zrem(KEYS["tasks"], sale.paying) == 1
    assert await client.zrem(KEYS["positions"], sale.next) == 1
    assert await client.zrem(KEYS["admitted"], sale.unlisted) == 1
    assert await client.hdel(KEYS["users"], "impatient") == 1
    await client.zadd(KEYS["admitted"], {"nobody.concert": 1})
    await client.hset(KEYS["users"], "nobody", "nobody.concert")
    assert await queue_audit.problems_of(client, EVENT)
    sale.replica = await shop.open(*without, **SETTINGS)
    return sale


async def mended(sale: Damaged) -> bool:
    return await sale.replica.metric("booking_worker_sweep_repairs_total") >= DAMAGES


async def test_the_sweep_finds_it_from_either_side_mends_it_and_counts_it(shop: Shop):
    sale = await damaged(shop)
    await wait_until(lambda: mended(sale))
    assert await shop.join("impatient") == sale.impatient
    await shop.sell(unpaid=[sale.unpaid])
    ended = [sale.leased, sale.unlisted, sale.paying, sale.unpaid, sale.next]
    assert await shop.statuses(ended) == [*["completed"] * 3, "expired", "completed"]
    assert await shop.statuses([sale.impatient, sale.forgotten]) == ["sold_out"] * 2
    assert sale.replica.logged('"mended"') == DAMAGES
    await shop.kept()


async def test_who_lost_an_entry_is_stuck_without_the_sweep(shop: Shop):
    sale = await damaged(shop, "the sweep")
    with pytest.raises(AssertionError, match="not within"):
        await shop.sell(unpaid=[sale.unpaid], timeout=2.5)
    stuck = [sale.leased, sale.unpaid, sale.paying, sale.next]
    assert not FINAL.intersection(await shop.statuses(stuck))
    assert await sale.replica.metric("booking_worker_sweep_repairs_total") == 0


async def test_who_lost_their_entry_gets_a_second_place_without_the_sweep(shop: Shop):
    sale = await damaged(shop, "the sweep")
    assert await shop.join("impatient") != sale.impatient
    assert any("one place each" in one for one in await shop.broken())
