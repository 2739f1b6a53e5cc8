"""The ledger's books in memory, and what of them is not on file yet."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from booking_worker.sandbox.books import (
    BookingStatus,
    Books,
    JournalRow,
    LedgerBooking,
    LedgerEvent,
    Outcome,
)


class Inventory:
    """Events, bookings and seats, found at once by whatever they are asked for by.

    Whoever changes a booking's fields says so by :meth:`changed`.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self.journal: list[JournalRow] = []
        self._load()

    def _load(self) -> None:
        self.journal.clear()
        self._changed: dict[str, LedgerBooking] = {}
        self._changed_events: dict[str, LedgerEvent] = {}
        self.events = {event.event_id: event for event in self._books.events()}
        self.bookings: dict[str, LedgerBooking] = {}
        self.by_key: dict[str, LedgerBooking] = {}
        self.by_reservation: dict[str, LedgerBooking] = {}
        self._seats: dict[str, dict[str, str]] = {}
        self._due: list[tuple[int, str]] = []
        for booking in self._books.bookings():
            self._index(booking)

    def save(self) -> None:
        """Put on file all that happened; when that raises, none of it has happened."""
        if not self.journal:
            return
        try:
            self._books.save(self._changed_events.values(), self._changed.values(), self.journal)
        except BaseException:
            self._load()
            raise
        self.journal.clear()
        self._changed.clear()
        self._changed_events.clear()

    def set_tickets(self, event_id: str, tickets: int, now_ms: int) -> LedgerEvent:
        """Give an event, known or new, its number of tickets."""
        event = self.events.get(event_id)
        if event is None:
            event = self.events[event_id] = LedgerEvent(event_id, 0, 0)
        more, event.tickets = tickets - event.tickets, tickets
        self._changed_events[event_id] = event
        self.journal.append(
            JournalRow(now_ms, "Tickets", "", "", event_id, Outcome.TICKETS, 0, more)
        )
        return event

    def taken_seats(self, event_id: str, seats: Sequence[str]) -> list[str]:
        """Those of the seats that somebody has."""
        taken = self._seats.get(event_id, {})
        return [seat for seat in seats if seat in taken]

    def add(self, booking: LedgerBooking) -> None:
        """Put in a new booking, which takes its tickets."""
        self._index(booking)
        self._changed[booking.id] = booking
        event = self.events[booking.event_id]
        event.taken += booking.quantity
        self._changed_events[event.event_id] = event

    def changed(self, booking: LedgerBooking) -> None:
        """The booking is another than on file."""
        self._changed[booking.id] = booking

    def give_back(self, booking: LedgerBooking) -> int:
        """Take a booking's tickets from it; how many."""
        booking.has_tickets = False
        self._changed[booking.id] = booking
        taken = self._seats.get(booking.event_id, {})
        for seat in booking.seats:
            del taken[seat]
        event = self.events[booking.event_id]
        event.taken -= booking.quantity
        self._changed_events[event.event_id] = event
        return booking.quantity

    def due(self, now_ms: int) -> Iterator[LedgerBooking]:
        """The bookings whose hold has ended and that have tickets still, each once."""
        while self._due and self._due[0][0] <= now_ms:
            booking = self.bookings[heapq.heappop(self._due)[1]]
            if booking.has_tickets and booking.status is not BookingStatus.CONFIRMED:
                yield booking

    def due_again(self, booking: LedgerBooking, at_ms: int) -> None:
        """Give a booking out as due once more."""
        heapq.heappush(self._due, (at_ms, booking.id))

    def _index(self, booking: LedgerBooking) -> None:
        self.bookings[booking.id] = booking
        self.by_key[booking.key] = booking
        if booking.reservation_id:
            self.by_reservation[booking.reservation_id] = booking
        if not booking.has_tickets:
            return
        if booking.seats:
            taken = self._seats.setdefault(booking.event_id, {})
            taken.update(dict.fromkeys(booking.seats, booking.id))
        if booking.status is not BookingStatus.CONFIRMED:
            heapq.heappush(self._due, (booking.expires_at_ms, booking.id))
