"""Fault 17: an item whose worker crashes, hangs or dies over it, every time; and deploys."""

from __future__ import annotations

from typing import Any, Final

import pytest

from booking_worker.domain.model import ItemRecord, Status
from tests.support.guards import POISONED
from tests.support.shop import EVENT, Shop
from tests.support.wait import wait_until

OTHERS: Final = 5
SETTINGS: Final[dict[str, Any]] = {
    "worker_lease_seconds": 0.8,
    "peer_timeout_seconds": 0.3,
    "worker_max_retries": 2,
    "worker_retry_interval": 0.02,
}


@pytest.fixture
def tickets() -> int:
    return OTHERS


async def in_line(shop: Shop) -> tuple[str, list[str]]:
    """The poison at the head, which takes two seats, and others behind it for all seats."""
    poison = await shop.join(POISONED, seats=2)
    return poison, await shop.join_many(OTHERS)


@pytest.mark.parametrize("poison", ["crashes", "hangs"])
async def test_it_is_a_dead_letter_soon_and_blocks_nobody(shop: Shop, poison: str):
    replica = await shop.open(f"poison that {poison}", **SETTINGS)
    item_id, others = await in_line(shop)
    # Those for whom seats are left besides the poison's do not wait for its end.
    await shop.until(Status.AWAITING_PAYMENT, others[: OTHERS - 2])
    await shop.until(Status.FAILED, [item_id])
    item = await shop.queue.item(item_id)
    assert (item.attempts, item.crashes) == ((3, 0) if poison == "crashes" else (0, 3))
    # The others get its seats.
    await shop.sell()
    assert set(await shop.statuses(others)) == {Status.COMPLETED}
    assert (await shop.queue.list_items(EVENT, "dead", 0, 10))[0].item_id == item_id
    if poison == "crashes":
        assert replica.logged("a task crashed") == 3
    await shop.kept()


async def test_it_never_ends_without_the_bound(shop: Shop):
    await shop.open("poison that hangs", "the bound on crashes", **SETTINGS)
    item_id, _ = await in_line(shop)

    async def crashes_more_than_it_may() -> bool:
        return (await shop.queue.item(item_id)).crashes > 3

    await wait_until(crashes_more_than_it_may)
    assert await shop.statuses([item_id]) == [Status.PROCESSING]


async def three_processes_die(shop: Shop, slots: int, *without: str) -> tuple[str, list[str]]:
    """The poison kills whoever works on it; the fourth process is rid of it."""
    settings = {**SETTINGS, "worker_pool_size": slots}
    first = await shop.open("poison that kills", *without, **settings)
    item_id, others = await in_line(shop)
    assert await first.ended() == -9
    for _ in range(2):
        again = await shop.open("poison that kills", *without, **settings)
        assert await again.ended() == -9
    await shop.open("poison that kills", *without, **settings)
    await shop.until(Status.FAILED, [item_id])
    await shop.sell()
    return item_id, others


async def test_a_process_that_it_kills_three_times_is_rid_of_it(shop: Shop):
    _, others = await three_processes_die(shop, slots=1)
    assert set(await shop.statuses(others)) == {Status.COMPLETED}
    await shop.kept()


async def test_it_takes_nobody_with_it_who_was_worked_on_beside_it(shop: Shop):
    _, others = await three_processes_die(shop, slots=20)
    assert set(await shop.statuses(others)) == {Status.COMPLETED}
    await shop.kept()


async def test_it_takes_others_with_it_without_the_suspicion(shop: Shop):
    _, others = await three_processes_die(shop, 20, "the suspicion")
    assert Status.FAILED in await shop.statuses(others)


async def after_three_deploys(shop: Shop, *without: str) -> ItemRecord:
    """An item whose call was under way each time that the service was replaced, without grace."""
    shop.sandbox.booking_faults.lost_answer_rate = 1
    shop.sandbox.booking_faults.hang_share = 1
    item_id = ""
    for number in range(3):
        replica = await shop.open(*without, shutdown_grace_seconds=0)
        item_id = item_id or await shop.join("ann")
        await wait_until(lambda: shop.ledger().lost_answers > number)  # noqa: B023 - awaited here
        assert await replica.stop() == 0
    shop.sandbox.booking_faults.lost_answer_rate = 0
    return await shop.queue.item(item_id)


async def test_a_deploy_uses_up_nobodys_attempts(shop: Shop):
    item = await after_three_deploys(shop)
    assert (item.attempts, item.crashes) == (0, 0)
    await shop.open()
    await shop.sell()
    ledger = shop.ledger()
    assert (ledger.creates, ledger.repeats, ledger.sold) == (1, 3, 1)
    await shop.kept()


async def test_a_deploy_uses_up_attempts_without_the_guard(shop: Shop):
    assert (await after_three_deploys(shop, "no attempt used up")).crashes == 3
