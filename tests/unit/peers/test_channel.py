from __future__ import annotations

import time

import grpc
import grpc.aio
import pytest

from booking_worker.peers.channel import open_channel
from booking_worker.proto import booking_pb2, booking_pb2_grpc
from tests.support.wait import wait_until
from tests.unit.peers.scripted import scripted_server


async def _status(stub: booking_pb2_grpc.BookingServiceAsyncStub) -> str:
    try:
        return (await stub.Health(booking_pb2.HealthRequest(), timeout=5)).status
    except grpc.aio.AioRpcError as error:
        return error.code().name


async def test_a_dead_endpoint_fails_fast_and_is_found_again_soon() -> None:
    async with scripted_server() as server:
        port = int(server.endpoint.rpartition(":")[2])
    channel = open_channel(server.endpoint)
    stub = booking_pb2_grpc.BookingServiceStub(channel)
    began = time.monotonic()
    assert await _status(stub) == "UNAVAILABLE"
    assert await _status(stub) == "UNAVAILABLE"
    assert time.monotonic() - began < 1.0
    async with scripted_server(port) as server:
        server.script.answers["Health"] = booking_pb2.HealthResponse(status="healthy")

        async def is_back() -> bool:
            return await _status(stub) == "healthy"

        await wait_until(is_back, timeout=5)
    await channel.close()


async def test_it_connects_again_after_the_peer_was_restarted() -> None:
    async with scripted_server() as server:
        server.script.answers["Health"] = booking_pb2.HealthResponse(status="first")
        port = int(server.endpoint.rpartition(":")[2])
        channel = open_channel(server.endpoint)
        stub = booking_pb2_grpc.BookingServiceStub(channel)
        assert await _status(stub) == "first"
    assert await _status(stub) == "UNAVAILABLE"
    async with scripted_server(port) as server:
        server.script.answers["Health"] = booking_pb2.HealthResponse(status="second")

        async def is_back() -> bool:
            return await _status(stub) == "second"

        await wait_until(is_back, timeout=5)
    await channel.close()


async def test_opening_does_not_wait_for_the_peer() -> None:
    channel = open_channel("127.0.0.1:1")
    assert channel.get_state() is grpc.ChannelConnectivity.IDLE
    await channel.close()


@pytest.mark.parametrize("endpoint", ["localhost:{port}", "dns:///localhost:{port}"])
async def test_names_are_resolved(endpoint: str) -> None:
    async with scripted_server() as server:
        server.script.answers["Health"] = booking_pb2.HealthResponse(status="healthy")
        channel = open_channel(endpoint.format(port=server.endpoint.rpartition(":")[2]))
        assert await _status(booking_pb2_grpc.BookingServiceStub(channel)) == "healthy"
        await channel.close()
