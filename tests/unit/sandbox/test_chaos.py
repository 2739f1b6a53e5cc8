from __future__ import annotations

import asyncio
import random

import pytest

from booking_worker.proto.sandbox_pb2 import Faults
from booking_worker.sandbox.chaos import SERVICES, Blow, Chaos, random_faults
from booking_worker.sandbox.control_service import faults_of
from tests.support.wait import wait_until


class Whipping:
    """Takes every blow and remembers it."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.faults: dict[str, Faults] = {}

    async def start_service(self) -> None:
        self.taken.append("start service")

    async def start_engine(self) -> None:
        self.taken.append("start engine")

    async def start_sandbox(self) -> None:
        self.taken.append("start sandbox")

    def kill_service(self) -> None:
        self.taken.append("kill service")

    def kill_engine(self) -> None:
        self.taken.append("kill engine")

    def kill_sandbox(self) -> None:
        self.taken.append("kill sandbox")

    async def set_faults(self, service: str, faults: Faults) -> None:
        for name in [service] if service else SERVICES:
            self.faults[name] = faults


@pytest.mark.parametrize(
    "blow, taken",
    [
        (Blow.SERVICE_KILLED, ["kill service", "start service"]),
        (Blow.ENGINE_KILLED, ["kill engine", "start engine"]),
        (Blow.BOTH_KILLED, ["kill service", "kill engine", "start engine", "start service"]),
        (Blow.SANDBOX_KILLED, ["kill sandbox", "start sandbox"]),
        (Blow.FAULTS_CHANGED, []),
    ],
)
async def test_what_is_killed_is_started_again(blow: Blow, taken: list[str]):
    victim = Whipping()
    chaos = Chaos(victim, seed=1)
    await chaos.strike(blow)
    assert victim.taken == taken
    assert len(victim.faults) == (blow is Blow.FAULTS_CHANGED)
    assert chaos.blows == {blow: 1}


async def planned(seed: int, count: int) -> list[Blow]:
    chaos = Chaos(Whipping(), seed)
    blows = []
    for _ in range(count):
        blows.append(chaos.next_blow())
        await chaos.strike(blows[-1])
    return blows


async def test_the_service_is_killed_first_and_every_kind_of_blow_comes():
    blows = await planned(seed=3, count=60)
    assert blows[0] is Blow.SERVICE_KILLED
    kills = [blow for blow in blows if blow is not Blow.FAULTS_CHANGED]
    assert len(set(kills[:4])) == 4
    assert Blow.FAULTS_CHANGED in blows


async def test_the_same_seed_plans_the_same():
    assert await planned(seed=5, count=30) == await planned(seed=5, count=30)
    assert await planned(seed=5, count=30) != await planned(seed=6, count=30)


async def test_when_it_stops_all_is_whole():
    victim = Whipping()
    chaos = Chaos(victim, seed=1)
    running = asyncio.create_task(chaos.run())
    await wait_until(lambda: chaos.blows)
    chaos.stop()
    await running
    assert victim.taken.count("kill service") == victim.taken.count("start service")
    assert victim.faults == dict.fromkeys(SERVICES, Faults())


async def test_what_does_not_start_again_is_not_kept_quiet():
    class Dead(Whipping):
        async def start_service(self) -> None:
            raise RuntimeError("stays down")

    with pytest.raises(RuntimeError, match="stays down"):
        await Chaos(Dead(), seed=1).run()


def test_faults_are_such_as_the_sandbox_takes():
    rng = random.Random(1)
    drawn = [random_faults(rng) for _ in range(300)]
    for faults in drawn:
        faults_of(faults)
    assert any(faults.down for faults in drawn)
    assert any(faults.lost_answer_rate for faults in drawn)


def test_no_stand_in_lies():
    """Buyers of the demo would be told that they are rejected for that alone."""
    rng = random.Random(1)
    drawn = [random_faults(rng) for _ in range(300)]
    assert not any(faults.overstate or faults.refuse or faults.malformed for faults in drawn)
