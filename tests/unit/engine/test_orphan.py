"""A server left behind is ended only when it is ours; what tells is its lock and its directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from booking_worker.domain.errors import EngineFailed
from booking_worker.engine import orphan
from booking_worker.engine.data_dir import DataDir
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.orphan import end_orphan
from tests.support.engines import SharedEngine


@pytest.fixture
def holder(tmp_path: Path):
    """A process of some other kind that holds the server's lock on the directory."""
    owned = DataDir(tmp_path)
    lock = owned.server_lock()
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,), cwd="/"
    )
    os.close(lock)
    yield process
    process.kill()
    process.communicate()


async def test_where_nothing_was_left_nothing_is_asked(tmp_path: Path, redis_client: Redis) -> None:
    await end_orphan(DataDir(tmp_path), redis_client)
    assert await redis_client.ping()


async def test_a_server_on_another_directory_is_left_alone(
    tmp_path: Path, holder: subprocess.Popen[bytes], redis_client: Redis, engine: SharedEngine
) -> None:
    with pytest.raises(EngineFailed, match="not this service's to end"):
        await end_orphan(DataDir(tmp_path), redis_client)
    assert await redis_client.ping()
    assert engine.engine.pid is not None


async def test_a_process_that_works_elsewhere_is_not_killed_but_named(
    tmp_path: Path, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphan, "CLEAN_EXIT_SECONDS", 0.05)
    monkeypatch.setattr(orphan, "KILLED_EXIT_SECONDS", 0.05)
    owned = DataDir(tmp_path)
    owned.pid_file.write_text(str(holder.pid))
    async with EmbeddedEngine(tmp_path).client() as client:
        with pytest.raises(EngineFailed, match=r"left behind .*engine\.pid"):
            await end_orphan(owned, client)
    assert holder.poll() is None
