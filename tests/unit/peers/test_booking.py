from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from booking_worker.domain.errors import PeerBreakerOpen, PeerRefused, PeerUnavailable
from booking_worker.domain.model import BookingRequest, Held
from booking_worker.peers.booking import (
    BookingClient,
    BookingFate,
    BookingState,
    amount_text,
    fate_of,
    hold_ms_of,
)
from booking_worker.peers.breaker import Breaker
from booking_worker.proto import booking_pb2
from tests.unit.peers.scripted import Refuse, ScriptedServer

REQUEST = BookingRequest(
    event_id="show",
    user_id="ann",
    seat_numbers=("A1", "A2"),
    seats=2,
    total_amount=120.5,
    currency="EUR",
    metadata={"source": "app", "currency": "a lie"},
)
NOT_FOUND = Refuse(grpc.StatusCode.NOT_FOUND, "no such booking")


@pytest.fixture
def client(channel: grpc.aio.Channel) -> BookingClient:
    return BookingClient(channel, Breaker("booking", 3), timeout_seconds=5)


def booking(status: str = "pending", payment_status: str = "", **facts) -> booking_pb2.Booking:
    return booking_pb2.Booking(
        id="b1", booking_reference="REF1", status=status, payment_status=payment_status, **facts
    )


def answer(status: str = "pending", payment_status: str = "", **facts):
    made = booking(status, payment_status, **facts)
    return booking_pb2.BookingResponse(success=True, booking=made)


# --- pure ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, payment_status, fate",
    [
        ("pending", "", BookingFate.OPEN),
        ("pending", "pending", BookingFate.OPEN),
        ("pending", "failed", BookingFate.OPEN),
        ("reserved", "unpaid", BookingFate.OPEN),
        ("", "", BookingFate.OPEN),
        ("something new", "", BookingFate.OPEN),
        ("confirmed", "", BookingFate.CONFIRMED),
        ("CONFIRMED", "paid", BookingFate.CONFIRMED),
        ("Completed", "", BookingFate.CONFIRMED),
        (" paid ", "", BookingFate.CONFIRMED),
        ("pending", "PAID", BookingFate.CONFIRMED),
        ("pending", "processing", BookingFate.PAYING),
        ("pending", "In-Progress", BookingFate.PAYING),
        ("pending", "in progress", BookingFate.PAYING),
        ("pending", "AUTHORIZED", BookingFate.PAYING),
        ("pending", "pending_capture", BookingFate.PAYING),
        ("confirmed", "processing", BookingFate.CONFIRMED),
        ("cancelled", "", BookingFate.GONE),
        ("Canceled", "", BookingFate.GONE),
        ("EXPIRED", "", BookingFate.GONE),
        ("released", "", BookingFate.GONE),
        ("failed", "", BookingFate.GONE),
        ("cancelled", "paid", BookingFate.GONE),
        ("expired", "processing", BookingFate.GONE),
    ],
)
def test_fate(status: str, payment_status: str, fate: BookingFate) -> None:
    assert fate_of(booking(status, payment_status)) is fate


@pytest.mark.parametrize(
    "created, expires, hold_ms",
    [
        (Timestamp(seconds=100), Timestamp(seconds=700), 600_000),
        (Timestamp(seconds=100, nanos=900_000_000), Timestamp(seconds=101), 100),
        (Timestamp(seconds=100), Timestamp(seconds=100, nanos=999_999), None),
        (Timestamp(seconds=100), Timestamp(seconds=100), None),
        (Timestamp(seconds=100), Timestamp(seconds=40), None),
        (None, Timestamp(seconds=100), None),
        (Timestamp(seconds=100), None, None),
        (None, None, None),
    ],
)
def test_how_long_a_hold_lasts(created, expires, hold_ms) -> None:
    assert hold_ms_of(booking(created_at=created, expires_at=expires)) == hold_ms


@pytest.mark.parametrize(
    "amount, text",
    [
        (0.0, "0.00"),
        (99.5, "99.50"),
        (120.25, "120.25"),
        (1.125, "1.125"),
        (5, "5.00"),
        (1e21, "1000000000000000000000.00"),
        (1e-7, "0.0000001"),
    ],
)
def test_amounts_are_plain_decimal_text(amount: float, text: str) -> None:
    assert amount_text(amount) == text


# --- create -------------------------------------------------------------------------------


async def test_create_asks_for_what_the_item_wants(server: ScriptedServer, client) -> None:
    server.script.answers["CreateBooking"] = answer(
        created_at=Timestamp(seconds=1),
        expires_at=Timestamp(seconds=301),
        metadata={"reservation_id": "r1"},
    )
    held = await client.create(REQUEST, "item-1")
    assert held == Held("b1", "REF1", 300_000, "r1")
    [asked] = server.script.requests("CreateBooking")
    assert asked == booking_pb2.CreateBookingRequest(
        user_id="ann",
        event_id="show",
        ticket_quantity=2,
        seat_numbers=["A1", "A2"],
        metadata={"source": "app", "total_amount": "120.50", "currency": "EUR"},
        idempotency_key="item-1",
    )


async def test_create_without_times_or_reservation(server: ScriptedServer, client) -> None:
    server.script.answers["CreateBooking"] = answer()
    assert await client.create(REQUEST, "item-1") == Held("b1", "REF1", None, "")


async def test_create_refused_by_answer_or_by_code(server: ScriptedServer, client) -> None:
    server.script.answers["CreateBooking"] = booking_pb2.BookingResponse(message="seats taken")
    with pytest.raises(PeerRefused, match="seats taken"):
        await client.create(REQUEST, "item-1")
    server.script.answers["CreateBooking"] = booking_pb2.BookingResponse()
    with pytest.raises(PeerRefused, match="without a reason"):
        await client.create(REQUEST, "item-1")
    server.script.answers["CreateBooking"] = Refuse(grpc.StatusCode.ALREADY_EXISTS, "one each")
    with pytest.raises(PeerRefused, match="one each"):
        await client.create(REQUEST, "item-1")


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE])
async def test_create_refused_for_now_is_asked_again(
    server: ScriptedServer, client, code: grpc.StatusCode
) -> None:
    """And one unknown event opens no breaker, which would stop all others."""
    server.script.answers["CreateBooking"] = Refuse(code, "no such event")
    for _ in range(5):
        with pytest.raises(PeerUnavailable, match=f"{code.name}: no such event"):
            await client.create(REQUEST, "item-1")
    assert client.breaker.state == "closed"


async def test_create_kept_off_by_a_proxy_opens_the_breaker(server, client) -> None:
    server.script.answers["CreateBooking"] = Refuse(grpc.StatusCode.PERMISSION_DENIED, "RBAC")
    for _ in range(3):
        with pytest.raises(PeerUnavailable, match="PERMISSION_DENIED: RBAC"):
            await client.create(REQUEST, "item-1")
    with pytest.raises(PeerBreakerOpen):
        await client.create(REQUEST, "item-1")


async def test_create_without_a_booking_is_asked_again(server: ScriptedServer, client) -> None:
    server.script.answers["CreateBooking"] = booking_pb2.BookingResponse(success=True)
    for _ in range(3):
        with pytest.raises(PeerUnavailable):
            await client.create(REQUEST, "item-1")
    with pytest.raises(PeerBreakerOpen):
        await client.create(REQUEST, "item-1")


async def test_create_answered_with_a_booking_long_gone_is_refused(
    server: ScriptedServer, client
) -> None:
    server.script.answers["CreateBooking"] = answer("cancelled")
    with pytest.raises(PeerRefused, match="b1 is cancelled already"):
        await client.create(REQUEST, "item-1")


@pytest.mark.parametrize("status, payment_status", [("confirmed", ""), ("pending", "paid")])
async def test_create_answered_with_a_paid_booking_leaves_no_time_to_pay(
    server: ScriptedServer, client, status: str, payment_status: str
) -> None:
    server.script.answers["CreateBooking"] = answer(
        status,
        payment_status,
        created_at=Timestamp(seconds=1),
        expires_at=Timestamp(seconds=301),
    )
    assert await client.create(REQUEST, "item-1") == Held("b1", "REF1", 1, "")


# --- confirm ------------------------------------------------------------------------------


async def test_confirm(server: ScriptedServer, client) -> None:
    server.script.answers["ConfirmBooking"] = booking_pb2.ConfirmBookingResponse(
        success=True, booking=booking("confirmed")
    )
    assert await client.confirm("b1", "pay-1") == "REF1"
    [asked] = server.script.requests("ConfirmBooking")
    assert (asked.booking_id, asked.payment_reference) == ("b1", "pay-1")


async def test_confirmed_already_is_a_success_though_refused(server, client) -> None:
    server.script.answers["ConfirmBooking"] = booking_pb2.ConfirmBookingResponse(
        success=False, booking=booking("confirmed"), message="already confirmed"
    )
    assert await client.confirm("b1", "pay-1") == "REF1"


async def test_confirm_refused(server: ScriptedServer, client) -> None:
    server.script.answers["ConfirmBooking"] = booking_pb2.ConfirmBookingResponse(
        success=False, booking=booking("expired"), message="too late"
    )
    with pytest.raises(PeerRefused, match="too late"):
        await client.confirm("b1", "pay-1")
    for code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
        server.script.answers["ConfirmBooking"] = Refuse(code, "gone")
        with pytest.raises(PeerRefused, match="gone"):
            await client.confirm("b1", "pay-1")


async def test_confirm_without_a_booking_is_asked_again(server: ScriptedServer, client) -> None:
    server.script.answers["ConfirmBooking"] = booking_pb2.ConfirmBookingResponse(success=True)
    with pytest.raises(PeerUnavailable):
        await client.confirm("b1", "pay-1")


# --- cancel -------------------------------------------------------------------------------


async def test_cancel(server: ScriptedServer, client) -> None:
    server.script.answers["CancelBooking"] = booking_pb2.CancelBookingResponse(success=True)
    await client.cancel("b1", "not paid in time")
    [asked] = server.script.requests("CancelBooking")
    assert (asked.booking_id, asked.reason) == ("b1", "not paid in time")


async def test_cancelling_what_was_never_known_is_cancelled(server, client) -> None:
    server.script.answers["CancelBooking"] = NOT_FOUND
    await client.cancel("b1", "not paid in time")


@pytest.mark.parametrize(
    "refusal",
    [
        Refuse(grpc.StatusCode.FAILED_PRECONDITION, "already cancelled"),
        booking_pb2.CancelBookingResponse(success=False, message="already cancelled"),
    ],
)
async def test_a_refused_cancel_is_one_call(server, client, refusal) -> None:
    """Whoever cancels has to keep a lease, and asks for itself what the booking has become."""
    server.script.answers["CancelBooking"] = refusal
    with pytest.raises(PeerRefused, match="already cancelled"):
        await client.cancel("b1", "not paid in time")
    assert [name for name, _ in server.script.asked] == ["CancelBooking"]


async def test_a_cancel_that_got_no_answer_is_unavailable(server, client) -> None:
    server.script.answers["CancelBooking"] = Refuse(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(PeerUnavailable):
        await client.cancel("b1", "not paid in time")


# --- get, health --------------------------------------------------------------------------


async def test_get(server: ScriptedServer, client) -> None:
    server.script.answers["GetBooking"] = answer("pending", "processing")
    assert await client.get("b1") == BookingState(BookingFate.PAYING, "REF1")
    assert server.script.requests("GetBooking")[0].booking_id == "b1"


async def test_get_of_what_is_not_found_is_gone(server: ScriptedServer, client) -> None:
    server.script.answers["GetBooking"] = NOT_FOUND
    assert await client.get("b1") == BookingState(BookingFate.GONE, "")


async def test_get_refused_is_not_taken_for_gone(server: ScriptedServer, client) -> None:
    server.script.answers["GetBooking"] = Refuse(grpc.StatusCode.INVALID_ARGUMENT, "no id of ours")
    with pytest.raises(PeerRefused, match="no id of ours"):
        await client.get("b1")
    server.script.answers["GetBooking"] = booking_pb2.BookingResponse(message="not today")
    with pytest.raises(PeerRefused, match="not today"):
        await client.get("b1")


async def test_get_without_a_booking_is_asked_again(server: ScriptedServer, client) -> None:
    server.script.answers["GetBooking"] = booking_pb2.BookingResponse(success=True)
    with pytest.raises(PeerUnavailable):
        await client.get("b1")


async def test_health_is_asked_past_an_open_breaker(server: ScriptedServer, client) -> None:
    server.script.answers["Health"] = booking_pb2.HealthResponse(status="healthy")
    for _ in range(3):
        client.breaker.record_failure()
    assert await client.health() == "healthy"
    assert client.breaker.state == "open"
