from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from booking_worker.sandbox.audit import read_audit
from booking_worker.sandbox.books import BookingStatus, LedgerInUse, Outcome
from booking_worker.sandbox.ledger import Ledger
from tests.unit.sandbox.conftest import Clock, order


def outcomes(ledger: Ledger, *orders) -> list[str]:
    return [ledger.create(each).outcome.value for each in orders]


def made(ledger: Ledger, key: str = "k1", quantity: int = 1, **facts) -> str:
    booking = ledger.create(order(key, quantity, **facts)).booking
    assert booking is not None
    return booking.id


def test_create_makes_a_pending_booking(ledger: Ledger, clock: Clock) -> None:
    entry = ledger.create(order("k1", 2, seats=("A1", "A2"), amount="9.50", currency="EUR"))
    assert entry.outcome is Outcome.CREATED
    booking = entry.booking
    assert booking is not None
    assert booking.status is BookingStatus.PENDING
    assert booking.seats == ("A1", "A2")
    assert booking.created_at_ms == clock.now * 1000
    assert booking.expires_at_ms - booking.created_at_ms == 60_000
    assert booking.reservation_id
    assert ledger.available("show") == 8
    assert ledger.get(booking.id).booking is booking


def test_the_same_key_is_answered_with_the_booking_made_first(ledger: Ledger) -> None:
    first = ledger.create(order("k1", 2))
    again = ledger.create(order("k1", 2))
    assert again.outcome is Outcome.REPEATED
    assert again.booking is first.booking
    assert ledger.available("show") == 8


@pytest.mark.parametrize(
    "other",
    [{"quantity": 3}, {"user_id": "eve"}, {"event_id": "gig"}, {"seats": ("A1", "A2")}],
)
def test_the_same_key_with_another_request_is_refused(ledger: Ledger, other) -> None:
    ledger.create(order("k1", 2))
    entry = ledger.create(order("k1", **{"quantity": 2, **other}))
    assert entry.outcome is Outcome.KEY_CONFLICT
    assert entry.booking is None


def test_it_refuses_what_would_oversell_and_counts_the_attempt(ledger: Ledger) -> None:
    assert outcomes(ledger, order("k1", 6), order("k2", 5), order("k3", 4), order("k4", 1)) == [
        "created",
        "sold_out",
        "created",
        "sold_out",
    ]
    audit = ledger.audit()
    assert (audit.held, audit.oversold, audit.refusals) == (10, 0, 2)


def test_a_refused_key_may_succeed_later(ledger: Ledger) -> None:
    booking_id = made(ledger, "k1", 10)
    assert outcomes(ledger, order("k2")) == ["sold_out"]
    cancel_and_release(ledger, booking_id)
    assert outcomes(ledger, order("k2")) == ["created"]


def test_a_seat_is_taken_once(ledger: Ledger) -> None:
    booking_id = made(ledger, "k1", 2, seats=("A1", "A2"))
    refused = ledger.create(order("k2", 2, seats=("A2", "A3")))
    assert (refused.outcome, refused.message) == (Outcome.SEAT_TAKEN, "seats taken: A2")
    assert ledger.free_seats("show", ["A1", "A3"]) == ["A3"]
    assert outcomes(ledger, order("k3", 1, seats=("A1",), event_id="gig")) == ["created"]
    cancel_and_release(ledger, booking_id)
    assert outcomes(ledger, order("k2", 2, seats=("A2", "A3"))) == ["created"]


@pytest.mark.parametrize(
    "wrong",
    [
        order(""),
        order("k", user_id=""),
        order("k", event_id=""),
        order("k", 0),
        order("k", -1),
        order("k", 2, seats=("A1",)),
        order("k", 2, seats=("A1", "A1")),
    ],
)
def test_a_malformed_order_is_invalid(ledger: Ledger, wrong) -> None:
    entry = ledger.create(wrong)
    assert (entry.outcome, entry.booking) == (Outcome.INVALID, None)
    assert entry.message


# --- confirm, cancel, expire --------------------------------------------------------------


def test_confirm_and_confirm_again(ledger: Ledger) -> None:
    booking_id = made(ledger)
    first = ledger.confirm(booking_id, "pay-1")
    assert first.outcome is Outcome.CONFIRMED
    assert first.booking is not None
    assert (first.booking.payment_status, first.booking.payment_reference) == ("paid", "pay-1")
    again = ledger.confirm(booking_id, "pay-2")
    assert again.outcome is Outcome.REPEATED
    assert first.booking.payment_reference == "pay-1"
    audit = ledger.audit()
    assert (audit.sold, audit.confirmed, audit.confirmed_twice) == (1, 1, 0)


def cancel_and_release(ledger: Ledger, booking_id: str) -> None:
    booking = ledger.cancel(booking_id, "test").booking
    assert booking is not None
    assert ledger.release(booking.reservation_id).outcome is Outcome.RELEASED


def test_a_cancelled_booking_keeps_its_tickets_until_they_are_released(ledger: Ledger) -> None:
    booking_id = made(ledger, "k1", 4)
    entry = ledger.cancel(booking_id, "not paid")
    assert entry.outcome is Outcome.CANCELLED
    assert entry.booking is not None
    assert entry.booking.reason == "not paid"
    assert ledger.available("show") == 6
    assert ledger.audit().unreleased == 4
    assert ledger.release(entry.booking.reservation_id).outcome is Outcome.RELEASED
    assert ledger.available("show") == 10
    assert ledger.release(entry.booking.reservation_id).outcome is Outcome.REPEATED
    assert ledger.available("show") == 10
    assert ledger.cancel(booking_id, "again").outcome is Outcome.REPEATED
    assert ledger.confirm(booking_id, "pay").outcome is Outcome.REFUSED


def test_tickets_that_nobody_releases_come_back_when_the_hold_would_have_ended(
    ledger: Ledger, clock: Clock
) -> None:
    ledger.cancel(made(ledger, "k1", 4), "not paid")
    clock.now += 59
    assert ledger.available("show") == 6
    clock.now += 1
    assert ledger.available("show") == 10
    assert ledger.audit().balanced


def test_without_reservations_a_cancel_gives_back_at_once(open_ledger) -> None:
    ledger = open_ledger(default_tickets=10, reservations=False)
    booking = ledger.create(order("k1", 4)).booking
    assert booking.reservation_id == ""
    ledger.cancel(booking.id, "not paid")
    assert ledger.available("show") == 10


def test_a_live_booking_is_not_released(ledger: Ledger) -> None:
    booking = ledger.create(order()).booking
    assert booking is not None
    assert ledger.release(booking.reservation_id).outcome is Outcome.REFUSED
    ledger.confirm(booking.id, "pay")
    assert ledger.release(booking.reservation_id).outcome is Outcome.REFUSED
    assert ledger.available("show") == 9


def test_a_confirmed_booking_is_not_cancelled(ledger: Ledger) -> None:
    booking_id = made(ledger)
    ledger.confirm(booking_id, "pay")
    assert ledger.cancel(booking_id, "late").outcome is Outcome.REFUSED
    assert ledger.audit().sold == 1


def test_a_hold_ends_by_itself(ledger: Ledger, clock: Clock) -> None:
    booking = ledger.create(order("k1", 3, seats=("A1", "A2", "A3"))).booking
    assert booking is not None
    clock.now += 59.999
    assert ledger.available("show") == 7
    clock.now += 0.001
    assert ledger.available("show") == 10
    assert booking.status is BookingStatus.EXPIRED
    assert ledger.confirm(booking.id, "pay").outcome is Outcome.REFUSED
    assert ledger.cancel(booking.id, "late").outcome is Outcome.REPEATED
    assert ledger.release(booking.reservation_id).outcome is Outcome.REPEATED
    assert ledger.create(order("k1", 3, seats=("A1", "A2", "A3"))).booking is booking
    assert ledger.free_seats("show", ["A1"]) == ["A1"]
    assert ledger.audit().expired == 1


def test_a_confirmed_booking_does_not_end(ledger: Ledger, clock: Clock) -> None:
    ledger.confirm(made(ledger, "k1", 3), "pay")
    clock.now += 10_000
    assert ledger.available("show") == 7


def test_a_payment_in_progress_is_waited_for(ledger: Ledger, clock: Clock) -> None:
    booking_id = made(ledger)
    assert ledger.set_payment(booking_id, "processing").outcome is Outcome.PAYMENT
    assert ledger.cancel(booking_id, "late").outcome is Outcome.REFUSED
    clock.now += 60
    assert ledger.available("show") == 9
    ledger.set_payment(booking_id, "failed")
    clock.now += 1
    assert ledger.available("show") == 10


def test_the_payment_service_may_confirm_directly(ledger: Ledger) -> None:
    booking_id = made(ledger)
    assert ledger.set_payment(booking_id, "paid").outcome is Outcome.CONFIRMED
    assert ledger.audit().sold == 1


def test_what_is_unknown(ledger: Ledger) -> None:
    for entry in (
        ledger.get("x"),
        ledger.confirm("x", "pay"),
        ledger.cancel("x", ""),
        ledger.release("x"),
        ledger.set_payment("x", "processing"),
    ):
        assert (entry.outcome, entry.booking) == (Outcome.UNKNOWN, None)


# --- tickets ------------------------------------------------------------------------------


def test_an_event_has_the_tickets_it_was_given(ledger: Ledger) -> None:
    assert ledger.available("unknown") == 10
    assert ledger.set_tickets("show", 3) == 3
    made(ledger, "k1", 2)
    assert ledger.set_tickets("show", 2) == 0
    with pytest.raises(ValueError, match="2 tickets are taken already"):
        ledger.set_tickets("show", 1)
    assert ledger.set_tickets("show", 50) == 48
    audit = ledger.audit("show")
    assert (audit.tickets, audit.held, audit.balanced) == (50, 2, True)
    assert ledger.audit().tickets == 60


# --- the file -----------------------------------------------------------------------------


def test_everything_is_there_after_a_restart(open_ledger, clock: Clock) -> None:
    ledger = open_ledger(default_tickets=10, hold_seconds=60.0)
    confirmed = made(ledger, "k1", 2, seats=("A1", "A2"))
    ledger.confirm(confirmed, "pay")
    pending = made(ledger, "k2", 3)
    cancelled = ledger.create(order("k3", 1)).booking
    ledger.cancel(cancelled.id, "not paid")
    before = ledger.audit()

    ledger = open_ledger(default_tickets=99, hold_seconds=60.0)
    assert ledger.audit() == before
    assert ledger.available("show") == 4
    assert ledger.create(order("k1", 2, seats=("A1", "A2"))).outcome is Outcome.REPEATED
    assert ledger.create(order("k9", 1, seats=("A1",))).outcome is Outcome.SEAT_TAKEN
    assert ledger.release(cancelled.reservation_id).outcome is Outcome.RELEASED
    assert ledger.get(pending).booking.status is BookingStatus.PENDING
    clock.now += 60
    assert ledger.available("show") == 8
    assert ledger.get(confirmed).booking.status is BookingStatus.CONFIRMED
    assert ledger.create(order("new")).booking.reference == "BW0000004"


def test_one_owner_at_a_time(ledger: Ledger, ledger_path: Path) -> None:
    with pytest.raises(LedgerInUse, match=str(ledger_path)):
        Ledger(ledger_path)


async def test_what_was_saved_survives_kill_9(ledger_path: Path) -> None:
    program = """
import asyncio, pathlib, sys
from booking_worker.sandbox.ledger import Ledger, Order
async def main():
    ledger = Ledger(pathlib.Path(sys.argv[1]), default_tickets=10**6)
    n = 0
    while True:
        batch = [ledger.create(Order("u", "show", 1, (), f"k{n + i}")).booking for i in range(7)]
        await ledger.saved()
        n += 7
        print(*(booking.key for booking in batch), flush=True)
asyncio.run(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(ledger_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    assert process.stdout is not None
    answered: list[str] = []
    for _ in range(300):
        answered += process.stdout.readline().split()
    os.kill(process.pid, signal.SIGKILL)
    answered += process.stdout.read().rpartition("\n")[0].split()
    process.stdout.close()
    process.wait()

    assert read_audit(ledger_path).balanced
    ledger = Ledger(ledger_path)
    kept = {line.key for line in ledger.bookings()}
    assert len(answered) >= 2100
    assert set(answered) <= kept
    ledger.close()


async def test_calls_of_one_turn_are_saved_together(ledger: Ledger, monkeypatch) -> None:
    saves = []
    save = ledger._books.save
    monkeypatch.setattr(ledger._books, "save", lambda *batch: (saves.append(1), save(*batch)))

    async def create(key: str) -> None:
        ledger.create(order(key))
        await ledger.saved()

    await asyncio.gather(*(create(f"k{n}") for n in range(10)))
    assert len(saves) == 1
    assert ledger.audit().creates == 10


async def test_a_caller_that_gives_up_takes_nobody_with_it(ledger: Ledger) -> None:
    async def create(key: str) -> None:
        ledger.create(order(key))
        await ledger.saved()

    first, second = (asyncio.create_task(create(key)) for key in ("k1", "k2"))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled()
    assert ledger.audit().creates == 2


async def test_what_cannot_be_written_has_not_happened(ledger: Ledger) -> None:
    made(ledger, "k1", 2)
    await ledger.saved()
    made(ledger, "k2", 2)
    ledger._inventory.events["show"].taken = 99  # beyond the tickets: the file refuses it
    with pytest.raises(Exception, match="CHECK constraint failed"):
        await ledger.saved()
    assert ledger.available("show") == 8
    assert ledger.create(order("k2", 2)).outcome is Outcome.CREATED
    audit = ledger.audit()
    assert (audit.held, audit.creates, audit.balanced) == (4, 2, True)


async def test_a_failure_that_nobody_waits_for_is_not_swallowed(ledger: Ledger) -> None:
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda _, facts: failures.append(facts))
    made(ledger, "k1")
    ledger._inventory.events["show"].taken = 99
    ledger.save_soon()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert "CHECK constraint" in str(failures[0]["exception"])


def test_bookings_come_in_the_order_of_their_first_attempt(ledger: Ledger, clock: Clock) -> None:
    ledger.note("CreateBooking", "k3", Outcome.ERROR)
    made(ledger, "k2")
    made(ledger, "k1")
    made(ledger, "k3")
    made(ledger, "k0", event_id="gig")
    assert [line.key for line in ledger.bookings()] == ["k3", "k2", "k1", "k0"]
    assert [line.key for line in ledger.bookings("gig")] == ["k0"]
    clock.now += 60
    assert {line.status for line in ledger.bookings()} == {"expired"}
