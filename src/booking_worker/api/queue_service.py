"""BookingWorkerService: the queue as gateways and clients see it over gRPC."""

from __future__ import annotations

import hashlib

from booking_worker.api import convert, validation
from booking_worker.api.health import Health
from booking_worker.api.operations import Operations
from booking_worker.api.rpc import (
    Calls,
    Context,
    Service,
    metadata_value,
    not_yet_streamed,
    seconds_left,
)
from booking_worker.domain.errors import InvalidRequest
from booking_worker.domain.model import Joined
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.telemetry.metrics import Metrics

_IDEMPOTENCY_KEY = "idempotency-key"


class QueueService:
    """Converts between the contract and :class:`Operations`."""

    def __init__(self, operations: Operations, health: Health, metrics: Metrics) -> None:
        self._operations = operations
        self._health = health
        self._metrics = metrics

    def service(self) -> Service:
        """What a server needs to serve it."""
        calls = Calls(self._metrics)
        return Service(
            pb.DESCRIPTOR.services_by_name["BookingWorkerService"],
            {
                "EnqueueBooking": calls.unary(pb.EnqueueBookingRequest, self._enqueue_booking),
                "EnqueueBookings": calls.unary(pb.EnqueueBookingsRequest, self._enqueue_bookings),
                "GetQueuePosition": calls.unary(
                    pb.GetQueuePositionRequest, self._get_queue_position
                ),
                "GetQueueStatus": calls.unary(pb.GetQueueStatusRequest, self._get_queue_status),
                "CancelQueueItem": calls.unary(pb.CancelQueueItemRequest, self._cancel_queue_item),
                "ConfirmPayment": calls.unary(pb.ConfirmPaymentRequest, self._confirm_payment),
                "Health": calls.unary(pb.HealthRequest, self._report_health),
                "WatchQueueItem": not_yet_streamed("ask GetQueuePosition instead"),
            },
            calls,
        )

    async def _enqueue_booking(
        self, request: pb.EnqueueBookingRequest, context: Context
    ) -> pb.EnqueueBookingResponse:
        operations, event_id = self._operations, request.event_id
        joining = operations.join_one(request, metadata_value(context, _IDEMPOTENCY_KEY))
        # Nobody needs it while this waits, and hundreds of them don't fit into a core's cache.
        del request
        place = await joining
        return convert.joined(place, operations.wait_seconds(event_id, place.position))

    async def _enqueue_bookings(
        self, request: pb.EnqueueBookingsRequest, context: Context
    ) -> pb.EnqueueBookingsResponse:
        asked = request.requests
        if len(asked) > validation.MOST_REQUESTS_PER_CALL:
            raise InvalidRequest("requests", f"must be at most {validation.MOST_REQUESTS_PER_CALL}")
        key = metadata_value(context, _IDEMPOTENCY_KEY)
        keys: list[str] = []
        if key is not None:
            validation.idempotency_key(key)
            keys = [_key_within(key, at) for at in range(len(asked))]
        operations = self._operations
        outcomes = await operations.join(asked, keys)
        return pb.EnqueueBookingsResponse(
            responses=[
                convert.joined(outcome, operations.wait_seconds(request.event_id, outcome.position))
                if isinstance(outcome, Joined)
                else convert.refused(outcome)
                for request, outcome in zip(asked, outcomes, strict=True)
            ]
        )

    async def _get_queue_position(
        self, request: pb.GetQueuePositionRequest, _context: Context
    ) -> pb.GetQueuePositionResponse:
        return convert.place(
            await self._operations.position(request.queue_item_id, request.user_id)
        )

    async def _get_queue_status(
        self, request: pb.GetQueueStatusRequest, _context: Context
    ) -> pb.GetQueueStatusResponse:
        return convert.queue_status(await self._operations.status(request.event_id))

    async def _cancel_queue_item(
        self, request: pb.CancelQueueItemRequest, context: Context
    ) -> pb.CancelQueueItemResponse:
        await seconds_left(context)
        status = await self._operations.cancel(
            request.queue_item_id, request.user_id, request.reason
        )
        return convert.cancelled(status)

    async def _confirm_payment(
        self, request: pb.ConfirmPaymentRequest, context: Context
    ) -> pb.ConfirmPaymentResponse:
        place = await self._operations.confirm_payment(
            request.queue_item_id,
            request.user_id,
            request.payment_reference,
            await seconds_left(context),
        )
        return convert.confirmed(place)

    async def _report_health(
        self, request: pb.HealthRequest, _context: Context
    ) -> pb.HealthResponse:
        validation.service_name(request.service)
        report = await self._health.report()
        return pb.HealthResponse(
            status=report.status, message=report.message, details=report.details
        )


def _key_within(key: str, at: int) -> str:
    """The idempotency key of one request of a call that has one for all: the same every time."""
    return hashlib.blake2b(f"{at}/{key}".encode(), digest_size=16).hexdigest()
