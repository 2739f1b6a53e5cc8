from __future__ import annotations

import grpc
import grpc.aio
import pytest

from booking_worker.domain.errors import PeerRefused, PeerUnavailable
from booking_worker.peers.breaker import Breaker
from booking_worker.peers.ticket import TicketClient
from booking_worker.proto import ticket_pb2
from tests.unit.peers.scripted import Refuse, ScriptedServer


@pytest.fixture
def client(channel: grpc.aio.Channel) -> TicketClient:
    return TicketClient(channel, Breaker("ticket", 3), timeout_seconds=5)


def _left(quantity: int, *, available: bool) -> ticket_pb2.CheckAvailabilityResponse:
    return ticket_pb2.CheckAvailabilityResponse(
        success=True, available=available, available_quantity=quantity
    )


@pytest.mark.parametrize(
    "answer, left",
    [
        (_left(7, available=True), 7),
        (_left(0, available=False), 0),
        (_left(-2, available=False), 0),
        (_left(3, available=False), 3),
    ],
)
async def test_available(server: ScriptedServer, client: TicketClient, answer, left) -> None:
    server.script.answers["CheckAvailability"] = answer
    assert await client.available("show") == left
    [asked] = server.script.requests("CheckAvailability")
    assert (asked.event_id, asked.quantity) == ("show", 1)


async def test_some_but_none_is_no_answer(server: ScriptedServer, client: TicketClient) -> None:
    server.script.answers["CheckAvailability"] = _left(0, available=True)
    with pytest.raises(PeerUnavailable):
        await client.available("show")


async def test_available_refused(server: ScriptedServer, client: TicketClient) -> None:
    server.script.answers["CheckAvailability"] = ticket_pb2.CheckAvailabilityResponse(message="no")
    with pytest.raises(PeerRefused, match="no"):
        await client.available("show")
    server.script.answers["CheckAvailability"] = Refuse(grpc.StatusCode.NOT_FOUND, "no such event")
    with pytest.raises(PeerRefused, match="no such event"):
        await client.available("show")


@pytest.mark.parametrize(
    "answer",
    [ticket_pb2.ReleaseTicketsResponse(success=True), Refuse(grpc.StatusCode.NOT_FOUND)],
)
async def test_release(server: ScriptedServer, client: TicketClient, answer) -> None:
    server.script.answers["ReleaseTickets"] = answer
    await client.release("r1")
    assert server.script.requests("ReleaseTickets")[0].reservation_id == "r1"


@pytest.mark.parametrize(
    "answer",
    [
        ticket_pb2.ReleaseTicketsResponse(message="still booked"),
        Refuse(grpc.StatusCode.FAILED_PRECONDITION, "still booked"),
    ],
)
async def test_release_refused(server: ScriptedServer, client: TicketClient, answer) -> None:
    server.script.answers["ReleaseTickets"] = answer
    with pytest.raises(PeerRefused, match="still booked"):
        await client.release("r1")


async def test_health(server: ScriptedServer, client: TicketClient) -> None:
    server.script.answers["Health"] = ticket_pb2.HealthResponse(status="healthy")
    assert await client.health() == "healthy"
    server.script.answers["Health"] = Refuse(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(PeerUnavailable):
        await client.health()
