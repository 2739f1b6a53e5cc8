from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from booking_worker.sandbox.books import BookingStatus, Books
from booking_worker.sandbox.inventory import Inventory
from tests.unit.sandbox.test_books import BOOKING, ROW


@pytest.fixture
def books(ledger_path: Path) -> Iterator[Books]:
    books = Books(ledger_path)
    yield books
    books.close()


@pytest.fixture
def inventory(books: Books) -> Inventory:
    inventory = Inventory(books)
    inventory.set_tickets("show", 10, 0)
    return inventory


def booking(key: str, **facts):
    given = {"id": f"b-{key}", "reference": f"R-{key}", "reservation_id": f"r-{key}", **facts}
    return dataclasses.replace(BOOKING, key=key, **given)


def test_a_booking_is_found_by_whatever_it_is_asked_for_by(inventory: Inventory) -> None:
    first = booking("k1", seats=("A1", "A2"))
    inventory.add(first)
    assert inventory.bookings["b-k1"] is first
    assert inventory.by_key["k1"] is first
    assert inventory.by_reservation["r-k1"] is first
    assert inventory.taken_seats("show", ["A2", "A9"]) == ["A2"]
    assert inventory.events["show"].taken == 2


def test_tickets_that_are_given_back_are_free(inventory: Inventory) -> None:
    first = booking("k1", seats=("A1", "A2"))
    inventory.add(first)
    assert inventory.give_back(first) == 2
    assert inventory.taken_seats("show", ["A1", "A2"]) == []
    assert inventory.events["show"].taken == 0


def test_what_is_due_comes_once_and_in_order(inventory: Inventory) -> None:
    for key, expires in (("k1", 30), ("k2", 10), ("k3", 20), ("k4", 15), ("k5", 12)):
        inventory.add(booking(key, seats=(), quantity=1, expires_at_ms=expires))
    inventory.by_key["k4"].status = BookingStatus.CONFIRMED
    inventory.give_back(inventory.by_key["k5"])
    assert list(inventory.due(9)) == []
    assert [each.key for each in inventory.due(20)] == ["k2", "k3"]
    assert list(inventory.due(20)) == []
    inventory.due_again(inventory.by_key["k2"], 25)
    assert [each.key for each in inventory.due(99)] == ["k2", "k1"]


def test_it_is_read_back_as_it_was(inventory: Inventory, books: Books) -> None:
    inventory.add(booking("k1", seats=("A1", "A2")))
    inventory.add(booking("k2", seats=("B1", "B2")))
    inventory.give_back(inventory.by_key["k2"])
    inventory.journal.append(ROW)
    inventory.save()
    again = Inventory(books)
    assert again.bookings == inventory.bookings
    assert again.events == inventory.events
    assert again.taken_seats("show", ["A1", "B1"]) == ["A1"]
    assert [each.key for each in again.due(99)] == ["k1"]


def test_nothing_that_happened_is_written_twice(inventory: Inventory, books: Books) -> None:
    inventory.save()
    inventory.save()
    assert books.connection.execute("SELECT count(*) FROM journal").fetchone() == (1,)
