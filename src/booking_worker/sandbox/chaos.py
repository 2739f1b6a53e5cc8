"""What goes wrong in a sale on purpose: peers that fail, processes that are killed, at random."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from enum import StrEnum
from typing import Final, Protocol

from booking_worker.proto.sandbox_pb2 import Faults

SERVICES: Final = ("booking", "ticket", "realtime")
_KILL_SHARE: Final = 0.4
_SHORTEST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 0.9
_DOWN_SHARE: Final = 0.1


class Blow(StrEnum):
    """One thing that goes wrong."""

    SERVICE_KILLED = "service_killed"
    ENGINE_KILLED = "engine_killed"
    BOTH_KILLED = "both_killed"
    SANDBOX_KILLED = "sandbox_killed"
    FAULTS_CHANGED = "faults_changed"


_KILLS: Final = (Blow.SERVICE_KILLED, Blow.ENGINE_KILLED, Blow.BOTH_KILLED, Blow.SANDBOX_KILLED)


class Victim(Protocol):
    """What of a stage is needed to harm it."""

    async def start_service(self) -> None:
        """Start again each replica of the service that was killed."""

    async def start_engine(self) -> None:
        """Start the engine again, unless the service does so."""

    async def start_sandbox(self) -> None:
        """Start the sandbox again."""

    def kill_service(self) -> None:
        """Kill one replica of the service."""

    def kill_engine(self) -> None:
        """Kill the engine."""

    def kill_sandbox(self) -> None:
        """Kill the sandbox."""

    async def set_faults(self, service: str, faults: Faults) -> None:
        """Give one stand-in, or all, other faults."""


class Chaos:
    """Harms a stage again and again until it is told to stop; then all is whole again.

    The same seed plans the same blows; the service is the first to be killed.
    """

    def __init__(self, victim: Victim, seed: int) -> None:
        self._victim = victim
        self._rng = random.Random(seed)
        self._stop = asyncio.Event()
        self._kills = [Blow.SERVICE_KILLED, *self._rng.sample(_KILLS[1:], len(_KILLS) - 1)]
        self.blows: Counter[str] = Counter()
        """How often each thing was done."""

    async def run(self) -> None:
        """Do harm until :meth:`stop`.

        Raises:
            ProcessFailed: what was killed does not start again.
        """
        while not self._stop.is_set():
            pause = self._rng.uniform(_SHORTEST_PAUSE, _LONGEST_PAUSE)
            try:
                async with asyncio.timeout(pause):
                    await self._stop.wait()
            except TimeoutError:
                await self.strike(self.next_blow())
        await self._victim.set_faults("", Faults())

    def stop(self) -> None:
        """Do no more harm."""
        self._stop.set()

    def next_blow(self) -> Blow:
        """What goes wrong next; every kind of kill comes once before any comes again."""
        if self.blows and self._rng.random() >= _KILL_SHARE:
            return Blow.FAULTS_CHANGED
        return self._kills.pop(0) if self._kills else self._rng.choice(_KILLS)

    async def strike(self, blow: Blow) -> None:
        """Do it, and start again what was killed."""
        self.blows[blow] += 1
        victim = self._victim
        if blow is Blow.FAULTS_CHANGED:
            await victim.set_faults(self._rng.choice(SERVICES), random_faults(self._rng))
        if blow in {Blow.SERVICE_KILLED, Blow.BOTH_KILLED}:
            victim.kill_service()
        if blow in {Blow.ENGINE_KILLED, Blow.BOTH_KILLED}:
            victim.kill_engine()
            await victim.start_engine()
        if blow in {Blow.SERVICE_KILLED, Blow.BOTH_KILLED}:
            await victim.start_service()
        if blow is Blow.SANDBOX_KILLED:
            victim.kill_sandbox()
            await victim.start_sandbox()


def random_faults(rng: random.Random) -> Faults:
    """Faults of one stand-in that a sale has to live with.

    It fails, is slow or loses answers, but never lies: a Ticket Service that overstates has people
    admitted in vain, and rejected by its own word.
    """
    if rng.random() < _DOWN_SHARE:
        return Faults(down=True)
    return Faults(
        latency_ms=rng.choice((0.0, 20.0, 100.0)),
        error_rate=rng.choice((0.0, 0.1, 0.3)),
        lost_answer_rate=rng.choice((0.0, 0.1, 0.2)),
        hang_share=rng.choice((0.0, 0.3)),
    )
