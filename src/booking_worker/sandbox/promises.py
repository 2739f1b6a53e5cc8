"""Were the promises kept? Judged from what happened: the audit log, the ledger, what buyers saw.

Pure: the same sale gives the same verdict, and a forged one is found out (its tests do that).
None of it trusts a counter of the service's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from booking_worker.domain.model import FINAL, TRANSITIONS, Status
from booking_worker.sandbox.audit import BookingLine, LedgerAudit
from booking_worker.sandbox.journal import AuditLine, by_item, is_admission

Histories: TypeAlias = Mapping[str, Sequence[AuditLine]]

_TAKES_TICKETS: Final = frozenset({Status.AWAITING_PAYMENT, Status.CONFIRMING, Status.COMPLETED})
"""Not RELEASING: by then the booking may have been cancelled, and its tickets be another's."""


class Place(NamedTuple):
    """A join that was acknowledged, and what the service says of it at the end of the sale."""

    item_id: str
    user_id: str
    status: str
    """Empty when the service does not know the item."""
    heard: str = ""
    """The final status that the buyer was told of before; empty when of none."""


class Broken(NamedTuple):
    """A promise that was not kept."""

    promise: str
    cases: int
    example: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the sale stands against the promises; all is well when ``broken`` is empty."""

    oversold: int
    """Tickets beyond those that there were, at the worst moment."""
    lost: int
    """Acknowledged joins without a final status."""
    duplicate_bookings: int
    order_inversions: int
    """Items that were first admitted after one that joined later."""
    broken: tuple[Broken, ...]


def judge(
    lines: Sequence[AuditLine],
    ledger: LedgerAudit,
    bookings: Sequence[BookingLine],
    places: Sequence[Place],
) -> Verdict:
    """The verdict on one sale that has ended.

    Args:
        lines: of the audit log, as :func:`journal.read_lines` gives them.
        ledger: the audit of the ledger's own journal.
        bookings: every booking in the ledger.
        places: every join that was acknowledged.
    """
    histories = by_item(lines)
    found = {
        "no oversell": [*_oversold(lines, ledger)],
        "no loss": [*_lost(places)],
        "in order": [*_inversions(lines)],
        "one booking each": [*_duplicates(histories, ledger)],
        "one place each": [*_double_places(lines)],
        "one story": [*_torn_stories(histories), *_disagreements(histories, places)],
        "ledger and queue agree": [*_mismatches(histories, bookings, ledger)],
        "sold while there is demand": [*_turned_away(histories, ledger)],
    }
    return Verdict(
        oversold=sum(one.weight for one in found["no oversell"]),
        lost=len(found["no loss"]),
        duplicate_bookings=sum(one.weight for one in found["one booking each"]),
        order_inversions=len(found["in order"]),
        broken=tuple(
            Broken(promise, sum(one.weight for one in cases), cases[0].says)
            for promise, cases in found.items()
            if cases
        ),
    )


class _Case(NamedTuple):
    says: str
    weight: int = 1


def _oversold(lines: Sequence[AuditLine], ledger: LedgerAudit) -> Iterator[_Case]:
    most, worst = ledger.oversold, f"the ledger was overdrawn by {ledger.oversold} tickets"
    taken: dict[str, int] = {}
    total = 0
    for line in lines:
        seats = line.seats if line.after in _TAKES_TICKETS else 0
        total += seats - taken.get(line.item_id, 0)
        taken[line.item_id] = seats
        if total - ledger.tickets > most:
            most = total - ledger.tickets
            worst = f"{total} of {ledger.tickets} tickets were held or sold after {line.item_id}"
    if most > 0:
        yield _Case(worst, most)
    if ledger.seats_sold_twice:
        yield _Case("a named seat is in two bookings", ledger.seats_sold_twice)


def _lost(places: Sequence[Place]) -> Iterator[_Case]:
    for place in places:
        if place.status not in FINAL:
            stands = place.status or "unknown to the service"
            yield _Case(f"{place.item_id} of {place.user_id} is {stands}")


def _inversions(lines: Sequence[AuditLine]) -> Iterator[_Case]:
    furthest: dict[str, AuditLine] = {}
    passed_over: defaultdict[str, list[tuple[int, AuditLine]]] = defaultdict(list)
    joined: dict[str, int] = {}
    admitted: set[str] = set()
    for at, line in enumerate(lines):
        joined.setdefault(line.item_id, at)
        if line.before == Status.WAITING and line.after == Status.SOLD_OUT:
            passed_over[line.event_id].append((at, line))
        if not is_admission(line) or line.item_id in admitted:
            continue
        admitted.add(line.item_id)
        for turned_away_at, other in passed_over[line.event_id]:
            # Who joined after that may have come for tickets that others gave back.
            was_there = joined[line.item_id] < turned_away_at
            if was_there and other.seq < line.seq and other.seats <= line.seats:
                yield _Case(f"number {other.seq} was told sold out before {line.seq} was admitted")
                break
        ahead = furthest.get(line.event_id)
        if ahead is None or line.seq > ahead.seq:
            furthest[line.event_id] = line
        else:
            yield _Case(f"number {line.seq} was admitted after number {ahead.seq}")


def _duplicates(histories: Histories, ledger: LedgerAudit) -> Iterator[_Case]:
    if ledger.duplicate_bookings:
        yield _Case("in the ledger, for one item or one user", ledger.duplicate_bookings)
    if ledger.confirmed_twice:
        yield _Case("a booking was confirmed twice", ledger.confirmed_twice)
    for item_id, history in histories.items():
        booked = {line.booking_id for line in history if line.booking_id}
        if len(booked) > 1:
            yield _Case(f"{item_id} has the bookings {', '.join(sorted(booked))}", len(booked) - 1)


def _double_places(lines: Sequence[AuditLine]) -> Iterator[_Case]:
    live: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for line in lines:
        items = live[line.event_id, line.user_id]
        if line.after in FINAL:
            items.discard(line.item_id)
            continue
        if items - {line.item_id}:
            yield _Case(f"{line.user_id} has {line.item_id} beside {', '.join(sorted(items))}")
        items.add(line.item_id)


def _torn_stories(histories: Histories) -> Iterator[_Case]:
    for item_id, history in histories.items():
        before = ""
        for line in history:
            if line.before != before or not _allowed(line):
                yield _Case(f"{item_id} went from {line.before!r} to {line.after!r} at {before!r}")
                break
            before = line.after


def _allowed(line: AuditLine) -> bool:
    if not line.before:
        return line.after == Status.WAITING
    try:
        return line.after in TRANSITIONS[Status(line.before)]
    except ValueError:
        return False


def _disagreements(histories: Histories, places: Sequence[Place]) -> Iterator[_Case]:
    for place in places:
        history = histories.get(place.item_id)
        written = history[-1].after if history else "never written"
        if place.status in FINAL and written != place.status:
            yield _Case(f"{place.item_id} is {place.status}; the audit log says {written}")
        if place.heard and place.heard != place.status:
            yield _Case(
                f"{place.user_id} was told {place.heard}; {place.item_id} is {place.status}"
            )


def _mismatches(
    histories: Histories, bookings: Sequence[BookingLine], ledger: LedgerAudit
) -> Iterator[_Case]:
    ended = {item_id: history[-1] for item_id, history in histories.items()}
    confirmed = {booking.key: booking for booking in bookings if booking.status == "confirmed"}
    for item_id, line in ended.items():
        if line.after == Status.COMPLETED and item_id not in confirmed:
            yield _Case(f"{item_id} is completed; the ledger has no confirmed booking of it")
    for item_id, booking in confirmed.items():
        last = ended.get(item_id)
        if last is None or last.after != Status.COMPLETED:
            stands = last.after if last else "unknown"
            yield _Case(f"{booking.id} is confirmed; its item {item_id} is {stands}")
        elif (last.seats, last.user_id) != (booking.quantity, booking.user_id):
            yield _Case(f"{booking.id} is not what {item_id} asked for")
    for booking in bookings:
        # An operator has yet to say what becomes of a dead letter's booking.
        last = ended.get(booking.key)
        if booking.status == "pending" and not (last and last.after == Status.FAILED):
            yield _Case(f"{booking.id} holds tickets of {booking.key} after the sale")
    dead = sum(line.seats for line in ended.values() if line.after == Status.FAILED)
    if ledger.unreleased > dead:
        yield _Case("tickets of cancelled bookings did not come back", ledger.unreleased - dead)
    if not ledger.balanced:
        yield _Case("the ledger's journal and its bookings differ")


def _turned_away(histories: Histories, ledger: LedgerAudit) -> Iterator[_Case]:
    left = ledger.tickets - ledger.sold - ledger.held - ledger.unreleased
    for item_id, history in histories.items():
        last = history[-1]
        if last.seats <= left and _turned_away_by_the_queue(history):
            yield _Case(f"{item_id} ended {last.after} for want of {last.seats}; {left} are left")


def _turned_away_by_the_queue(history: Sequence[AuditLine]) -> bool:
    """Not by its user, by the Booking Service, or by a failure that an operator will look at."""
    ended = history[-1].after
    if ended == Status.EXPIRED:
        return all(line.after != Status.AWAITING_PAYMENT for line in history)
    return ended == Status.SOLD_OUT
