"""Runs scripts in the engine; here on one server, or on whichever Sentinel calls the master."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError
from typing_extensions import override

from booking_worker.queue.acknowledge import Acknowledge
from booking_worker.queue.lane import NO_WAIT, Call, Lane, Taker, Word, is_replicas, new_call
from booking_worker.queue.scripts import Script


class Runner(ABC):
    """Runs scripts and plain commands, wherever their keys are."""

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Word]) -> asyncio.Future[Any]:
        """The answer of the script, later; in a Cluster the keys must be of one slot.

        Raises (through the future):
            EngineUnavailable: no answer within 2 s, whether the script ran, or still will, is
                unknown; or the engine takes no writes now; or the script ran and its writes are
                not kept as ``acknowledge`` asks.
            redis.exceptions.ResponseError: the script answered with an error of its own.
        """
        call, answer = new_call(script, keys, args)
        self.add(call)
        return answer

    def run_for(
        self,
        taker: Taker,
        until: float,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Word],
    ) -> None:
        """As :meth:`run`, for a taker that keeps its own time: ``until``, by the event loop."""
        self.add(Call(script, keys, args, until, taker))

    def command(self, key: str, *words: Word) -> asyncio.Future[Any]:
        """The answer of a plain command on one key, as the engine gives it; otherwise as run."""
        call, answer = new_call(None, (key,), words)
        self.add(call)
        return answer

    @abstractmethod
    def add(self, call: Call) -> None:
        """Have a call leave soon."""


class ScriptRunner(Lane, Runner):
    """Runs scripts on one server, or on whichever Sentinel calls the master."""

    def __init__(self, client: Redis, acknowledge: Acknowledge = NO_WAIT) -> None:
        super().__init__(acknowledge)
        self._client = client

    @override
    def _failed(self, call: Call, error: Exception) -> None:
        super()._failed(call, error)
        self._leads_elsewhere |= is_replicas(error)

    @override
    async def _borrow(self) -> AbstractConnection:
        connection: AbstractConnection = await self._client.connection_pool.get_connection()
        return connection

    @override
    async def _give_back(self, connection: AbstractConnection) -> None:
        await self._client.connection_pool.release(connection)
        if self._leads_elsewhere:
            await self._connect_anew()

    async def _connect_anew(self) -> None:
        """Where the name or the address leads to now, another server may be the master."""
        pool = self._client.connection_pool
        await pool.update_active_connections_for_reconnect()
        with contextlib.suppress(RedisError, OSError):  # of connections that are gone already
            await pool.disconnect(inuse_connections=False)
