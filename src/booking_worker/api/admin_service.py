"""BookingWorkerAdmin: the queue as an operator's command line sees it over gRPC."""

from __future__ import annotations

from booking_worker.api import convert
from booking_worker.api.administration import Administration
from booking_worker.api.rpc import Calls, Context, Service, seconds_left
from booking_worker.proto import admin_pb2 as pb
from booking_worker.telemetry.metrics import Metrics


class AdminService:
    """Converts between proto/admin.proto and :class:`Administration`."""

    def __init__(self, administration: Administration, metrics: Metrics) -> None:
        self._administration = administration
        self._metrics = metrics

    def service(self) -> Service:
        """What a server needs to serve it."""
        calls = Calls(self._metrics)
        return Service(
            pb.DESCRIPTOR.services_by_name["BookingWorkerAdmin"],
            {
                "ListEvents": calls.unary(pb.ListEventsRequest, self._list_events),
                "GetEventStatus": calls.unary(pb.GetEventStatusRequest, self._get_event_status),
                "ListItems": calls.unary(pb.ListItemsRequest, self._list_items),
                "GetItem": calls.unary(pb.GetItemRequest, self._get_item),
                "CancelItem": calls.unary(pb.CancelItemRequest, self._cancel_item),
                "ListDeadLetters": calls.unary(pb.ListDeadLettersRequest, self._list_dead_letters),
                "RequeueDeadLetter": calls.unary(pb.RequeueDeadLetterRequest, self._requeue),
                "DiscardDeadLetter": calls.unary(pb.DiscardDeadLetterRequest, self._discard),
                "PauseAdmission": calls.unary(pb.PauseAdmissionRequest, self._pause),
                "ResumeAdmission": calls.unary(pb.ResumeAdmissionRequest, self._resume),
            },
            calls,
        )

    async def _list_events(
        self, _request: pb.ListEventsRequest, _context: Context
    ) -> pb.ListEventsResponse:
        return pb.ListEventsResponse(event_ids=await self._administration.events())

    async def _get_event_status(
        self, request: pb.GetEventStatusRequest, _context: Context
    ) -> pb.EventStatus:
        return convert.event_status(await self._administration.event_status(request.event_id))

    async def _list_items(
        self, request: pb.ListItemsRequest, _context: Context
    ) -> pb.ListItemsResponse:
        records = await self._administration.items(
            request.event_id, request.statuses, request.offset, request.limit
        )
        return pb.ListItemsResponse(items=[convert.item(record) for record in records])

    async def _get_item(self, request: pb.GetItemRequest, _context: Context) -> pb.Item:
        return convert.item(await self._administration.item(request.queue_item_id))

    async def _cancel_item(
        self, request: pb.CancelItemRequest, context: Context
    ) -> pb.CancelItemResponse:
        await seconds_left(context)
        status = await self._administration.cancel(
            request.queue_item_id, request.reason, request.operator
        )
        return pb.CancelItemResponse(status=status)

    async def _list_dead_letters(
        self, request: pb.ListDeadLettersRequest, _context: Context
    ) -> pb.ListDeadLettersResponse:
        records = await self._administration.dead_letters(
            request.event_id, request.offset, request.limit
        )
        return pb.ListDeadLettersResponse(items=[convert.item(record) for record in records])

    async def _requeue(
        self, request: pb.RequeueDeadLetterRequest, context: Context
    ) -> pb.RequeueDeadLetterResponse:
        await seconds_left(context)
        status = await self._administration.requeue(request.queue_item_id, request.operator)
        return pb.RequeueDeadLetterResponse(status=status)

    async def _discard(
        self, request: pb.DiscardDeadLetterRequest, context: Context
    ) -> pb.DiscardDeadLetterResponse:
        await seconds_left(context)
        await self._administration.discard(request.queue_item_id, request.operator)
        return pb.DiscardDeadLetterResponse()

    async def _pause(
        self, request: pb.PauseAdmissionRequest, context: Context
    ) -> pb.PauseAdmissionResponse:
        await seconds_left(context)
        await self._administration.pause(request.event_id, request.reason, request.operator)
        return pb.PauseAdmissionResponse()

    async def _resume(
        self, request: pb.ResumeAdmissionRequest, context: Context
    ) -> pb.ResumeAdmissionResponse:
        await seconds_left(context)
        was = await self._administration.resume(request.event_id, request.operator)
        return pb.ResumeAdmissionResponse(paused_because=was)
