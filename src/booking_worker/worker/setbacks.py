"""What becomes of a task when a peer gave no answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from booking_worker.domain.backoff import full_jitter
from booking_worker.domain.errors import PeerBreakerOpen, PeerError
from booking_worker.domain.model import Status
from booking_worker.peers.breaker import Breaker, BreakerState
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.worker.assignment import Assignment, Outcome

_LONGEST_BACKOFF_SECONDS: Final = 60.0


class Setbacks:
    """Sends a task that failed for now back to the queue.

    ``interval_seconds`` is the longest first backoff; it doubles with each further attempt, up
    to a minute.
    """

    def __init__(
        self,
        queue: BookingQueue,
        interval_seconds: float,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._interval = interval_seconds
        self._rand = rand

    async def again(self, work: Assignment, error: PeerError, breaker: Breaker) -> Outcome:
        """It waits for the peer, or is retried.

        While the peer's breaker is open (it may be this failure that opened it) no attempt is
        used up: the task is ready as soon as the breaker lets calls through.
        """
        if not _is_away(error, breaker):
            return await self.retry(work, str(error))
        await work.settle(lambda: self._queue.hand_back(work.lease, asked=work.asked))
        return Outcome.HANDED_BACK

    async def later(self, work: Assignment, error: PeerError, breaker: Breaker) -> Outcome:
        """As :meth:`again`, for a peer that is asked only now and then.

        Such tasks are claimed while its breaker is open; were it ready at once, the peers that
        are asked before this one would be asked over and over again, all in vain.
        """
        if not _is_away(error, breaker):
            return await self.retry(work, str(error))
        seconds = breaker.seconds_until_trial + self._backoff(1)
        await work.settle(
            lambda: self._queue.settle_retry(
                work.lease, int(seconds * 1000), str(error), uses_up=False
            )
        )
        return Outcome.HANDED_BACK

    async def retry(self, work: Assignment, why: str) -> Outcome:
        """It is tried again after a backoff, or is a dead letter when that was the last time."""
        lease = work.lease
        seconds = self._backoff(lease.attempts + 1)
        status = await work.settle(
            lambda: self._queue.settle_retry(lease, int(seconds * 1000), why)
        )
        return Outcome.FAILED if status is Status.FAILED else Outcome.RETRY

    def _backoff(self, attempt: int) -> float:
        return full_jitter(attempt, self._interval, _LONGEST_BACKOFF_SECONDS, self._rand)


def _is_away(error: PeerError, breaker: Breaker) -> bool:
    return isinstance(error, PeerBreakerOpen) or breaker.state is not BreakerState.CLOSED
