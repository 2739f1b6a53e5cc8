"""One lease in a worker's hands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final, TypeVar

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Lease, Status
from booking_worker.queue.booking_queue import BookingQueue

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.0

Answer = TypeVar("Answer")


class Outcome(StrEnum):
    """What became of a task under one lease."""

    HELD = "held"
    REJECTED = "rejected"
    SHORT = "short"
    """Refused for lack of tickets: back at its place in the line."""
    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"
    RELEASED = "released"
    PAID = "paid"
    PAYING = "paying"
    GONE = "gone"
    RETRY = "retry"
    """Failed for now; it comes again."""
    FAILED = "failed"
    """Failed for good: a dead letter."""
    HANDED_BACK = "handed_back"
    FENCED = "fenced"
    """The lease had ended; another worker has the task."""
    LET_GO = "let_go"
    """The lease ended before the task did; it is redelivered."""


class Assignment:
    """A lease, and until when this worker may act under it by the worker's own clock.

    ``ends_at`` is on the event loop's clock and counts from before the claim was sent, so it is
    never later than the end that the engine knows.
    """

    __slots__ = ("_bound", "_queue", "asked", "ends_at", "lease", "seconds", "settling", "unsure")

    def __init__(
        self, queue: BookingQueue, lease: Lease, seconds: float, claimed_at: float
    ) -> None:
        self._queue = queue
        self._bound: asyncio.Timeout | None = None
        self.lease = lease
        self.seconds = seconds
        self.ends_at = claimed_at + seconds
        self.asked = False
        """Whether another service may have seen a call under this lease."""
        self.settling = False
        """Whether the outcome is known and on its way to the engine."""
        self.unsure = False
        """Whether the engine left a call of this lease unanswered, which may have taken effect."""

    async def bounded(self, run: Callable[[Assignment], Awaitable[Outcome]]) -> Outcome:
        """What the task comes to within the lease.

        Raises:
            TimeoutError: the lease ended first.
            Fenced: the engine says that it has ended.
        """
        if asyncio.get_running_loop().time() >= self.ends_at:
            raise TimeoutError
        async with asyncio.timeout_at(self.ends_at) as self._bound:
            return await run(self)

    async def extend(self) -> None:
        """Keep the lease for its whole length from now: to be done before each further call.

        Raises:
            Fenced: it has ended; no further call may be made.
        """
        began = asyncio.get_running_loop().time()
        await self.insist(lambda: self._queue.extend(self.lease))
        self.ends_at = began + self.seconds
        if self._bound is not None:
            self._bound.reschedule(self.ends_at)

    async def settle(self, transition: Callable[[], Awaitable[Status]]) -> Status:
        """Tell the engine what came of it, again and again until the lease ends.

        A peer's answer must not be lost for an engine that is away for a moment.

        Raises:
            Fenced: the lease has ended; nothing was changed (unless ``unsure``).
        """
        self.settling = True
        return await self.insist(transition)

    async def insist(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the engine answers, asked again and again until the lease ends."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await call()
            except EngineUnavailable:
                self.unsure = True
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
