"""Hearing that something can be claimed: the engine's pub/sub, which wake.lua writes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from booking_worker.queue import keys
from booking_worker.telemetry.logs import get_logger

_LISTEN_SECONDS: Final = 1.0
_SILENT_LISTENS: Final = 5
"""After so many without a word the engine is asked for one; after as many more it is gone."""
_CANCEL_SECONDS: Final = 0.2
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.0

_log = get_logger(__name__)


class WakeListener:
    """Calls ``on_wake`` with an event id when something of that event can be claimed.

    ``on_refresh`` hears of an event whose capacity somebody wants refreshed, and ``on_freed`` of
    events that nobody looks after any more. Messages can be lost, so the listener only saves
    time: whoever is woken must also look by themselves now and then. After each connect it calls
    ``on_wake("")``: anything may have happened unheard. In a Cluster it listens
    to any one node, as each hears of all.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        on_wake: Callable[[str], None],
        on_refresh: Callable[[str], None],
        on_freed: Callable[[Sequence[str]], None],
    ) -> None:
        self._client = client
        self._on_wake = on_wake
        self._heard: dict[bytes, Callable[[str], None]] = {
            keys.WAKE_CHANNEL.encode(): on_wake,
            keys.REFRESH_CHANNEL.encode(): on_refresh,
            keys.FREE_CHANNEL.encode(): lambda names: on_freed(names.split("\n")),
        }
        self._listening: asyncio.Task[None] | None = None
        self._pause = _FIRST_PAUSE_SECONDS

    async def start(self) -> None:
        """Begin to listen; connects, and reconnects, in the background."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen_for_ever())

    async def stop(self) -> None:
        """Listen no more."""
        listening, self._listening = self._listening, None
        if listening is not None:
            # Again until it has: on Python 3.11 the client's timeouts may swallow a cancellation.
            while not listening.done():
                listening.cancel()
                await asyncio.wait({listening}, timeout=_CANCEL_SECONDS)

    async def _listen_for_ever(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, RedisClusterException, OSError, TimeoutError):
                # The engine is away; who calls it hears that, and health says so.
                await asyncio.sleep(self._pause)
                self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
            except Exception:  # noqa: BLE001 - logged; who must hear anything hears of the next
                _log.exception("could not listen to the engine")
                await asyncio.sleep(_LONGEST_PAUSE_SECONDS)

    async def _listen(self) -> NoReturn:
        """Listen until the connection is lost, which raises."""
        async with await self._ear() as pubsub:
            await pubsub.subscribe(*self._heard)
            self._pause = _FIRST_PAUSE_SECONDS
            self._on_wake("")
            silent = 0
            while True:
                message = await pubsub.get_message(timeout=_LISTEN_SECONDS)
                if message is None:
                    silent += 1
                    await _check(pubsub, silent)
                    continue
                silent = 0
                if message["type"] == "message":
                    self._heard[message["channel"]](message["data"].decode())

    async def _ear(self) -> PubSub:
        client = self._client
        if isinstance(client, Redis):
            return client.pubsub(ignore_subscribe_messages=True)
        await client.initialize()
        # Whom it listened to may be gone for good, and all whom it knew.
        await client.nodes_manager.initialize()
        return client.pubsub(client.get_random_node(), ignore_subscribe_messages=True)


async def _check(pubsub: PubSub, silent: int) -> None:
    """A master that hangs, or was cut off and replaced, leaves the connection as it was."""
    if silent == _SILENT_LISTENS:
        await pubsub.ping()
    elif silent >= 2 * _SILENT_LISTENS:
        msg = "the engine says nothing"
        raise TimeoutError(msg)
