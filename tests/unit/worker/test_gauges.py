from __future__ import annotations

import pytest
from redis.asyncio import Redis

from booking_worker.domain.item_id import new_item_id
from booking_worker.domain.model import Join
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


async def test_an_engine_that_is_away_is_shown_and_ends_nothing(engine: object):
    queue, metrics = BookingQueue(Redis(unix_socket_path="/nowhere/engine.sock"), LIMITS), Metrics()
    shown = Gauges(queue, metrics, {})
    await shown.start()
    await wait_until(lambda: value(metrics, "engine_up") == 0)
    await shown.stop()
    await shown.stop()
