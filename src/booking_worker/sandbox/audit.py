"""What the ledger's file says happened: told from its journal, not from anybody's counters."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple


@dataclass(frozen=True, slots=True)
class LedgerAudit:
    """The sums of a sale. ``sold``, ``held``, ``unreleased`` and ``tickets`` count tickets."""

    tickets: int
    sold: int
    """Of confirmed bookings."""
    held: int
    """Of pending bookings."""
    unreleased: int
    """Of cancelled bookings that have not been given back yet."""
    oversold: int
    """The most that was ever taken beyond what there was, over all events; must be 0."""
    seats_sold_twice: int
    """Named seats in more than one live booking; must be 0."""
    duplicate_bookings: int
    """Keys with more than one booking, and users with more than one live; must be 0."""
    confirmed_twice: int
    """Bookings that were confirmed more than once; must be 0."""
    balanced: bool
    """Whether journal, bookings and events tell the same story; must be true."""
    creates: int
    """CreateBooking calls that made a booking."""
    repeats: int
    """CreateBooking calls that were answered with the booking made first."""
    refusals: int
    """CreateBooking calls refused for lack of tickets or seats: what would have oversold."""
    lost_answers: int
    errors: int
    """Calls answered UNAVAILABLE before anything was done."""
    confirmed: int
    """Bookings, as the next three."""
    pending: int
    cancelled: int
    expired: int


class BookingLine(NamedTuple):
    """One booking, as ListBookings tells it."""

    id: str
    reference: str
    key: str
    user_id: str
    event_id: str
    quantity: int
    status: str


# Each query has :event, which is '' for all events.
_OF_EVENT: Final = "(:event = '' OR event_id = :event)"

_BOOKINGS: Final = f"""
SELECT status, count(*), sum(quantity), sum(quantity * has_tickets)
FROM bookings WHERE {_OF_EVENT} GROUP BY status
"""  # noqa: S608 - put together from constants

_OVERSOLD: Final = f"""
SELECT coalesce(sum(most), 0) FROM (
    SELECT max(0, max(now_taken - now_tickets)) AS most FROM (
        SELECT event_id, taken, sum(taken) OVER steps AS now_taken,
               sum(tickets) OVER steps AS now_tickets
        FROM journal WHERE {_OF_EVENT} AND (taken != 0 OR tickets != 0)
        WINDOW steps AS (PARTITION BY event_id ORDER BY n)
    ) GROUP BY event_id
)
"""  # noqa: S608 - put together from constants

_OVERBOOKED: Final = f"""
SELECT coalesce(sum(max(0, booked - tickets)), 0) FROM (
    SELECT event_id, sum(quantity) AS booked FROM bookings
    WHERE {_OF_EVENT} AND status IN ('pending', 'confirmed') GROUP BY event_id
) JOIN events USING (event_id)
"""  # noqa: S608 - put together from constants

_SEATS_TWICE: Final = f"""
SELECT count(*) FROM (
    SELECT 1 FROM bookings, json_each(bookings.seats)
    WHERE {_OF_EVENT} AND status IN ('pending', 'confirmed')
    GROUP BY event_id, json_each.value HAVING count(*) > 1
)
"""  # noqa: S608 - put together from constants

_KEYS_TWICE: Final = f"""
SELECT count(*) FROM (
    SELECT 1 FROM journal WHERE {_OF_EVENT} AND outcome = 'created'
    GROUP BY idempotency_key HAVING count(*) > 1
)
"""  # noqa: S608 - put together from constants

_USERS_TWICE: Final = f"""
SELECT count(*) FROM (
    SELECT 1 FROM bookings WHERE {_OF_EVENT} AND status IN ('pending', 'confirmed')
    GROUP BY event_id, user_id HAVING count(*) > 1
)
"""  # noqa: S608 - put together from constants

_CONFIRMED_TWICE: Final = f"""
SELECT count(*) FROM (
    SELECT 1 FROM journal WHERE {_OF_EVENT} AND outcome = 'confirmed'
    GROUP BY booking_id HAVING count(*) > 1
)
"""  # noqa: S608 - put together from constants

# Whatever is in one of these and not in the other is a book that does not balance.
_FROM_JOURNAL: Final = f"""
SELECT event_id, sum(taken), sum(tickets) FROM journal
WHERE {_OF_EVENT} AND event_id != '' GROUP BY event_id
"""  # noqa: S608 - put together from constants
_FROM_EVENTS: Final = f"SELECT event_id, taken, tickets FROM events WHERE {_OF_EVENT}"  # noqa: S608
_FROM_BOOKINGS: Final = f"""
SELECT event_id, coalesce(sum(quantity * has_tickets), 0), tickets
FROM events LEFT JOIN bookings USING (event_id) WHERE {_OF_EVENT} GROUP BY event_id
"""  # noqa: S608 - put together from constants
_MISPLACED: Final = f"""
SELECT count(*) FROM bookings WHERE {_OF_EVENT}
AND has_tickets != (status IN ('pending', 'confirmed')) AND status != 'cancelled'
"""  # noqa: S608 - put together from constants

_CALLS: Final = f"""
SELECT sum(method = 'CreateBooking' AND outcome = 'created'),
       sum(method = 'CreateBooking' AND outcome = 'repeated'),
       sum(method = 'CreateBooking' AND outcome IN ('sold_out', 'seat_taken')),
       sum(lost)
FROM journal WHERE {_OF_EVENT}
"""  # noqa: S608 - put together from constants

_ERRORS: Final = "SELECT count(*) FROM journal WHERE outcome = 'error'"

_IN_ORDER: Final = f"""
SELECT id, reference, idempotency_key, user_id, event_id, quantity, status
FROM bookings JOIN (
    SELECT idempotency_key, min(n) AS first FROM journal
    WHERE method = 'CreateBooking' GROUP BY idempotency_key
) USING (idempotency_key)
WHERE {_OF_EVENT} ORDER BY first
"""  # noqa: S608 - put together from constants


def audit(connection: sqlite3.Connection, event_id: str = "") -> LedgerAudit:
    """The audit of one event, or of all. ``errors`` are of all, as they name no event."""

    def rows(query: str) -> list[tuple[Any, ...]]:
        return connection.execute(query, {"event": event_id}).fetchall()

    def number(query: str) -> int:
        return int(rows(query)[0][0])

    bookings = {
        status: (count, tickets, taken) for status, count, tickets, taken in rows(_BOOKINGS)
    }
    none = (0, 0, 0)
    creates, repeats, refusals, lost = (int(value or 0) for value in rows(_CALLS)[0])
    from_events = sorted(rows(_FROM_EVENTS))
    return LedgerAudit(
        tickets=sum(tickets for _, _, tickets in from_events),
        sold=bookings.get("confirmed", none)[1],
        held=bookings.get("pending", none)[1],
        unreleased=bookings.get("cancelled", none)[2],
        oversold=max(number(_OVERSOLD), number(_OVERBOOKED)),
        seats_sold_twice=number(_SEATS_TWICE),
        duplicate_bookings=number(_KEYS_TWICE) + number(_USERS_TWICE),
        confirmed_twice=number(_CONFIRMED_TWICE),
        balanced=(
            sorted(rows(_FROM_JOURNAL)) == from_events == sorted(rows(_FROM_BOOKINGS))
            and number(_MISPLACED) == 0
        ),
        creates=creates,
        repeats=repeats,
        refusals=refusals,
        lost_answers=lost,
        errors=int(connection.execute(_ERRORS).fetchone()[0]),
        confirmed=bookings.get("confirmed", none)[0],
        pending=bookings.get("pending", none)[0],
        cancelled=bookings.get("cancelled", none)[0],
        expired=bookings.get("expired", none)[0],
    )


def bookings_in_order(connection: sqlite3.Connection, event_id: str = "") -> list[BookingLine]:
    """All bookings, in the order of the first CreateBooking that named the key of each."""
    rows = connection.execute(_IN_ORDER, {"event": event_id})
    return [BookingLine(*row) for row in rows]


def read_audit(path: Path, event_id: str = "") -> LedgerAudit:
    """The audit of a ledger's file, also while a sandbox has it open or after it was killed.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA query_only = 1")
        return audit(connection, event_id)
