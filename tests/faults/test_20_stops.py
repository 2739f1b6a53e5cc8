"""Fault 20: SIGTERM under load, a rolling restart, a second SIGTERM, a grace that is too short."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import grpc
import grpc.aio
import pytest

from booking_worker.domain.model import Status
from booking_worker.sandbox.journal import is_admission
from tests.support.engines import FIRST_ENGINE, STANDALONE
from tests.support.shop import EVENT, Shop, read_journal
from tests.support.wait import wait_until

pytestmark = pytest.mark.parametrize(
    "engine", [*FIRST_ENGINE, STANDALONE], ids=lambda kind: kind.name, indirect=True
)

TICKETS: Final = 40
BUYERS: Final = 60
SLOTS: Final = 5
SETTINGS: Final[dict[str, Any]] = {
    # What is not handed back at once is missed for half a minute.
    "worker_lease_seconds": 30,
    "worker_pool_size": SLOTS,
    "peer_timeout_seconds": 20,
}
AT_ONCE_SECONDS: Final = 3.0


@pytest.fixture
def tickets() -> int:
    return TICKETS


async def admitted(shop: Shop) -> int:
    return (await shop.queue.status(EVENT)).admitted


async def under_load(shop: Shop, latency_ms: float, *without: str, **settings: Any) -> list[str]:
    """Some have been admitted, and calls are under way, by the one replica there is."""
    shop.sandbox.booking_faults.latency_ms = latency_ms
    await shop.open(*without, **{**SETTINGS, **settings})
    ids = await shop.join_many(BUYERS)
    await wait_until(lambda: admitted(shop))
    return ids


async def numbers_as_admitted(shop: Shop) -> list[int]:
    lines = read_journal(shop.directory.glob("*.audit"))
    return list(dict.fromkeys(line.seq for line in lines if is_admission(line)))


async def untouched(shop: Shop, ids: list[str]) -> None:
    """Nobody lost an attempt or a place."""
    items = [await shop.queue.item(item_id) for item_id in ids]
    assert {(item.attempts, item.crashes) for item in items} == {(0, 0)}
    assert [item.seq for item in items] == list(range(1, len(ids) + 1))


async def test_it_finishes_what_it_has_in_hand_and_claims_no_more(shop: Shop):
    ids = await under_load(shop, 200)
    (replica,) = shop.replicas
    await wait_until(lambda: shop.ledger().creates)
    replica.terminate()
    assert await replica.ended() == 0
    status = await shop.queue.status(EVENT)
    assert status.processing == 0
    # The round that was in hand, and the one that may have begun as the signal came.
    assert status.awaiting_payment == shop.ledger().creates <= 4 * SLOTS
    await untouched(shop, ids)
    shop.sandbox.booking_faults.latency_ms = 0
    await shop.open(**SETTINGS)
    await shop.sell()
    assert await shop.statuses() == ["completed"] * TICKETS + ["sold_out"] * (BUYERS - TICKETS)
    assert await numbers_as_admitted(shop) == list(range(1, TICKETS + 1))
    await shop.kept()


async def grace_too_short(shop: Shop, *without: str) -> list[str]:
    """It is told to end while its calls take far longer than its grace; another is there."""
    ids = await under_load(shop, 15_000, *without, shutdown_grace_seconds=0.1)
    (replica,) = shop.replicas
    began = time.monotonic()
    assert await replica.stop() == 0
    assert time.monotonic() - began < AT_ONCE_SECONDS
    await untouched(shop, ids)
    shop.sandbox.booking_faults.latency_ms = 0
    await shop.open(*without, **SETTINGS)
    return ids


async def test_what_does_not_end_in_time_is_handed_back_at_once(shop: Shop):
    ids = await grace_too_short(shop)
    await shop.until(Status.AWAITING_PAYMENT, ids[:TICKETS], timeout=AT_ONCE_SECONDS)
    await shop.sell()
    assert await numbers_as_admitted(shop) == list(range(1, TICKETS + 1))
    await shop.kept()


async def test_it_is_missed_until_its_lease_ends_without_handing_back(shop: Shop):
    ids = await grace_too_short(shop, "handing back")
    await shop.until(Status.AWAITING_PAYMENT, ids[SLOTS:TICKETS], timeout=AT_ONCE_SECONDS)
    assert await shop.statuses(ids[:SLOTS]) == [Status.PROCESSING] * SLOTS


async def test_a_second_sigterm_ends_it_at_once_and_nothing_is_lost(shop: Shop):
    ids = await under_load(
        shop, 15_000, shutdown_grace_seconds=20, worker_lease_seconds=3, peer_timeout_seconds=2.5
    )
    (replica,) = shop.replicas
    replica.terminate()
    await wait_until(lambda: replica.logged('"stopping"'))
    began = time.monotonic()
    replica.terminate()
    assert await replica.ended() not in {0, None}
    assert time.monotonic() - began < 1
    shop.sandbox.booking_faults.latency_ms = 0
    await shop.open(**SETTINGS)
    await shop.until(Status.AWAITING_PAYMENT, ids[:TICKETS])
    await shop.sell()
    await shop.kept()


async def test_a_rolling_restart_of_all_replicas_in_the_midst_of_a_sale(shop: Shop):
    shop.sandbox.booking_faults.latency_ms = 40
    for _ in range(2):
        await shop.open(**SETTINGS)
    ids = await shop.join_many(BUYERS)
    unheard = 0

    async def keep_asking() -> None:
        """A gateway that always finds a replica that answers."""
        nonlocal unheard
        while True:
            replica = shop.replicas[-1]
            try:
                await shop.join("user-00000", via=replica, timeout=5)
            except grpc.aio.AioRpcError:
                unheard += 1
            await asyncio.sleep(0.01)

    asking = asyncio.ensure_future(keep_asking())
    for number in range(2):
        await shop.open(**SETTINGS)
        assert await shop.replicas[number].stop() == 0
        await untouched(shop, ids)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert unheard == 0
    shop.sandbox.booking_faults.latency_ms = 0
    # Far less than a lease: nothing had to wait for one to end.
    await shop.sell(timeout=10)
    assert await shop.statuses() == ["completed"] * TICKETS + ["sold_out"] * (BUYERS - TICKETS)
    assert await numbers_as_admitted(shop) == list(range(1, TICKETS + 1))
    await shop.kept()
