from __future__ import annotations

import asyncio
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from booking_worker.domain.errors import IdempotencyConflict, InvalidSettings, QueueFull
from booking_worker.domain.model import EventStatus, Joined, Rate, Status
from booking_worker.telemetry.metrics import Metrics, MetricsServer


def books(event_id: str, capacity: int | None, known: bool = True) -> EventStatus:
    return EventStatus(
        event_id=event_id, waiting=7, processing=1, awaiting_payment=2, completed=0, expired=0,
        cancelled=0, sold_out_items=0, rejected=0, failed=0, joined=10, admitted=3, dead_letters=0,
        capacity=capacity, capacity_known=known, capacity_exact=True, processing_seats=1,
        held_seats=4, confirmed_seats=0, total_seats=10, sold_out=False, paused=False,
        paused_because="", rate=Rate(0.0, 0, 0), now_ms=1, oldest_ms=1, head_seats=1,
    )  # fmt: skip


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"booking_worker_{name}", labels)


def test_the_books_of_an_event_are_shown():
    metrics = Metrics()
    metrics.show_event(books("gala", 5))
    assert value(metrics, "queue_length", event="gala") == 7
    assert value(metrics, "capacity", event="gala") == 5
    assert value(metrics, "held", event="gala") == 4


@pytest.mark.parametrize("paused", [True, False])
def test_an_event_that_admits_nobody_is_seen(paused: bool):
    metrics = Metrics()
    metrics.show_event(replace(books("gala", 5), paused=paused))
    assert value(metrics, "event_paused", event="gala") == paused


def test_joins_are_counted_by_what_came_of_them():
    metrics = Metrics()
    outcomes = ("joined", "again", "refused")
    assert [value(metrics, "joins_total", outcome=one) for one in outcomes] == [0, 0, 0]
    place = Joined("AAAAAAAAAAAA.gala", 1, already_queued=False, status=Status.WAITING)
    again = place._replace(already_queued=True)
    metrics.count_joins([place, again, QueueFull("gala", 1), place, IdempotencyConflict(), again])
    metrics.count_joins([place])
    assert [value(metrics, "joins_total", outcome=one) for one in outcomes] == [3, 2, 2]


def test_unlimited_and_unknown_capacity_are_told_apart():
    metrics = Metrics()
    metrics.show_event(books("gala", None))
    assert value(metrics, "capacity", event="gala") == float("inf")
    metrics.show_event(books("gala", None, known=False))
    shown = value(metrics, "capacity", event="gala")
    assert shown is not None
    assert shown != shown  # noqa: PLR0124 - not a number


def test_an_event_that_is_over_leaves_no_series_behind():
    metrics = Metrics()
    metrics.show_event(books("gala", 5))
    metrics.show_event(books("concert", 5))
    metrics.forget_event("gala")
    metrics.forget_event("never seen")
    for name in ("queue_length", "capacity", "held", "event_paused"):
        assert value(metrics, name, event="gala") is None
        assert value(metrics, name, event="concert") is not None


@pytest.mark.parametrize("state, shown", [("closed", 0), ("half_open", 1), ("open", 2)])
def test_the_state_of_a_breaker_is_shown(state: str, shown: float):
    metrics = Metrics()
    metrics.show_breaker("booking", state)
    assert value(metrics, "breaker_state", peer="booking") == shown


def test_two_services_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.fenced.inc()
    assert (value(one, "fenced_total"), value(other, "fenced_total")) == (1, 0)


def read(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


async def test_metrics_are_served():
    metrics = Metrics()
    metrics.items_processed.labels("reserve", "held").inc(3)
    server = MetricsServer(metrics.registry, 0, "127.0.0.1")
    await server.start()
    try:
        text = await asyncio.to_thread(read, server.port)
    finally:
        await server.stop()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (sample,) = families["booking_worker_items_processed"].samples
    assert sample.labels == {"task": "reserve", "outcome": "held"}
    assert sample.value == 3
    assert all(name.startswith("booking_worker_") for name in families)
    assert not any(name.endswith("_created") for name in families)


async def test_stop_frees_the_port_and_may_be_repeated():
    server = MetricsServer(Metrics().registry, 0, "127.0.0.1")
    await server.stop()
    await server.start()
    port = server.port
    await server.stop()
    await server.stop()
    assert server.port == 0
    again = MetricsServer(Metrics().registry, port, "127.0.0.1")
    await again.start()
    assert again.port == port
    await again.stop()


async def test_a_port_in_use_is_an_error_that_names_the_setting():
    first = MetricsServer(Metrics().registry, 0, "127.0.0.1")
    await first.start()
    second = MetricsServer(Metrics().registry, first.port, "127.0.0.1")
    with pytest.raises(InvalidSettings, match=rf"METRICS_PORT: got {first.port}, .* takes"):
        await second.start()
    await second.stop()
    await first.stop()
