"""Clients of the servers of tests/support/servers.py, as impatient as the service's own."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from booking_worker.engine.cluster import ClusterClient
from tests.support.servers import HOST, Cluster, Sentinels, Server


def cluster_client(made: Cluster) -> ClusterClient:
    """The service's client, which knows all nodes of a Cluster from the start."""
    return ClusterClient(
        startup_nodes=[ClusterNode(HOST, node.port) for node in made.nodes],
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        require_full_coverage=False,
        socket_connect_timeout=0.3,
        socket_timeout=1.2,
    )


def master_client(made: Sentinels) -> Redis:
    """A client of whom the sentinels call the master; closing it closes theirs."""
    addresses = [(HOST, one.port) for one in made.sentinels]
    settings = {"protocol": 2, "socket_connect_timeout": 0.3, "retry": Retry(NoBackoff(), 0)}
    sentinel = Sentinel(addresses, sentinel_kwargs=settings | {"socket_timeout": 0.3})
    client: Redis = sentinel.master_for(made.master_name, socket_timeout=1.2, **settings)
    close = client.aclose
    # redis-py changes the order of its list, and two who do so at once lose one of it.
    sentinels = tuple(sentinel.sentinels)

    async def aclose(close_connection_pool: bool | None = None) -> None:
        await close(close_connection_pool)
        for one in sentinels:
            await one.aclose()

    client.aclose = aclose
    return client


async def follows(server: Server) -> bool:
    """Whether it is a replica that has its master."""
    role = await server.ask("ROLE")
    return role[0] == b"slave" and role[3] == b"connected"
