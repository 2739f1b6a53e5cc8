from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from booking_worker.lifecycle import run_until_told
from tests.support.wait import wait_until


class Whole:
    """Something that says what is done with it; both its start and its stop can be held up."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.may_start = asyncio.Event()
        self.may_stop = asyncio.Event()
        self.may_start.set()
        self.may_stop.set()
        self.signals: list[int] = []

    async def start(self) -> None:
        self.did.append("start")
        try:
            await self.may_start.wait()
        except asyncio.CancelledError:
            self.did.append("cancelled")
            raise

    async def stop(self) -> None:
        self.did.append("stop")
        await self.may_stop.wait()

    def run(self, on_ready: Callable[[], None] | None = None) -> asyncio.Task[None]:
        ready = on_ready or (lambda: self.did.append("ready"))
        return asyncio.create_task(
            run_until_told(self, on_ready=ready, at_once=self.signals.append)
        )

    async def until(self, what: str) -> None:
        await wait_until(lambda: what in self.did)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_runs_until_it_is_told(number: int):
    whole = Whole()
    running = whole.run()
    await whole.until("ready")
    os.kill(os.getpid(), number)
    await running
    assert whole.did == ["start", "ready", "stop"]
    assert whole.signals == []


async def test_it_is_stopped_when_what_is_done_once_it_is_ready_fails():
    def fail() -> None:
        raise ValueError("no such directory")

    whole = Whole()
    with pytest.raises(ValueError, match="no such directory"):
        await whole.run(fail)
    assert whole.did == ["start", "stop"]


async def test_a_start_that_fails_is_an_end_of_it():
    class Broken(Whole):
        async def start(self) -> None:
            raise ValueError("no engine")

    whole = Broken()
    with pytest.raises(ValueError, match="no engine"):
        await whole.run()
    assert whole.did == ["stop"]


async def test_told_while_it_starts_it_does_not_start_to_the_end():
    whole = Whole()
    whole.may_start.clear()
    running = whole.run()
    await whole.until("start")
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert whole.did == ["start", "cancelled", "stop"]


async def test_who_tells_it_again_does_not_want_to_wait():
    whole = Whole()
    whole.may_stop.clear()
    running = whole.run()
    await whole.until("ready")
    os.kill(os.getpid(), signal.SIGTERM)
    await whole.until("stop")
    os.kill(os.getpid(), signal.SIGINT)
    await wait_until(lambda: whole.signals)
    assert whole.signals == [signal.SIGINT]
    whole.may_stop.set()
    await running
