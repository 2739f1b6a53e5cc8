from __future__ import annotations

import asyncio

import pytest

from booking_worker.domain.errors import PeerRefused, PeerUnavailable
from booking_worker.domain.model import BookingRequest
from booking_worker.peers.booking import BookingClient, BookingFate, BookingState
from booking_worker.peers.breaker import Breaker
from booking_worker.proto import booking_pb2
from booking_worker.sandbox.server import Sandbox
from tests.unit.sandbox.conftest import Clock, code_of


@pytest.fixture
def client(channels) -> BookingClient:
    return BookingClient(channels["booking"], Breaker("booking", 1000), timeout_seconds=5)


def request(user: str = "ann", seats: int = 2, *named: str) -> BookingRequest:
    return BookingRequest("show", user, named, seats, 99.5, "EUR", {"source": "app"})


async def test_a_booking_from_create_to_confirm(client, sandbox: Sandbox) -> None:
    held = await client.create(request(), "item-1")
    assert held.booking_id
    assert held.hold_ms == 60_000
    assert held.reservation_id
    assert await client.get(held.booking_id) == BookingState(
        BookingFate.OPEN, held.booking_reference
    )
    assert await client.confirm(held.booking_id, "pay-1") == held.booking_reference
    assert await client.confirm(held.booking_id, "pay-1") == held.booking_reference
    assert (await client.get(held.booking_id)).status is BookingFate.CONFIRMED
    assert sandbox.ledger.audit().sold == 2


async def test_what_a_booking_says(bookings) -> None:
    made = await bookings.CreateBooking(
        booking_pb2.CreateBookingRequest(
            user_id="ann",
            event_id="show",
            ticket_quantity=2,
            seat_numbers=["A1", "A2"],
            metadata={"total_amount": "99.50", "currency": "EUR"},
            idempotency_key="item-1",
        )
    )
    booking = made.booking
    assert made.success
    assert (booking.user_id, booking.event_id, booking.ticket_quantity) == ("ann", "show", 2)
    assert list(booking.seat_numbers) == ["A1", "A2"]
    assert (booking.total_amount, booking.currency) == (99.5, "EUR")
    assert (booking.status, booking.payment_status) == ("pending", "pending")
    assert booking.created_at.seconds == 1_700_000_000
    assert not booking.HasField("confirmed_at")
    await bookings.ConfirmBooking(
        booking_pb2.ConfirmBookingRequest(booking_id=booking.id, payment_reference="pay-1")
    )
    paid = await bookings.GetBooking(booking_pb2.GetBookingRequest(booking_id=booking.id))
    assert (paid.booking.status, paid.booking.payment_reference) == ("confirmed", "pay-1")
    assert paid.booking.HasField("confirmed_at")


async def test_a_hundred_at_once_on_the_last_ten(client, sandbox: Sandbox) -> None:
    asked = [client.create(request(f"u{n}", 1), f"item-{n}") for n in range(100)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, PeerRefused)]
    assert len(refused) == 90
    assert "0 tickets are left" in refused[-1].message
    audit = sandbox.ledger.audit()
    assert (audit.held, audit.oversold, audit.refusals, audit.balanced) == (10, 0, 90, True)


async def test_the_same_key_at_the_same_instant(client, sandbox: Sandbox) -> None:
    answers = await asyncio.gather(*(client.create(request(), "item-1") for _ in range(20)))
    assert len({held.booking_id for held in answers}) == 1
    audit = sandbox.ledger.audit()
    assert (audit.creates, audit.repeats, audit.held) == (1, 19, 2)


async def test_refusals(client, bookings) -> None:
    await client.create(request("ann", 2, "A1", "A2"), "item-1")
    with pytest.raises(PeerRefused, match="seats taken: A2"):
        await client.create(request("bob", 2, "A2", "A3"), "item-2")
    with pytest.raises(PeerRefused, match="used for another request"):
        await client.create(request("bob", 1), "item-1")
    with pytest.raises(PeerRefused, match="required"):
        await client.create(request("bob", 1), "")
    with pytest.raises(PeerRefused, match="unknown"):
        await client.confirm("nothing", "pay")
    unknown = booking_pb2.GetBookingRequest(booking_id="nothing")
    assert await code_of(bookings.GetBooking(unknown)) == "NOT_FOUND"


async def test_cancelling(client, sandbox: Sandbox) -> None:
    held = await client.create(request(), "item-1")
    await client.cancel(held.booking_id, "not paid in time")
    await client.cancel(held.booking_id, "not paid in time")
    await client.cancel("nothing", "not paid in time")
    assert (await client.get(held.booking_id)).status is BookingFate.GONE
    with pytest.raises(PeerRefused, match="cancelled"):
        await client.confirm(held.booking_id, "pay")
    with pytest.raises(PeerRefused, match="cancelled already"):
        await client.create(request(), "item-1")
    paid = await client.create(request("bob"), "item-2")
    await client.confirm(paid.booking_id, "pay")
    with pytest.raises(PeerRefused, match="is confirmed"):
        await client.cancel(paid.booking_id, "late")


async def test_a_hold_that_ended_and_a_payment_in_progress(
    client, sandbox: Sandbox, clock: Clock
) -> None:
    held = await client.create(request(), "item-1")
    paying = await client.create(request("bob"), "item-2")
    sandbox.ledger.set_payment(paying.booking_id, "processing")
    clock.now += 60
    assert (await client.get(held.booking_id)).status is BookingFate.GONE
    assert (await client.get(paying.booking_id)).status is BookingFate.PAYING


async def test_without_reservations(ledger_path) -> None:
    sandbox = Sandbox(ledger_path, reservations=False)
    await sandbox.start()
    from booking_worker.peers.channel import open_channel

    channel = open_channel(sandbox.booking_endpoint)
    client = BookingClient(channel, Breaker("booking"), timeout_seconds=5)
    assert (await client.create(request(), "item-1")).reservation_id == ""
    await channel.close()
    await sandbox.stop()


# --- faults -------------------------------------------------------------------------------


async def test_told_to_refuse(client, sandbox: Sandbox) -> None:
    sandbox.booking_faults.refuse = True
    with pytest.raises(PeerRefused, match="told to refuse"):
        await client.create(request(), "item-1")
    assert sandbox.ledger.audit().held == 0


async def test_told_to_answer_nonsense(client, sandbox: Sandbox) -> None:
    held = await client.create(request(), "item-1")
    sandbox.booking_faults.malformed = True
    for call in (
        client.create(request(), "item-1"),
        client.get(held.booking_id),
        client.confirm(held.booking_id, "pay"),
    ):
        with pytest.raises(PeerUnavailable, match="incomplete"):
            await call


async def test_down(client, sandbox: Sandbox) -> None:
    sandbox.booking_faults.down = True
    with pytest.raises(PeerUnavailable, match="told to fail"):
        await client.create(request(), "item-1")
    with pytest.raises(PeerUnavailable, match="told to be down"):
        await client.health()
    sandbox.booking_faults.down = False
    assert await client.health() == "healthy"
    audit = sandbox.ledger.audit()
    assert (audit.creates, audit.errors) == (0, 1)


async def test_lost_answers_are_settled_by_asking_again(client, sandbox: Sandbox) -> None:
    sandbox.booking_faults.lost_answer_rate = 1.0
    sandbox.booking_faults.hang_share = 0.0
    with pytest.raises(PeerUnavailable, match="answer was lost"):
        await client.create(request(), "item-1")
    sandbox.booking_faults.lost_answer_rate = 0.0
    held = await client.create(request(), "item-1")
    audit = sandbox.ledger.audit()
    assert (audit.creates, audit.repeats, audit.held, audit.lost_answers) == (1, 1, 2, 1)

    sandbox.booking_faults.lost_answer_rate = 1.0
    with pytest.raises(PeerUnavailable):
        await client.confirm(held.booking_id, "pay-1")
    sandbox.booking_faults.lost_answer_rate = 0.0
    assert await client.confirm(held.booking_id, "pay-1") == held.booking_reference
    assert sandbox.ledger.audit().confirmed_twice == 0
