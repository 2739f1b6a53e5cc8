"""The stand-in Booking Service."""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from typing_extensions import override

from booking_worker.proto import booking_pb2, booking_pb2_grpc
from booking_worker.sandbox.answering import Answering, Context
from booking_worker.sandbox.books import LedgerBooking, Outcome
from booking_worker.sandbox.faults import Faults
from booking_worker.sandbox.ledger import Ledger, Order

_MADE: Final = frozenset({Outcome.CREATED, Outcome.REPEATED})


class BookingService(booking_pb2_grpc.BookingServiceServicer):
    """Books in the ledger. Seats that are taken are refused in the answer, the rest by code."""

    def __init__(self, ledger: Ledger, faults: Faults) -> None:
        self._ledger = ledger
        self._faults = faults
        self._answering = Answering(faults, ledger)

    @override
    async def CreateBooking(
        self, request: booking_pb2.CreateBookingRequest, context: Context
    ) -> booking_pb2.BookingResponse:
        key = request.idempotency_key
        draw = await self._answering.begin("CreateBooking", key, context)
        if self._faults.refuse:
            self._ledger.note("CreateBooking", key, Outcome.REFUSED)
            await self._ledger.saved()
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "sandbox: told to refuse")
        metadata = request.metadata
        order = Order(
            user_id=request.user_id,
            event_id=request.event_id,
            quantity=request.ticket_quantity,
            seats=tuple(request.seat_numbers),
            key=key,
            amount=metadata.get("total_amount", ""),
            currency=metadata.get("currency", ""),
        )
        entry = self._ledger.create(order, lost=draw.answer_is_lost)
        await self._answering.end(draw, context, entry)
        if self._faults.malformed:
            return booking_pb2.BookingResponse(success=True)
        if entry.booking is None:
            return booking_pb2.BookingResponse(message=entry.message)
        return booking_pb2.BookingResponse(
            success=entry.outcome in _MADE, booking=_message(entry.booking), message=entry.message
        )

    @override
    async def GetBooking(
        self, request: booking_pb2.GetBookingRequest, context: Context
    ) -> booking_pb2.BookingResponse:
        draw = await self._answering.begin("GetBooking", "", context)
        entry = self._ledger.get(request.booking_id)
        await self._answering.end(draw, context, entry)
        if self._faults.malformed or entry.booking is None:
            return booking_pb2.BookingResponse(success=True)
        return booking_pb2.BookingResponse(success=True, booking=_message(entry.booking))

    @override
    async def ConfirmBooking(
        self, request: booking_pb2.ConfirmBookingRequest, context: Context
    ) -> booking_pb2.ConfirmBookingResponse:
        draw = await self._answering.begin("ConfirmBooking", "", context)
        entry = self._ledger.confirm(
            request.booking_id, request.payment_reference, lost=draw.answer_is_lost
        )
        await self._answering.end(draw, context, entry)
        if self._faults.malformed or entry.booking is None:
            return booking_pb2.ConfirmBookingResponse(success=True)
        return booking_pb2.ConfirmBookingResponse(
            success=True, booking=_message(entry.booking), message=entry.message
        )

    @override
    async def CancelBooking(
        self, request: booking_pb2.CancelBookingRequest, context: Context
    ) -> booking_pb2.CancelBookingResponse:
        draw = await self._answering.begin("CancelBooking", "", context)
        entry = self._ledger.cancel(request.booking_id, request.reason, lost=draw.answer_is_lost)
        await self._answering.end(draw, context, entry)
        return booking_pb2.CancelBookingResponse(success=True, message=entry.message)

    @override
    async def Health(
        self, request: booking_pb2.HealthRequest, context: Context
    ) -> booking_pb2.HealthResponse:
        if self._faults.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "sandbox: told to be down")
        return booking_pb2.HealthResponse(status="healthy", message="stand-in")


def _message(booking: LedgerBooking) -> booking_pb2.Booking:
    message = booking_pb2.Booking(
        id=booking.id,
        booking_reference=booking.reference,
        user_id=booking.user_id,
        event_id=booking.event_id,
        ticket_quantity=booking.quantity,
        seat_numbers=booking.seats,
        total_amount=_amount(booking.amount),
        currency=booking.currency,
        status=booking.status,
        payment_status=booking.payment_status,
        payment_reference=booking.payment_reference,
        cancellation_reason=booking.reason,
        created_at=_timestamp(booking.created_at_ms),
        expires_at=_timestamp(booking.expires_at_ms),
    )
    if booking.reservation_id:
        message.metadata["reservation_id"] = booking.reservation_id
    if booking.confirmed_at_ms:
        message.confirmed_at.CopyFrom(_timestamp(booking.confirmed_at_ms))
    if booking.cancelled_at_ms:
        message.cancelled_at.CopyFrom(_timestamp(booking.cancelled_at_ms))
    return message


def _timestamp(unix_ms: int) -> Timestamp:
    seconds, ms = divmod(unix_ms, 1000)
    return Timestamp(seconds=seconds, nanos=ms * 1_000_000)


def _amount(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
