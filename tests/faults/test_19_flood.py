"""Fault 19: ten times as many joins as the line takes, and one more than fits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

from booking_worker.domain.model import Status
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.queue import keys
from tests.support.api import detail
from tests.support.shop import EVENT, Shop

FITS: Final = 100
FLOOD: Final = 1_000
TICKETS: Final = 20
FAST_SECONDS: Final = 0.5


@pytest.fixture
def tickets() -> int:
    return TICKETS


async def holders(shop: Shop, *without: str) -> list[str]:
    """All tickets are held; nobody waits yet."""
    await shop.open(*without, queue_max_size=FITS)
    ids = await shop.join_many(TICKETS, name="holder")
    await shop.until(Status.AWAITING_PAYMENT, ids)
    return ids


async def flood(shop: Shop, number: int) -> list[grpc.aio.AioRpcError]:
    """So many people join at once; the errors of those who were turned away."""
    outcomes = await asyncio.gather(
        *(shop.join(f"flood-{at}") for at in range(number)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert len(refused) + sum(isinstance(outcome, str) for outcome in outcomes) == number
    return refused


@asynccontextmanager
async def meanwhile(shop: Shop, item_id: str) -> AsyncIterator[list[float]]:
    """The seconds that each look at a position takes, one after another."""
    seconds: list[float] = []
    over = asyncio.Event()
    request = pb.GetQueuePositionRequest(queue_item_id=item_id, user_id=shop.owners[item_id])

    async def look() -> None:
        while not over.is_set():
            began = time.monotonic()
            await shop.via(None).GetQueuePosition(request)
            seconds.append(time.monotonic() - began)

    looking = asyncio.ensure_future(look())
    try:
        yield seconds
    finally:
        over.set()
        await looking


async def test_who_does_not_fit_is_turned_away_at_once_and_costs_nobody_anything(shop: Shop):
    ids = await holders(shop)
    payments: list[float] = []

    async def pay(item_id: str) -> None:
        began = time.monotonic()
        assert (await shop.pay(item_id)).status == Status.COMPLETED
        payments.append(time.monotonic() - began)

    async with meanwhile(shop, ids[0]) as looks:
        refused, *_ = await asyncio.gather(flood(shop, FLOOD), *map(pay, ids[: TICKETS // 2]))
    assert len(refused) == FLOOD - FITS
    for error in refused:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToTimedelta()
    assert max(payments) < FAST_SECONDS
    assert sorted(looks)[len(looks) * 95 // 100] < FAST_SECONDS
    for item_id in ids[TICKETS // 2 :]:
        await shop.cancel(item_id)
    await shop.sell()
    statuses = await shop.statuses()
    assert statuses.count("completed") == TICKETS
    assert statuses.count("sold_out") == FITS - TICKETS // 2
    await shop.kept()


async def test_turning_away_writes_nothing(shop: Shop):
    await holders(shop)
    await shop.join_many(FITS)
    before = await written(shop)
    assert len(await flood(shop, 50)) == 50
    assert await written(shop) == before


async def written(shop: Shop) -> tuple[int, int]:
    """How many changes the event has had, and how many keys the engine has."""
    info = await shop.client.xinfo_stream(keys.of_event(EVENT)["changes"])
    return info["entries-added"], await shop.client.dbsize()


async def test_the_line_takes_as_many_as_it_says_and_not_one_more(shop: Shop):
    await holders(shop)
    ids = await shop.join_many(FITS)
    (error,) = await flood(shop, 1)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await shop.cancel(ids[50])
    assert await flood(shop, 1) == []
    assert await shop.join("user-00000") == ids[0]
    await shop.sell()
    await shop.kept()


async def test_it_takes_any_number_without_the_guard(shop: Shop):
    await holders(shop, "the longest line")
    assert await flood(shop, FITS + 10) == []
