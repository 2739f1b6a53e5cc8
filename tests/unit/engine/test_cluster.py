"""A Cluster whose slots move and whose nodes die, while others have commands under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, ClusterError, MovedError, RedisError
from redis.exceptions import ConnectionError as EngineConnectionError
from redis.exceptions import TimeoutError as EngineTimeoutError

from booking_worker.engine import cluster
from tests.support.engines import CLUSTER, Engines, ServersKind, engine_on
from tests.support.servers import HOST, Cluster, Server
from tests.support.servers import cluster as servers
from tests.support.wait import wait_until

WITHIN_SECONDS = 2.0 + 0.4  # of a test machine that is busy with other things


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    """Not the session's, as its slots are moved."""
    engines = Engines()
    settings = {"options": {"appendonly": "no", "cluster-require-full-coverage": "no"}}
    kind = ServersKind("Cluster to be moved", servers, CLUSTER.binary, settings)
    yield engines.get(kind).made
    engines.stop()


@pytest.fixture
async def client(made: Cluster) -> AsyncIterator[RedisCluster]:
    async with engine_on(made).client() as client:
        await client.flushall()
        yield client


def of_redis_py(made: Cluster) -> RedisCluster:
    return RedisCluster(
        startup_nodes=[ClusterNode(HOST, node.port) for node in made.nodes],
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=1.2,
        # It leaves connections open when it is closed soon after it has looked at the layout.
        reinitialize_steps=0,
    )


async def node_id(server: Server) -> str:
    return (await server.ask("CLUSTER", "MYID")).decode()


@asynccontextmanager
async def on_its_way(made: Cluster, key: str) -> AsyncIterator[Server]:
    """The key's slot is on its way to the server that is given, and stays where it was."""
    source = await made.owner(key)
    target = next(node for node in made.nodes if node is not source)
    slot = await source.ask("CLUSTER", "KEYSLOT", key)
    await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", await node_id(source))
    await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", await node_id(target))
    yield target
    for node in (source, target):
        await node.ask("CLUSTER", "SETSLOT", slot, "STABLE")


async def move(made: Cluster, key: str) -> Server:
    """Give the key's empty slot to another server."""
    async with on_its_way(made, key) as target:
        slot = await target.ask("CLUSTER", "KEYSLOT", key)
        for node in (target, *made.nodes):
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", await node_id(target))
    return target


async def connected_twice(client: RedisCluster, server: Server) -> None:
    """The client has two free connections to the server."""
    node = client.get_node(HOST, server.port)
    await asyncio.gather(*(node.execute_command("PING") for _ in range(2)))
    assert len(node._free) == 2


async def test_a_key_that_is_on_its_way_is_found(made: Cluster, client: RedisCluster):
    async with on_its_way(made, "place") as target:
        await connected_twice(client, target)
        for at in range(20):
            assert await client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "place", at)
        assert await client.get("place") == b"19"
        assert await client.delete("place") == 1


async def test_redis_py_asks_on_another_connection_than_it_sends_on(made: Cluster):
    """Why the client follows ASK itself."""
    async with of_redis_py(made) as client, on_its_way(made, "place") as target:
        await connected_twice(client, target)
        with pytest.raises(ClusterError, match="TTL exhausted"):
            await client.set("place", 1)


async def test_a_node_that_is_not_in_the_layout_yet_is_asked(made: Cluster, client: RedisCluster):
    async with on_its_way(made, "place") as target:
        del client.nodes_manager.nodes_cache[target.endpoint]
        assert await client.set("place", 1)
        assert await client.delete("place") == 1
    client.look_again()
    await client.get("place")


async def test_a_slot_that_has_moved_is_followed(made: Cluster, client: RedisCluster):
    for _ in range(3):
        target = await move(made, "place")
        assert await client.set("place", 1)
        assert client.get_node_from_key("place").name == target.endpoint
        assert await target.ask("DEL", "place") == 1


async def a_key_not_on(made: Cluster, server: Server) -> str:
    for at in range(100):
        if await made.owner(f"list-{at}") is not server:
            return f"list-{at}"
    raise AssertionError("it has all")


@asynccontextmanager
async def waiting(client: RedisCluster, key: str) -> AsyncIterator[asyncio.Task[object]]:
    """A command that gets its answer when the block ends."""
    node = client.get_node_from_key(key)
    task = asyncio.create_task(client.blpop(key, timeout=1))

    async def blocked() -> bool:
        info = await client.info("clients", target_nodes=node)
        return bool(info["blocked_clients"])

    await wait_until(blocked)
    yield task
    await client.rpush(key, "end")
    await asyncio.wait({task})


async def one_slot_is_down(made: Cluster, client: RedisCluster) -> bool:
    """A slot has nobody; whether a command on another node lives through that being noticed."""
    source = await made.owner("place")
    key = await a_key_not_on(made, source)
    slot = await source.ask("CLUSTER", "KEYSLOT", "place")
    await client.get(key)
    await source.ask("CLUSTER", "DELSLOTS", slot)
    try:
        async with waiting(client, key) as task:
            with pytest.raises((ClusterDownError, MovedError)):
                await client.get("place")
    finally:
        await source.ask("CLUSTER", "ADDSLOTS", slot)
    return task.exception() is None


async def test_what_others_have_under_way_is_left_alone(made: Cluster, client: RedisCluster):
    assert await one_slot_is_down(made, client)


async def test_redis_py_cuts_off_what_others_have_under_way(made: Cluster):
    """The control of the test above, and why the client notices itself."""
    async with of_redis_py(made) as client:
        assert not await one_slot_is_down(made, client)


async def test_a_node_that_hangs_holds_up_its_own_slots_only(made: Cluster, client: RedisCluster):
    owner = await made.owner("place")
    key = await a_key_not_on(made, owner)
    assert await client.set(key, 1)
    owner.pause()
    try:
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises((EngineTimeoutError, EngineConnectionError)):
                await client.set("place", 1)
            assert time.monotonic() - began < WITHIN_SECONDS
            began = time.monotonic()
            assert await client.get(key) == b"1"
            assert time.monotonic() - began < 1.0
    finally:
        owner.resume()
    await made.whole()

    async def sets() -> bool:
        try:
            return bool(await client.set("place", 1))
        except RedisError:
            return False

    await wait_until(sets)


async def looks_again_after_a_pipeline(made: Cluster, client: RedisCluster) -> bool:
    """Whether one whose node has died asks who has its slots now."""
    await client.get("place")
    owner = await made.owner("place")
    await owner.kill()
    try:
        with pytest.raises(EngineConnectionError):
            await client.pipeline().get("place").execute()
        return client._initialize
    finally:
        await owner.start()
        await made.whole()


async def test_after_a_pipeline_that_broke_the_layout_is_asked_for(
    made: Cluster, client: RedisCluster
):
    assert await looks_again_after_a_pipeline(made, client)
    assert await client.pipeline().set("place", 1).get("place").execute() == [True, b"1"]


async def test_redis_py_goes_on_with_a_node_that_is_gone(made: Cluster):
    """The control of the test above."""
    async with of_redis_py(made) as client:
        assert not await looks_again_after_a_pipeline(made, client)


async def test_nobody_there_is_an_error_of_the_engine():
    client = cluster.ClusterClient(
        startup_nodes=[ClusterNode(HOST, 1)], retry=Retry(NoBackoff(), 0)
    )
    with pytest.raises(EngineConnectionError, match="cannot be connected"):
        await client.get("place")


async def test_the_keys_of_a_read_of_streams_are_known(client: RedisCluster):
    entry = await client.xadd("stream", {"a": "b"})
    assert await client.xread({"stream": "0"}, count=1, block=1)
    keys = await client.commands_parser.get_keys(
        "XREAD", b"COUNT", "1", b"STREAMS", "{x}1", "{x}2", "0", "0"
    )
    assert keys == ("{x}1", "{x}2")
    assert entry
