"""An engine of our own: it keeps what it acknowledged and comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as EngineConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as EngineTimeoutError

from booking_worker.domain.errors import EngineFailed, EngineInUse
from booking_worker.engine import embedded
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.server_binary import ServerBinary
from tests.support.engines import EngineFactory
from tests.support.wait import wait_until
from tests.unit.engine.owner import append_to_file, end, is_running, start_service


@pytest.fixture
async def engine(engine_factory: EngineFactory, tmp_path: Path) -> AsyncIterator[EmbeddedEngine]:
    engine = engine_factory(tmp_path / "data")
    await engine.start()
    yield engine
    await engine.stop()


async def answers(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except RedisError:
        return False


async def test_starts_in_well_under_a_second_and_says_what_it_is(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    engine = engine_factory(tmp_path)
    began = time.monotonic()
    await engine.start()
    try:
        assert time.monotonic() - began < 1.0
        assert engine_factory.name in engine.description
        assert "fsync always" in engine.description
        assert (engine.socket.stat().st_mode & 0o777) == 0o700
    finally:
        await engine.stop()


async def test_it_has_a_session_of_its_own_so_that_ctrl_c_passes_it_by(
    engine: EmbeddedEngine,
) -> None:
    assert engine.pid is not None
    assert os.getsid(engine.pid) == engine.pid


async def test_listens_on_no_port_and_appends_all(engine: EmbeddedEngine) -> None:
    async with engine.client() as client:
        settings = await client.config_get("*")
    wanted = {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "aof-load-truncated": "yes",
        "aof-use-rdb-preamble": "yes",
    }
    assert {name: settings[name] for name in wanted} == wanted


async def test_a_restart_keeps_the_data(engine_factory: EngineFactory, tmp_path: Path) -> None:
    for expected in (None, b"1", b"2"):
        engine = engine_factory(tmp_path, fsync="everysec")
        await engine.start()
        async with engine.client() as client:
            assert await client.get("n") == expected
            await client.incr("n")
        await engine.stop()
        assert engine.pid is None


async def test_stopping_twice_or_before_the_start_is_stopping(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    engine = engine_factory(tmp_path)
    await engine.stop()
    await engine.start()
    await engine.start()
    await engine.stop()
    await engine.stop()
    await engine.start()
    async with engine.client() as client:
        assert await client.ping()
    await engine.stop()


async def test_a_killed_engine_comes_back_with_all_that_it_acknowledged(
    engine: EmbeddedEngine,
) -> None:
    acknowledged = 0
    killed = engine.pid
    assert killed is not None
    async with engine.client() as client:

        async def write() -> None:
            nonlocal acknowledged
            while True:
                try:
                    await client.rpush("list", acknowledged)
                except RedisError:
                    return
                acknowledged += 1

        writing = asyncio.create_task(write())
        await wait_until(lambda: acknowledged > 50)
        os.kill(killed, signal.SIGKILL)
        await writing
        await wait_until(lambda: answers(client))
        kept = [int(entry) for entry in await client.lrange("list", 0, -1)]
    assert kept[:acknowledged] == list(range(acknowledged))
    assert len(kept) <= acknowledged + 1
    assert engine.pid not in {None, killed}


async def test_an_engine_killed_again_and_again_comes_back_each_time(
    engine: EmbeddedEngine,
) -> None:
    async with engine.client() as client:
        for _ in range(3):
            pid = engine.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await wait_until(lambda pid=pid: engine.pid not in {None, pid})
            await wait_until(lambda: answers(client))


async def test_it_can_be_stopped_while_it_is_coming_back(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    engine = engine_factory(tmp_path)
    await engine.start()
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    await wait_until(lambda: engine.pid is None)
    await engine.stop()
    other = engine_factory(tmp_path)
    await other.start()
    await other.stop()


async def test_it_stops_though_a_client_loses_the_first_cancellation(
    engine_factory: EngineFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As asyncio.wait_for does, until Python 3.12, when a result comes at the same time."""
    engine = engine_factory(tmp_path)
    await engine.start()
    pid = engine.pid
    assert pid is not None
    ready = engine._ready
    restarting = asyncio.Event()

    async def ready_and_deaf(*args: Any) -> str:
        version = await ready(*args)
        restarting.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return version

    monkeypatch.setattr(engine, "_ready", ready_and_deaf)
    os.kill(pid, signal.SIGKILL)
    await restarting.wait()
    restarted = engine.pid
    assert restarted is not None
    await asyncio.wait_for(engine.stop(), 5)
    assert not is_running(restarted)


async def test_a_stop_that_comes_as_a_client_is_closed_leaves_no_socket_open(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = engine.client()
    monkeypatch.setattr(engine, "client", lambda: client)
    used = asyncio.Event()

    async def use() -> None:
        async with engine._brief_client():
            await client.ping()
            used.set()

    using = asyncio.create_task(use())
    await used.wait()
    using.cancel()
    await asyncio.wait({using})
    assert using.cancelled()
    (connection,) = client.connection_pool._available_connections
    await wait_until(lambda: not connection.is_connected)


async def test_a_dead_engine_gives_an_error_at_once(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    engine = engine_factory(tmp_path)
    await engine.start()
    async with engine.client() as client:
        await client.ping()
        await engine.stop()
        began = time.monotonic()
        with pytest.raises(EngineConnectionError):
            await client.ping()
    assert time.monotonic() - began < 0.5


async def test_a_hung_engine_gives_every_caller_an_error_within_two_seconds(
    engine: EmbeddedEngine,
) -> None:
    assert engine.pid is not None

    async def seconds_to_error(client: Redis) -> float:
        began = time.monotonic()
        with pytest.raises((EngineConnectionError, EngineTimeoutError)):
            await client.incr("n")
        return time.monotonic() - began

    async with engine.client() as client, engine.client() as fresh:
        await client.ping()
        os.kill(engine.pid, signal.SIGSTOP)
        try:
            callers = [seconds_to_error(client) for _ in range(3 * embedded.CONNECTIONS)]
            waits = await asyncio.gather(*callers, seconds_to_error(fresh))
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        assert max(waits) < 2.0
        await wait_until(lambda: answers(client))


async def test_an_engine_that_hangs_is_killed_when_the_service_stops(
    engine_factory: EngineFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "SHUTDOWN_SECONDS", 0.2)
    engine = engine_factory(tmp_path)
    await engine.start()
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await engine.stop()
    assert not is_running(pid)


async def test_a_second_owner_is_told_whose_directory_it_is(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    directory = tmp_path / "data"
    service, engine_pid = start_service(directory, engine_factory)
    try:
        with pytest.raises(EngineInUse) as caught:
            await engine_factory(directory).start()
        assert str(directory) in str(caught.value)
        assert str(service.pid) in str(caught.value)
        assert is_running(engine_pid)
    finally:
        end(service)
        engine = engine_factory(directory)
        await engine.start()
        await engine.stop()


async def test_the_engine_of_a_killed_service_is_taken_over_with_its_data(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    service, orphan = start_service(tmp_path, engine_factory)
    end(service)
    assert is_running(orphan)
    engine = engine_factory(tmp_path)
    await engine.start()
    try:
        assert not is_running(orphan)
        async with engine.client() as client:
            assert await client.get("kept") == b"yes"
    finally:
        await engine.stop()
    log = (tmp_path / "engine.log").read_text()
    assert log.lower().count("bye bye") == 2, "the orphan was shut down, not killed"


async def test_an_orphan_that_hangs_is_killed_and_nothing_is_lost(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    service, orphan = start_service(tmp_path, engine_factory)
    end(service)
    os.kill(orphan, signal.SIGSTOP)
    engine = engine_factory(tmp_path)
    await engine.start()
    try:
        assert not is_running(orphan)
        async with engine.client() as client:
            assert await client.get("kept") == b"yes"
    finally:
        await engine.stop()


async def test_service_and_engine_both_killed_lose_nothing(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    service, orphan = start_service(tmp_path, engine_factory)
    end(service)
    os.kill(orphan, signal.SIGKILL)
    engine = engine_factory(tmp_path)
    await engine.start()
    try:
        async with engine.client() as client:
            assert await client.get("kept") == b"yes"
    finally:
        await engine.stop()


async def test_a_half_written_last_entry_is_dropped_and_the_rest_kept(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    engine = engine_factory(tmp_path)
    await engine.start()
    async with engine.client() as client:
        await client.set("kept", "yes")
    await engine.stop()
    append_to_file(tmp_path, b"*3\r\n$3\r\nSET\r\n$4\r\nke")
    await engine.start()
    async with engine.client() as client:
        assert await client.get("kept") == b"yes"
    await engine.stop()


async def test_a_long_directory_gets_a_short_private_socket(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    directory = tmp_path / ("long" * 30)
    engine = engine_factory(directory)
    await engine.start()
    try:
        assert directory not in engine.socket.parents
        assert (engine.socket.parent.stat().st_mode & 0o777) == 0o700
        async with engine.client() as client:
            assert await client.config_get("dir") == {"dir": str(directory)}
    finally:
        await engine.stop()


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineFailed, match=r"DATA_DIR .*/file/data cannot be used"):
        await EmbeddedEngine(tmp_path / "file" / "data").start()


async def test_a_server_that_ends_at_once_is_reported_with_its_last_words(
    tmp_path: Path, engine_factory: EngineFactory
) -> None:
    (tmp_path / "appendonlydir").mkdir()
    manifest = tmp_path / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("not a manifest\n")
    engine = engine_factory(tmp_path)
    with pytest.raises(
        EngineFailed, match=r"ended while starting; .*engine\.log says:[\s\S]*Invalid AOF"
    ):
        await engine.start()
    manifest.unlink()
    await engine.start()
    await engine.stop()


async def test_a_program_that_does_not_run_is_reported(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path, binary=ServerBinary(tmp_path / "missing", "missing"))
    with pytest.raises(EngineFailed, match=r"does not start: .*missing"):
        await engine.start()


async def test_a_start_that_is_cancelled_leaves_nothing_behind(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    engine = engine_factory(tmp_path)
    starting = asyncio.create_task(engine.start())
    await wait_until(lambda: engine.pid, every=0)
    pid = engine.pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert pid is not None
    assert not is_running(pid)
    await engine.start()
    await engine.stop()
