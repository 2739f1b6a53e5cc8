"""The Booking Service: makes, confirms and cancels the bookings that the queue holds."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Final

import grpc
import grpc.aio

from booking_worker.domain.errors import PeerUnavailable
from booking_worker.domain.model import BookingRequest, Held
from booking_worker.peers.breaker import Breaker
from booking_worker.peers.call import FINAL_REFUSALS, Caller, CodedRefusal
from booking_worker.proto import booking_pb2, booking_pb2_grpc


class BookingFate(StrEnum):
    """What has become of a booking."""

    CONFIRMED = "confirmed"
    """Paid for: it is not taken away any more."""
    PAYING = "paying"
    """Its payment is in progress."""
    OPEN = "open"
    """It holds its tickets and waits for payment."""
    GONE = "gone"
    """Cancelled, expired or unknown: it holds nothing."""


@dataclass(frozen=True, slots=True)
class BookingState:
    """A booking as GetBooking tells it; the reference is empty for an unknown one."""

    status: BookingFate
    booking_reference: str


_CONFIRMED: Final = frozenset({"confirmed", "completed", "paid"})
_PAID: Final = _CONFIRMED | {"succeeded", "captured"}
_PAYING: Final = frozenset({"processing", "in_progress", "authorized", "pending_capture"})
_GONE: Final = frozenset({"cancelled", "canceled", "expired", "released", "failed"})


def fate_of(booking: booking_pb2.Booking) -> BookingFate:
    """What has become of a booking, from status texts that differ between services.

    A status that nobody knows is OPEN. So is a payment that is merely ``pending``: nobody has
    begun to pay. A booking that is paid but not confirmed yet counts as confirmed, as money
    and ticket never part.
    """
    return _fate(booking.status, booking.payment_status)


# A service has a handful of words, and each is asked for with every booking.
@lru_cache(maxsize=256)
def _fate(status: str, payment_status: str) -> BookingFate:
    status, payment = _word(status), _word(payment_status)
    if status in _GONE:
        return BookingFate.GONE
    if status in _CONFIRMED or payment in _PAID:
        return BookingFate.CONFIRMED
    return BookingFate.PAYING if payment in _PAYING else BookingFate.OPEN


def hold_ms_of(booking: booking_pb2.Booking) -> int | None:
    """Milliseconds that the booking says its hold lasts; None when it doesn't say.

    An interval between two times of the service's own clock, so that no two clocks are compared.
    """
    if not booking.HasField("expires_at") or not booking.HasField("created_at"):
        return None
    expires, created = booking.expires_at, booking.created_at
    lasts_ns = (expires.seconds - created.seconds) * 1_000_000_000 + expires.nanos - created.nanos
    lasts_ms = lasts_ns // 1_000_000
    return lasts_ms if lasts_ms > 0 else None


@lru_cache(maxsize=1024)
def amount_text(amount: float) -> str:
    """An amount of money as plain decimal text with at least two decimals: ``99.50``."""
    text = repr(amount)
    if "e" in text:
        text = format(Decimal(text), "f")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<2}"


class BookingClient:
    """The calls to the Booking Service that the queue needs.

    Every method raises PeerUnavailable (no answer, a transient error or an incomplete answer:
    whether it took effect is unknown, so ask again), PeerRefused (a definite no) or
    PeerBreakerOpen (not asked at all); each can be repeated safely. ``timeout_seconds`` is the
    deadline of each call.
    """

    def __init__(self, channel: grpc.aio.Channel, breaker: Breaker, timeout_seconds: float) -> None:
        self.breaker = breaker
        self._call = Caller("booking service", breaker, timeout_seconds)
        self._stub = booking_pb2_grpc.BookingServiceStub(channel)

    async def create(self, request: BookingRequest, idempotency_key: str) -> Held:
        """The booking for this request: a new one, or the one made first under the key.

        A booking that was made under the key but is gone by now is refused: nobody can pay it.
        One that is paid for already (the queue lost that it was) has a hold that is over at once:
        its release finds it paid, and nobody is asked to pay again.
        That something is not found is no refusal: an event may be known there later than here,
        and who waits for it would be refused for good.
        """
        message = booking_pb2.CreateBookingRequest(
            user_id=request.user_id,
            event_id=request.event_id,
            ticket_quantity=request.seats,
            seat_numbers=request.seat_numbers,
            metadata=request.metadata,
            idempotency_key=idempotency_key,
        )
        message.metadata["total_amount"] = amount_text(request.total_amount)
        message.metadata["currency"] = request.currency
        try:
            answer = await self._call(self._stub.CreateBooking, message, _is_complete)
        except CodedRefusal as error:
            if error.code in FINAL_REFUSALS:
                raise
            raise PeerUnavailable(error.peer, f"{error.code.name}: {error.message}") from None
        if not answer.success:
            raise self._call.refused(answer.message)
        booking = answer.booking
        fate = fate_of(booking)
        if fate is BookingFate.GONE:
            raise self._call.refused(f"booking {booking.id} is {booking.status} already")
        return Held(
            booking_id=booking.id,
            booking_reference=booking.booking_reference,
            hold_ms=1 if fate is BookingFate.CONFIRMED else hold_ms_of(booking),
            reservation_id=booking.metadata.get("reservation_id", ""),
        )

    async def confirm(self, booking_id: str, payment_reference: str) -> str:
        """Confirm a paid booking; its reference. One that is confirmed already is a success."""
        message = booking_pb2.ConfirmBookingRequest(
            booking_id=booking_id, payment_reference=payment_reference
        )
        answer = await self._call(self._stub.ConfirmBooking, message, _is_complete)
        if not answer.success and fate_of(answer.booking) is not BookingFate.CONFIRMED:
            raise self._call.refused(answer.message)
        return answer.booking.booking_reference

    async def cancel(self, booking_id: str, reason: str) -> None:
        """Cancel a booking; one that was never known is a success.

        A refusal may be of one that is gone already: :meth:`get` says so.
        """
        message = booking_pb2.CancelBookingRequest(booking_id=booking_id, reason=reason)
        try:
            answer = await self._call(self._stub.CancelBooking, message)
        except CodedRefusal as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return
            raise
        if not answer.success:
            raise self._call.refused(answer.message)

    async def get(self, booking_id: str) -> BookingState:
        """What has become of a booking; one that is not found is GONE."""
        message = booking_pb2.GetBookingRequest(booking_id=booking_id)
        try:
            answer = await self._call(self._stub.GetBooking, message, _is_complete)
        except CodedRefusal as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return BookingState(BookingFate.GONE, "")
            raise
        if not answer.booking.id:
            raise self._call.refused(answer.message)
        return BookingState(fate_of(answer.booking), answer.booking.booking_reference)

    async def health(self) -> str:
        """The service's own word for how it is; raises only PeerUnavailable."""
        request = booking_pb2.HealthRequest()
        return (await self._call.unguarded(self._stub.Health, request)).status


def _word(text: str) -> str:
    return text.strip().lower().replace("-", "_").replace(" ", "_")


def _is_complete(answer: booking_pb2.BookingResponse | booking_pb2.ConfirmBookingResponse) -> bool:
    return bool(answer.booking.id) or not answer.success
