"""Refreshes of capacity that are left to the replica that looks after the event."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from booking_worker.queue.booking_queue import BookingQueue, CapacityQuestion
from booking_worker.worker.housekeeping import Housekeeping

REPEAT_SECONDS: Final = 0.2
"""Not more often is another replica asked: messages get lost, but seldom."""
_GRACE_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Errand:
    refreshes: int
    """The answers that all replicas had taken when another was asked."""
    patience_ends: float


class Errands:
    """Asks another replica for a refresh, and sees whether it was made.

    Else every replica in which a claim is blocked would ask the Ticket Service. One that does
    nothing for longer than ``refresh_seconds`` is not relied on: perhaps it can't reach it.
    """

    def __init__(
        self,
        queue: BookingQueue,
        house: Housekeeping,
        refresh_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._house = house
        self._patience_seconds = refresh_seconds + _GRACE_SECONDS
        self._clock = clock
        self._errands: dict[str, _Errand] = {}

    async def leave(self, event_id: str, question: CapacityQuestion) -> float | None:
        """Until when a refresh that is wanted is left to another; None: it is to be made here.

        Infinite when it has been made, and nobody has wanted another since. Raises
        EngineUnavailable.
        """
        errand = self._errands.pop(event_id, None)
        now = self._clock()
        if not self._house.is_elsewhere(event_id):
            return None
        is_made = errand is not None and errand.refreshes != question.refreshes
        if errand is not None and errand.patience_ends <= now:
            return math.inf if is_made else None
        if errand is None or is_made:
            errand = _Errand(question.refreshes, now + self._patience_seconds)
        self._errands[event_id] = errand
        await self._queue.ask_for_refresh(event_id)
        return errand.patience_ends

    def take_back(self, event_id: str) -> bool:
        """Whether a refresh was left to another that nobody is known to have made."""
        return self._errands.pop(event_id, None) is not None
