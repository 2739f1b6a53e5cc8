"""The gauges of the events, from the books in the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import EventStatus
from booking_worker.peers.breaker import Breaker
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.metrics import Metrics

_EVERY_SECONDS: Final = 2.0
_MOST_EVENTS: Final = 1_000
"""Of more events, those joined last are shown: each has a label of its own."""
_MOST_QUIET: Final = 50

_log = get_logger(__name__)


class Gauges:
    """Reads the books every two seconds, so that a scrape costs the engine nothing.

    An event in which nobody is left is quiet until somebody calls :meth:`wake`. Of the quiet ones
    50 are read at a time, in turns, so that hundreds of events that are over cost next to nothing.

    ``writes_refused`` says why the engine takes no writes, or nothing: one that only answers what
    is read is shown as down.
    """

    def __init__(
        self,
        queue: BookingQueue,
        metrics: Metrics,
        breakers: Mapping[str, Breaker],
        writes_refused: Callable[[], str] = lambda: "",
    ) -> None:
        self._queue = queue
        self._metrics = metrics
        self._failed = metrics.errors.labels("gauges")
        self._breakers = breakers
        self._writes_refused = writes_refused
        self._shown: set[str] = set()
        self._quiet: dict[str, None] = {}
        self._woken: set[str] = set()
        self._reading: asyncio.Task[None] | None = None

    def wake(self, event_id: str) -> None:
        """Something happened in this event; in any, when empty."""
        self._woken.add(event_id)

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
        woken, self._woken = self._woken, set()
        try:
            events = (await self._queue.events())[:_MOST_EVENTS]
        except EngineUnavailable:
            self._metrics.engine_up.set(0)
            self._quiet.clear()
            return
        due = self._due(events, woken)
        books, is_up = await self._read(due)
        self._metrics.engine_up.set(is_up and not self._writes_refused())
        if len(books) == len(due):
            # Those of the events that are not read now are none: else they were not quiet.
            self._metrics.dead_letters.set(sum(event.dead_letters for event in books))
        for event in books:
            self._metrics.show_event(event)
            if _is_quiet(event):
                self._quiet[event.event_id] = None
        for event_id in self._shown.difference(events):
            self._metrics.forget_event(event_id)
            self._quiet.pop(event_id, None)
        self._shown = set(events)

    async def _read(self, event_ids: Sequence[str]) -> tuple[list[EventStatus], bool]:
        """The books of these events as far as they can be read, and whether the engine answers.

        What can't be read is not quiet: it is read again the next time.
        """
        answers = await asyncio.gather(*map(self._queue.status, event_ids), return_exceptions=True)
        books: list[EventStatus] = []
        is_up = True
        for event_id, answer in zip(event_ids, answers, strict=True):
            if isinstance(answer, EventStatus):
                books.append(answer)
            elif isinstance(answer, EngineUnavailable):
                is_up = False
            else:
                _log.error("books could not be read", event_id=event_id, exc_info=answer)
                self._failed.inc()
        return books, is_up

    def _due(self, events: Sequence[str], woken: set[str]) -> list[str]:
        """The events to read now: quiet ones come up again when all others have."""
        quiet = list(self._quiet)
        for event_id in {*quiet[: None if "" in woken else _MOST_QUIET], *woken}:
            self._quiet.pop(event_id, None)
        return [event_id for event_id in events if event_id not in self._quiet]

    async def _read_for_ever(self) -> None:
        while True:
            try:
                await self.run_once()
            except Exception:  # noqa: BLE001 - logged and counted; the loop must go on
                _log.exception("the gauges could not be read")
                self._failed.inc()
            await asyncio.sleep(_EVERY_SECONDS)


def _is_quiet(books: EventStatus) -> bool:
    return not (books.waiting or books.processing or books.awaiting_payment or books.dead_letters)
