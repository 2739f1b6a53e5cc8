"""Saying that this replica's workers live, and hearing how many live in all."""

from __future__ import annotations

import asyncio
from typing import Final

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.logs import get_logger

_EVERY_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 0.5
"""After a beat that was not taken: readiness hangs on it, and is not to lag when all is well."""
_TTL_MS: Final = 7_000
"""Three beats may be lost before the slots count no more."""

_log = get_logger(__name__)


class Heartbeat:
    """Tells the engine every two seconds that ``slots`` live under this worker id."""

    def __init__(self, queue: BookingQueue, worker_id: str, slots: int) -> None:
        self._queue = queue
        self._worker_id = worker_id
        self._slots = slots
        self._beating: asyncio.Task[None] | None = None
        self.live_slots = slots
        """Slots that live over all replicas, as of the last beat."""
        self.refused = ""
        """Why the engine did not take the last beat; empty when it did.

        A beat is a write: what refuses it (NOREPLICAS, OOM, MISCONF, READONLY) refuses joins too,
        while reads are answered.
        """

    async def start(self) -> None:
        """Begin to beat."""
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat_for_ever())

    async def stop(self) -> None:
        """Beat no more, and take leave: these slots count no more."""
        beating, self._beating = self._beating, None
        if beating is None:
            return
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        try:
            await self._queue.heartbeat(self._worker_id, 0, _TTL_MS)
        except EngineUnavailable as error:
            _log.info("could not take leave; the slots will lapse", error=str(error))

    async def run_once(self) -> None:
        """Beat once. Raises EngineUnavailable."""
        self.live_slots = await self._queue.heartbeat(self._worker_id, self._slots, _TTL_MS)

    async def _beat_for_ever(self) -> None:
        while True:
            try:
                await self.run_once()
                self._is_taken()
            except EngineUnavailable as error:
                # What lives besides this replica is not known.
                self.live_slots = self._slots
                self._is_refused(str(error))
            except Exception as error:  # noqa: BLE001 - logged; the next beat may do
                _log.exception("a heartbeat failed")
                self._is_refused(f"{type(error).__name__}: {error}")
            await asyncio.sleep(_AGAIN_SECONDS if self.refused else _EVERY_SECONDS)

    def _is_taken(self) -> None:
        if self.refused:
            _log.info("the engine takes writes again")
        self.refused = ""

    def _is_refused(self, why: str) -> None:
        # The pool says so only while there is something to claim.
        if not self.refused:
            _log.warning("the engine did not take a write; trying again", why=why)
        self.refused = why
