"""Fixtures of the tests that hold a sale; their conftest imports them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.support.engines import SharedEngine, engine_factories
from tests.support.shop import Shop


@pytest.fixture(scope="session")
def engine() -> Iterator[SharedEngine]:
    """One running server: what a fault does to the service does not hang on the server's make."""
    shared = SharedEngine(engine_factories()[0], Path(tempfile.mkdtemp(prefix="bw-shop-")))
    shared.start()
    yield shared
    shared.stop()
    shutil.rmtree(shared.engine.data_dir)


@pytest.fixture
def tickets() -> int:
    """How many there are; a test that wants another number parametrizes it."""
    return 100


@pytest.fixture
async def shop(
    redis_client: Redis, engine: SharedEngine, tmp_path: Path, tickets: int
) -> AsyncIterator[Shop]:
    """A sale on an empty engine, with nobody at work yet; nothing runs after the test."""
    made = Shop(engine.engine, tmp_path, tickets)
    await made.start()
    yield made
    await made.end()
