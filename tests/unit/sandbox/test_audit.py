"""The audit is what the promises are checked with, so here it has to find what is wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from booking_worker.sandbox.audit import audit, read_audit
from booking_worker.sandbox.ledger import Ledger
from tests.unit.sandbox.conftest import Clock, order


@pytest.fixture
def honest(open_ledger: Callable[..., Ledger], clock: Clock, ledger_path: Path) -> Path:
    """A file with one booking of each kind, and a ledger that has closed it."""
    ledger = open_ledger(default_tickets=10, hold_seconds=60.0)
    ids = [ledger.create(order(f"k{n}", 2, seats=(f"A{n}", f"B{n}"))).booking.id for n in range(4)]
    ledger.confirm(ids[0], "pay", lost=True)
    clock.now += 60
    ids.append(ledger.create(order("k4", 2)).booking.id)
    ids.append(ledger.create(order("k5", 1)).booking.id)
    ledger.cancel(ids[4], "not paid")
    ledger.create(order("k4", 2), lost=True)
    ledger.create(order("k6", 6))
    ledger.close()
    return ledger_path


def damaged(path: Path, *statements: str):
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return read_audit(path)


def test_an_honest_file(honest: Path) -> None:
    seen = read_audit(honest)
    assert (seen.tickets, seen.sold, seen.held, seen.unreleased) == (10, 2, 1, 2)
    assert (seen.confirmed, seen.pending, seen.cancelled, seen.expired) == (1, 1, 1, 3)
    assert (seen.creates, seen.repeats, seen.refusals, seen.lost_answers) == (6, 1, 1, 2)
    assert (seen.oversold, seen.seats_sold_twice, seen.duplicate_bookings) == (0, 0, 0)
    assert (seen.confirmed_twice, seen.balanced) == (0, True)


def test_taken_beyond_the_tickets_for_a_moment_only(honest: Path) -> None:
    """What was oversold at any step stays found, though it was given back at once."""
    seen = damaged(
        honest,
        """INSERT INTO journal SELECT NULL, at_ms, method, 'x', 'x', event_id, outcome, 9, 0, 0
           FROM journal WHERE outcome = 'created' LIMIT 1""",
        """INSERT INTO journal SELECT NULL, at_ms, 'Expiry', 'x', 'x', event_id, 'expired', -9, 0, 0
           FROM journal WHERE outcome = 'created' LIMIT 1""",
    )
    assert seen.oversold == 4
    assert seen.balanced


def _another_booking(key: str, user: str, quantity: int, seats: str) -> str:
    return f"""INSERT INTO bookings SELECT 'b-{key}', 'R-{key}', '{key}', '{user}', event_id,
        {quantity}, '{seats}', 'confirmed', payment_status, '', '', 1, 0, 0, 0, 0, '', '', ''
        FROM bookings LIMIT 1"""


def test_bookings_beyond_the_tickets(honest: Path) -> None:
    seen = damaged(honest, _another_booking("x", "eve", 9, "[]"))
    assert seen.oversold == 2
    assert not seen.balanced


def test_a_seat_in_two_live_bookings(honest: Path) -> None:
    assert damaged(honest, _another_booking("x", "eve", 1, '["A1"]')).seats_sold_twice == 0
    assert damaged(honest, _another_booking("y", "bob", 1, '["A0"]')).seats_sold_twice == 1


def test_a_user_with_two_live_bookings(honest: Path) -> None:
    assert damaged(honest, _another_booking("x", "user-k1", 1, "[]")).duplicate_bookings == 0
    assert damaged(honest, _another_booking("y", "user-k0", 1, "[]")).duplicate_bookings == 1


def test_a_key_with_two_bookings(honest: Path) -> None:
    seen = damaged(
        honest,
        """INSERT INTO journal SELECT NULL, at_ms, method, idempotency_key, 'b2', event_id,
           outcome, 0, 0, 0 FROM journal WHERE outcome = 'created' LIMIT 1""",
    )
    assert seen.duplicate_bookings == 1


def test_a_booking_confirmed_twice(honest: Path) -> None:
    seen = damaged(
        honest,
        """INSERT INTO journal SELECT NULL, at_ms, method, idempotency_key, booking_id, event_id,
           outcome, 0, 0, 0 FROM journal WHERE outcome = 'confirmed'""",
    )
    assert seen.confirmed_twice == 1


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE events SET taken = taken - 1",
        "UPDATE events SET tickets = tickets + 1",
        "DELETE FROM journal WHERE outcome = 'expired'",
        "DELETE FROM bookings WHERE status = 'pending'",
        "UPDATE bookings SET status = 'expired' WHERE status = 'confirmed'",
        "UPDATE bookings SET status = 'confirmed' WHERE status = 'expired'",
    ],
)
def test_books_that_do_not_balance(honest: Path, damage: str) -> None:
    assert read_audit(honest).balanced
    assert not damaged(honest, damage).balanced


def test_events_are_audited_apart_and_together(ledger: Ledger) -> None:
    ledger.create(order("k1", 4))
    ledger.create(order("k2", 3, event_id="gig"))
    assert (ledger.audit("show").held, ledger.audit("gig").held, ledger.audit().held) == (4, 3, 7)
    assert (ledger.audit("show").tickets, ledger.audit().tickets) == (10, 20)
    assert ledger.audit("nowhere").balanced


def test_an_empty_ledger(ledger: Ledger) -> None:
    seen = ledger.audit()
    assert (seen.tickets, seen.creates, seen.oversold, seen.balanced) == (0, 0, 0, True)


def test_a_file_that_is_in_use(ledger: Ledger, ledger_path: Path) -> None:
    ledger.create(order("k1", 4))
    ledger.save()
    assert read_audit(ledger_path) == audit(ledger._books.connection)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_audit(tmp_path / "none.db")
