"""Where the server that holds the queues comes from."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from redis.asyncio import Redis, RedisCluster

EngineClient: TypeAlias = Redis | RedisCluster


class Engine(Protocol):
    """A Redis-protocol server, reachable from :meth:`start` until :meth:`stop`: a Part."""

    @property
    def description(self) -> str:
        """One line for logs and health: what it is and where."""

    async def start(self) -> None:
        """Return once the engine answers and has loaded its data.

        Raises :class:`EngineInUse` when another service owns it and :class:`EngineFailed`, with
        a message that says what to do, when it cannot be had.
        """

    async def stop(self) -> None:
        """Let go of it; what was acknowledged stays. Stopping again, or before start, is fine."""

    def client(self) -> EngineClient:
        """A new client, which the caller closes; replies are bytes.

        It connects when first used and reconnects by itself, but never repeats a command: a
        command that got no answer raises ``redis.exceptions.ConnectionError`` or
        ``TimeoutError`` within 2 seconds, so a blocking read must ask for at most 1 second.
        """
