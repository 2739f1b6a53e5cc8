"""The metrics of several processes as those of one service."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

Sample: TypeAlias = tuple[str, Mapping[str, str], float]
Page: TypeAlias = Sequence[tuple[str, str, str, Sequence[Sample]]]
"""Metrics at one moment, of builtin types alone: name, text, kind, and the samples of each."""

ADDED: Final = frozenset(
    f"booking_worker_{name}"
    for name in (
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "processes",
        "worker_slots",
        "worker_slots_busy",
    )
)
"""Gauges of which each process has its own part."""
LEAST: Final = frozenset(
    f"booking_worker_{name}"
    for name in ("engine_up", "process_max_fds", "process_start_time_seconds")
)
"""Gauges whose smallest value says how it is. Of all others the largest does: what is in the
engine is seen by every process alike, and the worst state of a breaker is the highest."""

_COUNTED: Final = frozenset({"counter", "histogram"})


def page_of(registry: CollectorRegistry) -> Page:
    """What this registry shows now."""
    return [
        (
            metric.name,
            metric.documentation,
            metric.type,
            [(sample.name, sample.labels, sample.value) for sample in metric.samples],
        )
        for metric in registry.collect()
    ]


def merge(pages: Iterable[Page]) -> Page:
    """One page of all: counters and histograms added up, each gauge by what it means."""
    merged: dict[str, tuple[str, str, dict[_Series, float]]] = {}
    for page in pages:
        for name, text, kind, samples in page:
            series = merged.setdefault(name, (text, kind, {}))[2]
            together = _together(name, kind)
            for sample, labels, value in samples:
                key = (sample, tuple(labels.items()))
                series[key] = together(series[key], value) if key in series else value
    return [
        (name, text, kind, [(sample, dict(labels), value) for (sample, labels), value in series])
        for name, text, kind, series in (
            (name, text, kind, series.items()) for name, (text, kind, series) in merged.items()
        )
    ]


_Series: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


def _together(name: str, kind: str) -> Callable[[float, float], float]:
    if kind in _COUNTED or name in ADDED:
        return operator.add
    return _least if name in LEAST else _most


def _least(one: float, other: float) -> float:
    return other if other < one or one != one else one  # noqa: PLR0124 - not a number


def _most(one: float, other: float) -> float:
    return other if other > one or one != one else one  # noqa: PLR0124 - not a number


class MergedMetrics(Collector):
    """Shows the last page of each process as one, for a registry to collect from any thread.

    What a process counted stays when it leaves, so that no sum ever goes down; its gauges go
    with it. ``own`` is what the process that merges has to show itself.
    """

    def __init__(self, own: CollectorRegistry) -> None:
        self._own = own
        self._pages: dict[int, Page] = {}
        self._left: Page = []
        self._lock = threading.Lock()

    def update(self, number: int, page: Page) -> None:
        """Show this page of the process of that number from now on."""
        with self._lock:
            self._pages[number] = page

    def leave(self, number: int) -> None:
        """That process is no more; for one that never showed anything, nothing happens."""
        with self._lock:
            page = self._pages.pop(number, [])
            counted = [metric for metric in page if metric[2] in _COUNTED]
            self._left = merge([self._left, counted])

    @override
    def collect(self) -> Iterator[Metric]:
        own = page_of(self._own)
        with self._lock:
            pages = [own, self._left, *self._pages.values()]
        for name, text, kind, samples in merge(pages):
            metric = Metric(name, text, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, dict(labels), value)
            yield metric
