"""The gRPC server as such: transports, TLS, ports, reflection, shutdown."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from redis.asyncio import Redis

from booking_worker.api.grpc_server import GrpcServer, Tls, Transport
from booking_worker.api.health import Health
from booking_worker.domain.errors import InvalidSettings
from booking_worker.proto.booking_worker_pb2 import GetQueueStatusRequest
from booking_worker.proto.booking_worker_pb2_grpc import BookingWorkerServiceStub
from booking_worker.telemetry.metrics import Metrics
from tests.support.api import Api, asked, failure, on_one_engine, running_api
from tests.support.wait import wait_until

CERTIFICATES = Path(__file__).parent / "certificates"


def server(transport: Transport, port: int = 0, tls: Tls | None = None) -> GrpcServer:
    return GrpcServer(
        [], Health({}), Metrics(), port, host="127.0.0.1", transport=transport, tls=tls
    )


def pem(name: str) -> bytes:
    return (CERTIFICATES / name).read_bytes()


def tls(client_ca: Path | None = None) -> Tls:
    return Tls(CERTIFICATES / "server.pem", CERTIFICATES / "server.key", client_ca)


@on_one_engine
async def test_each_transport_says_which_it_is(api: Api, transport: Transport):
    assert api.server.transport == transport


async def test_auto_is_native_where_it_is_installed_and_grpcio_elsewhere(monkeypatch):
    auto = server("auto")
    await auto.start()
    await auto.stop()
    assert auto.transport == "native"

    real = importlib.import_module

    def without_native(name: str) -> object:
        if name.startswith("pygrpc_native"):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without_native)
    auto = server("auto")
    await auto.start()
    await auto.stop()
    assert auto.transport == "grpcio"
    with pytest.raises(InvalidSettings, match="GRPC_TRANSPORT"):
        await server("native").start()


async def test_a_port_that_is_taken_is_said_by_the_name_of_its_setting(transport: Transport):
    first = server(transport)
    await first.start()
    second = server(transport, first.port)
    with pytest.raises(InvalidSettings, match=rf"GRPC_PORT: got {first.port}, .*free port"):
        await second.start()
    await second.stop()
    await first.stop()
    third = server(transport, first.port)
    await third.start()
    await third.stop()


async def test_stopping_twice_or_before_the_start_is_stopping(transport: Transport):
    never = server(transport)
    await never.stop()
    once = server(transport)
    await once.start()
    await asyncio.gather(once.stop(), once.stop())
    await once.stop()


async def test_every_interface_is_listened_on(transport: Transport):
    everywhere = GrpcServer([], Health({}), Metrics(), 0, transport=transport)
    await everywhere.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{everywhere.port}") as channel:
        await channel.channel_ready()
    await everywhere.stop()


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


async def test_tls_that_cannot_be_had_is_said_by_the_name_of_its_setting():
    with pytest.raises(InvalidSettings, match="GRPC_TRANSPORT: got native, which has no TLS"):
        await server("native", tls=tls()).start()
    nowhere = Path("/nowhere/cert.pem")
    with pytest.raises(InvalidSettings, match=r"GRPC_TLS_CERT: got /nowhere/cert.pem"):
        await server("auto", tls=Tls(nowhere, CERTIFICATES / "server.key")).start()
    with pytest.raises(InvalidSettings, match="GRPC_TLS_KEY"):
        await server("auto", tls=Tls(CERTIFICATES / "server.pem", nowhere)).start()
    with pytest.raises(InvalidSettings, match="GRPC_TLS_CLIENT_CA"):
        await server("auto", tls=tls(nowhere)).start()


async def test_a_key_that_does_not_fit_its_certificate_is_no_start():
    odd = Tls(CERTIFICATES / "server.pem", CERTIFICATES / "client.key")
    with pytest.raises(InvalidSettings, match=r"GRPC_TLS_CERT: .* does not go with GRPC_TLS_KEY"):
        await server("auto", tls=odd).start()
    with pytest.raises(InvalidSettings, match=r"GRPC_TLS_CLIENT_CA: .* is no certificate"):
        await server("auto", tls=tls(CERTIFICATES / "client.key")).start()


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
    gate = asyncio.Event()
    positions = api.queue.positions

    async def slow(*args):
        await gate.wait()
        return await positions(*args)

    item_id = await api.join()
    monkeypatch.setattr(api.operations._places, "_send", slow)
    call = asyncio.ensure_future(api.position(item_id))
    await wait_until(lambda: api.operations._places._lines)
    stopping = asyncio.ensure_future(api.server.stop())
    await wait_until(lambda: api.server._server is None)
    error = await failure(api.stub.EnqueueBooking(asked("bob"), timeout=5))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    gate.set()
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
