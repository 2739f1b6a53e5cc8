"""What is known here about how fast each line moves, for the answers to joins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.estimate import wait_seconds
from booking_worker.domain.model import EventStatus, Rate

_FRESH_SECONDS = 1.0
_MOST_EVENTS = 4096


class Rates:
    """The admission rate of each event, asked for at most once a second and only when needed.

    A join must not wait for an estimate: it gets the latest known, and while there is none, -1.
    """

    def __init__(self, status: Callable[[str], Awaitable[EventStatus]]) -> None:
        self._status = status
        self._known: dict[str, tuple[Rate, int, float]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def wait_seconds(self, event_id: str, position: int) -> int:
        """As domain.estimate.wait_seconds, from what was known at most some seconds ago."""
        if position <= 0:
            return 0
        known = self._known.get(event_id)
        now = asyncio.get_running_loop().time()
        if (known is None or now - known[2] > _FRESH_SECONDS) and event_id not in self._asking:
            self._asking[event_id] = asyncio.create_task(self._ask(event_id))
        if known is None:
            return -1
        return wait_seconds(position, known[0], known[1])

    async def settle(self) -> None:
        """Return once no question is under way."""
        while self._asking:
            await asyncio.wait(self._asking.values())

    async def _ask(self, event_id: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            status = await self._status(event_id)
        except EngineUnavailable:
            # Those who join hear of it themselves; an estimate is not worth a second word.
            self._known.pop(event_id, None)
        else:
            if len(self._known) >= _MOST_EVENTS:
                self._known.clear()
            self._known[event_id] = (status.rate, status.now_ms, loop.time())
        finally:
            del self._asking[event_id]
