"""Does a longer line cost more? Four operations at four lengths, and the engine's memory."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import uvloop
from redis.asyncio import Redis

from bench import requests
from bench.processes import work_dir
from bench.report import Report, at_most
from booking_worker.domain.model import Joined, Task
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.queue.booking_queue import BookingQueue, QueueLimits

LENGTHS: Final = (1_000, 10_000, 100_000, 1_000_000)
ROUNDS: Final = 20
CALLS_PER_ROUND: Final = 25
MEMORY_ITEMS: Final = 100_000
FLAT: Final = 1.5
MOST_MEGABYTES: Final = 60.0
LIMITS: Final = QueueLimits(
    max_size=10_000_000,
    places_per_user=1,
    queue_timeout_ms=3_600_000,
    payment_timeout_ms=600_000,
    payment_grace_ms=60_000,
    result_ttl_ms=86_400_000,
    lease_ms=600_000,
    max_retries=3,
)

Operation = Callable[[], Awaitable[object]]


class Line:
    """The line of one event, kept at one length while operations are tried on it."""

    def __init__(self, queue: BookingQueue, length: int) -> None:
        self.length = length
        self._queue = queue
        self._event_id = f"line-{length}"
        # Whose place is which, and all places that ever were, by age: some have left. Taking one
        # out of a list of a million would move megabytes through the caches that the engine uses.
        self._users: dict[str, str] = {}
        self._ids: list[str] = []
        self._next = 0
        self._random = random.Random(length)

    async def fill(self) -> None:
        """Bring it to its length."""
        await self._queue.set_capacity(
            self._event_id, await self._queue.ask_capacity(self._event_id), None
        )
        while missing := self.length - len(self._users):
            await self._join(min(500, missing))

    async def refill(self) -> None:
        """Make up for those that left in a round."""
        await self._join(self.length - len(self._users))

    def _someone(self, at_least: float, at_most: float) -> str:
        """A waiting item's id, from this part of the line to that."""
        while True:
            part = self._random.uniform(at_least, at_most)
            item_id = self._ids[int(part * (len(self._ids) - 1))]
            if item_id in self._users:
                return item_id

    async def _join(self, number: int) -> None:
        joins = [requests.join(self._event_id, at) for at in range(self._next, self._next + number)]
        self._next += number
        for outcome, join in zip(await self._queue.join(self._event_id, joins), joins, strict=True):
            if not isinstance(outcome, Joined):
                raise outcome
            self._users[outcome.item_id] = join.user_id
            self._ids.append(outcome.item_id)

    async def join(self) -> None:
        """One more at the end."""
        await self._join(1)

    async def position(self) -> None:
        """Where somebody stands."""
        await self._queue.positions(self._event_id, [self._someone(0, 1)])

    async def cancel(self) -> None:
        """Somebody in the middle leaves."""
        item_id = self._someone(0.4, 0.6)
        user_id = self._users.pop(item_id)
        await self._queue.cancel(item_id, user_id, "", f"user:{user_id}")

    async def claim(self) -> None:
        """The head is admitted."""
        claimed = await self._queue.claim(self._event_id, "bench", 1, frozenset(Task))
        [lease] = claimed.leases
        del self._users[lease.item_id]

    def operations(self) -> dict[str, Operation]:
        """What is measured, by its name in the table."""
        return {
            "join": self.join,
            "position": self.position,
            "cancel": self.cancel,
            "claim": self.claim,
        }


async def engine_usec(client: Redis) -> float:
    """The engine's own time in scripts so far, microseconds."""
    stats: dict[str, Any] = await client.info("commandstats")
    return float(
        sum(stats.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("evalsha", "eval"))
    )


async def measure(client: Redis, lines: list[Line]) -> dict[tuple[str, int], tuple[float, float]]:
    """Microseconds of the engine, and until the answer, for each operation at each length.

    All lengths take their turn in every round, so that what else the machine does meets all.
    """
    engine: dict[tuple[str, int], list[float]] = defaultdict(list)
    wall: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for line in lines:
            for name, operation in line.operations().items():
                before = await engine_usec(client)
                times = []
                for _ in range(CALLS_PER_ROUND):
                    began = time.perf_counter()
                    await operation()
                    times.append(time.perf_counter() - began)
                spent = await engine_usec(client) - before
                engine[name, line.length].append(spent / CALLS_PER_ROUND)
                wall[name, line.length].append(statistics.median(times) * 1e6)
            await line.refill()
    return {key: (statistics.median(engine[key]), statistics.median(wall[key])) for key in engine}


async def megabytes(directory: Path) -> float:
    """What so many typical requests take in the engine above an empty one."""
    engine = EmbeddedEngine(directory / "memory", "everysec")
    await engine.start()
    try:
        async with engine.client() as client:
            queue = BookingQueue(client, LIMITS)
            line = Line(queue, MEMORY_ITEMS)
            empty = (await client.info("memory"))["used_memory"]
            await line.fill()
            return float((await client.info("memory"))["used_memory"] - empty) / 1e6
    finally:
        await engine.stop()


async def run_async(directory: Path, scale: float) -> Report:
    """The whole benchmark."""
    lengths = [length for length in LENGTHS if length <= LENGTHS[-1] * scale] or [LENGTHS[0]]
    memory = await megabytes(directory)
    # Without a sync before the answer: that would be the disk's time, and the same for all.
    engine = EmbeddedEngine(directory / "line", "everysec")
    await engine.start()
    try:
        async with engine.client() as client:
            queue = BookingQueue(client, LIMITS)
            lines = [Line(queue, length) for length in lengths]
            for line in lines:
                await line.fill()
            found = await measure(client, lines)
    finally:
        await engine.stop()
    return report(lengths, found, memory)


def report(
    lengths: list[int], found: dict[tuple[str, int], tuple[float, float]], memory: float
) -> Report:
    """Each operation beside itself at the shortest line: that is the reference."""
    rows: list[dict[str, Any]] = []
    worst = 0.0
    for name in dict.fromkeys(name for name, _ in found):
        base = found[name, lengths[0]][0]
        row: dict[str, Any] = {"what": f"{name} (engine, us)"}
        for length in lengths:
            row[f"{length:,}"] = round(found[name, length][0], 2)
        row["ratio"] = round(max(found[name, length][0] for length in lengths) / base, 3)
        worst = max(worst, row["ratio"])
        rows.append(row)
        rows.append(
            {"what": f"{name} (answer, us)"}
            | {f"{length:,}": round(found[name, length][1], 1) for length in lengths}
        )
    goals = [
        at_most(f"dearest length over the shortest, at most {FLAT}", worst, FLAT),
        at_most(
            f"MB for {MEMORY_ITEMS:,} typical requests, at most {MOST_MEGABYTES:.0f}",
            memory,
            MOST_MEGABYTES,
        ),
    ]
    return Report("line", rows, {"ratio": worst, "megabytes": memory}, goals)


def run(scale: float) -> Report:
    """See the module; ``scale`` shortens all lines."""
    with work_dir() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run_async(directory, scale))
