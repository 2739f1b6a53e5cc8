"""The engine's clock as a test moves it: fifteen minutes pass without sleeping."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from redis.asyncio import Redis, RedisCluster

from booking_worker.queue import keys

CLOCK_KEY: Final = "booking-test-clock"
BEGINNING: Final = 1_800_000_000_000
TAGS: Final = (
    "concert",
    "theatre",
    "fête-💃",
    "a",
    "b",
    "c",
    keys.WORKERS,
    keys.LAYOUT,
    keys.EVENTS,
)
"""What the tests' events are called: in a Cluster each slot has a clock of its own."""

MOVED_BY_TESTS: Final = {
    "includes/now": (Path(__file__).parents[1] / "lua" / "now.lua").read_text(encoding="utf-8")
}
"""For BookingQueue's ``script_overrides``: scripts that read the key instead of TIME."""


class Clock:
    """What the scripts of :data:`MOVED_BY_TESTS` take for the time."""

    def __init__(self, client: Redis | RedisCluster) -> None:
        self._client = client
        self.now = BEGINNING

    async def start(self) -> None:
        """Set the keys, without which the engine's own time counts."""
        await self._client.set(CLOCK_KEY, self.now)
        if isinstance(self._client, RedisCluster):
            for tag in TAGS:
                await self._client.set(f"{CLOCK_KEY}:{{{tag}}}", self.now)

    async def advance(self, milliseconds: int) -> None:
        """Let time pass; less than nothing is a step back."""
        self.now += milliseconds
        await self.start()

    async def stop(self) -> None:
        """From here on the engine's own time counts."""
        await self._client.delete(CLOCK_KEY)
        if isinstance(self._client, RedisCluster):
            for tag in TAGS:
                await self._client.delete(f"{CLOCK_KEY}:{{{tag}}}")
