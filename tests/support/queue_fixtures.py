"""Fixtures of the tests that run on a queue; their conftest imports them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import Clock
from tests.support.engines import QUEUE_ENGINES, Engines, Shared
from tests.support.stage import Stage
from tests.support.wait import wait_until


@pytest.fixture(scope="session", params=QUEUE_ENGINES, ids=lambda kind: kind.name)
def queue_engine(request: pytest.FixtureRequest, engines: Engines) -> Shared:
    """Each kind of engine that the service runs on; imported as ``engine``."""
    return engines.get(request.param)


@pytest.fixture
async def stage(redis_client: Redis) -> AsyncIterator[Stage]:
    """A queue on an empty engine; after the test the books must balance."""
    made = Stage(redis_client)
    await made.clock.start()
    yield made
    await made.audit()


@pytest.fixture
def queue(stage: Stage) -> BookingQueue:
    """The queue of the stage."""
    return stage.queue


@pytest.fixture
def clock(stage: Stage) -> Clock:
    """The clock of the stage's engine."""
    return stage.clock


@pytest.fixture(autouse=True)
async def no_asyncio_task_is_left() -> AsyncIterator[None]:
    """What a test started has ended when the test has."""
    yield
    mine = asyncio.current_task()
    await wait_until(lambda: {mine} == asyncio.all_tasks(), timeout=2)
