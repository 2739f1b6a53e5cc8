from __future__ import annotations

from typing import get_args

import pytest
from redis.asyncio import RedisCluster, UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelConnectionPool

from booking_worker.config import Settings
from tests.lua.conftest import engine as engine_of_the_scripts
from tests.support.engines import (
    QUEUE_ENGINES,
    EngineFactory,
    Engines,
    Kind,
    ServersKind,
    engine_factories,
)
from tests.support.queue_fixtures import queue_engine
from tests.support.servers import cluster, sentinel, standalone


def test_the_queue_runs_on_every_kind_of_engine():
    external = [kind.servers for kind in QUEUE_ENGINES if isinstance(kind, ServersKind)]
    embedded = [kind for kind in QUEUE_ENGINES if isinstance(kind, EngineFactory)]
    assert set(external) == {standalone, sentinel, cluster}
    assert embedded
    values = get_args(Settings.model_fields["engine"].annotation)
    assert set(values) == {"embedded", "redis"}, "a new one belongs in QUEUE_ENGINES"


def test_the_queue_runs_on_every_server_program_that_there_is():
    assert {kind.binary for kind in QUEUE_ENGINES} == {one.binary for one in engine_factories()}


def test_every_script_runs_on_them():
    assert engine_of_the_scripts is queue_engine
    assert queue_engine._fixture_function_marker.params == tuple(QUEUE_ENGINES)


def way_to(client: object) -> str:
    if isinstance(client, RedisCluster):
        return "Cluster"
    if isinstance(client.connection_pool, SentinelConnectionPool):
        return "Sentinel"
    if issubclass(client.connection_pool.connection_class, UnixDomainSocketConnection):
        return "embedded"
    return "one server"


@pytest.mark.parametrize("kind", QUEUE_ENGINES, ids=lambda kind: kind.name)
async def test_each_kind_is_what_it_is_called(engines: Engines, kind: Kind):
    async with engines.get(kind).client() as client:
        assert await client.ping()
        embedded = isinstance(kind, EngineFactory)
        assert way_to(client) == ("embedded" if embedded else kind.name.partition(" (")[0])
