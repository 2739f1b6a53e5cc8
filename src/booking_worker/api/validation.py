"""What a caller may ask: each field is what it should be, or the request is refused by its name.

Field names in errors are those of the contract (proto/booking_worker.proto). A request is any
object with the attributes of its message, so that no transport has to copy it first; nothing
here reads more of an oversized field than it takes to see that it is too large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Protocol

from booking_worker.domain.errors import InvalidRequest, ItemNotFound
from booking_worker.domain.item_id import event_of, is_plain_id
from booking_worker.domain.model import BookingRequest

MOST_METADATA_ENTRIES = 32
MOST_METADATA_BYTES = 4096
MOST_SEAT_NUMBER_CHARACTERS = 64
MOST_IDEMPOTENCY_KEY_CHARACTERS = 128
MOST_REASON_CHARACTERS = 500
MOST_PAYMENT_REFERENCE_CHARACTERS = 256
MOST_SERVICE_NAME_CHARACTERS = 128
MOST_REQUESTS_PER_CALL = 1_000

_MOST_ITEM_ID_CHARACTERS = 1_024
_CURRENCY_LETTERS = 3
_PLAIN_ID = "must be 1-128 printable characters without spaces or braces"


class AskedBooking(Protocol):
    """A request for seats as it came in: EnqueueBookingRequest has these attributes."""

    @property
    def user_id(self) -> str:
        """Whose place it will be."""

    @property
    def event_id(self) -> str:
        """What is sold."""

    @property
    def seat_numbers(self) -> Sequence[str]:
        """The seats by name, or none."""

    @property
    def seat_count(self) -> int:
        """How many; 0 means as many as are named."""

    @property
    def total_amount(self) -> float:
        """What the client says that it costs."""

    @property
    def currency(self) -> str:
        """ISO 4217."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Handed on to the Booking Service."""


def booking_request(asked: AskedBooking, max_seats: int) -> BookingRequest:
    """The request, checked and complete.

    Raises:
        InvalidRequest: names the first field that is wrong.
    """
    user_id = asked.user_id
    if not is_plain_id(user_id):
        raise InvalidRequest("user_id", _PLAIN_ID)
    event_id = asked.event_id
    if not is_plain_id(event_id):
        raise InvalidRequest("event_id", _PLAIN_ID)
    seat_numbers = asked.seat_numbers
    named = len(seat_numbers)
    seats = asked.seat_count or named
    if not 1 <= seats <= max_seats:
        raise InvalidRequest(
            "seat_numbers" if named > max_seats else "seat_count",
            f"must ask for 1-{max_seats} seats",
        )
    amount = asked.total_amount
    if amount < 0 or not isfinite(amount):
        raise InvalidRequest("total_amount", "must be a finite number, 0 or more")
    currency = asked.currency
    if currency:
        if not (len(currency) == _CURRENCY_LETTERS and currency.isascii() and currency.isalpha()):
            raise InvalidRequest("currency", "must be three letters (ISO 4217)")
    elif amount:
        raise InvalidRequest("currency", "must be given with a total_amount")
    metadata = asked.metadata
    return BookingRequest(
        event_id,
        user_id,
        _seat_numbers(seat_numbers, seats) if named else (),
        seats,
        amount,
        currency,
        _metadata(metadata) if metadata else {},
    )


def _seat_numbers(given: Sequence[str], seats: int) -> tuple[str, ...]:
    if len(given) != seats:
        raise InvalidRequest(
            "seat_count",
            f"is {seats}, but seat_numbers names {len(given)}; leave it 0 to count them",
        )
    numbers = tuple(given)
    for number in numbers:
        if not (0 < len(number) <= MOST_SEAT_NUMBER_CHARACTERS and number.isprintable()):
            raise InvalidRequest(
                "seat_numbers", f"must be of 1-{MOST_SEAT_NUMBER_CHARACTERS} printable characters"
            )
    if len(set(numbers)) != seats:
        raise InvalidRequest("seat_numbers", "must not name a seat twice")
    return numbers


def _metadata(given: Mapping[str, str]) -> dict[str, str]:
    if len(given) > MOST_METADATA_ENTRIES:
        raise InvalidRequest("metadata", f"must have at most {MOST_METADATA_ENTRIES} entries")
    # Less than half the time of dict(given) and two joins: each join of a sale comes through here.
    metadata: dict[str, str] = {}
    keys = text = ""
    for key in given:
        metadata[key] = value = given[key]
        keys += key
        text += value
    if not keys.isprintable() or "" in metadata:
        raise InvalidRequest("metadata", "must have keys of printable characters")
    text += keys
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequest("metadata", "must be valid Unicode") from None
    if size > MOST_METADATA_BYTES:
        raise InvalidRequest("metadata", f"must have at most {MOST_METADATA_BYTES} bytes in all")
    return metadata


def user_id(given: str) -> str:
    """A user id as given, or InvalidRequest."""
    if not is_plain_id(given):
        raise InvalidRequest("user_id", _PLAIN_ID)
    return given


def event_id(given: str) -> str:
    """An event id as given, or InvalidRequest."""
    if not is_plain_id(given):
        raise InvalidRequest("event_id", _PLAIN_ID)
    return given


def event_of_item(item_id: str) -> str:
    """The event that an item id belongs to.

    Raises:
        InvalidRequest: it is missing, or too long or too odd to be repeated in a message.
        ItemNotFound: it is none of our ids.
    """
    try:
        return event_of(item_id)
    except ItemNotFound:
        if not (0 < len(item_id) <= _MOST_ITEM_ID_CHARACTERS and item_id.isprintable()):
            raise InvalidRequest("queue_item_id", "must be the id of a queue item") from None
        raise


def idempotency_key(given: str) -> str:
    """An idempotency key as given, or InvalidRequest."""
    return _printable("idempotency-key", given, MOST_IDEMPOTENCY_KEY_CHARACTERS)


def payment_reference(given: str) -> str:
    """A payment reference as given, or InvalidRequest."""
    return _printable("payment_reference", given, MOST_PAYMENT_REFERENCE_CHARACTERS)


def reason(given: str) -> str:
    """A reason as given, possibly empty, or InvalidRequest."""
    if len(given) > MOST_REASON_CHARACTERS:
        raise InvalidRequest("reason", f"must have at most {MOST_REASON_CHARACTERS} characters")
    return given


def service_name(given: str) -> str:
    """The service whose health is asked for, possibly empty, or InvalidRequest."""
    return _printable("service", given, MOST_SERVICE_NAME_CHARACTERS) if given else given


def _printable(field: str, given: str, most: int) -> str:
    if not (0 < len(given) <= most and given.isprintable()):
        raise InvalidRequest(field, f"must be 1-{most} printable characters")
    return given
