from __future__ import annotations

from typing import Any

import pytest

from booking_worker.domain.errors import EngineUnavailable, ItemNotFound
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue, Mended
from booking_worker.queue.desk import SWEPT_INDEXES
from tests.support.queue_fixtures import queue_engine as engine
from tests.support.stage import EVENT, LIMITS, Stage, nowhere

__all__ = ["engine"]  # each kind of them


async def test_events_the_latest_first(stage: Stage, queue: BookingQueue):
    for at, event_id in enumerate(("first", "second")):
        await stage.client.zadd("booking-events", {event_id: at})
    assert await queue.events() == ["second", "first"]


async def test_no_engine_no_events():
    with pytest.raises(EngineUnavailable):
        await nowhere().events()


async def test_what_was_never_an_item(queue: BookingQueue):
    for question in (
        queue.item("nonsense"),
        queue.requeue("nonsense", "operator:eve"),
        queue.discard("nonsense", "operator:eve"),
    ):
        with pytest.raises(ItemNotFound):
            await question


async def test_a_sweep_goes_through_every_index_in_small_chunks(stage: Stage, queue: BookingQueue):
    ids = await stage.join_many(600)
    await stage.client.zadd(stage.key("admitted"), {ids[0]: 1})
    await stage.client.hdel(stage.key("users"), "user-5")
    calls = 0
    run = queue._run

    async def counted(*args, **more):
        nonlocal calls
        calls += 1
        return await run(*args, **more)

    queue._run = counted  # type: ignore[method-assign]
    mended = await queue.sweep(EVENT)
    assert sorted(mended, key=lambda one: one.wrong) == [
        Mended(EVENT, ids[0], "in admitted, but waiting"),
        Mended(EVENT, ids[5], "its user's place was lost"),
    ]
    assert calls > len(SWEPT_INDEXES)


async def test_items_are_listed_with_all_that_is_known(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one("ann", 2)
    assert await queue.list_items(EVENT, "waiting", 0, 5) == [await queue.item(item_id)]


async def test_live_slots(queue: BookingQueue):
    assert await queue.heartbeat("w", 3, 1_000) == 3


async def test_an_event_is_paused_while_all_are(stage: Stage, queue: BookingQueue):
    await queue.pause("", "flooded", "operator:kim")
    status = await stage.status()
    assert (status.paused, status.paused_because) == (True, "flooded")
    await queue.resume("")
    assert not (await stage.status()).paused


async def test_an_event_that_the_engine_lost_is_still_looked_at(stage: Stage, queue: BookingQueue):
    """Nobody may join it again, and the wake of its first join may have gone unheard."""
    await stage.join_one(event_id="a")
    await stage.client.flushall()
    await stage.clock.start()
    await stage.join_one(event_id="a")
    assert await stage.client.zcard(keys.EVENTS) == 0
    assert await stage.queue.events() == ["a"]
    stage.queue._remembered["a"] -= 60
    assert await stage.queue.events() == []
    await stage.client.flushall()  # its feed begins in the midst of its story


async def gone(stage: Stage, *event_ids: str) -> None:
    """Somebody was there, long ago; all of it is told."""
    for event_id in event_ids:
        item_id = await stage.join_one(event_id=event_id)
        await stage.queue.cancel(item_id, "ann", "no", "user:ann")
        (last, _), *_ = await stage.client.xrevrange(stage.key("changes", event_id))
        await stage.client.hset(stage.key("state", event_id), "cursor", last)
        await stage.client.delete(stage.key("results", event_id) + item_id)
    await stage.clock.advance(LIMITS.result_ttl_ms)
    stage.queue._remembered.clear()


async def test_events_that_are_over_leave_the_list(stage: Stage, queue: BookingQueue):
    await stage.join_one(event_id="waits")
    await gone(stage, "a", "b")
    await stage.join_one(event_id="new")
    assert sorted(await queue.retire()) == ["a", "b"]
    assert await queue.events() == ["new", "waits"]
    assert await queue.retire() == []
    await stage.client.flushall()  # its feed begins in the midst of its story


async def test_a_join_brings_an_event_back(stage: Stage, queue: BookingQueue):
    await gone(stage, "a")
    await queue.retire()
    await stage.join_one(event_id="a")
    assert await queue.events() == ["a"]
    assert (await queue.status("a")).joined == 2
    await stage.client.flushall()  # its feed begins in the midst of its story


@pytest.mark.parametrize("moment", ["_wind_up", "_unlist"])
async def test_an_event_that_is_joined_while_it_is_taken_off_stays(
    stage: Stage, queue: BookingQueue, monkeypatch: pytest.MonkeyPatch, moment: str
):
    await gone(stage, "a")
    step = getattr(queue, moment)

    async def joined_first(*args: Any) -> bool:
        await stage.join_one(event_id="a")
        taken: bool = await step(*args)
        return taken

    monkeypatch.setattr(queue, moment, joined_first)
    assert await queue.retire() == []
    assert await queue.events() == ["a"]
    await stage.client.flushall()  # its feed begins in the midst of its story
