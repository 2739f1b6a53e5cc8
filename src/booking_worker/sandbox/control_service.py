"""Steers the stand-ins from another process, and tells what their ledger says."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping
from typing import Final

import grpc
from typing_extensions import override

from booking_worker.proto import sandbox_pb2, sandbox_pb2_grpc
from booking_worker.sandbox.answering import Context
from booking_worker.sandbox.faults import Faults
from booking_worker.sandbox.ledger import Ledger

_BOOKINGS_A_MESSAGE: Final = 1_000


class ControlService(sandbox_pb2_grpc.SandboxControlServicer):
    """What proto/sandbox.proto says. No faults of its own."""

    def __init__(self, ledger: Ledger, faults: Mapping[str, Faults]) -> None:
        self._ledger = ledger
        self._faults = faults

    @override
    async def SetFaults(
        self, request: sandbox_pb2.SetFaultsRequest, context: Context
    ) -> sandbox_pb2.SetFaultsResponse:
        if request.service and request.service not in self._faults:
            message = f"service: one of {', '.join(self._faults)}, or empty for all"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        try:
            wanted = faults_of(request.faults)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        for service, faults in self._faults.items():
            if request.service in {"", service}:
                faults.become(wanted)
        return sandbox_pb2.SetFaultsResponse()

    @override
    async def SetTickets(
        self, request: sandbox_pb2.SetTicketsRequest, context: Context
    ) -> sandbox_pb2.SetTicketsResponse:
        if not request.event_id or request.tickets < 0:
            message = "event_id is required, and tickets must be 0 or more"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        try:
            available = self._ledger.set_tickets(request.event_id, request.tickets)
        except ValueError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        await self._ledger.saved()
        return sandbox_pb2.SetTicketsResponse(available=available)

    @override
    async def Audit(
        self, request: sandbox_pb2.AuditRequest, context: Context
    ) -> sandbox_pb2.AuditResponse:
        return sandbox_pb2.AuditResponse(**dataclasses.asdict(self._ledger.audit(request.event_id)))

    @override
    async def ListBookings(
        self, request: sandbox_pb2.ListBookingsRequest, context: Context
    ) -> AsyncIterator[sandbox_pb2.ListBookingsResponse]:
        lines = self._ledger.bookings(request.event_id)
        for start in range(0, len(lines), _BOOKINGS_A_MESSAGE):
            yield sandbox_pb2.ListBookingsResponse(
                bookings=[
                    sandbox_pb2.LedgerBooking(
                        id=line.id,
                        booking_reference=line.reference,
                        idempotency_key=line.key,
                        user_id=line.user_id,
                        event_id=line.event_id,
                        ticket_quantity=line.quantity,
                        status=line.status,
                    )
                    for line in lines[start : start + _BOOKINGS_A_MESSAGE]
                ]
            )


def faults_of(message: sandbox_pb2.Faults) -> Faults:
    """The faults that a message names.

    Raises:
        ValueError: a rate or a share is not between 0 and 1, or a number is negative.
    """
    for name in ("error_rate", "lost_answer_rate", "hang_share"):
        if not 0 <= getattr(message, name) <= 1:
            raise ValueError(f"{name} must be between 0 and 1")
    if message.error_rate + message.lost_answer_rate > 1:
        raise ValueError("error_rate and lost_answer_rate must not exceed 1 together")
    if not 0 <= message.latency_ms < float("inf") or message.overstate < 0:
        raise ValueError("latency_ms and overstate must be 0 or more")
    return Faults(
        latency_ms=message.latency_ms,
        error_rate=message.error_rate,
        lost_answer_rate=message.lost_answer_rate,
        hang_share=message.hang_share,
        overstate=message.overstate,
        refuse=message.refuse,
        malformed=message.malformed,
        down=message.down,
    )
