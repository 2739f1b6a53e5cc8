"""Acting on deadlines as they pass, and mending what disagrees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.queue.booking_queue import BookingQueue, Mended
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.metrics import Metrics
from booking_worker.worker.housekeeping import Housekeeping

_SHORTEST_SECONDS: Final = 0.02
_LONGEST_SECONDS: Final = 1.0
_FIRST_PAUSE_SECONDS: Final = 0.1
_OVERDUE_MS: Final = 1_000
"""A deadline that passed so long ago is acted on by whoever sees it."""
_MOST_AT_ONCE: Final = 50

_log = get_logger(__name__)


class TimeoutHandler:
    """Acts on the deadlines of all events that are alive, and sweeps every ``cleanup_seconds``.

    Those of the events that this replica looks after it acts on as they pass, looking once a
    second at least, as a lease may have been given since that ends before what is known. Those
    of other events it acts on as well when they passed a second ago: whoever should have has
    died, or nobody can be elected, and two who do it at once do no harm.
    """

    def __init__(
        self,
        queue: BookingQueue,
        house: Housekeeping,
        metrics: Metrics,
        cleanup_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._house = house
        self._metrics = metrics
        self._cleanup_seconds = cleanup_seconds
        self._clock = clock
        self._due: dict[str, float] = {}
        self._signal = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        house.listen(self._on_news)

    def _on_news(self, event_id: str) -> None:
        """This event has come alive, or is looked after here from now on."""
        self._due[event_id] = self._clock() + _SHORTEST_SECONDS
        self._signal.set()

    def wake(self, event_id: str) -> None:
        """This event may have got a deadline that is not known here."""
        if event_id not in self._due and event_id in self._house.alive:
            self._on_news(event_id)

    async def start(self) -> None:
        """Begin to look after deadlines and to sweep."""
        if not self._loops:
            self._loops = [
                asyncio.create_task(self._expire_for_ever()),
                asyncio.create_task(self._sweep_for_ever()),
            ]

    async def stop(self) -> None:
        """Do nothing more. May be called again."""
        loops, self._loops = self._loops, []
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)

    async def run_once(self) -> float:
        """Act on every deadline that is due; seconds until one may be again.

        Raises EngineUnavailable; what was due then still is.
        """
        now = self._clock()
        alive = self._house.alive
        for event_id in [event_id for event_id in self._due if event_id not in alive]:
            del self._due[event_id]
        due = [event_id for event_id, at in self._due.items() if at <= now]
        away = None
        for start in range(0, len(due), _MOST_AT_ONCE):
            chunk = due[start : start + _MOST_AT_ONCE]
            outcomes = await asyncio.gather(*map(self._expire, chunk), return_exceptions=True)
            for event_id, outcome in zip(chunk, outcomes, strict=True):
                if isinstance(outcome, EngineUnavailable):
                    away = outcome
                    self._due[event_id] = now
                elif isinstance(outcome, BaseException):
                    self._defect(event_id, outcome)
        if away is not None:
            raise away
        return max(0.0, min(self._due.values(), default=float("inf")) - self._clock())

    async def sweep_once(self) -> list[Mended]:
        """Cross-check the indexes of events, and mend and count what disagrees.

        Of the events that this replica looks after, and, when it is its turn, of those that are
        over, which leave the list of events then. Raises EngineUnavailable, of one event after
        all others were swept.
        """
        found: list[Mended] = []
        away = None
        turn = await self._house.is_our_turn(self._cleanup_seconds)
        for event_id in await self._queue.events():
            is_over = event_id not in self._house.alive
            if not (self._house.is_ours(event_id) or (turn and is_over)):
                continue
            # One event that can't be swept must not keep the others from it.
            try:
                found += await self._sweep(event_id)
            except EngineUnavailable as error:
                away = error
            except Exception:  # noqa: BLE001 - logged and counted
                _log.exception("could not sweep", event_id=event_id)
                self._metrics.errors.labels("sweep").inc()
        if turn:
            for event_id in await self._queue.retire():
                _log.info("an event is over", event_id=event_id)
        if away is not None:
            raise away
        return found

    async def _sweep(self, event_id: str) -> list[Mended]:
        mended = await self._queue.sweep(event_id)
        for name, wrong in ((entry.name, entry.wrong) for entry in mended):
            _log.error("mended", event_id=event_id, name=name, wrong=wrong)
        if mended:
            self._metrics.sweep_repairs.inc(len(mended))
            self._house.want(event_id)
        return mended

    async def _expire(self, event_id: str) -> None:
        # Taken out first: whoever tells of news from now on has it looked at again.
        del self._due[event_id]
        is_ours = self._house.is_ours(event_id)
        overdue_ms = 0 if is_ours else _OVERDUE_MS
        next_in_ms = await self._queue.next_deadline(event_id)
        more = next_in_ms is not None and next_in_ms <= -overdue_ms
        while more:
            _, more, next_in_ms = await self._queue.expire(event_id, overdue_ms=overdue_ms)
        wait = _LONGEST_SECONDS
        if next_in_ms is not None:
            self._house.want(event_id)
            if is_ours:
                wait = min(max(next_in_ms / 1000, _SHORTEST_SECONDS), _LONGEST_SECONDS)
        due = self._clock() + wait
        self._due[event_id] = min(self._due.get(event_id, due), due)

    def _defect(self, event_id: str, error: BaseException) -> None:
        """One event that can't be looked after must not keep the others from it."""
        _log.error("deadlines could not be acted on", event_id=event_id, exc_info=error)
        self._metrics.errors.labels("expire").inc()
        self._due[event_id] = self._clock() + _LONGEST_SECONDS

    async def _expire_for_ever(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                seconds = await self.run_once()
                pause = _FIRST_PAUSE_SECONDS
            except EngineUnavailable:
                # The pool says so, and health.
                seconds, pause = pause, min(pause * 2, _LONGEST_SECONDS)
            except Exception:  # noqa: BLE001 - logged and counted; the loop must go on
                _log.exception("deadlines could not be acted on")
                self._metrics.errors.labels("expire").inc()
                seconds = _LONGEST_SECONDS
            try:
                async with asyncio.timeout(seconds):
                    await self._signal.wait()
            except TimeoutError:
                pass
            self._signal.clear()

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._cleanup_seconds)
            try:
                await self.sweep_once()
            except EngineUnavailable as error:
                _log.warning("could not sweep", why=str(error))
            except Exception:  # noqa: BLE001 - logged and counted; the loop must go on
                _log.exception("could not sweep")
                self._metrics.errors.labels("sweep").inc()
