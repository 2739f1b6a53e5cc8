"""A circuit breaker: leaves a peer in peace that keeps failing, and tries it again by and by."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    """Every call goes through."""
    OPEN = "open"
    """No call goes through."""
    HALF_OPEN = "half_open"
    """One call goes through, or is under way, to see whether the peer is back."""


class Breaker:
    """Counts what a peer's calls came to, and says whether another one makes sense.

    ``failure_threshold`` failures in a row open it for ``open_seconds``; then one trial is let
    through. Each trial that fails doubles the time, up to ``max_open_seconds``; any success
    closes it. Every time is shortened by up to half at random, so that replicas that lost a
    peer together do not come back to it together.

    ``clock`` gives monotonic seconds, ``rand`` numbers in [0, 1).
    """

    def __init__(
        self,
        name: str,
        failure_threshold: int = 5,
        open_seconds: float = 2.0,
        max_open_seconds: float = 30.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._threshold = failure_threshold
        self._first_open_seconds = open_seconds
        self._max_open_seconds = max_open_seconds
        self._clock = clock
        self._rand = rand
        self._failures = 0
        self._is_open = False
        self._open_seconds = open_seconds
        self._trial_at = 0.0
        self._trial_is_out = False

    @property
    def allows(self) -> bool:
        """Whether a call would be let through now. Looking changes nothing: see :meth:`admit`."""
        if not self._is_open:
            return True
        return not self._trial_is_out and self._clock() >= self._trial_at

    @property
    def state(self) -> BreakerState:
        """Where it stands now."""
        if not self._is_open:
            return BreakerState.CLOSED
        if self._trial_is_out or self._clock() >= self._trial_at:
            return BreakerState.HALF_OPEN
        return BreakerState.OPEN

    @property
    def seconds_until_trial(self) -> float:
        """Seconds until a call may be let through again; 0 unless it is open."""
        if not self._is_open or self._trial_is_out:
            return 0.0
        return max(0.0, self._trial_at - self._clock())

    def admit(self) -> bool:
        """Let a call through, or not; half-open, the first one to ask is the trial.

        After True exactly one of :meth:`record_success`, :meth:`record_failure` and
        :meth:`abandon` must follow.
        """
        if not self._is_open:
            return True
        if not self.allows:
            return False
        self._trial_is_out = True
        return True

    def record_success(self) -> None:
        """The peer answered (a refusal is an answer): closed, whatever was before."""
        if self._failures:
            self._failures = 0
            self._is_open = False
            self._trial_is_out = False
            self._open_seconds = self._first_open_seconds

    def record_failure(self) -> None:
        """The peer did not answer, or not with sense."""
        self._failures += 1
        if self._is_open:
            # Calls that were under way when it opened say nothing new; the trial does.
            if self._trial_is_out:
                self._open_seconds = min(self._max_open_seconds, self._open_seconds * 2)
                self._open()
        elif self._failures >= self._threshold:
            self._open()

    def abandon(self) -> None:
        """The call was given up by its caller: nothing was learnt, the next one is the trial."""
        self._trial_is_out = False

    def _open(self) -> None:
        self._is_open = True
        self._trial_is_out = False
        self._trial_at = self._clock() + self._open_seconds * (1.0 - self._rand() / 2)
