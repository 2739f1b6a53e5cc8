from __future__ import annotations

import pytest
from redis.asyncio import Redis

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.item_id import new_item_id
from booking_worker.domain.model import EventStatus, Join, Status, Task
from booking_worker.peers.breaker import Breaker
from booking_worker.queue.booking_queue import BookingQueue, QueueLimits
from booking_worker.telemetry.metrics import Metrics
from booking_worker.worker import gauges
from booking_worker.worker.gauges import Gauges
from tests.support.engines import FIRST_ENGINE
from tests.support.wait import wait_until

LIMITS = QueueLimits(100, 1, 60_000, 60_000, 1_000, 60_000, 1_000, 3)

pytestmark = pytest.mark.parametrize("engine", FIRST_ENGINE, indirect=True)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"booking_worker_{name}", labels)


async def test_the_gauges_show_the_books(redis_client: Redis):
    queue, metrics = BookingQueue(redis_client, LIMITS), Metrics()
    await queue.join("e", [Join(new_item_id("e"), f"u{n}", 1, b'[[],0.0,"",{}]') for n in range(3)])
    question = await queue.ask_capacity("e")
    await queue.set_capacity("e", question, 5)
    shown = Gauges(queue, metrics, {"booking": Breaker("booking")})
    await shown.run_once()
    assert value(metrics, "queue_length", event="e") == 3
    assert value(metrics, "capacity", event="e") == 5
    assert value(metrics, "engine_up") == 1
    assert value(metrics, "dead_letters") == 0
    assert value(metrics, "breaker_state", peer="booking") == 0


async def test_an_engine_that_takes_no_writes_is_shown_as_down_with_its_books(redis_client: Redis):
    queue, metrics = BookingQueue(redis_client, LIMITS), Metrics()
    await queue.join("e", [Join(new_item_id("e"), "u", 1, b'[[],0.0,"",{}]')])
    refused = "NOREPLICAS"
    shown = Gauges(queue, metrics, {}, lambda: refused)
    await shown.run_once()
    assert value(metrics, "engine_up") == 0
    assert value(metrics, "queue_length", event="e") == 1
    refused = ""
    await shown.run_once()
    assert value(metrics, "engine_up") == 1


async def test_an_event_that_is_listed_no_more_is_forgotten(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
):
    queue, metrics = BookingQueue(redis_client, LIMITS), Metrics()
    shown = Gauges(queue, metrics, {})
    await queue.join("old", [Join(new_item_id("old"), "u", 1, b"[]")])
    await shown.run_once()
    assert value(metrics, "queue_length", event="old") == 1
    monkeypatch.setattr(gauges, "_MOST_EVENTS", 0)
    await shown.run_once()
    assert value(metrics, "queue_length", event="old") is None


class Many:
    """Events in which nobody is left any more, and which of them are read."""

    def __init__(self, client: Redis, number: int) -> None:
        self.queue, self.metrics = BookingQueue(client, LIMITS), Metrics()
        self.names = [f"e{at}" for at in range(number)]
        self.read: list[str] = []
        self.gauges = Gauges(self.queue, self.metrics, {})
        status = self.queue.status

        async def noted(event_id: str) -> EventStatus:
            self.read.append(event_id)
            return await status(event_id)

        self.queue.status = noted  # type: ignore[method-assign]

    async def join(self, event_id: str) -> str:
        join = Join(new_item_id(event_id), "u", 1, b'[[],0.0,"",{}]')
        await self.queue.join(event_id, [join])
        return join.item_id

    async def begin(self) -> None:
        """They are over, and were read once."""
        for name in self.names:
            await self.queue.cancel(await self.join(name), "u", "no", "user:u")
        await self.gauges.run_once()
        assert sorted(self.read) == sorted(self.names)

    async def reads(self) -> list[str]:
        """What is read the next time."""
        self.read.clear()
        await self.gauges.run_once()
        return sorted(self.read)


@pytest.fixture
async def many(redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> Many:
    monkeypatch.setattr(gauges, "_MOST_QUIET", 2)
    made = Many(redis_client, 6)
    await made.begin()
    return made


async def test_of_the_events_that_are_over_each_gets_its_turn(many: Many):
    turns = [await many.reads() for _ in range(6)]
    assert [len(turn) for turn in turns] == [2] * 6
    for first in (0, 3):
        assert sorted(name for turn in turns[first : first + 3] for name in turn) == many.names


async def test_an_event_with_somebody_in_it_is_read_each_time(many: Many):
    item_id = await many.join("e5")
    many.gauges.wake("e5")
    for _ in range(3):
        assert "e5" in await many.reads()
        assert value(many.metrics, "queue_length", event="e5") == 1
    await many.queue.cancel(item_id, "u", "no", "user:u")
    await many.reads()
    assert value(many.metrics, "queue_length", event="e5") == 0
    turns = [await many.reads() for _ in range(3)]
    assert sum("e5" in turn for turn in turns) == 1


async def test_a_dead_letter_is_counted_each_time(many: Many):
    await many.join("e5")
    await many.queue.set_capacity("e5", await many.queue.ask_capacity("e5"), 5)
    (lease,) = (await many.queue.claim("e5", "w", 1, frozenset(Task))).leases
    while await many.queue.settle_retry(lease, 0, "down") is not Status.FAILED:
        await many.queue.expire("e5")
        (lease,) = (await many.queue.claim("e5", "w", 1, frozenset(Task))).leases
    many.gauges.wake("e5")
    for _ in range(4):
        await many.reads()
        assert value(many.metrics, "dead_letters") == 1


async def test_when_anything_may_have_happened_all_are_read(many: Many):
    many.gauges.wake("")
    assert await many.reads() == many.names
    assert len(await many.reads()) == 2


def fails(many: Many, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the books of ``e5`` can't be read."""
    status = many.queue.status

    async def troubled(event_id: str) -> EventStatus:
        if event_id == "e5":
            raise error
        return await status(event_id)

    monkeypatch.setattr(many.queue, "status", troubled)


@pytest.mark.parametrize(
    "error, is_up, counted",
    [(EngineUnavailable("away"), 0, 0), (ValueError("a defect"), 1, 1)],
    ids=["away", "defect"],
)
async def test_an_event_that_cannot_be_read_freezes_the_gauges_of_no_other(
    many: Many, monkeypatch: pytest.MonkeyPatch, error: Exception, is_up: int, counted: int
):
    many.metrics.dead_letters.set(7)
    for event_id in ("e4", "e5"):
        await many.join(event_id)
        many.gauges.wake(event_id)
    with monkeypatch.context() as patched:
        fails(many, error, patched)
        await many.gauges.run_once()
    assert value(many.metrics, "queue_length", event="e4") == 1
    assert value(many.metrics, "engine_up") == is_up
    assert value(many.metrics, "errors_total", kind="gauges") == counted
    assert value(many.metrics, "dead_letters") == 7  # of e5 it is not known
    assert "e5" in await many.reads()
    assert value(many.metrics, "queue_length", event="e5") == 1
    assert value(many.metrics, "engine_up") == 1
    assert value(many.metrics, "dead_letters") == 0


async def test_a_defect_does_not_end_the_reading(many: Many, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gauges, "_EVERY_SECONDS", 0.01)
    events = many.queue.events
    defects = [ValueError("a defect")]

    async def troubled() -> list[str]:
        if defects:
            raise defects.pop()
        return await events()

    monkeypatch.setattr(many.queue, "events", troubled)
    await many.join("e5")
    many.gauges.wake("")
    await many.gauges.start()
    await wait_until(lambda: value(many.metrics, "queue_length", event="e5") == 1)
    await many.gauges.stop()
    assert value(many.metrics, "errors_total", kind="gauges") == 1


async def test_an_engine_that_is_away_is_shown_and_ends_nothing(engine: object):
    queue, metrics = BookingQueue(Redis(unix_socket_path="/nowhere/engine.sock"), LIMITS), Metrics()
    shown = Gauges(queue, metrics, {})
    await shown.start()
    await wait_until(lambda: value(metrics, "engine_up") == 0)
    await shown.stop()
    await shown.stop()
