"""An API for each test: on both transports, on a real engine, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from booking_worker.api.grpc_server import Transport
from tests.support.api import TRANSPORTS, Api, running_api


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    chosen: Transport = request.param
    return chosen


@pytest.fixture
async def api(redis_client: Redis, transport: Transport) -> AsyncIterator[Api]:
    async with running_api(redis_client, transport) as running:
        yield running
