"""The Realtime Service: tells people who are connected to it."""

from __future__ import annotations

from typing import Any

import grpc.aio
import orjson

from booking_worker.peers.breaker import Breaker
from booking_worker.peers.call import Caller
from booking_worker.proto import realtime_pb2, realtime_pb2_grpc


class RealtimeClient:
    """The calls to the Realtime Service that the queue needs; errors as ``BookingClient``'s.

    Payloads are anything that JSON can say.
    """

    def __init__(self, channel: grpc.aio.Channel, breaker: Breaker, timeout_seconds: float) -> None:
        self.breaker = breaker
        self._call = Caller("realtime service", breaker, timeout_seconds)
        self._stub = realtime_pb2_grpc.RealtimeServiceStub(channel)

    async def send_to_user(self, user_id: str, event_type: str, payload: dict[str, Any]) -> bool:
        """Send a message to all connections of a user; whether there was one."""
        request = realtime_pb2.SendToUserRequest(
            user_id=user_id, event_type=event_type, payload=orjson.dumps(payload).decode()
        )
        return (await self._call(self._stub.SendToUser, request)).delivered

    async def notify_booking_result(
        self,
        *,
        user_id: str,
        event_id: str,
        booking_id: str,
        success: bool,
        message: str,
        booking_reference: str = "",
    ) -> bool:
        """Tell a user how it ended; whether they are connected.

        The service wants a ``booking_id`` for a failure too: give it the item's id when there
        never was a booking. Seats, amount and currency stay empty: a change doesn't carry them,
        and an empty field says so, unlike an amount of 0.00.
        """
        request = realtime_pb2.NotifyBookingResultRequest(
            user_id=user_id,
            booking_id=booking_id,
            success=success,
            message=message,
            booking_reference=booking_reference,
            event_id=event_id,
        )
        return (await self._call(self._stub.NotifyBookingResult, request)).delivered

    async def notify_queue_position(
        self,
        *,
        user_id: str,
        event_id: str,
        position: int,
        estimated_wait_seconds: int,
        total_in_queue: int,
    ) -> bool:
        """Tell a user where they stand; whether they are connected."""
        request = realtime_pb2.NotifyQueuePositionRequest(
            user_id=user_id,
            event_id=event_id,
            position=position,
            estimated_wait_seconds=estimated_wait_seconds,
            total_in_queue=total_in_queue,
        )
        return (await self._call(self._stub.NotifyQueuePosition, request)).delivered

    async def broadcast(self, event_id: str, event_type: str, payload: dict[str, Any]) -> int:
        """Send a message to everybody who follows an event; how many were reached."""
        request = realtime_pb2.BroadcastEventRequest(
            event_type=event_type,
            room=f"event:{event_id}",
            payload=orjson.dumps(payload).decode(),
        )
        return (await self._call(self._stub.BroadcastEvent, request)).recipients
