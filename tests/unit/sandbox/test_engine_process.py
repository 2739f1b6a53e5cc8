from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from booking_worker.sandbox.engine_process import EngineProcess
from booking_worker.sandbox.processes import ProcessFailed
from tests.support.processes import needs_proc, processes_in


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    engine = EngineProcess(tmp_path / "engine")
    yield engine
    engine.kill()


@needs_proc
async def test_what_is_killed_comes_back_with_its_data_on_its_port(
    tmp_path: Path, engine: EngineProcess
):
    await engine.start()
    await engine.start()
    port = engine.port
    async with Redis(port=port) as client:
        await client.set("kept", "yes")
    engine.kill()
    engine.kill()
    assert processes_in(tmp_path) == []
    await engine.start()
    assert engine.port == port
    async with Redis(port=port) as client:
        assert await client.get("kept") == b"yes"
    await engine.stop()
    await engine.stop()
    assert processes_in(tmp_path) == []


async def test_a_server_that_does_not_start_is_told_with_what_it_said(
    tmp_path: Path, engine: EngineProcess
):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "appendonlydir").write_text("in its way")
    with pytest.raises(ProcessFailed, match=r"did not start:\n[^$]*appendonlydir"):
        await engine.start()
