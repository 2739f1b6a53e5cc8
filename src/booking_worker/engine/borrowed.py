"""The engine of another process of the same service, which starts and stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from redis.asyncio import Redis

from booking_worker.engine.embedded import EmbeddedEngine


class BorrowedEngine:
    """An :class:`Engine` that makes clients of the embedded engine on ``data_dir``, no more."""

    def __init__(self, data_dir: Path, fsync: Literal["always", "everysec"]) -> None:
        self._theirs = EmbeddedEngine(data_dir, fsync)

    @property
    def description(self) -> str:
        """What runs, where, and how durable it is."""
        return self._theirs.description

    async def start(self) -> None:
        """Its owner has started it."""

    async def stop(self) -> None:
        """Others still need it."""

    def client(self) -> Redis:
        """A new client; see :meth:`Engine.client`."""
        return self._theirs.client()
