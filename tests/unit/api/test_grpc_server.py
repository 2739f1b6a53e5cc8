"""Calls over real sockets, TLS among them, are in tests/service."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from pathlib import Path

import grpc.aio
import pytest

from booking_worker.api.grpc_server import GrpcServer, Tls, Transport
from booking_worker.api.health import Health
from booking_worker.api.listening import reserve
from booking_worker.domain.errors import InvalidSettings
from booking_worker.telemetry.metrics import Metrics
from tests.support.api import CERTIFICATES, TRANSPORTS

every_transport = pytest.mark.parametrize("transport", TRANSPORTS)


def server(transport: Transport, port: int = 0, tls: Tls | None = None) -> GrpcServer:
    return GrpcServer(
        [], Health({}), Metrics(), port, host="127.0.0.1", transport=transport, tls=tls
    )


def tls(client_ca: Path | None = None) -> Tls:
    return Tls(CERTIFICATES / "server.pem", CERTIFICATES / "server.key", client_ca)


async def test_auto_is_native_where_it_is_installed_and_grpcio_elsewhere(monkeypatch):
    auto = server("auto")
    await auto.start()
    await auto.stop()
    assert auto.transport == "native"

    monkeypatch.setitem(sys.modules, "pygrpc_native.aio", None)  # as if it weren't there
    auto = server("auto")
    await auto.start()
    await auto.stop()
    assert auto.transport == "grpcio"
    with pytest.raises(InvalidSettings, match="GRPC_TRANSPORT"):
        await server("native").start()


@every_transport
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


@every_transport
async def test_a_reserved_port_is_shared_and_a_service_of_its_own_does_not_get_it(
    transport: Transport,
):
    with reserve("GRPC_PORT", 0) as reserved:
        port = reserved.getsockname()[1]
        sharing = [
            GrpcServer([], Health({}), Metrics(), port, shared=True, transport=transport)
            for _ in range(2)
        ]
        for one in sharing:
            await one.start()
        assert [one.port for one in sharing] == [port, port]
        alone = GrpcServer([], Health({}), Metrics(), port, transport=transport)
        with pytest.raises(InvalidSettings, match=rf"GRPC_PORT: got {port}, .*free port"):
            await alone.start()
        await sharing[0].stop()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.channel_ready()
        await sharing[1].stop()


@every_transport
async def test_stopping_twice_or_before_the_start_is_stopping(transport: Transport):
    never = server(transport)
    await never.stop()
    once = server(transport)
    await once.start()
    await asyncio.gather(once.stop(), once.stop())
    await once.stop()


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has this policy")
async def test_its_threads_do_not_push_the_event_loop_off_its_core():
    def threads() -> set[int]:
        return {int(thread.name) for thread in Path("/proc/self/task").iterdir()}

    before = threads()
    serving = server("native")
    await serving.start()
    begun = threads() - before
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert {os.sched_getscheduler(thread) for thread in begun} == {os.SCHED_BATCH}
    await serving.stop()


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has this policy")
@pytest.mark.parametrize("name", ["sched_getscheduler", "sched_setscheduler"])
async def test_where_that_is_not_allowed_it_serves_all_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, name, refuse)
    serving = server("native")
    await serving.start()
    await serving.stop()


@every_transport
async def test_every_interface_is_listened_on(transport: Transport):
    everywhere = GrpcServer([], Health({}), Metrics(), 0, transport=transport)
    await everywhere.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{everywhere.port}") as channel:
        await channel.channel_ready()
    await everywhere.stop()


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


async def test_a_key_with_a_password_is_said_by_the_name_of_its_setting_and_not_asked_about():
    encrypted = Tls(CERTIFICATES / "server.pem", CERTIFICATES / "encrypted.key")
    with pytest.raises(InvalidSettings, match=r"GRPC_TLS_KEY: got .*, which is encrypted"):
        await server("auto", tls=encrypted).start()


async def test_a_key_that_does_not_fit_its_certificate_is_no_start():
    odd = Tls(CERTIFICATES / "server.pem", CERTIFICATES / "client.key")
    with pytest.raises(InvalidSettings, match=r"GRPC_TLS_CERT: .* does not go with GRPC_TLS_KEY"):
        await server("auto", tls=odd).start()
    with pytest.raises(InvalidSettings, match=r"GRPC_TLS_CLIENT_CA: .* is no certificate"):
        await server("auto", tls=tls(CERTIFICATES / "client.key")).start()
