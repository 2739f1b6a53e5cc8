from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio

from booking_worker.peers.channel import open_channel
from booking_worker.proto import booking_pb2_grpc, sandbox_pb2_grpc, ticket_pb2_grpc
from booking_worker.sandbox.ledger import Ledger, Order
from booking_worker.sandbox.server import Sandbox


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def open_ledger(ledger_path: Path, clock: Clock) -> Iterator[Callable[..., Ledger]]:
    """Opens the test's ledger, closing the one that is open."""
    opened: list[Ledger] = []

    def opener(**settings) -> Ledger:
        while opened:
            opened.pop().close()
        opened.append(Ledger(ledger_path, clock=clock, **settings))
        return opened[-1]

    yield opener
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(open_ledger: Callable[..., Ledger]) -> Ledger:
    return open_ledger(default_tickets=10, hold_seconds=60.0)


def order(key: str = "k1", quantity: int = 1, **facts) -> Order:
    given = {"user_id": f"user-{key}", "event_id": "show", "seats": (), **facts}
    return Order(quantity=quantity, key=key, **given)


@pytest_asyncio.fixture(params=["native", "grpcio"])
async def sandbox(request, ledger_path: Path, clock: Clock) -> AsyncIterator[Sandbox]:
    """A sandbox with 10 tickets an event, on each transport."""
    sandbox = Sandbox(
        ledger_path, default_tickets=10, hold_seconds=60.0, transport=request.param, clock=clock
    )
    await sandbox.start()
    yield sandbox
    await sandbox.stop()


@pytest_asyncio.fixture
async def channels(sandbox: Sandbox) -> AsyncIterator[dict[str, grpc.aio.Channel]]:
    endpoints = {
        "booking": sandbox.booking_endpoint,
        "ticket": sandbox.ticket_endpoint,
        "realtime": sandbox.realtime_endpoint,
    }
    channels = {name: open_channel(endpoint) for name, endpoint in endpoints.items()}
    yield channels
    for channel in channels.values():
        await channel.close()


@pytest.fixture
def bookings(channels) -> booking_pb2_grpc.BookingServiceAsyncStub:
    return booking_pb2_grpc.BookingServiceStub(channels["booking"])


@pytest.fixture
def tickets(channels) -> ticket_pb2_grpc.TicketServiceAsyncStub:
    return ticket_pb2_grpc.TicketServiceStub(channels["ticket"])


@pytest.fixture
def control(channels) -> sandbox_pb2_grpc.SandboxControlAsyncStub:
    return sandbox_pb2_grpc.SandboxControlStub(channels["booking"])


async def code_of(call) -> str:
    """The name of the status code that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"
