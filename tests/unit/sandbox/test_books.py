from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from booking_worker.sandbox.books import (
    BookingStatus,
    Books,
    JournalRow,
    LedgerBooking,
    LedgerEvent,
    LedgerInUse,
    LedgerUnusable,
    Outcome,
)

BOOKING = LedgerBooking(
    id="b1",
    reference="R1",
    key="k1",
    user_id="ann",
    event_id="show",
    quantity=2,
    seats=("A1", 'é"'),
    status=BookingStatus.PENDING,
    payment_status="pending",
    payment_reference="",
    reservation_id="r1",
    has_tickets=True,
    created_at_ms=1,
    expires_at_ms=2,
    confirmed_at_ms=0,
    cancelled_at_ms=0,
    reason="",
    amount="9.50",
    currency="EUR",
)
ROW = JournalRow(1, "CreateBooking", "k1", "b1", "show", Outcome.CREATED, 2, 0)


@pytest.fixture
def books(ledger_path: Path) -> Iterator[Books]:
    books = Books(ledger_path)
    yield books
    books.close()


def test_what_is_saved_is_read_back(books: Books, ledger_path: Path) -> None:
    books.save([LedgerEvent("show", 10, 2)], [BOOKING], [ROW])
    books.close()
    again = Books(ledger_path)
    assert again.events() == [LedgerEvent("show", 10, 2)]
    assert again.bookings() == [BOOKING]
    again.close()


def test_a_booking_is_updated(books: Books) -> None:
    books.save([], [BOOKING], [ROW])
    paid = dataclasses.replace(
        BOOKING,
        status=BookingStatus.CONFIRMED,
        payment_status="paid",
        payment_reference="pay",
        confirmed_at_ms=5,
    )
    books.save([], [paid], [])
    gone = dataclasses.replace(
        paid, has_tickets=False, cancelled_at_ms=6, expires_at_ms=7, reason="why"
    )
    assert books.bookings() == [paid]
    books.save([], [gone], [])
    assert books.bookings() == [gone]


@pytest.mark.parametrize(
    "events, bookings",
    [
        ([LedgerEvent("show", 10, 11)], []),
        ([LedgerEvent("show", 10, -1)], []),
        ([LedgerEvent("show", -1, 0)], []),
        ([], [BOOKING, dataclasses.replace(BOOKING, id="b2", reference="R2")]),
        ([], [BOOKING, dataclasses.replace(BOOKING, id="b2", key="k2")]),
        ([], [dataclasses.replace(BOOKING, quantity=0)]),
    ],
    ids=["oversold", "below 0", "no tickets", "one key twice", "one reference twice", "nothing"],
)
def test_what_cannot_be_true_cannot_be_written(books: Books, events, bookings) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        books.save([LedgerEvent("gig", 1, 0), *events], bookings, [ROW])
    assert (books.events(), books.bookings()) == ([], [])
    assert books.connection.execute("SELECT count(*) FROM journal").fetchone() == (0,)
    books.save([], [BOOKING], [ROW])


def test_one_owner_and_the_next_after_it(books: Books, ledger_path: Path) -> None:
    with pytest.raises(LedgerInUse):
        Books(ledger_path)
    books.close()
    Books(ledger_path).close()


def test_what_cannot_be_a_ledger_is_a_clear_error_and_let_go_of(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("no database, but far more than the hundred bytes of one's header: " * 5)
    for path in (other, tmp_path, other / "ledger.db", Path()):
        with pytest.raises(LedgerUnusable, match=rf"ledger {path} cannot be opened: \w"):
            Books(path)
    other.unlink()
    Books(other).close()


def test_its_directory_is_made(tmp_path: Path) -> None:
    Books(tmp_path / "new" / "deep" / "ledger.db").close()
    assert (tmp_path / "new" / "deep" / "ledger.db").exists()
