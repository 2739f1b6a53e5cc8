"""What runs scripts, on each kind of servers, and small scripts for it to run."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.asyncio import Redis

from booking_worker.queue import lane
from booking_worker.queue.lane import Call, Lane
from booking_worker.queue.routing import ClusterRunner
from booking_worker.queue.runner import ScriptRunner
from booking_worker.queue.scripts import Script


def script(text: str, name: str = "test") -> Script:
    """A script of these words."""
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, text, sha, (), (), (), each="", errors=frozenset())


COUNT = script("return redis.call('INCR', KEYS[1])")
ECHO = script("return ARGV[1]")
FAIL = script("return { err = 'NOT_FOUND' }")


@dataclass
class Ground:
    """What runs scripts on one kind of servers, and which calls travelled together."""

    runner: ScriptRunner | ClusterRunner
    servers: Sequence[Redis]
    """The one that has the key "n" comes first."""
    trips: list[int] = field(default_factory=list)
    at_once: int = 0

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count the trips from now on."""
        send = Lane._send

        def watched(self_: Lane, connection: Any, calls: Sequence[Call], **how: bool) -> None:
            if not how:
                self.trips.append(len(calls))
            send(self_, connection, calls, **how)
            self.at_once = max(self.at_once, len(self_._under_way))

        monkeypatch.setattr(Lane, "_send", watched)

    def hold(self, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
        """From now on no answer is read before the event is set."""
        goes_on = asyncio.Event()
        answer = lane._answer

        async def held(connection: Any) -> Any:
            await goes_on.wait()
            return await answer(connection)

        monkeypatch.setattr(lane, "_answer", held)
        return goes_on

    def run(self, script: Script, keys: list[str], args: list[Any]) -> asyncio.Future[Any]:
        """The answer, later."""
        # A script without keys would go to another node, so in another trip.
        return self.runner.run(script, keys or ["n"], args)

    async def ask(self, *words: Any) -> Any:
        """The answer of the server that has the key."""
        return await self.servers[0].execute_command(*words)

    async def forget_scripts(self) -> None:
        """Have no server know any script."""
        for server in self.servers:
            await server.script_flush()
