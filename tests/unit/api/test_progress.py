from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from booking_worker.api.progress import LineWatch, could_move, marks
from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Join, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.api import LIMITS, on_one_engine
from tests.support.wait import wait_until
from tests.unit.api.test_convert import books

PATIENCE = 60.0


@pytest.mark.parametrize(
    "changes, could",
    [
        ({"head_seats": 2}, True),
        ({"capacity": 2, "head_seats": 2}, True),
        ({"capacity": 1, "head_seats": 2}, False),
        ({"capacity": 0}, False),
        ({"waiting": 0}, False),
        ({"sold_out": True}, False),
        ({"paused": True}, False),
        ({"capacity_known": False}, False),
    ],
)
def test_a_head_ought_to_move_when_there_is_something_left_for_it(changes, could):
    assert could_move(books(**changes)) is could


@pytest.mark.parametrize(
    "change", ["admitted", "cancelled", "expired", "sold_out_items", "processing", "oldest_ms"]
)
def test_whatever_moves_the_head_is_seen(change):
    status = books()
    assert marks(replace(status, **{change: 999})) != marks(status)
    assert marks(replace(status, waiting=999, now_ms=999)) == marks(status)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Sale:
    """A line of three for one event, with a watch on it."""

    def __init__(self, client: Redis) -> None:
        self.queue = BookingQueue(client, LIMITS)
        self.clock = Clock()
        self.watch = LineWatch(self.queue, PATIENCE, clock=self.clock)

    async def begin(self, capacity: int | None, seats: int = 1) -> None:
        joins = [Join(f"{n:0>12}.e", f"u{n}", seats, b'[[],0.0,"",{}]') for n in range(3)]
        await self.queue.join("e", joins)
        await self.queue.set_capacity("e", await self.queue.ask_capacity("e"), capacity)

    async def looks_after(self, seconds: float) -> dict[str, float]:
        await self.watch.run_once()
        self.clock.now += seconds
        await self.watch.run_once()
        return self.watch.standing_still()


@pytest.fixture
def sale(redis_client: Redis) -> Sale:
    return Sale(redis_client)


@on_one_engine
async def test_a_line_that_nobody_works_on_stands_still_after_its_patience(sale: Sale):
    await sale.begin(None)
    assert await sale.looks_after(59.0) == {}
    assert await sale.looks_after(2.0) == {"e": 61.0}


@on_one_engine
async def test_a_line_that_moves_does_not_stand_still(sale: Sale):
    await sale.begin(10)
    await sale.looks_after(59.0)
    await sale.queue.claim("e", "w", 1, frozenset({Task.RESERVE}))
    assert await sale.looks_after(59.0) == {}


@on_one_engine
@pytest.mark.parametrize("capacity, seats, still", [(0, 1, False), (1, 2, False), (2, 2, True)])
async def test_a_line_waits_rightly_while_too_little_is_left_for_its_head(
    sale: Sale, capacity, seats, still
):
    await sale.begin(capacity, seats)
    assert bool(await sale.looks_after(61.0)) is still


@on_one_engine
async def test_an_event_that_is_gone_is_forgotten(sale: Sale, redis_client: Redis):
    await sale.begin(None)
    assert await sale.looks_after(61.0)
    await redis_client.flushall()
    assert await sale.looks_after(1.0) == {}


@on_one_engine
async def test_a_line_that_waits_for_an_operator_is_told_apart(sale: Sale):
    await sale.begin(None)
    await sale.queue.pause("e", "the hall is flooded", "operator:kim")
    await sale.queue.pause("nobody waits there", "whatever", "operator:kim")
    assert await sale.looks_after(61.0) == {}
    assert sale.watch.paused() == {"e": "the hall is flooded"}
    await sale.queue.resume("e")
    await sale.watch.run_once()
    assert sale.watch.paused() == {}


@on_one_engine
async def test_a_paused_event_that_is_gone_is_forgotten(sale: Sale, redis_client: Redis):
    await sale.begin(None)
    await sale.queue.pause("e", "the hall is flooded", "operator:kim")
    await sale.watch.run_once()
    await redis_client.flushall()
    await sale.watch.run_once()
    assert sale.watch.paused() == {}


@on_one_engine
async def test_very_many_events_are_looked_at_by_and_by(sale: Sale, monkeypatch):
    monkeypatch.setattr("booking_worker.api.progress._MOST_EVENTS_PER_LOOK", 2)
    for event in ("a", "b", "c"):
        join = Join(f"AAAAAAAAAAAA.{event}", "ann", 1, b'[[],0.0,"",{}]')
        await sale.queue.join(event, [join])
        await sale.queue.set_capacity(event, await sale.queue.ask_capacity(event), None)
    await sale.watch.run_once()
    assert len(sale.watch._seen) == 2
    await sale.watch.run_once()
    assert len(sale.watch._seen) == 3


@on_one_engine
async def test_it_looks_by_itself_until_it_is_stopped_and_outlives_an_engine_that_is_away(
    sale: Sale, monkeypatch
):
    await sale.begin(None)
    watch = LineWatch(sale.queue, PATIENCE, every_seconds=0.001)
    await watch.start()
    await watch.start()
    await wait_until(lambda: watch._seen)

    async def away() -> list[str]:
        raise EngineUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(sale.queue, "events", away)
        await wait_until(lambda: not watch._seen)
    await wait_until(lambda: watch._seen)
    await watch.stop()
    await watch.stop()
