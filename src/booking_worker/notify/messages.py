"""What a change means to the people who wait: one message each, as plain data."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from booking_worker.domain.model import FINAL, Change, Status

NOBODY_LEFT: Final = "no tickets are left"
"""Why an item is sold out together with everybody else: one broadcast tells them. sell_out.lua
agrees."""
_OVER_AT_ONCE_MS: Final = 1
"""Nobody is to pay within this: the booking is paid already. peers/booking.py agrees."""
_TOLD: Final = FINAL | {Status.AWAITING_PAYMENT}


class ToUser(NamedTuple):
    """A message to all connections of one user."""

    user_id: str
    type: str
    payload: dict[str, Any]


class Result(NamedTuple):
    """How an item ended."""

    user_id: str
    event_id: str
    booking_id: str
    """The booking's id, or the item's when there never was a booking."""
    success: bool
    message: str
    booking_reference: str


class ToEveryone(NamedTuple):
    """A message to everybody who follows an event."""

    event_id: str
    type: str
    payload: dict[str, Any]


Message = ToUser | Result | ToEveryone


def message_of(change: Change) -> Message | None:
    """The one message that a change is worth; None for a change that nobody need be told of."""
    if not change.item_id:
        return ToEveryone(
            change.event_id,
            "booking:sold_out",
            {"event_id": change.event_id, "message": change.why},
        )
    status = change.after
    # A dead letter that an operator lets go stays failed: its user has heard so.
    if status not in _TOLD or status == change.before:
        return None
    if status == Status.AWAITING_PAYMENT:
        remaining_ms = change.pay_by_ms - change.at_ms
        if remaining_ms <= _OVER_AT_ONCE_MS:
            return None
        return ToUser(
            change.user_id,
            "booking:awaiting_payment",
            {
                "queue_item_id": change.item_id,
                "event_id": change.event_id,
                "booking_id": change.booking_id,
                "booking_reference": change.booking_reference,
                "pay_by_unix_ms": change.pay_by_ms,
                "remaining_ms": remaining_ms,
                "message": change.why,
            },
        )
    if status == Status.SOLD_OUT and change.why == NOBODY_LEFT:
        return None
    return Result(
        user_id=change.user_id,
        event_id=change.event_id,
        booking_id=change.booking_id or change.item_id,
        success=status == Status.COMPLETED,
        message=change.why,
        booking_reference=change.booking_reference,
    )


def still_true(message: Message, waited_ms: int) -> Message | None:
    """The message as it has to be told so much later; None when it is not true any more."""
    if not isinstance(message, ToUser) or "remaining_ms" not in message.payload:
        return message
    remaining_ms = message.payload["remaining_ms"] - waited_ms
    if remaining_ms <= 0:
        return None
    return message._replace(payload={**message.payload, "remaining_ms": remaining_ms})
