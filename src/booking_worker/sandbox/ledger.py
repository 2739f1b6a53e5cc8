"""The one ledger of the stand-in services: who booked what, and never more than there is."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from booking_worker.sandbox.audit import BookingLine, LedgerAudit, audit, bookings_in_order
from booking_worker.sandbox.books import (
    BookingStatus,
    Books,
    JournalRow,
    LedgerBooking,
    LedgerEvent,
    Outcome,
)
from booking_worker.sandbox.inventory import Inventory

DEFAULT_TICKETS: Final = 100
DEFAULT_HOLD_SECONDS: Final = 1800.0
"""Longer than the queue's own payment timeout with its grace."""

_PAYMENT_LOOK_MS: Final = 1000


class Order(NamedTuple):
    """What CreateBooking asks for."""

    user_id: str
    event_id: str
    quantity: int
    seats: tuple[str, ...]
    key: str
    amount: str = ""
    currency: str = ""


class Entry(NamedTuple):
    """What a call to the ledger came to, and the booking that it was about."""

    outcome: Outcome
    booking: LedgerBooking | None = None
    message: str = ""


class Ledger:
    """Sells the tickets of every event, strictly, and journals every attempt.

    An event that nobody announced has ``default_tickets``. A booking that is not confirmed
    within ``hold_seconds`` expires by itself. With ``reservations`` each booking names a
    reservation, and a cancelled booking's tickets come back when that is released (at the
    latest when its hold would have ended); without, they come back at once.

    Its methods act at once in memory; what they answer may be told to others only after
    :meth:`saved`, which writes all that happened in one turn of the event loop in one go.
    ``clock`` gives Unix seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        default_tickets: int = DEFAULT_TICKETS,
        hold_seconds: float = DEFAULT_HOLD_SECONDS,
        reservations: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the ledger's file, with all that was saved in it.

        Raises:
            LedgerInUse: another sandbox has it open.
        """
        self._default_tickets = default_tickets
        self._hold_ms = int(hold_seconds * 1000)
        self._reservations = reservations
        self._clock = clock
        self._books = Books(path)
        self._inventory = Inventory(self._books)
        self._waiting: list[asyncio.Future[None]] = []
        self._save_is_due = False

    # --- bookings -----------------------------------------------------------------------------

    def create(self, order: Order, *, lost: bool = False) -> Entry:
        """Make a booking, or find the one made first under the key.

        ``lost`` is journalled: the caller will not hear of it.
        """
        now_ms = self._now_ms()
        made = self._inventory.by_key.get(order.key)
        if made is not None:
            entry = _repeat(made, order)
        elif problem := _problem(order):
            entry = Entry(Outcome.INVALID, None, problem)
        else:
            event = self._event(order.event_id, now_ms)
            entry = self._refusal(event, order) or self._make(order, now_ms)
        took = order.quantity if entry.outcome is Outcome.CREATED else 0
        self._note(now_ms, "CreateBooking", order, entry, took, lost=lost)
        return entry

    def get(self, booking_id: str) -> Entry:
        """Find a booking."""
        now_ms = self._now_ms()
        booking = self._inventory.bookings.get(booking_id)
        entry = _unknown(booking_id) if booking is None else Entry(Outcome.FOUND, booking)
        self._note(now_ms, "GetBooking", booking, entry)
        return entry

    def confirm(self, booking_id: str, payment_reference: str, *, lost: bool = False) -> Entry:
        """Confirm a pending booking; one that is confirmed already stays as it is."""
        now_ms = self._now_ms()
        booking = self._inventory.bookings.get(booking_id)
        if booking is None:
            entry = _unknown(booking_id)
        elif booking.status is BookingStatus.CONFIRMED:
            entry = Entry(Outcome.REPEATED, booking, "confirmed already")
        elif booking.status is BookingStatus.PENDING:
            booking.status = BookingStatus.CONFIRMED
            booking.payment_status = "paid"
            booking.payment_reference = payment_reference
            booking.confirmed_at_ms = now_ms
            self._inventory.changed(booking)
            entry = Entry(Outcome.CONFIRMED, booking)
        else:
            entry = Entry(Outcome.REFUSED, booking, f"the booking is {booking.status}")
        self._note(now_ms, "ConfirmBooking", booking, entry, lost=lost)
        return entry

    def cancel(self, booking_id: str, reason: str, *, lost: bool = False) -> Entry:
        """Cancel a pending booking; one that is cancelled or expired stays as it is."""
        now_ms = self._now_ms()
        gives_back = 0
        booking = self._inventory.bookings.get(booking_id)
        if booking is None:
            entry = _unknown(booking_id)
        elif booking.status in {BookingStatus.CANCELLED, BookingStatus.EXPIRED}:
            entry = Entry(Outcome.REPEATED, booking, f"{booking.status} already")
        elif booking.status is BookingStatus.CONFIRMED:
            entry = Entry(Outcome.REFUSED, booking, "the booking is confirmed")
        elif booking.payment_status == "processing":
            entry = Entry(Outcome.REFUSED, booking, "its payment is in progress")
        else:
            booking.status = BookingStatus.CANCELLED
            booking.cancelled_at_ms = now_ms
            booking.reason = reason
            self._inventory.changed(booking)
            if not booking.reservation_id:
                gives_back = self._inventory.give_back(booking)
            entry = Entry(Outcome.CANCELLED, booking)
        self._note(now_ms, "CancelBooking", booking, entry, -gives_back, lost=lost)
        return entry

    def set_payment(self, booking_id: str, payment_status: str) -> Entry:
        """What the payment service does behind everybody's back, for tests.

        ``processing`` begins a payment, ``paid`` confirms the booking too, and ``failed`` leaves
        it unpaid.
        """
        if payment_status == "paid":
            return self.confirm(booking_id, f"direct-{booking_id}")
        now_ms = self._now_ms()
        booking = self._inventory.bookings.get(booking_id)
        if booking is None:
            entry = _unknown(booking_id)
        else:
            booking.payment_status = payment_status
            self._inventory.changed(booking)
            entry = Entry(Outcome.PAYMENT, booking)
        self._note(now_ms, "Payment", booking, entry)
        return entry

    # --- tickets ------------------------------------------------------------------------------

    def available(self, event_id: str) -> int:
        """Tickets that can still be booked."""
        now_ms = self._now_ms()
        event = self._event(event_id, now_ms)
        self._inventory.journal.append(
            JournalRow(now_ms, "CheckAvailability", "", "", event_id, Outcome.FOUND, 0, 0)
        )
        return event.tickets - event.taken

    def free_seats(self, event_id: str, seats: Sequence[str]) -> list[str]:
        """Those of the seats that nobody has."""
        taken = self._inventory.taken_seats(event_id, seats)
        return [seat for seat in seats if seat not in taken]

    def release(self, reservation_id: str, *, lost: bool = False) -> Entry:
        """Give back the tickets of a cancelled booking; repeating it changes nothing."""
        now_ms = self._now_ms()
        gives_back = 0
        booking = self._inventory.by_reservation.get(reservation_id)
        if booking is None:
            entry = _unknown(reservation_id)
        elif not booking.has_tickets:
            entry = Entry(Outcome.REPEATED, booking, "given back already")
        elif booking.status is not BookingStatus.CANCELLED:
            entry = Entry(Outcome.REFUSED, booking, f"the booking is {booking.status}")
        else:
            gives_back = self._inventory.give_back(booking)
            entry = Entry(Outcome.RELEASED, booking)
        self._note(now_ms, "ReleaseTickets", booking, entry, -gives_back, lost=lost)
        return entry

    def set_tickets(self, event_id: str, tickets: int) -> int:
        """Give an event its number of tickets; how many of them are available.

        Raises:
            ValueError: fewer than are taken already, or below 0.
        """
        now_ms = self._now_ms()
        event = self._inventory.events.get(event_id)
        taken = 0 if event is None else event.taken
        if tickets < taken:
            raise ValueError(f"{taken} tickets are taken already")
        self._inventory.set_tickets(event_id, tickets, now_ms)
        return tickets - taken

    # --- the file -----------------------------------------------------------------------------

    def note(self, method: str, key: str, outcome: Outcome) -> None:
        """Journal a call that did not get as far as the books."""
        now_ms = int(self._clock() * 1000)
        self._inventory.journal.append(JournalRow(now_ms, method, key, "", "", outcome, 0, 0))

    def saved(self) -> asyncio.Future[None]:
        """Wait until all that happened so far is on file.

        Raises when it cannot be written; then none of it has happened.
        """
        # One for each caller: a shared one would be cancelled for all when one is cancelled.
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self.save_soon()
        return waiting

    def save_soon(self) -> None:
        """Write in this turn of the event loop what nobody waits for."""
        if not self._save_is_due:
            self._save_is_due = True
            asyncio.get_running_loop().call_soon(self._save_turn)

    def save(self) -> None:
        """Write now all that happened so far; when that raises, none of it has happened."""
        self._inventory.save()

    def close(self) -> None:
        """Write what is left and close the file."""
        try:
            self.save()
        finally:
            self._books.close()

    def audit(self, event_id: str = "") -> LedgerAudit:
        """What the file says happened to one event, or to all."""
        self._now_ms()
        self.save()
        return audit(self._books.connection, event_id)

    def bookings(self, event_id: str = "") -> list[BookingLine]:
        """The bookings on file, in the order of the first attempt to make each."""
        self._now_ms()
        self.save()
        return bookings_in_order(self._books.connection, event_id)

    # --- inside -------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        """The time, after all that was due by then has been done."""
        now_ms = int(self._clock() * 1000)
        for booking in self._inventory.due(now_ms):
            if booking.status is BookingStatus.CANCELLED:
                entry = Entry(Outcome.RELEASED, booking)
            elif booking.payment_status == "processing":
                self._inventory.due_again(booking, now_ms + _PAYMENT_LOOK_MS)
                continue
            else:
                booking.status = BookingStatus.EXPIRED
                entry = Entry(Outcome.EXPIRED, booking)
            gives_back = self._inventory.give_back(booking)
            self._note(now_ms, "Expiry", booking, entry, -gives_back)
        return now_ms

    def _event(self, event_id: str, now_ms: int) -> LedgerEvent:
        event = self._inventory.events.get(event_id)
        return event or self._inventory.set_tickets(event_id, self._default_tickets, now_ms)

    def _refusal(self, event: LedgerEvent, order: Order) -> Entry | None:
        left = event.tickets - event.taken
        if left < order.quantity:
            message = f"{left} tickets are left, {order.quantity} were asked for"
            return Entry(Outcome.SOLD_OUT, None, message)
        gone = order.seats and self._inventory.taken_seats(order.event_id, order.seats)
        if gone:
            return Entry(Outcome.SEAT_TAKEN, None, f"seats taken: {', '.join(gone)}")
        return None

    def _make(self, order: Order, now_ms: int) -> Entry:
        token = secrets.token_hex(8)
        booking = LedgerBooking(
            id=f"bk-{token}",
            reference=f"BW{len(self._inventory.bookings) + 1:07d}",
            key=order.key,
            user_id=order.user_id,
            event_id=order.event_id,
            quantity=order.quantity,
            seats=order.seats,
            status=BookingStatus.PENDING,
            payment_status="pending",
            payment_reference="",
            reservation_id=f"rs-{token}" if self._reservations else "",
            has_tickets=True,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + self._hold_ms,
            confirmed_at_ms=0,
            cancelled_at_ms=0,
            reason="",
            amount=order.amount,
            currency=order.currency,
        )
        self._inventory.add(booking)
        return Entry(Outcome.CREATED, booking)

    def _note(
        self,
        now_ms: int,
        method: str,
        about: LedgerBooking | Order | None,
        entry: Entry,
        took: int = 0,
        *,
        lost: bool = False,
    ) -> None:
        key, event_id = ("", "") if about is None else (about.key, about.event_id)
        booking_id = "" if entry.booking is None else entry.booking.id
        self._inventory.journal.append(
            JournalRow(now_ms, method, key, booking_id, event_id, entry.outcome, took, 0, lost)
        )

    def _save_turn(self) -> None:
        self._save_is_due = False
        waiting, self._waiting = self._waiting, []
        failure: Exception | None = None
        try:
            self.save()
        except Exception as error:  # noqa: BLE001 - those who wait for it get it
            failure = error
        for future in waiting:
            if future.done():
                continue
            if failure is None:
                future.set_result(None)
            else:
                future.set_exception(failure)
        if failure is not None and not waiting:
            raise failure


def _repeat(made: LedgerBooking, order: Order) -> Entry:
    first = (made.user_id, made.event_id, made.quantity, made.seats)
    if first == (order.user_id, order.event_id, order.quantity, order.seats):
        return Entry(Outcome.REPEATED, made, "made before")
    return Entry(Outcome.KEY_CONFLICT, None, "the idempotency key was used for another request")


def _problem(order: Order) -> str:
    if not (order.key and order.user_id and order.event_id):
        return "idempotency_key, user_id and event_id are required"
    if order.quantity <= 0:
        return "ticket_quantity must be at least 1"
    if order.seats and len(set(order.seats)) != order.quantity:
        return "seat_numbers must be as many different ones as ticket_quantity"
    return ""


def _unknown(wanted: str) -> Entry:
    return Entry(Outcome.UNKNOWN, None, f"{wanted!r} is unknown")
