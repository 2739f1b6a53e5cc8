"""What is known here about how fast each line moves, for the answers to joins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NamedTuple

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.estimate import per_second, wait_seconds
from booking_worker.domain.model import EventStatus
from booking_worker.telemetry.logs import get_logger

_log = get_logger(__name__)

_FRESH_SECONDS = 2.0
_MOST_EVENTS = 4096


class _Known(NamedTuple):
    per_second: float
    """Admissions, at the time when it was asked."""
    stale_at: float
    """When it is to be asked again, by time.monotonic."""


class Rates:
    """The admission rate of each event, asked for at most every two seconds and only when needed.

    A join must not wait for an estimate: it gets the latest known, and while there is none, -1.
    """

    def __init__(self, status: Callable[[str], Awaitable[EventStatus]]) -> None:
        self._status = status
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def wait_seconds(self, event_id: str, position: int) -> int:
        """As domain.estimate.wait_seconds, from what was known at most some seconds ago."""
        if position <= 0:
            return 0
        known = self._known.get(event_id)
        # Not the event loop's clock: to find the loop costs a system call in Python 3.11.
        if (known is None or monotonic() > known.stale_at) and event_id not in self._asking:
            self._asking[event_id] = asyncio.create_task(self._ask(event_id))
        if known is None:
            return -1
        return wait_seconds(position, known.per_second)

    async def settle(self) -> None:
        """Return once no question is under way."""
        while self._asking:
            await asyncio.wait(self._asking.values())

    async def _ask(self, event_id: str) -> None:
        rate = 0.0
        try:
            status = await self._status(event_id)
            rate = per_second(status.rate, status.now_ms)
        except EngineUnavailable:
            # Those who join hear of it themselves; no estimate is given in the meantime.
            pass
        except Exception:  # noqa: BLE001 - an estimate is no reason to fail
            _log.exception("no rate of admission", event_id=event_id)
        finally:
            del self._asking[event_id]
        if len(self._known) >= _MOST_EVENTS:
            self._known.clear()
        stale_at = monotonic() + _FRESH_SECONDS
        self._known[event_id] = _Known(rate, stale_at)
