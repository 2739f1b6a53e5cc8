from __future__ import annotations

from typing import Any

import msgpack
import pytest

from booking_worker.domain import details
from booking_worker.domain.model import BookingRequest, Place, Rate, Status, Task
from booking_worker.queue import records

REQUEST = BookingRequest("concert", "ann", ("A1",), 1, 12.5, "EUR", {"k": "ü"})


def record(status: str, more: Any = (), user_id: bytes = b"ann") -> bytes:
    """A record as includes/record.lua packs it; Lua's empty map is an empty array."""
    values = (status, user_id, 1, 7, 5_000, more, details.pack(REQUEST))
    return b"".join(msgpack.packb(value, use_bin_type=False) for value in values)


def test_no_rate_was_measured():
    assert records.rate(None, None, None) == Rate(0.0, 0, 0)
    assert records.rate(b"1.5", None, b"3") == Rate(0.0, 0, 0)


def test_a_rate():
    assert records.rate(b"1.500000", b"20", b"10") == Rate(1.5, 20, 10)


@pytest.mark.parametrize(
    "status, task",
    [
        ("processing", Task.RESERVE),
        ("confirming", Task.CONFIRM),
        ("releasing", Task.RELEASE),
    ],
)
def test_a_lease_of_each_kind(status: str, task: Task):
    lease = records.lease("concert", "E", [b"I", 3, 9_000, record(status, {"attempts": 2})])
    assert (lease.task, lease.item_id, lease.token, lease.until_ms) == (task, "I", 3, 9_000)
    assert (lease.attempts, lease.crashes, lease.grace_used) == (2, 0, False)
    assert lease.details == details.pack(REQUEST)


def test_what_a_lease_knows_of_the_item():
    more = {
        "crashes": 1,
        "cancel": "no",
        "booking_id": "B",
        "booking_reference": "R",
        "payment_reference": "P",
        "reservation_id": "S",
        "grace_used": 1,
        "reason": "why",
        "worker": "w",
    }
    lease = records.lease("concert", "E", [b"I", 3, 9_000, record("releasing", more)])
    assert lease.cancel_requested
    assert lease.grace_used
    assert (lease.booking_id, lease.booking_reference, lease.payment_reference) == ("B", "R", "P")
    assert (lease.reservation_id, lease.reason, lease.worker_id) == ("S", "why", "w")


def place_of(found: bytes | None, position: int = 0, now_ms: int = 1) -> Place | None:
    """As positions.lua answers of one item, in a line of three whose speed is unknown."""
    (place,) = records.places(["I"], [now_ms, 3, None, None, None, found, position])
    return place


def test_no_place():
    assert place_of(None) is None


def test_the_place_of_who_waits():
    place = place_of(b"ann", position=2)
    assert place is not None
    assert (place.status, place.position, place.queue_length) == (Status.WAITING, 2, 3)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"message": "paid"}, "paid"),
        ({"message": "paid", "cancel": ""}, "paid"),
        ({"cancel": ""}, "cancel requested"),
        ((), ""),
    ],
)
def test_what_a_place_has_to_say(more: Any, message: str):
    place = place_of(record("processing", more))
    assert place is not None
    assert place.message == message


@pytest.mark.parametrize(
    "status, now, pay_by, remaining",
    [
        ("awaiting_payment", 100, 1_000, 900),
        ("awaiting_payment", 2_000, 1_000, 0),
        ("confirming", 100, 0, 0),
        ("completed", 100, 0, 0),
    ],
)
def test_only_who_is_to_pay_hears_until_when(status: str, now: int, pay_by: int, remaining: int):
    place = place_of(record(status, {"pay_by": 1_000}), now_ms=now)
    assert place is not None
    assert (place.pay_by_ms, place.remaining_ms) == (pay_by, remaining)


@pytest.mark.parametrize(
    "status, more, task",
    [
        ("waiting", (), ""),
        ("processing", (), "reserve"),
        ("confirming", (), "confirm"),
        ("failed", {"task": "release"}, "release"),
        ("failed", (), ""),
        ("completed", {"task": "confirm"}, ""),
    ],
)
def test_an_item_has_the_task_that_it_waits_for_or_failed_at(status: str, more: Any, task: str):
    item = records.item_record("I", "concert", 0, 0, record(status, more))
    assert item.task == task
    assert item.request == REQUEST


def test_bytes_that_are_no_text_do_no_harm():
    item = records.item_record("I", "concert", 1, 2, record("waiting", (), b"\xff"))
    assert item.user_id == "\udcff"


def state(**fields: Any) -> list[bytes]:
    return [part for pair in fields.items() for part in (pair[0].encode(), str(pair[1]).encode())]


def test_the_books_of_an_event():
    flat = state(
        capacity=5, total_seats=9, held_seats=4, held=2, exact=1, epoch="x", seq=7, sold_out=1
    )
    books = records.event_status("concert", [10, 3, 1, 2, 6, 1, flat])
    assert (books.now_ms, books.waiting, books.dead_letters, books.oldest_ms) == (10, 3, 1, 2)
    assert books.head_seats == 6
    assert (books.capacity, books.total_seats, books.held_seats) == (5, 9, 4)
    assert (books.awaiting_payment, books.joined) == (2, 7)
    assert (books.capacity_known, books.capacity_exact, books.paused) == (True, True, False)
    assert books.sold_out


@pytest.mark.parametrize(
    "fields, current, capacity, known, paused",
    [
        ({}, 0, None, False, False),
        ({"capacity": 5, "epoch": "x"}, 0, 5, False, True),
        ({"capacity": -3, "unlimited": 1, "epoch": "x"}, 1, None, True, False),
    ],
)
def test_what_is_known_of_capacity(
    fields: dict[str, Any], current: int, capacity: int | None, known: bool, paused: bool
):
    books = records.event_status("concert", [10, 0, 0, 0, 0, current, state(**fields)])
    assert (books.capacity, books.capacity_known, books.paused) == (capacity, known, paused)


@pytest.mark.parametrize("current", [0, 1])
def test_why_an_event_is_paused(current: int):
    fields = state(epoch="x", paused="the hall is flooded", paused_by="operator:kim")
    books = records.event_status("concert", [10, 0, 0, 0, 0, current, fields])
    assert (books.paused, books.paused_because) == (True, "the hall is flooded")


def entry(actor: bytes, *made: list[Any]) -> dict[bytes, bytes]:
    return {b"at": b"77", b"by": actor, b"c": msgpack.packb(made, use_bin_type=False)}


def test_the_changes_of_an_entry_have_ids_of_their_own():
    one = ["I", "ann", "waiting", "cancelled", "no", 2, 3, "B", "R", 4]
    two = ["J", "ben", "", "waiting", "joined", 1, 4, "", "", 0]
    first, second = records.changes("concert", "5-1", entry(b"worker:w", one, two))
    assert first == ("5-1-0", "concert", 77, "worker:w", *one)
    assert second.change_id == "5-1-1"
    assert second.pay_by_ms == 0


def test_what_users_did_is_each_ones_own_doing():
    one = ["I", "ann", "", "waiting", "joined", 2, 3, "", "", 0]
    two = ["J", "ben", "", "waiting", "joined", 1, 4, "", "", 0]
    changes = records.changes("concert", "5-1", entry(b"user", one, two))
    assert [change.actor for change in changes] == ["user:ann", "user:ben"]
