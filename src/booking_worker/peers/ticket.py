"""The Ticket Service: the only judge of how many tickets are left."""

from __future__ import annotations

import grpc
import grpc.aio

from booking_worker.peers.breaker import Breaker
from booking_worker.peers.call import Caller, CodedRefusal
from booking_worker.proto import ticket_pb2, ticket_pb2_grpc


class TicketClient:
    """The calls to the Ticket Service that the queue needs; errors as ``BookingClient``'s."""

    def __init__(self, channel: grpc.aio.Channel, breaker: Breaker, timeout_seconds: float) -> None:
        self.breaker = breaker
        self._call = Caller("ticket service", breaker, timeout_seconds)
        self._stub = ticket_pb2_grpc.TicketServiceStub(channel)

    async def available(self, event_id: str) -> int:
        """Tickets that are left for an event, 0 or more."""
        request = ticket_pb2.CheckAvailabilityRequest(event_id=event_id, quantity=1)
        answer = await self._call(self._stub.CheckAvailability, request, _is_complete)
        if not answer.success:
            raise self._call.refused(answer.message)
        return max(0, answer.available_quantity)

    async def release(self, reservation_id: str) -> None:
        """Give back the tickets of a reservation. One that is not found is given back already."""
        request = ticket_pb2.ReleaseTicketsRequest(reservation_id=reservation_id)
        try:
            answer = await self._call(self._stub.ReleaseTickets, request)
        except CodedRefusal as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return
            raise
        if not answer.success:
            raise self._call.refused(answer.message)

    async def health(self) -> str:
        """The service's own word for how it is; raises only PeerUnavailable."""
        request = ticket_pb2.HealthRequest()
        return (await self._call.unguarded(self._stub.Health, request)).status


def _is_complete(answer: ticket_pb2.CheckAvailabilityResponse) -> bool:
    # "There are some" with none counted: read as 0, a whole line would be told it is sold out.
    return not (answer.success and answer.available and answer.available_quantity <= 0)
