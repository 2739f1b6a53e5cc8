from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Connection, Redis, UnixDomainSocketConnection
from redis.exceptions import TimeoutError as EngineTimeoutError

from booking_worker.engine.connection import (
    HiredisConnection,
    MasterConnection,
    MasterTlsConnection,
    TcpConnection,
    TlsConnection,
    ToSentinel,
    ToSentinelTls,
)
from tests.support.engines import EXTERNAL_ENGINES, Engines, ServersKind


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "key"),
        ("SCRIPT LOAD", "return 1"),
        ("EVALSHA", "sha", 1, "key", "ü", b"\x00\xff", 12, 1.5, ""),
    ],
)
def test_it_writes_what_redis_py_writes(command: tuple[str | bytes | float, ...]):
    ours, theirs = HiredisConnection(path="/nowhere"), UnixDomainSocketConnection(path="/nowhere")
    assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))
    assert b"".join(ours.pack_commands([command, command])) == b"".join(
        theirs.pack_commands([command, command])
    )


async def test_the_engines_clients_use_it(redis_client: Redis):
    assert redis_client.connection_pool.connection_class is HiredisConnection
    assert await redis_client.config_get("maxmemory")


@pytest.mark.parametrize(
    "made",
    [
        TcpConnection,
        TlsConnection,
        MasterConnection,
        MasterTlsConnection,
        ToSentinel,
        ToSentinelTls,
    ],
)
def test_all_others_write_the_same(made: type[Connection]):
    more = {"connection_pool": None} if made in {MasterConnection, MasterTlsConnection} else {}
    ours, theirs = made(**more), HiredisConnection(path="/nowhere")
    command = ("SCRIPT LOAD", "ü", b"\x00\xff", 12, 1.5, "")
    assert ours.pack_command(*command) == theirs.pack_command(*command)


async def test_a_command_leaves_in_the_same_turn_of_the_event_loop(redis_client: Redis):
    pool = redis_client.connection_pool
    connection = await pool.get_connection()
    with pytest.raises(StopIteration):  # it has returned without a wait for anything
        connection.send_command("PING").send(None)
    assert await connection.read_response() == b"PONG"
    await pool.release(connection)


async def test_who_reads_nothing_is_waited_for_no_longer_than_for_an_answer(tmp_path: Path):
    async def read_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.transport.abort()
        closed.set()

    over, closed = asyncio.Event(), asyncio.Event()
    path = tmp_path / "deaf"
    connection = HiredisConnection(
        path=str(path), protocol=2, driver_info=None, socket_timeout=0.1, health_check_interval=0
    )
    async with await asyncio.start_unix_server(read_nothing, path):
        await connection.connect()
        with pytest.raises(EngineTimeoutError, match="writing"):
            await connection.send_command("SET", "key", b"x" * 2**24)
        over.set()
        await closed.wait()
    assert not connection.is_connected
    assert connection.socket_timeout == 0.1


@pytest.mark.parametrize("kind", EXTERNAL_ENGINES, ids=lambda kind: kind.name)
async def test_each_kind_of_engine_is_spoken_to_by_them(engines: Engines, kind: ServersKind):
    async with engines.get(kind).client() as client:
        await client.set("key", "value")
        if isinstance(client, Redis):
            used = {client.connection_pool.connection_class}
        else:
            used = {type(one) for node in client.get_nodes() for one in node._connections}
        assert used in ({TcpConnection}, {MasterConnection})
