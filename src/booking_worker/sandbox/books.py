"""The file of the ledger: what is kept in SQLite and how it is read back."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from booking_worker.domain.errors import BookingWorkerError


class LedgerInUse(BookingWorkerError):
    """Another sandbox owns this ledger."""


class LedgerUnusable(BookingWorkerError):
    """There is no ledger to be had there."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(f"the sandbox's ledger {path} cannot be opened: {why}")


class BookingStatus(StrEnum):
    """Where a booking stands."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Outcome(StrEnum):
    """What a call to the ledger came to."""

    CREATED = "created"
    REPEATED = "repeated"
    """The call was made before: the same answer, no other effect."""
    SOLD_OUT = "sold_out"
    """Fewer tickets are left than were asked for."""
    SEAT_TAKEN = "seat_taken"
    INVALID = "invalid"
    KEY_CONFLICT = "key_conflict"
    """The idempotency key was used for another request."""
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """The hold of a pending booking ended."""
    RELEASED = "released"
    """The tickets of a cancelled booking came back."""
    REFUSED = "refused"
    """The booking's status does not allow it."""
    UNKNOWN = "unknown"
    FOUND = "found"
    PAYMENT = "payment"
    """The payment service changed the booking's payment status."""
    TICKETS = "tickets"
    """The event was given its tickets."""
    ERROR = "error"
    """UNAVAILABLE, before anything was done."""


@dataclass(slots=True)
class LedgerBooking:
    """One booking. Times are Unix milliseconds of the sandbox's own clock, 0 for never."""

    id: str
    reference: str
    key: str
    user_id: str
    event_id: str
    quantity: int
    seats: tuple[str, ...]
    status: BookingStatus
    payment_status: str
    payment_reference: str
    reservation_id: str
    has_tickets: bool
    """Whether its tickets are taken: a cancelled booking's come back with its reservation."""
    created_at_ms: int
    expires_at_ms: int
    confirmed_at_ms: int
    cancelled_at_ms: int
    reason: str
    amount: str
    currency: str


class JournalRow(NamedTuple):
    """One thing that happened."""

    at_ms: int
    method: str
    key: str
    booking_id: str
    event_id: str
    outcome: Outcome
    taken: int
    """Tickets that it took (or gave back, below 0)."""
    tickets: int
    """By how much it changed the number of tickets that the event has."""
    lost: bool = False
    """Whether the answer was lost on purpose."""


@dataclass(slots=True)
class LedgerEvent:
    """The tickets of one event, and how many of them are taken."""

    event_id: str
    tickets: int
    taken: int


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    event_id TEXT PRIMARY KEY,
    tickets INTEGER NOT NULL CHECK (tickets >= 0),
    taken INTEGER NOT NULL CHECK (taken BETWEEN 0 AND tickets)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bookings (
    id TEXT PRIMARY KEY,
    reference TEXT NOT NULL UNIQUE,
    idempotency_key TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    seats TEXT NOT NULL,
    status TEXT NOT NULL,
    payment_status TEXT NOT NULL,
    payment_reference TEXT NOT NULL,
    reservation_id TEXT NOT NULL,
    has_tickets INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    confirmed_at_ms INTEGER NOT NULL,
    cancelled_at_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    amount TEXT NOT NULL,
    currency TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS journal (
    n INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    method TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    booking_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    taken INTEGER NOT NULL,
    tickets INTEGER NOT NULL,
    lost INTEGER NOT NULL
);
"""

_SAVE_EVENT: Final = """
INSERT INTO events VALUES (?, ?, ?)
ON CONFLICT (event_id) DO UPDATE SET tickets = excluded.tickets, taken = excluded.taken
"""

_SAVE_BOOKING: Final = """
INSERT INTO bookings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, payment_status = excluded.payment_status,
    payment_reference = excluded.payment_reference, has_tickets = excluded.has_tickets,
    expires_at_ms = excluded.expires_at_ms, confirmed_at_ms = excluded.confirmed_at_ms,
    cancelled_at_ms = excluded.cancelled_at_ms, reason = excluded.reason
"""

_SAVE_JOURNAL: Final = """
INSERT INTO journal
    (at_ms, method, idempotency_key, booking_id, event_id, outcome, taken, tickets, lost)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class Books:
    """One SQLite file with one owner. What :meth:`save` was given survives kill -9.

    The constraints of its tables are the last guard: a file that says that more was sold than
    there is, or that holds two bookings under one key, cannot be written.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            LedgerInUse: another sandbox has it open.
            LedgerUnusable: it cannot be opened or written, or is something else.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = path.with_name(path.name + ".lock").open("w")
        except (OSError, ValueError) as error:
            raise LedgerUnusable(path, getattr(error, "strerror", None) or error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.connection = _open(path)
        except BlockingIOError:
            self._lock.close()
            raise LedgerInUse(f"another sandbox is using {path}") from None
        except sqlite3.Error as error:
            self._lock.close()
            raise LedgerUnusable(path, error) from error

    def close(self) -> None:
        """Close the file and let another own it."""
        self.connection.close()
        self._lock.close()

    def events(self) -> list[LedgerEvent]:
        """All events."""
        rows = self.connection.execute("SELECT event_id, tickets, taken FROM events")
        return [LedgerEvent(*row) for row in rows]

    def bookings(self) -> list[LedgerBooking]:
        """All bookings, in the order in which they were made."""
        rows = self.connection.execute("SELECT * FROM bookings ORDER BY rowid")
        return [_booking(row) for row in rows]

    def save(
        self,
        events: Iterable[LedgerEvent],
        bookings: Iterable[LedgerBooking],
        journal: Iterable[JournalRow],
    ) -> None:
        """Write all of it or, when that raises, nothing."""
        connection = self.connection
        connection.execute("BEGIN")
        try:
            connection.executemany(_SAVE_JOURNAL, journal)
            connection.executemany(
                _SAVE_EVENT, [(event.event_id, event.tickets, event.taken) for event in events]
            )
            connection.executemany(_SAVE_BOOKING, [_row(booking) for booking in bookings])
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # In WAL mode this survives the death of the process, which is what is tested here.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _booking(row: tuple[Any, ...]) -> LedgerBooking:
    booking = LedgerBooking(*row)
    booking.seats = tuple(orjson.loads(row[6]))
    booking.status = BookingStatus(booking.status)
    booking.has_tickets = bool(booking.has_tickets)
    return booking


def _row(booking: LedgerBooking) -> tuple[str | int, ...]:
    return (
        booking.id,
        booking.reference,
        booking.key,
        booking.user_id,
        booking.event_id,
        booking.quantity,
        orjson.dumps(booking.seats).decode(),
        booking.status,
        booking.payment_status,
        booking.payment_reference,
        booking.reservation_id,
        booking.has_tickets,
        booking.created_at_ms,
        booking.expires_at_ms,
        booking.confirmed_at_ms,
        booking.cancelled_at_ms,
        booking.reason,
        booking.amount,
        booking.currency,
    )
