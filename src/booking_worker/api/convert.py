"""From the words of the domain to the messages of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from booking_worker.api.operations import QueueStatus
from booking_worker.api.status_codes import message_of
from booking_worker.domain.errors import BookingWorkerError
from booking_worker.domain.estimate import per_second, wait_seconds
from booking_worker.domain.model import EventStatus, ItemRecord, Joined, Place, Status
from booking_worker.proto import admin_pb2, booking_worker_pb2

_MOST_INT32: Final = 2**31 - 1
_RELEASING: Final = Status.RELEASING
"""An enum's members are found slower than a module's names."""

_SAYS: Final[Mapping[Status, str]] = {
    Status.WAITING: "waiting in line",
    Status.PROCESSING: "your tickets are being reserved",
    Status.AWAITING_PAYMENT: "your tickets are held: please pay",
    Status.CONFIRMING: "your payment is being confirmed",
    Status.RELEASING: "your tickets are held: please pay",
    Status.COMPLETED: "your booking is confirmed",
    Status.EXPIRED: "the time ran out",
    Status.CANCELLED: "cancelled",
    Status.SOLD_OUT: "sold out",
    Status.REJECTED: "the booking was refused",
    Status.FAILED: "something went wrong; support has been told",
}

_SAYS_CANCELLED: Final[Mapping[Status, str]] = {
    Status.CANCELLED: "cancelled",
    Status.PROCESSING: "will be cancelled as soon as the reservation under way has been given back",
    Status.AWAITING_PAYMENT: "will be cancelled as soon as the tickets have been given back",
}


def _int32(number: int) -> int:
    return min(number, _MOST_INT32)


def joined(outcome: Joined, wait: int) -> booking_worker_pb2.EnqueueBookingResponse:
    """The answer to a join that has a place; ``wait`` in seconds, or -1."""
    item_id, position, already_queued, status = outcome
    answer = booking_worker_pb2.EnqueueBookingResponse(
        success=True,
        queue_item_id=item_id,
        queue_position=min(_MOST_INT32, position),
        estimated_wait_seconds=wait,
        message="you are in line",
    )
    if already_queued:
        answer.already_queued = True
        answer.message = (
            "you are in line already; your place is kept"
            if status is Status.WAITING
            else f"you have a place already: {_SAYS[status]}"
        )
    return answer


def refused(error: BookingWorkerError) -> booking_worker_pb2.EnqueueBookingResponse:
    """The answer to one request of many that was refused."""
    return booking_worker_pb2.EnqueueBookingResponse(
        success=False, estimated_wait_seconds=-1, message=message_of(error)
    )


def place(seen: Place) -> booking_worker_pb2.GetQueuePositionResponse:
    """Where an item stands."""
    # By position and without a call: this is answered tens of thousands of times a second.
    _, _, status, position, length, per_s, message, booking_id, _, pay_by_ms, _ = seen
    if status is _RELEASING:
        status = status.shown
    answer = booking_worker_pb2.GetQueuePositionResponse(
        success=True,
        position=min(_MOST_INT32, position),
        queue_length=min(_MOST_INT32, length),
        estimated_wait_seconds=wait_seconds(position, per_s),
        status=status,
        message=message or _SAYS[status],
    )
    # Nobody who waits has a booking, and most who ask wait: what is empty costs as much to set.
    if booking_id:
        answer.booking_id = booking_id
        answer.pay_by_unix_ms = pay_by_ms
    return answer


def queue_status(status: QueueStatus) -> booking_worker_pb2.GetQueueStatusResponse:
    """How the queue of an event is doing."""
    event = status.event
    if not event.joined:
        message = "nobody has joined"
    elif event.sold_out:
        message = "sold out"
    elif event.paused_because:
        message = "admission is paused; everybody keeps their place"
    elif event.paused:
        message = "admission pauses until the tickets left have been counted again"
    else:
        message = "open"
    return booking_worker_pb2.GetQueueStatusResponse(
        success=True,
        queue_length=_int32(event.waiting),
        active_workers=_int32(status.live_slots),
        processing_rate=per_second(event.rate, event.now_ms),
        message=message,
        processing=_int32(event.processing),
        awaiting_payment=_int32(event.awaiting_payment),
        completed=event.completed,
        paused=event.paused,
        sold_out=event.sold_out,
    )


def cancelled(status: Status) -> booking_worker_pb2.CancelQueueItemResponse:
    """The answer to a cancel, by the status afterwards."""
    return booking_worker_pb2.CancelQueueItemResponse(
        success=True, message=_SAYS_CANCELLED.get(status, status)
    )


def confirmed(seen: Place) -> booking_worker_pb2.ConfirmPaymentResponse:
    """The answer to a payment: confirmed, or on its way."""
    waits = seen.status is Status.CONFIRMING
    return booking_worker_pb2.ConfirmPaymentResponse(
        success=True,
        booking_id=seen.booking_id,
        booking_reference=seen.booking_reference,
        status=seen.status.shown,
        message="your payment was taken down; the booking will be confirmed"
        if waits
        else _SAYS[seen.status],
    )


def event_status(event: EventStatus) -> admin_pb2.EventStatus:
    """The books of an event, for operators."""
    return admin_pb2.EventStatus(
        event_id=event.event_id,
        waiting=event.waiting,
        processing=event.processing,
        awaiting_payment=event.awaiting_payment,
        completed=event.completed,
        expired=event.expired,
        cancelled=event.cancelled,
        sold_out_items=event.sold_out_items,
        rejected=event.rejected,
        failed=event.failed,
        joined=event.joined,
        admitted=event.admitted,
        dead_letters=event.dead_letters,
        capacity=event.capacity,
        capacity_known=event.capacity_known,
        capacity_exact=event.capacity_exact,
        processing_seats=event.processing_seats,
        held_seats=event.held_seats,
        confirmed_seats=event.confirmed_seats,
        total_seats=event.total_seats,
        sold_out=event.sold_out,
        paused=event.paused,
        paused_because=event.paused_because,
        rate=admin_pb2.Rate(
            weight=event.rate.weight, at_ms=event.rate.at_ms, since_ms=event.rate.since_ms
        ),
        now_ms=event.now_ms,
        oldest_ms=event.oldest_ms,
        head_seats=event.head_seats,
    )


def item(record: ItemRecord) -> admin_pb2.Item:
    """One item with all that an operator may want to know."""
    return admin_pb2.Item(
        item_id=record.item_id,
        event_id=record.event_id,
        user_id=record.user_id,
        status=record.status,
        seq=record.seq,
        seats=record.seats,
        position=record.position,
        joined_at_ms=record.joined_at_ms,
        deadline_ms=record.deadline_ms,
        task=record.task,
        token=record.token,
        attempts=record.attempts,
        crashes=record.crashes,
        cancel_requested=record.cancel_requested,
        booking_id=record.booking_id,
        booking_reference=record.booking_reference,
        payment_reference=record.payment_reference,
        reservation_id=record.reservation_id,
        pay_by_ms=record.pay_by_ms,
        message=record.message,
        request=admin_pb2.Request(
            seat_numbers=record.request.seat_numbers,
            total_amount=record.request.total_amount,
            currency=record.request.currency,
            metadata=record.request.metadata,
        ),
    )
