from __future__ import annotations

import math

import msgpack
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from booking_worker.telemetry.merging import ADDED, LEAST, MergedMetrics, merge, page_of
from booking_worker.telemetry.metrics import Metrics

GREATEST = frozenset(
    f"booking_worker_{name}"
    for name in (
        "admission_paused",
        "breaker_state",
        "capacity",
        "dead_letters",
        "event_paused",
        "held",
        "queue_length",
    )
)


def merged(*processes: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What is shown of these processes, as Prometheus reads it."""
    shown = MergedMetrics(CollectorRegistry())
    for number, metrics in enumerate(processes):
        shown.update(number, page_of(metrics.registry))
    return read(shown)


def read(shown: MergedMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    registry.register(shown)
    return {
        (sample.name.removeprefix("booking_worker_"), tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_counters_and_histograms_are_added_up():
    one, other = Metrics(), Metrics()
    one.joins.labels("joined").inc(3)
    other.joins.labels("joined").inc(4)
    other.joins.labels("refused").inc()
    one.processing_duration.labels("reserve").observe(0.02)
    other.processing_duration.labels("reserve").observe(4)
    shown = merged(one, other)
    assert shown["joins_total", (("outcome", "joined"),)] == 7
    assert shown["joins_total", (("outcome", "refused"),)] == 1
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in shown.items()
        if name == "processing_duration_seconds_bucket"
    }
    assert (buckets["0.01"], buckets["0.025"], buckets["5.0"], buckets["+Inf"]) == (0, 1, 2, 2)
    assert shown["processing_duration_seconds_count", (("task", "reserve"),)] == 2
    assert shown["processing_duration_seconds_sum", (("task", "reserve"),)] == 4.02


def test_a_gauge_is_merged_by_what_it_means():
    one, other = Metrics(), Metrics()
    for metrics, slots, up, state, length in ((one, 5, 1, "open", 7), (other, 4, 0, "closed", 7)):
        metrics.worker_slots.set(slots)
        metrics.engine_up.set(up)
        metrics.show_breaker("booking", state)
        metrics.queue_length.labels("gala").set(length)
    for shown in (merged(one, other), merged(other, one)):
        assert shown["worker_slots", ()] == 9
        assert shown["engine_up", ()] == 0
        assert shown["breaker_state", (("peer", "booking"),)] == 2
        assert shown["queue_length", (("event", "gala"),)] == 7


def test_what_one_process_does_not_know_another_may():
    one, other = Metrics(), Metrics()
    one.capacity.labels("gala").set(math.nan)
    other.capacity.labels("gala").set(5)
    for shown in (merged(one, other), merged(other, one)):
        assert shown["capacity", (("event", "gala"),)] == 5
    assert math.isnan(merged(one)["capacity", (("event", "gala"),)])
    other.capacity.labels("gala").set(math.inf)
    assert merged(one, other)["capacity", (("event", "gala"),)] == math.inf


@pytest.mark.parametrize("name", sorted(ADDED | LEAST | GREATEST))
def test_each_gauge_is_merged_one_way(name: str):
    assert (name in ADDED) + (name in LEAST) + (name in GREATEST) == 1


def test_of_each_gauge_somebody_thought_how_it_is_merged():
    gauges = {metric.name for metric in Metrics().registry.collect() if metric.type == "gauge"}
    crew = {"booking_worker_processes"}
    assert gauges | crew == ADDED | LEAST | GREATEST


def test_a_page_survives_being_sent():
    metrics = Metrics()
    metrics.capacity.labels("gala").set(math.inf)
    metrics.joins.labels("joined").inc(2)
    page = page_of(metrics.registry)
    sent = msgpack.unpackb(msgpack.packb(page))
    assert merge([sent]) == merge([page])


class Process:
    """One that counts, and one of whose gauges is its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.joins = Counter("booking_worker_joins", "Joins.", registry=self.registry)
        self.slots = Gauge("booking_worker_worker_slots", "Slots.", registry=self.registry)
        self.slots.set(5)


def test_what_a_process_counted_stays_when_it_leaves_and_its_gauges_go():
    shown = MergedMetrics(CollectorRegistry())
    for lives in range(1, 4):
        process = Process()
        process.joins.inc(10)
        shown.update(1, page_of(process.registry))
        assert read(shown)["joins_total", ()] == 10 * lives
        assert read(shown)["worker_slots", ()] == 5
        shown.leave(1)
        shown.leave(1)
        assert read(shown)["joins_total", ()] == 10 * lives
        assert ("worker_slots", ()) not in read(shown)


def test_a_new_page_takes_the_place_of_the_old_one():
    shown = MergedMetrics(CollectorRegistry())
    process = Process()
    for _ in range(3):
        process.joins.inc()
        shown.update(1, page_of(process.registry))
    assert read(shown)["joins_total", ()] == 3


def test_what_the_supervisor_counts_itself_is_shown_too():
    own = Process()
    own.joins.inc()
    shown = MergedMetrics(own.registry)
    shown.update(1, page_of(own.registry))
    assert read(shown)["joins_total", ()] == 2
