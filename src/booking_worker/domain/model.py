"""The words of the queue: statuses, tasks, and the values that pass between the rooms.

Times that end in ``_ms`` are milliseconds on the engine's clock since the Unix epoch;
intervals end in ``_ms`` or ``_seconds`` too and say so in their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple


class Status(StrEnum):
    """Where an item stands. ``RELEASING`` is internal: see :attr:`shown`."""

    WAITING = "waiting"
    PROCESSING = "processing"
    AWAITING_PAYMENT = "awaiting_payment"
    CONFIRMING = "confirming"
    RELEASING = "releasing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SOLD_OUT = "sold_out"
    REJECTED = "rejected"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more (a dead letter, `failed`, may still be requeued)."""
        return self in FINAL

    @property
    def shown(self) -> Status:
        """The status that clients see.

        A hold that is being released still shows ``awaiting_payment``: until the release
        has settled it may turn out to have been paid, and a client must not see a final
        status change.
        """
        return Status.AWAITING_PAYMENT if self is Status.RELEASING else self


FINAL: Final = frozenset(
    {
        Status.COMPLETED,
        Status.EXPIRED,
        Status.CANCELLED,
        Status.SOLD_OUT,
        Status.REJECTED,
        Status.FAILED,
    }
)

TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = {
    Status.WAITING: frozenset(
        {Status.PROCESSING, Status.CANCELLED, Status.EXPIRED, Status.SOLD_OUT}
    ),
    Status.PROCESSING: frozenset(
        {
            Status.AWAITING_PAYMENT,
            Status.RELEASING,
            Status.WAITING,
            Status.REJECTED,
            Status.FAILED,
            Status.CANCELLED,
        }
    ),
    Status.AWAITING_PAYMENT: frozenset({Status.CONFIRMING, Status.RELEASING}),
    Status.CONFIRMING: frozenset(
        {Status.COMPLETED, Status.AWAITING_PAYMENT, Status.EXPIRED, Status.FAILED}
    ),
    Status.RELEASING: frozenset(
        {
            Status.EXPIRED,
            Status.CANCELLED,
            Status.COMPLETED,
            Status.AWAITING_PAYMENT,
            Status.FAILED,
        }
    ),
    # A dead letter that an operator puts back: at its old place, or to the task it failed at.
    Status.FAILED: frozenset({Status.WAITING, Status.CONFIRMING, Status.RELEASING}),
    Status.COMPLETED: frozenset(),
    Status.EXPIRED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.SOLD_OUT: frozenset(),
    Status.REJECTED: frozenset(),
}
"""Every change of status that exists, and no other. docs/state_machine.md draws it."""


class Task(StrEnum):
    """One piece of work on one item."""

    RESERVE = "reserve"
    CONFIRM = "confirm"
    RELEASE = "release"


_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


class BookingRequest(NamedTuple):
    """What a user asks for, already validated.

    A NamedTuple, as is :class:`Join`: both are made for every join, and cost a third of a frozen
    dataclass.
    """

    event_id: str
    user_id: str
    seat_numbers: tuple[str, ...] = ()
    seats: int = 1
    total_amount: float = 0.0
    currency: str = ""
    metadata: Mapping[str, str] = _NO_METADATA


class Join(NamedTuple):
    """One request on its way into the line of one event."""

    item_id: str
    user_id: str
    seats: int
    details: bytes
    """The rest of the request as packed by :func:`domain.details.pack`."""
    idempotency_key: str = ""
    digest: str = ""
    """Fingerprint of the request; only looked at when there is an idempotency key."""


class Joined(NamedTuple):
    """The place that a join was given, or already had."""

    item_id: str
    position: int
    """1 is next; 0 once admitted or final."""
    already_queued: bool
    status: Status


@dataclass(frozen=True, slots=True)
class Lease:
    """A task handed to one worker until ``until_ms``; every answer must carry the token."""

    task: Task
    item_id: str
    event_id: str
    user_id: str
    seats: int
    seq: int
    token: int
    """Fencing token: grows with every lease of the event."""
    until_ms: int
    details: bytes
    attempts: int
    """Attempts that ended in an error so far (not those whose worker died)."""
    crashes: int
    """Leases that ended without an answer so far."""
    cancel_requested: bool
    booking_id: str
    booking_reference: str
    payment_reference: str
    reservation_id: str
    grace_used: bool
    """Whether PAYMENT_GRACE_SECONDS has been given already."""
    reason: str
    """Why it is released, for BookingService.CancelBooking; empty otherwise."""
    worker_id: str
    engine: str
    """Which engine gave it."""


class Rate(NamedTuple):
    """The measured admission rate of an event: a count that decays. See domain/estimate.py."""

    weight: float
    at_ms: int
    since_ms: int


class Place(NamedTuple):
    """One item as its owner may see it, with what is needed for an honest estimate."""

    item_id: str
    user_id: str
    status: Status
    position: int
    """1 is next; 0 once admitted or final."""
    queue_length: int
    admissions_per_second: float
    """How fast the line moves, as it was measured: estimate.py."""
    message: str
    booking_id: str
    booking_reference: str
    pay_by_ms: int
    """When the hold ends; 0 unless awaiting payment."""
    remaining_ms: int
    """Milliseconds until pay_by_ms by the engine's clock; 0 unless awaiting payment."""


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """One item with all that an operator may want to know."""

    item_id: str
    event_id: str
    user_id: str
    status: Status
    seq: int
    seats: int
    position: int
    joined_at_ms: int
    deadline_ms: int
    """When its present status ends; 0 for none."""
    task: str
    token: int
    attempts: int
    crashes: int
    cancel_requested: bool
    booking_id: str
    booking_reference: str
    payment_reference: str
    reservation_id: str
    pay_by_ms: int
    message: str
    request: BookingRequest


@dataclass(frozen=True, slots=True)
class EventStatus:
    """The books of one event."""

    event_id: str
    waiting: int
    processing: int
    awaiting_payment: int
    """Items that hold a booking: awaiting payment, confirming or being released."""
    completed: int
    expired: int
    cancelled: int
    sold_out_items: int
    rejected: int
    failed: int
    joined: int
    admitted: int
    dead_letters: int
    capacity: int | None
    """Seats that can still be admitted; None when unlimited or not yet known."""
    capacity_known: bool
    capacity_exact: bool
    processing_seats: int
    held_seats: int
    confirmed_seats: int
    total_seats: int
    """What capacity + processing + held + confirmed seats must add up to (promise 6)."""
    sold_out: bool
    paused: bool
    """Nobody is admitted: see ``paused_because``, or until capacity has been refreshed, as the
    engine is another than before."""
    paused_because: str
    """Why nobody is to be admitted until an operator says so; empty when they may be."""
    rate: Rate
    now_ms: int
    oldest_ms: int
    """When the head of the line joined; 0 when nobody waits."""
    head_seats: int
    """How many the head of the line asks for; 0 when nobody waits."""


class Layout(NamedTuple):
    """What the engine says of the keys in it, and of admission to all events."""

    version: int
    """Of the names and the contents of the keys."""
    id: str
    """Drawn once, when the engine was first used: another one means other data."""
    created_at_ms: int
    paused: str
    """Why nobody is admitted to any event; empty when they are."""
    paused_by: str
    """``operator:NAME``, or ``system``."""
    paused_at_ms: int


class Change(NamedTuple):
    """One status change, as the feed of its event tells it, in the order it happened."""

    change_id: str
    """The feed's entry and the index in it; grows; the same change has the same id for ever."""
    event_id: str
    at_ms: int
    actor: str
    """Who: ``user:ID``, ``worker:ID``, ``timeouts``, ``operator:NAME`` or ``system``."""
    item_id: str
    user_id: str
    before: str
    """The status before; empty for a join."""
    after: str
    why: str
    seats: int
    seq: int
    booking_id: str
    booking_reference: str
    pay_by_ms: int


@dataclass(frozen=True, slots=True)
class Held:
    """The booking that a reserve came back with."""

    booking_id: str
    booking_reference: str
    hold_ms: int | None
    """How long the booking itself says that it lasts (expires_at - created_at); None: not said."""
    reservation_id: str = ""
