from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from booking_worker.domain.errors import EngineUnavailable, LayoutTooNew
from booking_worker.domain.model import Layout
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.queue.layout import LOST, VERSION
from booking_worker.telemetry.metrics import Metrics
from booking_worker.worker.admission import Admission
from tests.support.api import on_one_engine
from tests.support.clock import MOVED_BY_TESTS
from tests.support.stage import LIMITS, Stage
from tests.support.wait import wait_until

pytestmark = on_one_engine


class Watched:
    """A watch over admission, and what it said."""

    def __init__(self, queue: BookingQueue) -> None:
        self.queue = queue
        self.metrics = Metrics()
        self.audit: list[Any] = []
        self.resumed = 0
        self.admission = Admission(queue, self.metrics, self.audit.append, self._on_resumed)

    def _on_resumed(self) -> None:
        self.resumed += 1

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"booking_worker_{name}", labels) or 0.0


@pytest.fixture
async def watched(queue: BookingQueue) -> AsyncIterator[Watched]:
    made = Watched(queue)
    await made.admission.start()
    yield made
    await made.admission.stop()


def another(stage: Stage) -> BookingQueue:
    return BookingQueue(stage.client, LIMITS, MOVED_BY_TESTS)


async def test_a_fresh_engine_has_a_record_when_it_has_started(watched: Watched, stage: Stage):
    await watched.admission.start()
    assert await stage.client.hget(keys.LAYOUT, "version") == b"%d" % VERSION
    assert watched.admission.paused == ""
    assert watched.value("admission_paused") == 0


async def test_what_another_replica_was_told_is_heard(watched: Watched, stage: Stage):
    await another(stage).pause("", "flooded", "operator:kim")
    await watched.admission.run_once()
    assert watched.admission.paused == "paused by operator:kim: flooded"
    assert watched.value("admission_paused") == 1
    assert watched.resumed == 0
    await another(stage).resume("")
    await watched.admission.run_once()
    assert watched.admission.paused == ""
    assert watched.value("admission_paused") == 0
    assert watched.resumed == 1


async def test_who_starts_while_it_is_paused_keeps_to_it(stage: Stage):
    await another(stage).pause("", "flooded", "operator:kim")
    late = Watched(another(stage))
    await late.admission.run_once()
    assert late.admission.paused
    assert late.value("admission_paused") == 1
    assert late.resumed == 0


async def test_a_wiped_engine_is_noticed_and_told(watched: Watched, stage: Stage):
    await stage.client.flushdb()
    await watched.admission.run_once()
    await watched.admission.run_once()
    assert watched.admission.paused == f"paused by system: {LOST}"
    assert watched.value("errors_total", kind="engine_lost_data") == 1
    assert watched.audit == [{"who": "system", "did": "pause", "event_id": "", "why": LOST}]


async def test_a_later_layout_stops_the_start(stage: Stage):
    await stage.client.hset(keys.LAYOUT, mapping={"version": 2, "id": "x", "created_at": 1})
    with pytest.raises(LayoutTooNew):
        await Watched(another(stage)).admission.start()


async def test_it_reads_by_itself_whatever_comes_between(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    read = watched.queue.read_layout
    troubles: list[Exception] = [EngineUnavailable("away"), LayoutTooNew(2, 1), ValueError("?")]
    reads = 0

    async def troubled() -> Layout:
        nonlocal reads
        reads += 1
        if troubles:
            raise troubles.pop()
        return await read()

    monkeypatch.setattr("booking_worker.worker.admission._EVERY_SECONDS", 0.001)
    other = Watched(watched.queue)
    await other.admission.start()
    monkeypatch.setattr(watched.queue, "read_layout", troubled)
    await wait_until(lambda: reads >= 5)
    await other.admission.stop()
    await other.admission.stop()
    assert other.value("errors_total", kind="layout") == 2
