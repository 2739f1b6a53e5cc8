"""A rush on a queue, and a worker on it, while a test harms the engine under both."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from booking_worker.domain.errors import EngineUnavailable, Fenced
from booking_worker.domain.model import Held, Joined, Lease, Task
from booking_worker.intake.direct import DirectIntake
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.metrics import Metrics
from tests.support.stage import a_join
from tests.support.wait import wait_until

WITHIN_SECONDS: Final = 2.0 + 0.6  # of a test machine that is busy with other things
_CLIENTS: Final = 12


class Acknowledged(NamedTuple):
    """A place that somebody was told of."""

    item_id: str
    asked_at: float
    told_at: float


class Rush:
    """Clients that join one after another, and look where they stand; each asks until answered.

    Nobody may hear anything but a place or EngineUnavailable, and that within 2 s; all else ends
    the block of :meth:`running` with an error.
    """

    def __init__(self, queue: BookingQueue, events: Sequence[str]) -> None:
        self.queue = queue
        self.events = events
        self.acknowledged: dict[str, list[Acknowledged]] = defaultdict(list)
        self.unavailable = 0
        self.longest = 0.0
        self.leases: dict[str, list[Lease]] = defaultdict(list)
        self._intake = DirectIntake(queue, Metrics())
        self._over = False
        self._runs: list[asyncio.Future[None]] = []

    @property
    def ended(self) -> bool:
        """Whether somebody heard what nobody may hear."""
        return any(run.done() for run in self._runs)

    @property
    def joined(self) -> int:
        """How many were told of a place."""
        return sum(map(len, self.acknowledged.values()))

    async def more(self, number: int = 100) -> None:
        """Return when so many more were told of a place."""
        enough = self.joined + number
        await wait_until(lambda: self.ended or self.joined >= enough, timeout=20)

    async def more_claimed(self, number: int = 1) -> None:
        """Return when the worker has got so many more tasks."""
        enough = sum(map(len, self.leases.values())) + number
        await wait_until(
            lambda: self.ended or sum(map(len, self.leases.values())) >= enough, timeout=20
        )

    @asynccontextmanager
    async def running(self, *, works: bool = False) -> AsyncIterator[None]:
        """While the block runs; with ``works`` a worker reserves for all who wait."""
        self._runs = [asyncio.ensure_future(self._client(number)) for number in range(_CLIENTS)]
        if works:
            self._runs.append(asyncio.ensure_future(self._worker()))
        try:
            yield
        finally:
            self._over = True
            await asyncio.wait(self._runs)
            await self._intake.stop()
        for run in self._runs:
            run.result()
        assert self.longest < WITHIN_SECONDS

    async def _client(self, number: int) -> None:
        for turn in itertools.count():
            event_id = self.events[(number + turn) % len(self.events)]
            asked_at = time.monotonic()
            joined = None
            while joined is None:
                if self._over:
                    return
                join = a_join(f"user-{number}-{turn}", event_id=event_id)
                joined = await self._told(self._intake.join(event_id, join))
            assert isinstance(joined, Joined), joined
            self.acknowledged[event_id].append(
                Acknowledged(joined.item_id, asked_at, time.monotonic())
            )
            await self._told(self.queue.positions(event_id, [joined.item_id]))

    async def _told(self, answer: Awaitable[Any]) -> Any:
        began = time.monotonic()
        try:
            return await answer
        except EngineUnavailable:
            self.unavailable += 1
            await asyncio.sleep(0.01)
            return None
        finally:
            self.longest = max(self.longest, time.monotonic() - began)

    async def _worker(self) -> None:
        while not self._over:
            claims = (
                self.queue.claim(event_id, "w", 2, frozenset({Task.RESERVE}))
                for event_id in self.events
            )
            answers = await asyncio.gather(*(self._told(claim) for claim in claims))
            for event_id, claimed in zip(self.events, answers, strict=True):
                if claimed and claimed.needs_refresh:
                    await self._told(self.open(event_id))
                for lease in claimed.leases if claimed else ():
                    self.leases[event_id].append(lease)
                    await self._settle(lease)

    async def open(self, event_id: str) -> None:
        """As a refresh without a Ticket Service does: there is enough for all."""
        question = await self.queue.ask_capacity(event_id)
        await self.queue.set_capacity(event_id, question, None)

    async def _settle(self, lease: Lease) -> None:
        held = Held(f"B-{lease.item_id}", "REF", hold_ms=None)
        try:
            while not self._over and not await self._told(self.queue.settle_held(lease, held)):
                pass
        except Fenced:
            # The answer to the first try was lost: it has had its effect.
            assert self.unavailable

    # --- what must hold afterwards ------------------------------------------------------------

    async def lost(self) -> list[str]:
        """The ids of which nothing is left, though somebody was told of them."""
        ids = [one.item_id for told in self.acknowledged.values() for one in told]
        assert len(set(ids)) == len(ids), "a place was given twice"
        gone = []
        for event_id, told in self.acknowledged.items():
            for at in range(0, len(told), 500):
                chunk = [one.item_id for one in told[at : at + 500]]
                places = await self.queue.positions(event_id, chunk)
                gone += [item for item, place in zip(chunk, places, strict=True) if place is None]
        return gone

    async def check_order(self) -> None:
        """Numbers are given once, and who was told before another asked comes before them."""
        for event_id, told in self.acknowledged.items():
            there = {one.item_id: one for one in told}
            items = [
                item
                for index in ("admitted", "waiting")
                for item in await self._items(event_id, index)
            ]
            numbers = Counter(item.seq for item in items)
            assert max(numbers.values(), default=1) == 1, "a number was given twice"
            latest = 0.0
            for item in sorted(items, key=lambda item: item.seq):
                one = there.get(item.item_id)
                if one is not None:
                    assert one.told_at >= latest, "overtaken by somebody who asked later"
                    latest = max(latest, one.asked_at)

    async def _items(self, event_id: str, index: Any) -> list[Any]:
        found: list[Any] = []
        while chunk := await self.queue.list_items(event_id, index, len(found), 500):
            found += chunk
        return found

    def check_claims(self) -> None:
        """Nobody was handed out twice, and everybody in the order of the line."""
        for leases in self.leases.values():
            numbers = [lease.seq for lease in leases]
            assert numbers == sorted(set(numbers))
            tokens = [lease.token for lease in leases]
            assert tokens == sorted(set(tokens))
