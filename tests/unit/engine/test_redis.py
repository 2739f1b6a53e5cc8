"""An engine that somebody else runs: found, spoken to, and explained when it cannot be had."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as EngineConnectionError
from redis.exceptions import TimeoutError as EngineTimeoutError
from structlog.testing import capture_logs

from booking_worker.domain.errors import EngineFailed, InvalidSettings
from booking_worker.engine import redis
from booking_worker.engine.engine import Engine
from booking_worker.engine.redis import Access, RedisEngine, Tls, server_client
from booking_worker.engine.server_binary import from_path
from tests.support.engines import (
    CLUSTER,
    EXTERNAL_ENGINES,
    SENTINEL,
    STANDALONE,
    Engines,
    ServersKind,
    engine_on,
)
from tests.support.servers import (
    CA,
    CERTIFICATES,
    HOST,
    Cluster,
    Server,
    cluster,
    sentinel,
    standalone,
)
from tests.support.wait import wait_until

on_each = pytest.mark.parametrize("kind", EXTERNAL_ENGINES, ids=lambda kind: kind.name)
needs_tls = pytest.mark.skipif(
    from_path("redis-server") is None, reason="the wheel's server has no TLS"
)
SHOWN = Tls(CA, CERTIFICATES / "client.pem", CERTIFICATES / "client.key")
WITHIN_SECONDS = 2.0 + 0.4  # of a test machine that is busy with other things


def address(server: Server) -> tuple[str, int]:
    return HOST, server.port


async def listens(server: Server) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, server.port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def complaint(engine: RedisEngine) -> str:
    """What a start that fails says, in a line or so and without a traceback's words."""
    with pytest.raises(EngineFailed) as caught:
        await engine.start()
    text = str(caught.value)
    assert "Traceback" not in text
    return text


@on_each
async def test_it_is_an_engine_whose_answers_are_bytes(engines: Engines, kind: ServersKind):
    shared = engines.get(kind)
    engine: Engine = shared.engine
    await engine.start()
    assert {"valkey", "redis"} & set(engine.description.split())
    async with engine.client() as client:
        await client.set("key", "value")
        assert await client.get("key") == b"value"
    await engine.stop()
    await engine.stop()


async def times_run(engines: Engines, kind: ServersKind) -> int:
    """How often a command runs on a server that hung when it came, and then went on."""
    shared = engines.get(kind)
    made = shared.made
    if isinstance(made, Server):
        server = made
    else:
        server = await (made.owner("ran") if isinstance(made, Cluster) else made.master())

    async def has_run() -> bool:
        return await server.ask("GET", "ran") != b"0"

    async with shared.client() as client:
        await client.set("ran", 0)
        server.pause()
        try:
            began = time.monotonic()
            with pytest.raises(EngineTimeoutError):
                await client.incr("ran")
            assert time.monotonic() - began < WITHIN_SECONDS
        finally:
            server.resume()
        await wait_until(has_run)
    return int(await server.ask("GET", "ran"))


@on_each
async def test_a_command_that_got_no_answer_is_not_repeated(engines: Engines, kind: ServersKind):
    assert await times_run(engines, kind) == 1


@on_each
async def test_it_would_be_repeated_with_tries(
    engines: Engines, kind: ServersKind, monkeypatch: pytest.MonkeyPatch
):
    """The control of the test above."""
    monkeypatch.setattr(redis, "_never_again", lambda: Retry(NoBackoff(), 2))
    monkeypatch.setattr(redis, "ANSWER_SECONDS", 0.3)
    assert await times_run(engines, kind) > 1


@pytest.mark.parametrize("kind", [STANDALONE, SENTINEL], ids=lambda kind: kind.name)
async def test_who_finds_no_free_connection_waits_for_one(
    engines: Engines, kind: ServersKind, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(redis, "POOL_WAIT_SECONDS", 10)
    monkeypatch.setattr(redis, "CONNECTIONS", 4)
    async with engines.get(kind).client() as client:
        await client.delete("n")
        await asyncio.gather(*(client.incr("n") for _ in range(80)))
        assert await client.get("n") == b"80"
        assert len(client.connection_pool._available_connections) == 4


@pytest.fixture
async def guarded() -> AsyncIterator[Server]:
    """TLS with client certificates, a password, and a user who may not do all."""
    options = {"requirepass": "guess", "user": "joe on >pw ~* &* +@all -info"}
    binary = from_path("redis-server")
    async with standalone(binary, options, tls=True, password="guess") as server:
        yield server


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"ca": "client.key"}, r"REDIS_TLS_CA: got .*client.key, which is no certificate"),
        ({"ca": "missing"}, r"REDIS_TLS_CA: got .*missing, which is no certificate"),
        ({"cert": "README.md"}, r"REDIS_TLS_CERT: got .*README.md, which is no certificate"),
        ({"key": "README.md"}, r"REDIS_TLS_KEY: got .*README.md, which is not the key of"),
        ({"key": "server.key"}, r"REDIS_TLS_KEY: got .*server.key, which is not the key of"),
        ({"key": "encrypted.key"}, r"REDIS_TLS_KEY: got .*encrypted.key, .* or is encrypted"),
    ],
)
async def test_a_file_of_tls_that_is_of_no_use_is_named(wrong: dict[str, str], said: str):
    files = {name: CERTIFICATES / file for name, file in wrong.items()}
    engine = RedisEngine((HOST, 1), Access(tls=dataclasses.replace(SHOWN, **files)))
    with pytest.raises(InvalidSettings, match=said):
        await engine.start()


@needs_tls
async def test_tls_an_acl_user_and_a_database(guarded: Server):
    await guarded.ask("ACL", "SETUSER", "ann", "on", ">secret", "~*", "&*", "+@all")
    engine = RedisEngine(address(guarded), Access("ann", "secret", SHOWN), database=3)
    await engine.start()
    assert engine.description.endswith(f"{guarded.endpoint}, database 3, TLS")
    assert "secret" not in engine.description
    async with engine.client() as client:
        await client.set("key", "value")
        assert await client.acl_whoami() == "ann"
    assert (await guarded.ask("INFO", "keyspace")).decode().split()[2].startswith("db3:keys=1")


@needs_tls
async def test_tls_to_the_sentinels_and_to_whom_they_call_the_master():
    async with sentinel(from_path("redis-server"), tls=True) as made:
        engine = RedisEngine(
            (HOST, 1),
            Access(tls=SHOWN),
            sentinels=list(map(address, made.sentinels)),
            master=made.master_name,
        )
        await engine.start()
        async with engine.client() as client:
            await client.set("place", 7)
            assert await (await made.master()).ask("GET", "place") == b"7"


@needs_tls
async def test_tls_to_every_node_of_a_cluster():
    async with cluster(from_path("redis-server"), tls=True) as made:
        engine = RedisEngine(address(made.nodes[0]), Access(tls=SHOWN), cluster=True)
        await engine.start()
        async with engine.client() as client:
            for at in range(20):
                await client.set(f"{{{at}}}", at)
        counts = [await node.ask("DBSIZE") for node in made.nodes]
        assert sum(counts) == 20
        assert 0 not in counts


@needs_tls
@pytest.mark.parametrize(
    "access, changes, says",
    [
        (Access("", "wrong", SHOWN), {}, "refuses REDIS_USERNAME and REDIS_PASSWORD"),
        (Access("", "", SHOWN), {}, "refuses REDIS_USERNAME and REDIS_PASSWORD"),
        (Access("nobody", "guess", SHOWN), {}, "refuses REDIS_USERNAME and REDIS_PASSWORD"),
        (Access("joe", "pw", SHOWN), {}, "REDIS_USERNAME may not do all that is needed"),
        (Access("", "guess"), {}, "see REDIS_HOST, REDIS_PORT and REDIS_TLS"),
        (Access("", "guess", Tls()), {}, "CERTIFICATE_VERIFY_FAILED"),
        (Access("", "guess", Tls(CA)), {}, "and REDIS_TLS"),
        (Access("", "guess", SHOWN), {"database": 99}, "REDIS_DATABASE: it has no such database"),
        (Access("", "guess", SHOWN), {"cluster": True}, "set REDIS_CLUSTER=false"),
    ],
)
async def test_who_is_not_let_in_is_told_what_to_look_at(
    guarded: Server, access: Access, changes: dict[str, Any], says: str
):
    assert says in await complaint(RedisEngine(address(guarded), access, **changes))


async def test_hosts_that_are_not_there():
    assert "see REDIS_HOST" in await complaint(RedisEngine((HOST, 1)))
    assert "see REDIS_HOST" in await complaint(RedisEngine(("no.such.host.invalid", 6379)))
    assert "see REDIS_HOST" in await complaint(RedisEngine((HOST, 1), cluster=True))
    nobody = RedisEngine((HOST, 1), sentinels=[(HOST, 1)], master="bookings")
    assert "none of REDIS_SENTINELS answers" in await complaint(nobody)


async def test_a_password_that_nobody_asked_for(engines: Engines):
    made = engines.get(STANDALONE).made
    assert "refuses REDIS_USERNAME" in await complaint(RedisEngine(address(made), Access("", "pw")))
    node = engines.get(CLUSTER).made.nodes[0]
    engine = RedisEngine(address(node), Access("", "pw"), cluster=True)
    assert "refuses REDIS_USERNAME" in await complaint(engine)


async def test_a_node_of_a_cluster_is_not_taken_for_a_server(engines: Engines):
    node = engines.get(CLUSTER).made.nodes[0]
    assert "set REDIS_CLUSTER=true" in await complaint(RedisEngine(address(node)))


async def test_another_name_than_the_sentinels_know(engines: Engines):
    made = engines.get(SENTINEL).made
    engine = RedisEngine((HOST, 1), sentinels=list(map(address, made.sentinels)), master="bokings")
    assert await complaint(engine) == (
        "REDIS_SENTINEL_MASTER: got 'bokings', takes what the sentinels know: bookings"
    )


async def test_sentinels_that_want_the_password_and_such_that_refuse_any():
    async with sentinel(password="guess") as made:
        guarded = made.sentinels[0]
        await guarded.stop()
        config = guarded.directory / "server.conf"
        config.write_text(config.read_text().replace(" nopass ", " >guess "))
        guarded.password = "guess"
        await guarded.start()
        for one in made.sentinels:  # only this one, then only those
            engine = RedisEngine(
                (HOST, 1), Access("", "guess"), sentinels=[address(one)], master="bookings"
            )
            await engine.start()
        locked = RedisEngine((HOST, 1), sentinels=[address(made.sentinels[0])], master="bookings")
        assert "Authentication required" in await complaint(locked)


async def test_a_server_that_hangs_is_told_within_two_seconds():
    async with standalone() as server:
        client = server_client(address(server), Access())
        await client.ping()
        server.pause()
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(EngineTimeoutError):
                await client.ping()
            assert time.monotonic() - began < WITHIN_SECONDS
        server.resume()
        assert await client.ping()
        await client.aclose()


async def test_a_server_that_loads_is_waited_for():
    options = {"loading-process-events-interval-bytes": "1024", "appendfsync": "always"}
    async with standalone(options=options) as server:
        async with server.client() as client:
            pipeline = client.pipeline(transaction=False)
            for at in range(2_000):
                pipeline.set(f"key-{at}", "x" * 100)
            await pipeline.execute()
        await server.stop()
        with (server.directory / "server.conf").open("a") as config:
            config.write("key-load-delay 500\n")
        server.spawn()
        await wait_until(lambda: listens(server))
        with capture_logs() as lines:
            await engine_on(server).start()
        assert "engine.loading" in [line["event"] for line in lines]
        assert await server.ask("DBSIZE") == 2_000


async def test_a_master_that_died_is_replaced_and_nobody_waits_long():
    async with sentinel() as made, engine_on(made).client() as client:
        await client.set("place", 7)
        await client.wait(1, 1_000)
        old = await made.master()
        await old.kill()
        longest = 0.0

        async def writes() -> bool:
            nonlocal longest
            began = time.monotonic()
            try:
                return bool(await client.set("other", 1))
            except (EngineConnectionError, EngineTimeoutError):
                return False
            finally:
                longest = max(longest, time.monotonic() - began)

        await wait_until(writes, timeout=20)
        assert await client.get("place") == b"7"
        assert longest < WITHIN_SECONDS

        async def others_know() -> bool:
            return old is not await made.master()

        await wait_until(others_know)


async def test_a_master_that_became_a_replica_is_left_at_its_first_refusal():
    async with sentinel() as made, engine_on(made).client() as client:
        await client.set("place", 7)
        old, new = await made.master(), await made.replica()
        # By hand, as SENTINEL FAILOVER would also end the connection.
        await old.ask("REPLICAOF", HOST, new.port)
        with pytest.raises(EngineConnectionError, match="is now a slave"):
            await client.set("place", 8)
        assert client.connection_pool._available_connections[0].is_connected is False

        async def writes() -> bool:
            try:
                return bool(await client.set("place", 9))
            except EngineConnectionError:
                return False

        await wait_until(writes, timeout=25)
        assert await (await made.master()).ask("GET", "place") == b"9"
