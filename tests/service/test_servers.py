"""The gRPC server as such: transports, TLS, ports, reflection, shutdown."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from redis.asyncio import Redis

from booking_worker.api.grpc_server import Tls, Transport
from booking_worker.proto.booking_worker_pb2 import GetQueueStatusRequest
from booking_worker.proto.booking_worker_pb2_grpc import BookingWorkerServiceStub
from tests.support.api import CERTIFICATES, Api, asked, failure, on_one_engine, running_api
from tests.support.wait import wait_until


def pem(name: str) -> bytes:
    return (CERTIFICATES / name).read_bytes()


def tls(client_ca: Path | None = None) -> Tls:
    return Tls(CERTIFICATES / "server.pem", CERTIFICATES / "server.key", client_ca)


@on_one_engine
async def test_each_transport_says_which_it_is(api: Api, transport: Transport):
    assert api.server.transport == transport


@on_one_engine
@pytest.mark.parametrize("wanted", ["auto", "grpcio"])
async def test_tls_lets_in_who_trusts_it(redis_client: Redis, wanted: Transport):
    async with running_api(redis_client, wanted, tls=tls()) as api:
        assert api.server.transport == "grpcio"
        credentials = grpc.ssl_channel_credentials(pem("ca.pem"))
        async with grpc.aio.secure_channel(api.target, credentials) as channel:
            answer = await BookingWorkerServiceStub(channel).EnqueueBooking(asked())
            assert answer.success
        error = await failure(api.stub.EnqueueBooking(asked()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


@on_one_engine
async def test_mutual_tls_lets_in_who_has_a_certificate(redis_client: Redis):
    async with running_api(redis_client, "auto", tls=tls(CERTIFICATES / "ca.pem")) as api:
        known = grpc.ssl_channel_credentials(pem("ca.pem"), pem("client.key"), pem("client.pem"))
        async with grpc.aio.secure_channel(api.target, known) as channel:
            assert (await BookingWorkerServiceStub(channel).EnqueueBooking(asked())).success
        unknown = grpc.ssl_channel_credentials(pem("ca.pem"))
        async with grpc.aio.secure_channel(api.target, unknown) as channel:
            error = await failure(BookingWorkerServiceStub(channel).EnqueueBooking(asked()))
            assert error.code() is grpc.StatusCode.UNAVAILABLE


@on_one_engine
async def test_reflection_tells_the_services_and_their_files(api: Api):
    stub = reflection_pb2_grpc.ServerReflectionStub(api.channel)
    request = reflection_pb2.ServerReflectionRequest
    call = stub.ServerReflectionInfo(
        iter(
            [
                request(list_services=""),
                request(file_containing_symbol="booking_worker.v1.BookingWorkerService"),
            ]
        )
    )
    services = (await call.read()).list_services_response.service
    assert {service.name for service in services} == {
        "booking_worker.v1.BookingWorkerService",
        "booking_worker.v1.BookingWorkerAdmin",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    (file,) = (await call.read()).file_descriptor_response.file_descriptor_proto
    assert b"EnqueueBooking" in file
    call.cancel()


@on_one_engine
async def test_a_call_under_way_is_finished_and_a_new_one_is_turned_away(api: Api, monkeypatch):
    held = []
    item_id = await api.join()
    monkeypatch.setattr(api.operations._places, "_send", lambda *asked: held.append(asked))
    call = asyncio.ensure_future(api.position(item_id))
    try:
        await wait_until(lambda: held)
        stopping = asyncio.ensure_future(api.server.stop())
        await wait_until(lambda: api.server._server is None)
        error = await failure(api.stub.EnqueueBooking(asked("bob"), timeout=5))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        api.queue.ask_positions(*held[0])
    assert (await call).position == 1
    await stopping


@on_one_engine
async def test_an_error_that_nobody_thought_of_is_internal_and_tells_no_secret(
    api: Api, monkeypatch
):
    async def broken(*_args):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(api.queue, "status", broken)
    error = await failure(api.stub.GetQueueStatus(GetQueueStatusRequest(event_id="concert")))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "internal error"
    assert api.metrics.errors.labels("internal")._value.get() == 1
