from __future__ import annotations

import importlib.util
from pathlib import Path

import grpc.aio
import pytest

from booking_worker.domain.errors import InvalidSettings
from booking_worker.peers.channel import open_channel
from booking_worker.proto import booking_pb2, booking_pb2_grpc
from booking_worker.sandbox.books import LedgerInUse
from booking_worker.sandbox.faults import Faults
from booking_worker.sandbox.server import CannotServe, Sandbox
from tests.support.wait import wait_until
from tests.unit.sandbox.conftest import order

TRANSPORTS = ["native", "grpcio"]


async def is_healthy(endpoint: str) -> bool:
    channel = open_channel(endpoint)
    try:
        stub = booking_pb2_grpc.BookingServiceStub(channel)
        return (await stub.Health(booking_pb2.HealthRequest(), timeout=5)).status == "healthy"
    except grpc.aio.AioRpcError:
        return False
    finally:
        await channel.close()


async def test_three_ports(sandbox: Sandbox) -> None:
    endpoints = {sandbox.booking_endpoint, sandbox.ticket_endpoint, sandbox.realtime_endpoint}
    assert len(endpoints) == 3
    assert all(endpoint.startswith("127.0.0.1:") for endpoint in endpoints)


async def test_stopped_and_started_again_at_the_same_place(sandbox: Sandbox) -> None:
    endpoint = sandbox.booking_endpoint
    sandbox.ledger.create(order("k1", 4))
    await sandbox.start()  # already
    await sandbox.stop()
    await sandbox.stop()
    assert not await is_healthy(endpoint)
    with pytest.raises(RuntimeError, match="not started"):
        _ = sandbox.ledger
    await sandbox.start()
    assert sandbox.booking_endpoint == endpoint
    await wait_until(lambda: is_healthy(endpoint))
    assert sandbox.ledger.available("show") == 6


async def test_before_it_starts(ledger_path: Path) -> None:
    sandbox = Sandbox(ledger_path)
    with pytest.raises(RuntimeError, match="not started"):
        _ = sandbox.booking_endpoint
    await sandbox.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_port_that_is_taken(sandbox: Sandbox, tmp_path: Path, transport) -> None:
    port = int(sandbox.ticket_endpoint.rpartition(":")[2])
    second = Sandbox(tmp_path / "second.db", realtime_port=port, transport=transport)
    said = rf"^GRPC_REALTIME_SERVICE_ENDPOINT: .* cannot listen on 127.0.0.1:{port}"
    with pytest.raises(InvalidSettings, match=said):
        await second.start()
    third = Sandbox(tmp_path / "second.db", transport=transport)  # nothing is left behind
    await third.start()
    await third.stop()


async def test_a_ledger_that_is_in_use(sandbox: Sandbox, ledger_path: Path) -> None:
    with pytest.raises(LedgerInUse):
        await Sandbox(ledger_path).start()
    assert await is_healthy(sandbox.booking_endpoint)


async def test_a_transport_that_is_not_installed(ledger_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CannotServe, match="pip install pygrpc-native"):
        await Sandbox(ledger_path, transport="native").start()
    auto = Sandbox(ledger_path, transport="auto")
    await auto.start()
    assert await is_healthy(auto.booking_endpoint)
    await auto.stop()


def test_every_service_begins_with_the_faults_given(ledger_path: Path) -> None:
    sandbox = Sandbox(ledger_path, faults=Faults(latency_ms=5, error_rate=0.5, seed=3))
    all_faults = [sandbox.booking_faults, sandbox.ticket_faults, sandbox.realtime_faults]
    assert {(faults.latency_ms, faults.error_rate) for faults in all_faults} == {(5, 0.5)}
    assert len({faults.seed for faults in all_faults}) == 3
    sandbox.booking_faults.down = True
    assert not sandbox.ticket_faults.down
