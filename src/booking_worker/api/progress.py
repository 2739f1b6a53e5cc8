"""Whether the lines move: judged by what was seen to happen, not by anything being up.

Promise 9: with a healthy worker, tickets left and someone waiting, the head of a line moves
within a lease and a sweep.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import EventStatus
from booking_worker.queue.booking_queue import BookingQueue

_MOST_EVENTS_PER_LOOK = 200


class _Seen(NamedTuple):
    """What an event looked like, and since when it has looked exactly so."""

    marks: tuple[int, ...]
    since: float


def could_move(status: EventStatus) -> bool:
    """Whether the head of this line ought to be admitted now."""
    return (
        status.waiting > 0
        and not status.sold_out
        and not status.paused
        and status.capacity_known
        and (status.capacity is None or status.capacity >= status.head_seats)
    )


def marks(status: EventStatus) -> tuple[int, ...]:
    """Numbers of which one changes whenever the head of the line moves."""
    return (
        status.admitted,
        status.cancelled,
        status.expired,
        status.sold_out_items,
        status.processing,
        status.oldest_ms,
    )


class LineWatch:
    """Looks at the lines every few seconds and knows which of them stand still.

    ``patience_seconds`` is a lease and a sweep: as long as the head may stand still.
    """

    def __init__(
        self,
        queue: BookingQueue,
        patience_seconds: float,
        every_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._patience = patience_seconds
        self._every = every_seconds
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._paused: dict[str, str] = {}
        self._to_look_at: list[str] = []
        self._looking: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin to look."""
        if self._looking is None:
            self._stopping.clear()
            self._looking = asyncio.create_task(self._look_until_stopped())

    async def stop(self) -> None:
        """Look no more. May be called again."""
        # Not cancelled: before Python 3.12 `wait_for`, which redis-py sends a command by, forgets
        # a cancellation that comes just as it ends.
        self._stopping.set()
        looking, self._looking = self._looking, None
        if looking is not None:
            await looking

    def standing_still(self) -> dict[str, float]:
        """The events whose head ought to have moved by now, and for how many seconds it hasn't."""
        now = self._clock()
        return {
            event_id: now - seen.since
            for event_id, seen in self._seen.items()
            if now - seen.since > self._patience
        }

    def paused(self) -> dict[str, str]:
        """The events that somebody waits for in vain until an operator resumes them, and why."""
        return dict(self._paused)

    async def run_once(self) -> None:
        """Look at the events once: at all, or at the next 200 of very many.

        Raises:
            EngineUnavailable.
        """
        if not self._to_look_at:
            self._to_look_at = await self._queue.events()
            for known in (self._seen, self._paused):
                for event_id in known.keys() - set(self._to_look_at):
                    del known[event_id]
        events = self._to_look_at[:_MOST_EVENTS_PER_LOOK]
        # All that is asked at once travels together.
        books = await asyncio.gather(*map(self._queue.status, events), return_exceptions=True)
        for status in books:
            if isinstance(status, BaseException):
                raise status
            self._look_at(status)
        del self._to_look_at[:_MOST_EVENTS_PER_LOOK]

    def _look_at(self, status: EventStatus) -> None:
        event_id = status.event_id
        self._paused.pop(event_id, None)
        if status.paused_because and status.waiting:
            self._paused[event_id] = status.paused_because
        if not could_move(status):
            self._seen.pop(event_id, None)
            return
        seen = self._seen.get(event_id)
        now_marks = marks(status)
        if seen is None or seen.marks != now_marks:
            self._seen[event_id] = _Seen(now_marks, self._clock())

    async def _look_until_stopped(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.run_once()
            except EngineUnavailable:
                # Health asks the engine itself. What was seen is too old to be judged by now.
                self._seen.clear()
                self._to_look_at = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._stopping.wait()
