"""The gauges of the events, from the books in the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.peers.breaker import Breaker
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.metrics import Metrics

_EVERY_SECONDS: Final = 2.0
_MOST_EVENTS: Final = 1_000
"""Of more events, those joined last are shown: each has a label of its own."""


class Gauges:
    """Reads the books every two seconds, so that a scrape costs the engine nothing."""

    def __init__(
        self, queue: BookingQueue, metrics: Metrics, breakers: Mapping[str, Breaker]
    ) -> None:
        self._queue = queue
        self._metrics = metrics
        self._breakers = breakers
        self._shown: set[str] = set()
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to read."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_for_ever())

    async def stop(self) -> None:
        """Read no more."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def run_once(self) -> None:
        """Show the books as they are now."""
        for peer, breaker in self._breakers.items():
            self._metrics.show_breaker(peer, breaker.state)
        try:
            events = (await self._queue.events())[:_MOST_EVENTS]
            books = await asyncio.gather(*(self._queue.status(event_id) for event_id in events))
        except EngineUnavailable:
            self._metrics.engine_up.set(0)
            return
        self._metrics.engine_up.set(1)
        self._metrics.dead_letters.set(sum(event.dead_letters for event in books))
        for event in books:
            self._metrics.show_event(event)
        for event_id in self._shown.difference(events):
            self._metrics.forget_event(event_id)
        self._shown = set(events)

    async def _read_for_ever(self) -> None:
        while True:
            await self.run_once()
            await asyncio.sleep(_EVERY_SECONDS)
