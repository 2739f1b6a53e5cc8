"""Fault 14: cancels against claims, reserves, confirms and expiry."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final

import grpc
import grpc.aio
import pytest

from booking_worker.domain.model import FINAL, Status
from tests.support.shop import Shop

BUYERS: Final = 200
WITHIN_SECONDS: Final = 1.2


async def cancel_at_random(shop: Shop, ids: Sequence[str]) -> dict[str, bool]:
    """What each heard who cancelled, at whatever moment that was: yes, or that it is too late."""
    rng = random.Random(14)

    async def cancel(item_id: str, after_seconds: float) -> bool:
        await asyncio.sleep(after_seconds)
        try:
            return (await shop.cancel(item_id)).success
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            return False

    moments = [rng.random() * WITHIN_SECONDS for _ in ids]
    heard = await asyncio.gather(*map(cancel, ids, moments))
    return dict(zip(ids, heard, strict=True))


async def everybody_changes_their_mind(shop: Shop) -> dict[str, bool]:
    """A sale in which two of three cancel, some pay, and holds are short."""
    shop.sandbox.booking_faults.latency_ms = 30
    await shop.open(payment_timeout_seconds=0.4, worker_pool_size=10)
    await shop.open(payment_timeout_seconds=0.4, worker_pool_size=10)
    ids = await shop.join_many(BUYERS)
    leaving = [item_id for number, item_id in enumerate(ids) if number % 3]
    never = {item_id for number, item_id in enumerate(ids) if number % 6 == 4}
    heard, _ = await asyncio.gather(cancel_at_random(shop, leaving), shop.sell(unpaid=never))
    await shop.until(FINAL)
    return heard


async def otherwise(shop: Shop, heard: dict[str, bool]) -> list[str]:
    """Who was told that it is cancelled and has it, or that it is too late and is cancelled."""
    places = await shop.places(heard)
    return [
        f"{item_id} heard {heard[item_id]} and is {place and place.status}"
        for item_id, place in places.items()
        if place is None or (place.status is Status.CANCELLED) is not heard[item_id]
    ]


@pytest.mark.parametrize("tickets", [60])
async def test_either_it_is_cancelled_and_given_back_once_or_it_is_too_late(shop: Shop):
    heard = await everybody_changes_their_mind(shop)
    assert set(heard.values()) == {True, False}
    assert await otherwise(shop, heard) == []
    booked = shop.booked()
    cancelled = {booked[item_id] for item_id, yes in heard.items() if yes and item_id in booked}
    assert cancelled == {"cancelled"}
    ledger = shop.ledger()
    assert (ledger.refusals, ledger.unreleased) == (0, 0)
    await shop.kept()


async def cancelled_during_its_reserve(shop: Shop, *without: str) -> str:
    """What becomes of an item that was cancelled while its booking was being made."""
    shop.sandbox.booking_faults.latency_ms = 300
    await shop.open(*without)
    item_id = await shop.join("ann")
    await shop.until(Status.PROCESSING)
    assert (await shop.cancel(item_id)).success
    await shop.until({Status.CANCELLED, Status.AWAITING_PAYMENT})
    (status,) = await shop.statuses()
    return status


async def test_a_booking_that_is_made_meanwhile_is_released(shop: Shop):
    assert await cancelled_during_its_reserve(shop) == Status.CANCELLED
    ledger = shop.ledger()
    assert (ledger.creates, ledger.cancelled, ledger.unreleased) == (1, 1, 0)
    await shop.kept()


async def test_a_cancel_is_forgotten_without_its_mark(shop: Shop):
    status = await cancelled_during_its_reserve(shop, "the mark of a cancel")
    assert status == Status.AWAITING_PAYMENT
