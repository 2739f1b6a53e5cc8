"""Remembering who has a booking, for an engine that is replaced by one that does not know."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from booking_worker.domain.model import Lease
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.logs import get_logger

_MOST_REMEMBERED: Final = 20_000
"""Bookings of one replica: what a failover loses was made in seconds."""
_MOST_AT_ONCE: Final = 500

_log = get_logger(__name__)


class Recall:
    """The bookings that this replica made last, and the engine under which it did.

    A failover to a server that lags puts people back in the line who have a booking, and maybe
    have paid. Who made the booking tells the new engine, before anybody in line is told that all
    is sold. A replica that dies with the engine takes its memory along: then a reserve finds the
    booking only if it is its item's turn again.
    """

    def __init__(self, queue: BookingQueue) -> None:
        self._queue = queue
        self._booked: dict[str, dict[str, dict[str, int]]] = {}
        """event id -> engine that knows of the bookings -> item id -> its number in the line"""
        self._order: deque[tuple[str, str]] = deque()

    @property
    def events(self) -> Sequence[str]:
        """The events with bookings that are remembered."""
        return list(self._booked)

    def booked(self, lease: Lease) -> None:
        """The Booking Service has made the booking of a reserve."""
        engines = self._booked.setdefault(lease.event_id, {})
        engines.setdefault(lease.engine, {})[lease.item_id] = lease.seq
        self._order.append((lease.event_id, lease.item_id))
        while len(self._order) > _MOST_REMEMBERED:
            self._forget(*self._order.popleft())

    async def hear(self, event_id: str, engine: str) -> None:
        """This engine keeps the event now: if it is another than before, tell it of the bookings.

        Raises EngineUnavailable; what was not told then is told the next time.
        """
        engines = self._booked.get(event_id, {})
        untold = {
            item_id: seq
            for old, items in engines.items()
            if old != engine
            for item_id, seq in items.items()
        }
        if not untold:
            return
        again = 0
        in_order = sorted(untold, key=untold.__getitem__)
        for start in range(0, len(in_order), _MOST_AT_ONCE):
            again += await self._queue.readmit(event_id, in_order[start : start + _MOST_AT_ONCE])
        # Kept as the next engine may not know of this. More were made meanwhile, maybe.
        for old in engines.keys() - {engine}:
            for item_id in untold.keys() & engines[old].keys():
                engines.setdefault(engine, {})[item_id] = engines[old].pop(item_id)
            if not engines[old]:
                del engines[old]
        if again:
            _log.warning("admitted again: the engine was replaced", event_id=event_id, items=again)

    def _forget(self, event_id: str, item_id: str) -> None:
        engines = self._booked.get(event_id, {})
        for engine, items in list(engines.items()):
            items.pop(item_id, None)
            if not items:
                del engines[engine]
        if not engines:
            self._booked.pop(event_id, None)
