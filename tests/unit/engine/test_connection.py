from __future__ import annotations

import pytest
from redis.asyncio import Redis, UnixDomainSocketConnection

from booking_worker.engine.connection import HiredisConnection


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
