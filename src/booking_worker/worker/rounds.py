"""Looking at all events in turns, for what nobody gave notice of."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

_EVERY_SECONDS: Final = 1.0
_MOST_PER_TURN: Final = 25


class Rounds:
    """Says once a second which events to look at: those never seen before, and some others.

    Those others are so few that hundreds of events that are over cost next to nothing, and each
    of them still gets its turn: a turn begins where the last one ended.

    ``events`` lists all events; ``clock`` gives monotonic seconds.
    """

    def __init__(
        self,
        events: Callable[[], Awaitable[Sequence[str]]],
        most: int = _MOST_PER_TURN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = events
        self._most = most
        self._clock = clock
        self._due_at = clock()
        self._everything = True
        self._seen: set[str] = set()
        self._next = 0

    @property
    def seconds_until_due(self) -> float:
        """Seconds until the next turn; 0 when it is due."""
        return max(0.0, self._due_at - self._clock())

    def restart(self) -> None:
        """Anything may have happened unheard: the next turn is now, and for all events."""
        self._everything = True
        self._due_at = self._clock()

    async def turn(self) -> Sequence[str]:
        """The events to look at now; none when no turn is due. Raises what ``events`` raises."""
        if self.seconds_until_due > 0:
            return ()
        everything, self._everything = self._everything, False
        self._due_at = self._clock() + _EVERY_SECONDS
        try:
            names = await self._events()
        except BaseException:
            self._everything |= everything
            self._due_at = self._clock()
            raise
        seen, self._seen = self._seen, set(names)
        if everything or len(names) <= self._most:
            return names
        return [name for name in names if name not in seen] + self._some_of(seen & self._seen)

    def _some_of(self, names: set[str]) -> list[str]:
        in_order = sorted(names)
        start = self._next if self._next < len(in_order) else 0
        self._next = start + self._most
        return in_order[start : self._next]
