from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from booking_worker.domain.errors import (
    EngineUnavailable,
    IdempotencyConflict,
    ItemNotFound,
    QueueFull,
)
from booking_worker.domain.model import Join, Joined, Status
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.queue.lane import PATIENCE_SECONDS
from tests.support.queue_fixtures import queue_engine as engine
from tests.support.stage import EVENT, Stage, a_join, nowhere

__all__ = ["engine"]  # each kind of them


async def test_outcomes_come_in_the_order_of_the_joins(stage: Stage):
    stage.limit(max_size=2)
    outcomes = await stage.join(
        a_join("a", key="k", digest="1"),
        a_join("a", key="k", digest="2"),
        a_join("b"),
        a_join("c"),
        a_join("b"),
    )
    assert [type(outcome) for outcome in outcomes] == [
        Joined, IdempotencyConflict, Joined, QueueFull, Joined,
    ]  # fmt: skip
    assert outcomes[4].item_id == outcomes[2].item_id


async def test_the_details_come_back_as_they_went(stage: Stage, queue: BookingQueue):
    join = a_join("ann", 2)
    await queue.join(EVENT, [join])
    await stage.capacity(5)
    (lease,) = await stage.claim()
    assert lease.details == join.details


@pytest.mark.parametrize("length", [0, 31, 32, 255, 256, 4_096, 70_000])
async def test_details_of_any_length(stage: Stage, queue: BookingQueue, length: int):
    join = Join(a_join().item_id, "ann", 1, b'["' + b"x" * length + b'",0,"",{}]')
    await queue.join(EVENT, [join])
    await stage.capacity(5)
    (lease,) = await stage.claim()
    assert lease.details == join.details


async def test_an_event_is_remembered_for_a_minute(
    stage: Stage, queue: BookingQueue, monkeypatch: pytest.MonkeyPatch
):
    await queue.join(EVENT, [a_join()])
    await stage.client.delete(keys.EVENTS)
    await queue.join(EVENT, [a_join()])
    assert await stage.listed() == []
    later = time.monotonic() + 60
    monkeypatch.setattr("booking_worker.queue.transitions.time.monotonic", lambda: later)
    await queue.join(EVENT, [a_join()])
    assert await stage.listed() == [EVENT]


async def test_a_join_that_cannot_be_remembered_is_not_taken():
    with pytest.raises(EngineUnavailable):
        await nowhere().join(EVENT, [a_join()])


async def test_no_engine_no_positions():
    with pytest.raises(EngineUnavailable):
        await nowhere().positions(EVENT, [a_join().item_id])


def until() -> float:
    return asyncio.get_running_loop().time() + PATIENCE_SECONDS


async def test_on_the_shortest_way_the_first_join_lists_its_event_too(
    stage: Stage, queue: BookingQueue
):
    for position, user in enumerate(("ann", "bob"), 1):
        taker: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        queue.ask_to_join(EVENT, [a_join(user)], taker, until())
        assert [one.position for one in await taker] == [position]
    assert await stage.client.zrange(keys.EVENTS, 0, -1) == [EVENT.encode()]


async def test_places_on_the_shortest_way(stage: Stage, queue: BookingQueue):
    ids = await stage.join_many(3)
    taker: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    queue.ask_positions(EVENT, [ids[2], ids[0]], taker, until())
    assert [place.position for place in await taker] == [3, 1]


async def test_the_first_join_on_the_shortest_way_hears_of_an_engine_that_is_away():
    queue = nowhere()
    taker: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    queue.ask_to_join(EVENT, [a_join()], taker, until())
    with pytest.raises(EngineUnavailable):
        await taker
    queue.ask_to_join(EVENT, [a_join()], taker, until())  # who needs it no more is not told
    await asyncio.gather(*queue._joining)


async def test_a_first_join_that_is_cancelled_cancels_its_taker(queue: BookingQueue):
    taker: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    queue.ask_to_join(EVENT, [a_join()], taker, until())
    (joining,) = queue._joining
    await asyncio.sleep(0)
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taker


async def test_no_item_no_event_no_question():
    """What was never an item id needs no engine to be refused."""
    with pytest.raises(ItemNotFound):
        await nowhere().cancel("nonsense", "ann", "", "user:ann")
    with pytest.raises(ItemNotFound):
        await nowhere().ask_confirm("nonsense", "ann", "PAY")


async def test_nobody_asks_for_nothing():
    assert await nowhere().join(EVENT, []) == []
    assert await nowhere().positions(EVENT, []) == []


async def test_places_come_in_the_order_of_the_question(stage: Stage, queue: BookingQueue):
    ids = await stage.join_many(3)
    await stage.capacity(5)
    (lease,) = await stage.claim()
    places = await queue.positions(EVENT, [ids[2], lease.item_id, "AAAAAAAAAAAA.concert"])
    assert [place and (place.position, place.status) for place in places] == [
        (2, Status.WAITING), (0, Status.PROCESSING), None,
    ]  # fmt: skip
    assert places[0] is not None
    assert places[0].admissions_per_second > 0


async def test_a_payment_is_told_as_its_users_own(stage: Stage, queue: BookingQueue):
    item_id = await stage.held_item("ann")
    await queue.ask_confirm(item_id, "ann", "PAY")
    assert (await stage.last_change()).actor == "user:ann"


async def test_a_caller_who_gives_up_disturbs_nobody(stage: Stage, queue: BookingQueue):
    gone = asyncio.ensure_future(queue.join(EVENT, [a_join("ann")]))
    stays = asyncio.ensure_future(queue.join(EVENT, [a_join("ben")]))
    await asyncio.sleep(0)
    gone.cancel()
    (joined,) = await stays
    assert isinstance(joined, Joined)
    assert joined.status is Status.WAITING
