"""The start of an engine of our own, and what keeps it from starting."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from booking_worker.domain.errors import EngineFailed
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.server_binary import ServerBinary
from tests.support.engines import EngineFactory
from tests.support.wait import wait_until
from tests.unit.engine.test_embedded import is_running


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
