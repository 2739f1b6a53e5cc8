"""Typical requests, each of another user."""

from __future__ import annotations

from collections.abc import Iterator

from booking_worker.domain import details
from booking_worker.domain.item_id import new_item_id
from booking_worker.domain.model import BookingRequest, Join
from booking_worker.proto import booking_worker_pb2 as pb


def user(number: int) -> str:
    """A user id as an identity provider gives them."""
    return f"user-{number:010d}"


def metadata(number: int) -> dict[str, str]:
    """Three entries."""
    return {"channel": "web", "locale": "de-DE", "session": f"{number:016x}"}


def enqueue(event_id: str, number: int) -> pb.EnqueueBookingRequest:
    """A request for 2 seats with 3 metadata entries."""
    return pb.EnqueueBookingRequest(
        user_id=user(number),
        event_id=event_id,
        seat_count=2,
        total_amount=119.80,
        currency="EUR",
        metadata=metadata(number),
    )


def enqueue_batches(event_id: str, number: int, size: int) -> Iterator[bytes]:
    """The same for ``number`` users, as messages of ``size`` requests each."""
    for start in range(0, number, size):
        requests = [enqueue(event_id, at) for at in range(start, min(start + size, number))]
        yield pb.EnqueueBookingsRequest(requests=requests).SerializeToString()


def join(event_id: str, number: int) -> Join:
    """The same as the queue takes it."""
    request = BookingRequest(
        event_id=event_id,
        user_id=user(number),
        seats=2,
        total_amount=119.80,
        currency="EUR",
        metadata=metadata(number),
    )
    return Join(new_item_id(event_id), request.user_id, request.seats, details.pack(request))
