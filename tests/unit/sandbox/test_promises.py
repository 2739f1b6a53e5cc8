"""A sale in which all went well, and forgeries of it: each promise's checker must find its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from booking_worker.sandbox.audit import BookingLine, LedgerAudit
from booking_worker.sandbox.journal import AuditLine
from booking_worker.sandbox.promises import Place, Verdict, judge

PATHS = {
    "completed": ("waiting", "processing", "awaiting_payment", "confirming", "completed"),
    "expired": ("waiting", "processing", "awaiting_payment", "releasing", "expired"),
    "sold_out": ("waiting", "sold_out"),
    "failed": ("waiting", "processing", "awaiting_payment", "confirming", "failed"),
}


@dataclass
class Sale:
    """The tracks that a sale leaves, to be forged."""

    lines: list[AuditLine] = field(default_factory=list)
    bookings: list[BookingLine] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    ledger: LedgerAudit = field(
        default_factory=lambda: LedgerAudit(
            tickets=4,
            sold=0,
            held=0,
            unreleased=0,
            oversold=0,
            seats_sold_twice=0,
            duplicate_bookings=0,
            confirmed_twice=0,
            balanced=True,
            creates=0,
            repeats=0,
            refusals=0,
            lost_answers=0,
            errors=0,
            confirmed=0,
            pending=0,
            cancelled=0,
            expired=0,
        )
    )

    def goes(self, name: str, seq: int, *path: str, seats: int = 2) -> None:
        """An item goes on along a path of statuses."""
        for status in path:
            mine = [line for line in self.lines if line.item_id == name]
            before = mine[-1].after if mine else ""
            booking = "" if status in {"waiting", "processing", "sold_out"} else f"bk-{name}"
            at = len(self.lines)
            self.lines.append(
                AuditLine(
                    at * 10,
                    name,
                    "concert",
                    f"user-{name}",
                    before,
                    status,
                    seats,
                    seq,
                    booking,
                    f"{at}",
                )
            )

    def booked(self, name: str, status: str, seats: int = 2) -> None:
        """The ledger has a booking of an item."""
        self.bookings.append(
            BookingLine(f"bk-{name}", "R", name, f"user-{name}", "concert", seats, status)
        )

    def change(self, **facts: int | bool) -> None:
        """The ledger's own audit says something else."""
        self.ledger = replace(self.ledger, **facts)

    def verdict(self) -> Verdict:
        """What is judged of it."""
        return judge(self.lines, self.ledger, self.bookings, self.places)


@pytest.fixture
def sale() -> Sale:
    """Four tickets: a and b buy two each, c does not pay, and its two go to b; d comes too late."""
    sale = Sale()
    for seq, name in enumerate("acbd", start=1):
        sale.goes(name, seq, "waiting")
    sale.goes("a", 1, *PATHS["completed"][1:])
    sale.goes("c", 2, *PATHS["expired"][1:])
    sale.goes("b", 3, *PATHS["completed"][1:])
    sale.goes("d", 4, "sold_out")
    sale.booked("a", "confirmed")
    sale.booked("c", "cancelled")
    sale.booked("b", "confirmed")
    sale.places = [
        Place("a", "user-a", "completed", heard="completed"),
        Place("c", "user-c", "expired"),
        Place("b", "user-b", "completed"),
        Place("d", "user-d", "sold_out"),
    ]
    sale.change(sold=4)
    return sale


def promises(verdict: Verdict) -> set[str]:
    return {broken.promise for broken in verdict.broken}


def test_a_sale_in_which_all_went_well_breaks_no_promise(sale: Sale):
    assert sale.verdict() == Verdict(0, 0, 0, 0, ())


def test_who_is_told_of_a_place_and_ends_nowhere_is_lost(sale: Sale):
    sale.places[3] = Place("d", "user-d", "waiting")
    verdict = sale.verdict()
    assert verdict.lost == 1
    assert "no loss" in promises(verdict)


def test_who_is_unknown_to_the_service_is_lost(sale: Sale):
    sale.places.append(Place("e", "user-e", ""))
    verdict = sale.verdict()
    assert verdict.lost == 1
    (broken,) = verdict.broken
    assert broken.example == "e of user-e is unknown to the service"


def test_more_held_than_there_are_is_an_oversale(sale: Sale):
    sale.goes("e", 5, *PATHS["completed"])
    verdict = sale.verdict()
    assert verdict.oversold == 2
    assert "no oversell" in promises(verdict)


def test_an_oversale_that_was_mended_later_is_an_oversale(sale: Sale):
    sale.goes("e", 5, *PATHS["expired"])
    sale.booked("e", "cancelled")
    assert promises(sale.verdict()) == {"no oversell"}


def test_what_is_being_given_back_may_be_the_next_ones_already(sale: Sale):
    """The Booking Service may have given it back before the queue knows."""
    sale.lines = [line for line in sale.lines if (line.item_id, line.after) != ("c", "expired")]
    sale.goes("c", 2, "expired")
    assert sale.verdict().broken == ()


def test_an_overdrawn_ledger_is_an_oversale(sale: Sale):
    sale.change(oversold=3)
    assert sale.verdict().oversold == 3


def test_a_seat_sold_twice_is_an_oversale(sale: Sale):
    sale.change(seats_sold_twice=1)
    assert sale.verdict().oversold == 1


def test_who_joined_later_and_was_admitted_sooner_is_an_inversion(sale: Sale):
    admissions = [at for at, line in enumerate(sale.lines) if line.after == "processing"]
    first, second = admissions[:2]
    sale.lines[first], sale.lines[second] = sale.lines[second], sale.lines[first]
    verdict = sale.verdict()
    assert verdict.order_inversions == 1
    assert "in order" in promises(verdict)


def test_who_went_back_to_the_line_keeps_the_place_and_is_no_inversion():
    sale = Sale()
    for seq, name in enumerate("ab", start=1):
        sale.goes(name, seq, "waiting")
    sale.goes("a", 1, "processing")
    sale.goes("b", 2, "processing")
    sale.goes("a", 1, "waiting", "processing", "awaiting_payment", "confirming", "completed")
    sale.goes("b", 2, "rejected")
    sale.booked("a", "confirmed")
    assert sale.verdict().broken == ()


def test_who_is_told_sold_out_before_a_later_one_is_admitted_is_passed_over():
    sale = Sale()
    for seq, name in enumerate("abc", start=1):
        sale.goes(name, seq, "waiting")
    sale.goes("a", 1, *PATHS["completed"][1:])
    sale.goes("b", 2, "sold_out")
    sale.goes("c", 3, *PATHS["completed"][1:])
    for name in "ac":
        sale.booked(name, "confirmed")
    sale.change(sold=4)
    assert sale.verdict().order_inversions == 1


@pytest.mark.parametrize("wants", [1, 2])
def test_nobody_is_passed_over_by_who_wants_less_or_came_afterwards(wants: int):
    sale = Sale()
    sale.goes("a", 1, "waiting", seats=2)
    if wants == 1:
        sale.goes("b", 2, "waiting", seats=1)
    sale.goes("a", 1, "sold_out", seats=2)
    if wants == 2:
        sale.goes("b", 2, "waiting", seats=2)
    sale.goes("b", 2, *PATHS["completed"][1:], seats=wants)
    sale.booked("b", "confirmed", seats=wants)
    sale.change(sold=wants, tickets=wants)
    assert sale.verdict().broken == ()


@pytest.mark.parametrize("fact", ["duplicate_bookings", "confirmed_twice"])
def test_two_bookings_in_the_ledger_are_one_too_many(sale: Sale, fact: str):
    sale.change(**{fact: 1})
    verdict = sale.verdict()
    assert verdict.duplicate_bookings == 1
    assert promises(verdict) == {"one booking each"}


def test_an_item_with_two_bookings_has_one_too_many(sale: Sale):
    at = next(at for at, line in enumerate(sale.lines) if line.after == "confirming")
    sale.lines[at] = sale.lines[at]._replace(booking_id="bk-other")
    verdict = sale.verdict()
    assert verdict.duplicate_bookings == 1
    assert promises(verdict) == {"one booking each"}


def test_a_user_with_two_live_places_has_one_too_many(sale: Sale):
    joined = next(at for at, line in enumerate(sale.lines) if line.item_id == "d")
    for at, line in enumerate(sale.lines):
        if line.item_id == "d":
            sale.lines[at] = line._replace(user_id="user-b")
    assert sale.lines[joined].user_id == "user-b"
    assert "one place each" in promises(sale.verdict())


def test_a_user_may_come_again_after_the_end(sale: Sale):
    sale.goes("e", 5, "waiting", "sold_out")
    sale.lines = [
        line._replace(user_id="user-d") if line.item_id == "e" else line for line in sale.lines
    ]
    assert sale.verdict().broken == ()


def without_the(number: int) -> Callable[[Sale], None]:
    def forge(sale: Sale) -> None:
        mine = [line for line in sale.lines if line.item_id == "a"]
        sale.lines.remove(mine[number])

    return forge


def after_the_end(sale: Sale) -> None:
    sale.goes("d", 4, "processing")


def with_an_unknown_status(sale: Sale) -> None:
    sale.goes("e", 5, "waiting", "asleep", "waiting", "sold_out")


def born_admitted(sale: Sale) -> None:
    sale.goes("e", 5, "processing", "rejected")


@pytest.mark.parametrize(
    "forge", [without_the(0), without_the(2), after_the_end, with_an_unknown_status, born_admitted]
)
def test_a_story_with_a_step_that_does_not_exist_is_torn(sale: Sale, forge: Callable[[Sale], None]):
    forge(sale)
    assert "one story" in promises(sale.verdict())


def test_the_service_and_the_audit_log_tell_one_story(sale: Sale):
    sale.places[1] = Place("c", "user-c", "cancelled")
    assert promises(sale.verdict()) == {"one story"}


def test_an_item_that_the_audit_log_never_heard_of_is_another_story(sale: Sale):
    sale.places.append(Place("e", "user-e", "expired"))
    assert promises(sale.verdict()) == {"one story"}


def test_who_was_told_completed_has_the_booking(sale: Sale):
    sale.places[1] = Place("c", "user-c", "expired", heard="completed")
    assert promises(sale.verdict()) == {"one story"}


def test_a_completed_item_has_a_confirmed_booking(sale: Sale):
    sale.bookings.pop(0)
    assert promises(sale.verdict()) == {"ledger and queue agree"}


def test_a_confirmed_booking_has_a_completed_item(sale: Sale):
    sale.booked("e", "confirmed")
    assert promises(sale.verdict()) == {"ledger and queue agree"}


def test_a_booking_is_confirmed_for_nobody_who_was_expired(sale: Sale):
    sale.bookings[1] = sale.bookings[1]._replace(status="confirmed")
    assert promises(sale.verdict()) == {"ledger and queue agree"}


def test_a_booking_is_of_as_many_seats_as_were_asked_for(sale: Sale):
    sale.bookings[0] = sale.bookings[0]._replace(quantity=3)
    assert promises(sale.verdict()) == {"ledger and queue agree"}


def test_nothing_is_held_after_the_sale(sale: Sale):
    sale.bookings[1] = sale.bookings[1]._replace(status="pending")
    assert promises(sale.verdict()) == {"ledger and queue agree"}


def test_tickets_that_were_not_paid_came_back(sale: Sale):
    sale.change(unreleased=2)
    assert promises(sale.verdict()) == {"ledger and queue agree"}


def test_a_ledger_that_does_not_balance_is_no_witness(sale: Sale):
    sale.change(balanced=False)
    assert promises(sale.verdict()) == {"ledger and queue agree"}


def test_what_a_dead_letter_holds_waits_for_an_operator():
    sale = Sale()
    sale.goes("a", 1, *PATHS["failed"])
    sale.booked("a", "pending")
    sale.places = [Place("a", "user-a", "failed")]
    sale.change(held=2)
    assert sale.verdict().broken == ()


def test_a_dead_letter_excuses_no_more_tickets_than_it_asked_for():
    sale = Sale()
    sale.goes("a", 1, *PATHS["failed"], seats=1)
    sale.booked("a", "pending", seats=1)
    sale.places = [Place("a", "user-a", "failed")]
    sale.change(held=1, unreleased=1)
    assert sale.verdict().broken == ()
    sale.change(unreleased=2)
    assert promises(sale.verdict()) == {"ledger and queue agree"}


@pytest.mark.parametrize("held", [False, True])
def test_who_expires_in_line_while_there_are_tickets_was_turned_away(held: bool):
    sale = Sale()
    sale.goes("a", 1, *(PATHS["expired"] if held else ("waiting", "expired")))
    sale.places = [Place("a", "user-a", "expired")]
    assert promises(sale.verdict()) == (set() if held else {"sold while there is demand"})


def test_nobody_is_turned_away_for_tickets_that_are_there(sale: Sale):
    sale.change(tickets=6)
    assert promises(sale.verdict()) == {"sold while there is demand"}


def test_who_wants_more_than_are_left_may_be_turned_away(sale: Sale):
    sale.change(tickets=5)
    assert sale.verdict().broken == ()
