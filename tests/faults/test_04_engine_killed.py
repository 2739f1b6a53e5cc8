"""Fault 4: the engine is killed (-9) under load and comes back, with each durability setting.

A kill takes from the process what it had not written; a power cut takes from the machine what
it had not synced. The first is done here, the second is asked of the engine: WAITAOF says when
what a connection wrote is on disk.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import grpc
import grpc.aio
import pytest

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Joined
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.queue.acknowledge import Acknowledge
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.queue.lane import NO_WAIT
from tests.support.engines import engine_factories, engine_on, settings_of
from tests.support.page_cache import pages_not_on_disk, why_not_told
from tests.support.servers import HOST, Server, standalone
from tests.support.shop import EVENT, Shop
from tests.support.stage import LIMITS, a_join
from tests.support.wait import wait_until

Fsync = Literal["always", "everysec"]
TICKETS = 40
DOCUMENTED_LOSS_SECONDS = 2.0
SLACK_SECONDS = 0.5  # of a disk that is busy with other things
CLIENTS = 20
ENOUGH = 150
ON_DISKS = Acknowledge(replicas=1, aof=True)
Joining = Callable[[], Awaitable[bool]]


class Own:
    """The service's own engine, which the service starts again."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self.engine = engine
        self.settings: dict[str, str] = {}
        self.directory = engine.data_dir

    async def kill(self) -> None:
        self._killed = self.engine.pid
        assert self._killed is not None
        os.kill(self._killed, signal.SIGKILL)

    async def back(self) -> None:
        await wait_until(lambda: self.engine.pid not in {None, self._killed})


class Operators:
    """A server that somebody else runs, and starts again."""

    def __init__(self, server: Server, **settings: str) -> None:
        self.engine = engine_on(server)
        self.settings = settings_of(server) | settings
        self.directory = server.directory
        self._server = server

    async def kill(self) -> None:
        await self._server.kill()

    async def back(self) -> None:
        await self._server.start()


Ground = Own | Operators


@pytest.fixture(params=["embedded", "external"])
async def started(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[[Fsync], Awaitable[Ground]]]:
    """Starts an engine of the test's own; killed, it comes back with what was written."""
    async with AsyncExitStack() as stack:

        async def own(fsync: Fsync) -> Ground:
            engine = engine_factories()[0](tmp_path / "data", fsync)
            await engine.start()
            stack.push_async_callback(engine.stop)
            return Own(engine)

        async def external(fsync: Fsync) -> Ground:
            options = {"appendfsync": fsync}
            return Operators(await stack.enter_async_context(standalone(None, options)))

        yield own if request.param == "embedded" else external


class Load:
    """Joins by many clients, one user after another; each tries until it is acknowledged."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.acknowledged: dict[str, float] = {}
        self.unavailable = 0

    async def _client(self, name: int) -> None:
        number = 0
        while True:
            try:
                item_id = await self._shop.join(f"user-{name}-{number}")
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                self.unavailable += 1
                await asyncio.sleep(0.02)
            else:
                self.acknowledged[item_id] = time.monotonic()
                number += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        clients = [asyncio.ensure_future(self._client(name)) for name in range(CLIENTS)]
        try:
            yield
        finally:
            for client in clients:
                client.cancel()
            outcomes = await asyncio.gather(*clients, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in outcomes), outcomes

    async def more(self, number: int) -> None:
        """Return when that many more were acknowledged."""
        enough = len(self.acknowledged) + number
        await wait_until(lambda: len(self.acknowledged) >= enough, timeout=15)


@asynccontextmanager
async def killed_under_load(
    ground: Ground, directory: Path
) -> AsyncIterator[tuple[Shop, Load, float]]:
    """A sale whose engine was killed under load, and is back; and when that was."""
    shop = Shop(ground.engine, directory, TICKETS, settings=ground.settings)
    await shop.start()
    try:
        replica = await shop.open()
        load = Load(shop)
        async with load.running():
            await load.more(ENOUGH)
            killed_at = time.monotonic()
            await ground.kill()
            await wait_until(lambda: load.unavailable)
            await ground.back()
            await load.more(ENOUGH)
        assert replica.is_alive
        yield shop, load, killed_at
    finally:
        await shop.end()


async def test_no_acknowledged_join_is_lost_with_always(started: Any, tmp_path: Path):
    async with killed_under_load(await started("always"), tmp_path) as (shop, _, _):
        await shop.sell()
        assert shop.ledger().sold == TICKETS
        await shop.kept()


async def test_with_everysec_the_loss_stays_within_what_is_documented(
    started: Any, tmp_path: Path, record_property: Callable[[str, object], None]
):
    async with killed_under_load(await started("everysec"), tmp_path) as (shop, load, killed_at):
        places = await shop.places()
        lost = [item_id for item_id, place in places.items() if place is None]
        record_property("lost", len(lost))
        record_property("acknowledged", len(load.acknowledged))
        for item_id in lost:
            assert killed_at - load.acknowledged[item_id] < DOCUMENTED_LOSS_SECONDS
        assert shop.ledger().oversold == 0


@pytest.fixture
def disk_tells(tmp_path: Path) -> None:
    if why_not := why_not_told(tmp_path):
        pytest.skip(why_not)


async def acknowledged_joins(
    ground: Ground, number: int, acknowledge: Acknowledge = NO_WAIT
) -> AsyncIterator[int]:
    """Each time a join was acknowledged: the pages that a power cut would take at that moment."""
    async with ground.engine.client() as client:
        queue = BookingQueue(client, LIMITS, acknowledge=acknowledge)
        for at in range(number):
            (joined,) = await queue.join(EVENT, [a_join(f"user-{at}")])
            taken = not_on_disk(ground)
            assert isinstance(joined, Joined)
            yield taken


def not_on_disk(ground: Ground) -> int:
    files = [*ground.directory.glob("appendonlydir/*.aof")]
    assert files
    return pages_not_on_disk(*files)


@pytest.mark.usefixtures("disk_tells")
async def test_an_acknowledged_join_survives_a_power_cut_with_always(started: Any):
    ground = await started("always")
    assert [pages async for pages in acknowledged_joins(ground, 20)] == [0] * 20


@pytest.mark.usefixtures("disk_tells")
async def test_it_does_not_without_the_sync_before_the_answer(started: Any):
    ground = await started("everysec")
    assert any([pages async for pages in acknowledged_joins(ground, 20)])


@pytest.mark.usefixtures("disk_tells")
async def test_with_everysec_a_power_cut_takes_no_more_than_is_documented(
    started: Any, record_property: Callable[[str, object], None]
):
    ground = await started("everysec")
    window = 0.0
    for _ in range(2):
        acknowledged_at = time.monotonic()
        assert any([pages async for pages in acknowledged_joins(ground, 20)])
        await wait_until(lambda: not not_on_disk(ground), timeout=5)
        window = max(window, time.monotonic() - acknowledged_at)
    record_property("loss_window_seconds", window)
    assert window < DOCUMENTED_LOSS_SECONDS + SLACK_SECONDS


@pytest.mark.usefixtures("disk_tells")
async def test_an_acknowledged_join_survives_a_power_cut_with_waitaof():
    """With `always`, which engine/durability.py insists on: with everysec some servers lie."""
    # No control: with `always` each answer of the one engine is on disk anyway, so this passes
    # without WAITAOF too. What WAITAOF adds is the disks of replicas; see below.
    async with standalone(None, {"appendfsync": "always"}) as server:
        on_disk = Acknowledge(aof=True)
        pages = [taken async for taken in acknowledged_joins(Operators(server), 20, on_disk)]
        assert pages == [0] * 20


@asynccontextmanager
async def replicated(replicas_file: Literal["yes", "no"]) -> AsyncIterator[tuple[Server, Server]]:
    """A master and its replica, which has all by now, and syncs each write if it keeps a file."""
    always = {"appendfsync": "always"}
    async with standalone(None, always) as master:
        follows = {"replicaof": f"{HOST} {master.port}", "appendonly": replicas_file}
        async with standalone(None, always | follows) as replica:

            async def in_step() -> bool:
                async with master.client() as client:
                    await client.publish("nobody", "hears this")
                    return bool(await client.wait(1, 500))

            await wait_until(in_step)
            yield master, replica


@asynccontextmanager
async def joining(master: Server, acknowledge: Acknowledge) -> AsyncIterator[Joining]:
    """Joins, and says whether that was acknowledged."""
    async with master.client() as client:
        queue = BookingQueue(client, LIMITS, acknowledge=acknowledge)

        async def is_acknowledged() -> bool:
            try:
                (joined,) = await queue.join(EVENT, [a_join()])
            except EngineUnavailable:
                return False
            return isinstance(joined, Joined)

        yield is_acknowledged


async def test_with_waitaof_a_join_that_a_replica_has_in_memory_alone_is_not_acknowledged():
    async with replicated("no") as (master, _), joining(master, ON_DISKS) as is_acknowledged:
        assert not await is_acknowledged()


async def test_without_waitaof_it_is_and_dies_with_both():
    async with replicated("no") as (master, replica):
        async with joining(master, Acknowledge(replicas=1)) as is_acknowledged:
            await wait_until(is_acknowledged)
        assert await replica.ask("DBSIZE")
        await replica.kill()
        await master.kill()
        await replica.start()
        assert await replica.ask("DBSIZE") == 0


async def test_with_waitaof_an_acknowledged_join_survives_the_death_of_master_and_replica():
    async with replicated("yes") as (master, replica):
        async with joining(master, ON_DISKS) as is_acknowledged:
            await wait_until(is_acknowledged)
        kept = await replica.ask("DBSIZE")
        await replica.kill()
        await master.kill()
        await replica.start()
        assert await replica.ask("DBSIZE") == kept > 0
