"""How a join reaches the queue: the seam between the API and the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from booking_worker.domain.errors import BookingWorkerError
from booking_worker.domain.model import Join, Joined


class Intake(Protocol):
    """Brings joins into the line, as a :class:`~booking_worker.lifecycle.Part` of the service."""

    async def start(self) -> None:
        """Begin; return when joins are taken."""

    async def stop(self) -> None:
        """Return once every join taken so far has been answered. May be called again."""

    def join(self, event_id: str, join: Join) -> Awaitable[Joined]:
        """The place in line of one join, once it is as durable as the engine promises.

        Whoever awaits it may be cancelled at any time; the join may then have taken place, and
        asking again answers the same place.

        Raises (when awaited):
            IdempotencyConflict, QueueFull
            EngineUnavailable: the outcome is unknown; asking again is safe.
        """

    def join_many(
        self, event_id: str, joins: Sequence[Join]
    ) -> Awaitable[list[Joined | BookingWorkerError]]:
        """One outcome for each join, refusals too, in order; otherwise as :meth:`join`."""
