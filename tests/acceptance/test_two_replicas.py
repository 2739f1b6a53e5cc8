"""A sale by two replicas over one server, and what operators fear on the night."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis.asyncio import Redis

from booking_worker.sandbox import demo
from booking_worker.sandbox.demo import Sale, hold_sale
from booking_worker.sandbox.report import Report
from booking_worker.sandbox.stage import Stage
from tests.support.processes import child_environment, needs_proc, processes_in
from tests.support.wait import wait_until

PAUSE_SECONDS = 10.0


class Trouble:
    """Does one thing after another to a stage, from when people wait; as demo.Chaos does."""

    def __init__(self, stage: Stage, does: Callable[[Trouble], Awaitable[None]]) -> None:
        self.stage = stage
        self.stopping = asyncio.Event()
        self.blows: Counter[str] = Counter()
        self._does = does

    async def run(self) -> None:
        await wait_until(self._people_wait, timeout=30)
        await self._does(self)

    def stop(self) -> None:
        self.stopping.set()

    async def pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            pass

    async def _people_wait(self) -> bool:
        books = await self.stage.books("demo")
        return books is not None and books["waiting"] > 0


async def killed_one_after_the_other(trouble: Trouble) -> None:
    """kill -9 of either, again and again."""
    while not trouble.stopping.is_set():
        trouble.stage.kill_service()
        trouble.blows["killed"] += 1
        await trouble.pause(0.5)
        await trouble.stage.start_service()


async def restarted_one_after_the_other(trouble: Trouble) -> None:
    """SIGTERM and a start of each in its turn, as an upgrade does."""
    for service in trouble.stage._services * 2:
        await service.stop()
        trouble.blows["restarted"] += 1
        await trouble.stage.start_service()


async def paused_for_longer_than_its_lease(trouble: Trouble) -> None:
    """SIGSTOP of each in its turn; the leases of 2 s end meanwhile."""
    for service in trouble.stage._services:
        pid = service.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        trouble.blows["paused"] += 1
        try:
            # To the end, whatever the sale does: what it had begun it must not be able to end.
            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            os.kill(pid, signal.SIGCONT)


async def the_engine_goes_and_comes(trouble: Trouble) -> None:
    """kill -9, SHUTDOWN, starts from the append-only file; then each second all are cut off."""
    engine = trouble.stage._engine
    assert engine is not None
    engine.kill()
    trouble.blows["killed"] += 1
    await engine.start()
    await trouble.pause(1.0)
    await engine.stop()
    trouble.blows["shut down"] += 1
    await trouble.pause(1.0)
    await engine.start()
    async with Redis(port=engine.port) as client:
        while not trouble.stopping.is_set():
            trouble.blows["cut off"] += await client.execute_command(
                "CLIENT", "KILL", "TYPE", "normal"
            )
            await trouble.pause(1.0)


@asynccontextmanager
async def short_directory() -> AsyncIterator[Path]:
    with TemporaryDirectory(prefix="bw-", dir="/tmp") as directory:
        yield Path(directory)
        for pid in processes_in(Path(directory)):
            os.kill(pid, signal.SIGKILL)


@needs_proc
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "does",
    [
        killed_one_after_the_other,
        restarted_one_after_the_other,
        paused_for_longer_than_its_lease,
        the_engine_goes_and_comes,
    ],
)
async def test_a_sale_survives(
    does: Callable[[Trouble], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
):
    troubles: list[Trouble] = []

    def trouble(stage: Stage, _seed: int) -> Trouble:
        troubles.append(Trouble(stage, does))
        return troubles[0]

    monkeypatch.setattr(demo, "Chaos", trouble)
    sale = Sale(buyers=150, tickets=20, seed=1, chaos=True, replicas=2)
    async with short_directory() as directory:
        environment = child_environment(tmp_path_factory)
        report: Report = await hold_sale(sale, directory, environment, lambda _: None)
        assert report.broken == ()
        assert processes_in(directory) == []
    promises = (
        report.oversold, report.lost, report.duplicate_bookings, report.order_inversions,
    )  # fmt: skip
    assert promises == (0, 0, 0, 0)
    assert report.joined == 150
    assert troubles[0].blows
