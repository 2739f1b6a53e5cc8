from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import pytest_asyncio

from booking_worker.peers.channel import open_channel
from tests.unit.peers.scripted import ScriptedServer, scripted_server


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest_asyncio.fixture
async def channel(server: ScriptedServer) -> AsyncIterator[grpc.aio.Channel]:
    channel = open_channel(server.endpoint)
    yield channel
    await channel.close()
