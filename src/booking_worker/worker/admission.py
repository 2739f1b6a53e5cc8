"""Knowing whether anybody is to be admitted at all, and noticing that the engine lost its data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from booking_worker.domain.errors import EngineUnavailable, LayoutTooNew
from booking_worker.domain.model import Layout
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.metrics import Metrics

_EVERY_SECONDS: Final = 1.0

_log = get_logger(__name__)


class Admission:
    """Reads the record of the layout once a second, so that this replica keeps to it.

    An engine that was wiped, or has been replaced by an empty one, has another record than it
    had: every replica that knew the old one sees that, and the first to see it has admission
    paused, until an operator says that the books are right. ``record`` takes a line for the audit
    log; ``on_resumed`` hears that people may be admitted again.
    """

    def __init__(
        self,
        queue: BookingQueue,
        metrics: Metrics,
        record: Callable[[Mapping[str, Any]], None],
        on_resumed: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._lost = metrics.errors.labels("engine_lost_data")
        self._failed = metrics.errors.labels("layout")
        self._paused = metrics.admission_paused
        self._record = record
        self._on_resumed = on_resumed
        self._known: Layout | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def paused(self) -> str:
        """Why nobody is admitted to any event, in a sentence; empty when they are."""
        layout = self._queue.layout
        if layout is None or not layout.paused:
            return ""
        return f"paused by {layout.paused_by}: {layout.paused}"

    async def start(self) -> None:
        """Read the record, which a fresh engine gets now, and go on reading it.

        Raises:
            LayoutTooNew: the engine's keys are of a later version of the service.
            EngineUnavailable.
        """
        if self._reading is None:
            await self.run_once()
            self._reading = asyncio.create_task(self._read_for_ever())

    async def stop(self) -> None:
        """Read no more. May be called again."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def run_once(self) -> None:
        """Read the record once, and act on what it says. Raises as :meth:`start`."""
        layout = await self._queue.read_layout()
        before, self._known = self._known, layout
        self._paused.set(1 if layout.paused else 0)
        if before is None:
            if layout.paused:
                _log.warning("admission is paused", why=layout.paused, by=layout.paused_by)
            return
        if layout.id != before.id:
            self._lost.inc()
            _log.error("the engine lost its data", was=before.id, now=layout.id)
            self._record({"who": "system", "did": "pause", "event_id": "", "why": layout.paused})
        elif layout.paused and not before.paused:
            _log.warning("admission is paused", why=layout.paused, by=layout.paused_by)
        if before.paused and not layout.paused:
            _log.info("people are admitted again")
            self._on_resumed()

    async def _read_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                await self.run_once()
            except EngineUnavailable:
                pass  # The pool says so, and health; nobody is admitted without it either.
            except LayoutTooNew as error:
                self._failed.inc()
                _log.error("the layout can't be read", why=str(error))
            except Exception:  # noqa: BLE001 - logged and counted; the next read may do
                self._failed.inc()
                _log.exception("the layout can't be read")
