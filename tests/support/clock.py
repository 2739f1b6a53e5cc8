"""The engine's clock as a test moves it: fifteen minutes pass without sleeping."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from redis.asyncio import Redis

CLOCK_KEY: Final = "booking-test-clock"
BEGINNING: Final = 1_800_000_000_000

MOVED_BY_TESTS: Final = {
    "includes/now": (Path(__file__).parents[1] / "lua" / "now.lua").read_text(encoding="utf-8")
}
"""For BookingQueue's ``script_overrides``: scripts that read the key instead of TIME."""


class Clock:
    """What the scripts of :data:`MOVED_BY_TESTS` take for the time."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self.now = BEGINNING

    async def start(self) -> None:
        """Set the key, without which the engine's own time counts."""
        await self._client.set(CLOCK_KEY, self.now)

    async def advance(self, milliseconds: int) -> None:
        """Let time pass; less than nothing is a step back."""
        self.now += milliseconds
        await self._client.set(CLOCK_KEY, self.now)
