from __future__ import annotations

import pytest

from booking_worker.domain.errors import PeerRefused, PeerUnavailable
from booking_worker.peers.breaker import Breaker
from booking_worker.peers.ticket import TicketClient
from booking_worker.proto import ticket_pb2
from booking_worker.sandbox.server import Sandbox
from tests.unit.sandbox.conftest import code_of, order


@pytest.fixture
def client(channels) -> TicketClient:
    return TicketClient(channels["ticket"], Breaker("ticket", 1000), timeout_seconds=5)


async def test_it_counts_what_is_left(client, sandbox: Sandbox) -> None:
    assert await client.available("show") == 10
    booking = sandbox.ledger.create(order("k1", 4)).booking
    assert booking is not None
    assert await client.available("show") == 6
    sandbox.ledger.cancel(booking.id, "not paid")
    assert await client.available("show") == 6
    await client.release(booking.reservation_id)
    await client.release(booking.reservation_id)
    await client.release("nothing")
    assert await client.available("show") == 10


async def test_seats(tickets, sandbox: Sandbox) -> None:
    sandbox.ledger.create(order("k1", 1, seats=("A1",)))
    answer = await tickets.CheckAvailability(
        ticket_pb2.CheckAvailabilityRequest(event_id="show", seat_numbers=["A1", "A2"])
    )
    assert (answer.available, list(answer.available_seats)) == (False, ["A2"])
    answer = await tickets.CheckAvailability(
        ticket_pb2.CheckAvailabilityRequest(event_id="show", quantity=10)
    )
    assert (answer.available, answer.available_quantity) == (False, 9)
    nothing = ticket_pb2.CheckAvailabilityRequest()
    assert await code_of(tickets.CheckAvailability(nothing)) == "INVALID_ARGUMENT"


async def test_a_live_booking_is_not_released(client, sandbox: Sandbox) -> None:
    booking = sandbox.ledger.create(order("k1", 4)).booking
    assert booking is not None
    with pytest.raises(PeerRefused, match="pending"):
        await client.release(booking.reservation_id)


async def test_overstating(client, sandbox: Sandbox) -> None:
    sandbox.ledger.create(order("k1", 7))
    sandbox.ticket_faults.overstate = 2
    assert await client.available("show") == 5
    sandbox.ticket_faults.overstate = 0
    assert await client.available("show") == 3


async def test_nonsense_and_down(client, sandbox: Sandbox) -> None:
    sandbox.ticket_faults.malformed = True
    with pytest.raises(PeerUnavailable, match="incomplete"):
        await client.available("show")
    sandbox.ticket_faults.malformed = False
    sandbox.ticket_faults.down = True
    with pytest.raises(PeerUnavailable):
        await client.available("show")
    with pytest.raises(PeerUnavailable):
        await client.health()
    sandbox.ticket_faults.down = False
    assert await client.health() == "healthy"


async def test_a_release_whose_answer_was_lost(client, sandbox: Sandbox) -> None:
    booking = sandbox.ledger.create(order("k1", 4)).booking
    assert booking is not None
    sandbox.ledger.cancel(booking.id, "not paid")
    sandbox.ticket_faults.lost_answer_rate = 1.0
    sandbox.ticket_faults.hang_share = 0.0
    with pytest.raises(PeerUnavailable):
        await client.release(booking.reservation_id)
    sandbox.ticket_faults.lost_answer_rate = 0.0
    await client.release(booking.reservation_id)
    assert sandbox.ledger.audit().unreleased == 0
