"""Joins go straight to the engine, those that arrive together in one call per event."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from typing_extensions import override

from booking_worker.domain.errors import BookingWorkerError
from booking_worker.domain.model import Join, Joined
from booking_worker.intake.intake import Intake
from booking_worker.queue.batching import Coalescer
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.queue.lane import Reading, Taker
from booking_worker.telemetry.metrics import Metrics


class DirectIntake(Intake):
    """Brings joins to the queue itself; an answer is as durable as the engine's own."""

    def __init__(self, queue: BookingQueue, metrics: Metrics) -> None:
        self._queue = queue
        self._metrics = metrics
        self._joins: Coalescer[Join, Joined] = Coalescer(self._ask)

    @override
    async def start(self) -> None:
        """Nothing to do: the first join starts what it needs."""

    @override
    async def stop(self) -> None:
        """Return once every join taken so far has been answered. May be called again."""
        await self._joins.drain()

    @override
    def join(self, event_id: str, join: Join) -> asyncio.Future[Joined]:
        return self._joins.ask(event_id, join)

    @override
    def join_many(
        self, event_id: str, joins: Sequence[Join]
    ) -> asyncio.Future[list[Joined | BookingWorkerError]]:
        return self._joins.ask_many(event_id, joins)

    def _ask(self, event_id: str, joins: Sequence[Join], taker: Taker, until: float) -> None:
        self._queue.ask_to_join(event_id, joins, Reading(taker, self._counted), until)

    def _counted(
        self, outcomes: list[Joined | BookingWorkerError]
    ) -> list[Joined | BookingWorkerError]:
        self._metrics.count_joins(outcomes)
        return outcomes
