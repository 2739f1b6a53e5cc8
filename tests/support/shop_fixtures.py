"""Fixtures of the tests that hold a sale; their conftest imports them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.support.engines import (
    FIRST_ENGINE,
    Engines,
    Shared,
    SharedEngine,
    SharedServers,
    settings_of,
)
from tests.support.shop import Shop


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, engines: Engines) -> Shared:
    """One running server: what a fault does to the service does not hang on the server's make.

    Tests for which it may matter whose server it is say ``parametrize("engine", ..., indirect=True)``.
    """
    return engines.get(getattr(request, "param", FIRST_ENGINE[0]))


@pytest.fixture
def tickets() -> int:
    """How many there are; a test that wants another number parametrizes it."""
    return 100


@pytest.fixture
async def shop(
    redis_client: Redis, engine: SharedEngine | SharedServers, tmp_path: Path, tickets: int
) -> AsyncIterator[Shop]:
    """A sale on an empty engine, with nobody at work yet; nothing runs after the test."""
    settings = None
    if isinstance(engine, SharedServers):
        settings = {**settings_of(engine.made), "REDIS_STRICT": "false"}
    made = Shop(engine.engine, tmp_path, tickets, settings=settings)
    await made.start()
    yield made
    await made.end()
