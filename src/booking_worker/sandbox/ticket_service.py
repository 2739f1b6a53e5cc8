"""The stand-in Ticket Service."""

from __future__ import annotations

import grpc
from typing_extensions import override

from booking_worker.proto import ticket_pb2, ticket_pb2_grpc
from booking_worker.sandbox.answering import Answering, Context
from booking_worker.sandbox.faults import Faults
from booking_worker.sandbox.ledger import Ledger


class TicketService(ticket_pb2_grpc.TicketServiceServicer):
    """Counts what the ledger has left."""

    def __init__(self, ledger: Ledger, faults: Faults) -> None:
        self._ledger = ledger
        self._faults = faults
        self._answering = Answering(faults, ledger)

    @override
    async def CheckAvailability(
        self, request: ticket_pb2.CheckAvailabilityRequest, context: Context
    ) -> ticket_pb2.CheckAvailabilityResponse:
        draw = await self._answering.begin("CheckAvailability", "", context)
        if not request.event_id:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "event_id is required")
        left = self._ledger.available(request.event_id) + self._faults.overstate
        free = self._ledger.free_seats(request.event_id, request.seat_numbers)
        await self._answering.end(draw, context)
        if self._faults.malformed:
            return ticket_pb2.CheckAvailabilityResponse(success=True, available=True)
        return ticket_pb2.CheckAvailabilityResponse(
            success=True,
            available=left >= max(1, request.quantity) and len(free) == len(request.seat_numbers),
            available_quantity=left,
            available_seats=free,
        )

    @override
    async def ReleaseTickets(
        self, request: ticket_pb2.ReleaseTicketsRequest, context: Context
    ) -> ticket_pb2.ReleaseTicketsResponse:
        draw = await self._answering.begin("ReleaseTickets", "", context)
        entry = self._ledger.release(request.reservation_id, lost=draw.answer_is_lost)
        await self._answering.end(draw, context, entry)
        return ticket_pb2.ReleaseTicketsResponse(success=True, message=entry.message)

    @override
    async def Health(
        self, request: ticket_pb2.HealthRequest, context: Context
    ) -> ticket_pb2.HealthResponse:
        if self._faults.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "sandbox: told to be down")
        return ticket_pb2.HealthResponse(status="healthy", message="stand-in")
