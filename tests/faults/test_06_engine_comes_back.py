"""Fault 6: the engine comes back but the client stays idle, or goes on with who it was.

Connections are cut again and again, or lead to a master that has become a replica: callers hear
UNAVAILABLE meanwhile, and everything resumes by itself.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from booking_worker.api.health import Grade, engine_check, worker_check
from booking_worker.api.progress import LineWatch
from booking_worker.domain.errors import EngineUnavailable
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.queue.runner import ScriptRunner
from tests.support.clients import cluster_client, follows
from tests.support.cutting import Wire
from tests.support.engines import STANDALONE, SharedServers
from tests.support.queue_audit import problems_of
from tests.support.replica import Replica
from tests.support.rush import Rush
from tests.support.servers import HOST, Server, cluster, standalone
from tests.support.shop import Shop
from tests.support.stage import LIMITS, Stage
from tests.support.wait import wait_until
from tests.unit.peers.scripted import scripted_server
from tests.unit.worker.crew import Crew, made

EVENTS = [f"concert-{number}" for number in range(6)]
CUT_EVERY_SECONDS = 0.1
LIMITS_OF_A_RUSH = replace(LIMITS, max_size=100_000)


@pytest.fixture(params=["one server", "Cluster"])
async def ground(
    request: pytest.FixtureRequest,
) -> AsyncIterator[tuple[Redis | RedisCluster, Sequence[Server]]]:
    """A client, and the servers that it leads to."""
    if request.param == "Cluster":
        async with cluster() as nodes, cluster_client(nodes) as many:
            yield many, nodes.nodes
    else:
        async with standalone() as server, server.client() as one:
            yield one, [server]


@asynccontextmanager
async def cutting(servers: Sequence[Server]) -> AsyncIterator[list[int]]:
    """All clients are thrown out ten times a second; gives how many, each time."""
    over = asyncio.Event()
    cuts: list[int] = []

    async def cut() -> None:
        while not over.is_set():
            kill = ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            cuts.append(sum([await server.ask(*kill) for server in servers]))
            await asyncio.sleep(CUT_EVERY_SECONDS)

    cutter = asyncio.ensure_future(cut())
    try:
        yield cuts
    finally:
        over.set()
        await cutter


async def test_connections_cut_again_and_again(
    ground: tuple[Redis | RedisCluster, Sequence[Server]],
):
    client, servers = ground
    rush = Rush(BookingQueue(client, LIMITS_OF_A_RUSH), EVENTS)
    async with rush.running(works=True):
        await rush.more(50)
        async with cutting(servers) as cuts:
            await wait_until(lambda: rush.ended or len(cuts) >= 15, timeout=20)
        await rush.more(50)
        await rush.more_claimed(20)
    assert rush.unavailable
    assert await rush.lost() == []
    await rush.check_order()
    rush.check_claims()
    for event_id in EVENTS:
        assert await problems_of(client, event_id) == []


async def test_workers_resume_after_it():
    async with standalone() as server, server.client() as client, scripted_server() as peers:
        stage = Stage(client)
        peers.script.answers["CreateBooking"] = made
        async with Crew(stage, peers.endpoint, script=peers.script) as crew:
            pool = crew.pool()
            await pool.start()
            await crew.keeper.start()

            def is_hit() -> float:
                pool.wake("")  # it asks again, so that a cut finds it asking
                return crew.counted("errors_total", kind="engine")

            async with cutting([server]):
                await wait_until(is_hit)
            await stage.join_many(30)
            await wait_until(lambda: all_are_held(stage, 30))
            assert (
                len({one.idempotency_key for one in peers.script.requests("CreateBooking")}) == 30
            )


async def all_are_held(stage: Stage, number: int) -> bool:
    return (await stage.status()).awaiting_payment == number


class Switched:
    """A name that leads to a master, then to what was its replica; the old one goes on as such."""

    def __init__(self, old: Server, new: Server, wire: Wire) -> None:
        self._old = old
        self._new = new
        self._wire = wire
        self.client = Redis(
            host=HOST,
            port=int(wire.endpoint.rpartition(":")[2]),
            protocol=2,
            socket_timeout=1.2,
            retry=Retry(NoBackoff(), 0),
        )

    async def switch(self) -> None:
        """The replica becomes the master and the master its replica, which nobody is told."""
        await self._new.ask("REPLICAOF", "NO", "ONE")
        self._wire.lead_to(self._new.endpoint)
        await self._old.ask("REPLICAOF", HOST, self._new.port)


@pytest.fixture
async def switched() -> AsyncIterator[Switched]:
    async with standalone() as old, standalone() as new:
        await new.ask("REPLICAOF", HOST, old.port)
        await wait_until(lambda: follows(new))
        wire = Wire(old.endpoint)
        await wire.start()
        ground = Switched(old, new, wire)
        yield ground
        await ground.client.aclose()
        await wire.stop()


async def test_a_master_that_became_a_replica_is_left(switched: Switched):
    rush = Rush(BookingQueue(switched.client, LIMITS_OF_A_RUSH), EVENTS)
    async with rush.running(works=True):
        await rush.more(50)
        await switched.switch()
        await wait_until(lambda: rush.ended or rush.unavailable)
        await rush.more(50)
        await rush.more_claimed(20)
    await rush.check_order()


async def test_without_new_connections_nobody_ever_leaves_it(
    switched: Switched, monkeypatch: pytest.MonkeyPatch
):
    async def stay(runner: ScriptRunner) -> None:
        """The control: as a client that takes its connections for good."""

    monkeypatch.setattr(ScriptRunner, "_connect_anew", stay)
    rush = Rush(BookingQueue(switched.client, LIMITS_OF_A_RUSH), EVENTS)
    # More than travel at once: a busy machine's first use of another would lead to the new master.
    await asyncio.gather(*(switched.client.ping() for _ in range(8)))
    async with rush.running():
        await rush.more(50)
        await switched.switch()
        # What was answered before the switch is counted soon; then nobody gets in any more.
        await wait_until(lambda: rush.ended or rush.unavailable > 200)
        joined, unavailable = rush.joined, rush.unavailable
        await wait_until(lambda: rush.ended or rush.unavailable > unavailable + 200)
        assert rush.joined == joined


async def test_it_is_not_ready_while_no_claim_succeeds_though_reads_do():
    async with standalone() as server, server.client() as client, scripted_server() as peers:
        stage = Stage(client)
        peers.script.answers["CreateBooking"] = made
        async with Crew(stage, peers.endpoint, script=peers.script) as crew:
            pool = crew.pool()
            check = worker_check(LineWatch(stage.queue, 60), pool.seconds_since_claim, 0.5)
            await pool.run_once()
            assert (await check()).grade is Grade.HEALTHY
            await stage.join_one()
            await stage.capacity(10)
            await server.ask("CONFIG", "SET", "min-replicas-to-write", 1)

            async def refused() -> bool:
                assert (await stage.status()).waiting == 1  # a read, which is answered
                pool.wake("")
                with pytest.raises(EngineUnavailable):
                    await pool.run_once()
                return (await check()).grade is Grade.UNHEALTHY

            await wait_until(refused)
            assert (await check()).message.startswith("no claim has succeeded")
            await server.ask("CONFIG", "SET", "min-replicas-to-write", 0)
            await pool.run_once()
            assert (await check()).grade is Grade.HEALTHY
            await wait_until(lambda: all_are_held(stage, 1))


READY_SECONDS = 6
"""A beat that was under way, the beat after, and a finding that may be a second old; and slack."""
DEFAULT_PATIENCE = {"worker_lease_seconds": 30, "queue_cleanup_interval": 30}


async def page(replica: Replica, path: str) -> tuple[int, str]:
    """The code and the text of a page of the service."""

    def get() -> tuple[int, str]:
        try:
            url = f"http://{HOST}:{replica.http_port}{path}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(get)


async def engine_entry(replica: Replica) -> str:
    details: dict[str, Any] = json.loads((await page(replica, "/healthz"))[1])["details"]
    return str(details["engine"])


@pytest.mark.parametrize("engine", [STANDALONE], indirect=True)
@pytest.mark.parametrize(
    "setting, value, why",
    [("min-replicas-to-write", "1", "NOREPLICAS"), ("maxmemory", "1mb", "OutOfMemory")],
)
async def test_an_engine_that_takes_no_writes_is_seen_with_nobody_in_line(
    shop: Shop, engine: SharedServers, setting: str, value: str, why: str
):
    server = engine.made
    assert isinstance(server, Server)
    replica = await shop.open(**DEFAULT_PATIENCE)

    async def ready() -> bool:
        code, _ = await page(replica, "/readyz")
        return code == 200

    async def refused() -> bool:
        code, text = await page(replica, "/readyz")
        up = await replica.metric("booking_worker_engine_up")
        return code == 503 and up == 0 and "takes no writes" in text

    await wait_until(ready)
    await server.ask("CONFIG", "SET", setting, value)
    try:
        await wait_until(refused, timeout=READY_SECONDS)
        entry = await engine_entry(replica)
        assert entry.startswith("unhealthy: takes no writes")
        assert why in entry
        # The control: what is only read says that all is well, and goes on saying so.
        reads = engine_check(lambda: shop.queue.status(""))
        assert (await reads()).grade is Grade.HEALTHY
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await shop.join("ann")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.ask("CONFIG", "SET", setting, 0)
    await wait_until(ready, timeout=READY_SECONDS)
    assert (await engine_entry(replica)).startswith("healthy")
    await wait_until(lambda: engine_is_up(replica), timeout=READY_SECONDS)
    await shop.join("ann")


async def engine_is_up(replica: Replica) -> bool:
    return await replica.metric("booking_worker_engine_up") == 1
