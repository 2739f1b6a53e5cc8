"""What Prometheus sees: every metric of this service, and the server that it is read from."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from threading import Thread
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from booking_worker.domain.errors import BookingWorkerError, InvalidSettings
from booking_worker.domain.model import EventStatus, Joined

BREAKER_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}
"""What ``booking_worker_breaker_state`` shows for each state of a breaker."""

_DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The collectors, in a registry of their own; one instance is passed to whoever counts.

    Only gauges of an event have its id as a label, and :meth:`forget_event` drops them: the
    number of series is bounded by the events on sale, never by items or users. Counting many
    at once is one ``inc(n)``; whoever counts often keeps the child that ``labels()`` gave.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # else each counter has a second series with its birthday
        registry = self.registry = CollectorRegistry()
        ProcessCollector(namespace="booking_worker", registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"booking_worker_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"booking_worker_{name}", text, labels, registry=registry)

        self.queue_length = gauge("queue_length", "Items waiting in the line.", "event")
        self.capacity = gauge(
            "capacity", "Seats that can still be admitted; +Inf when unlimited.", "event"
        )
        self.held = gauge("held", "Seats in bookings that wait for their payment.", "event")
        self.joins = counter(
            "joins_total", "Joins answered, by outcome: joined, again, refused.", "outcome"
        )
        self.items_processed = counter(
            "items_processed_total", "Tasks that ended, by task and outcome.", "task", "outcome"
        )
        self.processing_duration = Histogram(
            "booking_worker_processing_duration_seconds",
            "Time from the claim of a task to its settle.",
            ("task",),
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self.errors = counter("errors_total", "Errors, by the kind of error.", "kind")
        self.fenced = counter("fenced_total", "Answers refused as their lease had ended.")
        self.retries = counter("retries_total", "Transient failures tried again.", "task")
        self.dead_letters = gauge("dead_letters", "Dead letters that wait for an operator.")
        self.breaker_state = gauge(
            "breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open.", "peer"
        )
        self.sweep_repairs = counter(
            "sweep_repairs_total", "Disagreements between indexes mended; must stay 0."
        )
        self.audit_gap = counter(
            "audit_gap_total", "Audit lines lost: trimmed from a feed unread, or not written."
        )
        self.messages_lost = counter(
            "messages_lost_total", "Messages to the Realtime Service that were given up."
        )
        self.rpc_errors = counter(
            "rpc_errors_total",
            "Calls answered with an error, by method and code.",
            "method",
            "code",
        )
        self.worker_slots = gauge("worker_slots", "Tasks that may be worked on at the same time.")
        self.worker_slots_busy = gauge("worker_slots_busy", "Tasks that are worked on now.")
        self.engine_up = gauge("engine_up", "1 while the engine answers, else 0.")
        self.admission_paused = gauge(
            "admission_paused", "1 while nobody is admitted to any event, else 0."
        )
        self.event_paused = gauge(
            "event_paused", "1 while nobody is admitted to the event, else 0.", "event"
        )
        self.count_joins(())  # each outcome is shown from the start

    def count_joins(self, outcomes: Sequence[Joined | BookingWorkerError]) -> None:
        """Count what came of joins: those that arrive together at once, as there are so many."""
        places = [outcome for outcome in outcomes if isinstance(outcome, Joined)]
        again = sum([place.already_queued for place in places])
        self.joins.labels("joined").inc(len(places) - again)
        self.joins.labels("again").inc(again)
        self.joins.labels("refused").inc(len(outcomes) - len(places))

    def show_event(self, books: EventStatus) -> None:
        """Show the books of one event in its gauges."""
        event_id = books.event_id
        self.queue_length.labels(event_id).set(books.waiting)
        self.held.labels(event_id).set(books.held_seats)
        self.event_paused.labels(event_id).set(1 if books.paused else 0)
        if books.capacity is not None:
            self.capacity.labels(event_id).set(books.capacity)
        elif books.capacity_known:
            self.capacity.labels(event_id).set(math.inf)
        else:
            self.capacity.labels(event_id).set(math.nan)

    def forget_event(self, event_id: str) -> None:
        """Drop the gauges of an event that is over; for one that has none, nothing happens."""
        for gauge in (self.queue_length, self.capacity, self.held, self.event_paused):
            gauge.remove_by_labels({"event": event_id})

    def show_breaker(self, peer: str, state: str) -> None:
        """Show the state of a peer's breaker: ``closed``, ``half_open`` or ``open``."""
        self.breaker_state.labels(peer).set(BREAKER_STATES[state])


class MetricsServer:
    """Serves ``/metrics`` from a thread of its own, so that a busy loop still shows its figures."""

    def __init__(self, registry: CollectorRegistry, port: int, host: str = "0.0.0.0") -> None:  # noqa: S104
        """``port`` 0 is any free one; every address of this machine answers, unless given."""
        self._registry = registry
        self._wanted = port
        self._host = host
        self._running: tuple[WSGIServer, Thread] | None = None

    @property
    def port(self) -> int:
        """The port that is served; 0 before start and after stop."""
        return self._running[0].server_port if self._running else 0

    async def start(self) -> None:
        """Serve.

        Raises:
            InvalidSettings: METRICS_PORT cannot be had.
        """
        try:
            self._running = start_http_server(self._wanted, self._host, self._registry)
        except OSError as error:
            problem = (
                f"METRICS_PORT: got {self._wanted}, which cannot be had: {error.strerror};"
                " takes a free port, or 0 for any"
            )
            raise InvalidSettings([problem]) from None

    async def stop(self) -> None:
        """Serve no more."""
        if self._running is None:
            return
        server, thread = self._running
        self._running = None
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
