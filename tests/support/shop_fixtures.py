"""Fixtures of the tests that hold a sale; their conftest imports them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.support.engines import FIRST_ENGINE, Engines, Shared, SharedEngine
from tests.support.shop import Shop


@pytest.fixture(scope="session")
def engine(engines: Engines) -> Shared:
    """One running server: what a fault does to the service does not hang on the server's make."""
    return engines.get(FIRST_ENGINE[0])


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
