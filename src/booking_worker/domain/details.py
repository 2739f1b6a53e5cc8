"""The part of a request that the queue carries but does not look at, packed small.

Packed is compact JSON ``[seat_numbers, total_amount, currency, metadata]``: a dead letter
stays readable to an operator's own eyes.
"""

from __future__ import annotations

import hashlib

import orjson

from booking_worker.domain.model import BookingRequest


def pack(request: BookingRequest) -> bytes:
    """The details of a request as bytes for ``Join.details``."""
    return orjson.dumps(
        (request.seat_numbers, request.total_amount, request.currency, request.metadata),
        default=dict,
    )


def unpack(event_id: str, user_id: str, seats: int, details: bytes) -> BookingRequest:
    """The request that :func:`pack` was given."""
    seat_numbers, total_amount, currency, metadata = orjson.loads(details)
    return BookingRequest(
        event_id=event_id,
        user_id=user_id,
        seat_numbers=tuple(seat_numbers),
        seats=seats,
        total_amount=total_amount,
        currency=currency,
        metadata=metadata,
    )


def digest(request: BookingRequest) -> str:
    """A fingerprint of the whole request: equal requests, equal digests, in any metadata order."""
    packed = orjson.dumps(
        (
            request.event_id,
            request.user_id,
            request.seats,
            request.seat_numbers,
            request.total_amount,
            request.currency,
            request.metadata,
        ),
        default=dict,
        option=orjson.OPT_SORT_KEYS,
    )
    return hashlib.blake2b(packed, digest_size=12).hexdigest()
