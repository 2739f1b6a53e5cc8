"""The stand-in Realtime Service: remembers what was told to whom."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Final, NamedTuple

import grpc
import orjson
from typing_extensions import override

from booking_worker.proto import realtime_pb2, realtime_pb2_grpc
from booking_worker.sandbox.answering import Answering, Context
from booking_worker.sandbox.faults import Faults

_REMEMBERED: Final = 50_000


class Told(NamedTuple):
    """One message: to a user, or to a room with the user left empty."""

    user_id: str
    room: str
    type: str
    """The event type; the method's own name where it has none."""
    payload: Any


class Notices:
    """What was told lately, and how often what was told in all."""

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self.latest: deque[Told] = deque(maxlen=remembered)
        self.counts: Counter[str] = Counter()

    def add(self, told: Told) -> None:
        """Remember a message."""
        self.latest.append(told)
        self.counts[told.type] += 1

    def to_user(self, user_id: str) -> list[Told]:
        """What a user was told, in order."""
        return [told for told in self.latest if told.user_id == user_id]

    def to_room(self, room: str) -> list[Told]:
        """What a room was told, in order."""
        return [told for told in self.latest if told.room == room]


class RealtimeService(realtime_pb2_grpc.RealtimeServiceServicer):
    """Says that everybody was reached."""

    def __init__(self, notices: Notices, faults: Faults) -> None:
        self._notices = notices
        self._answering = Answering(faults)

    @override
    async def SendToUser(
        self, request: realtime_pb2.SendToUserRequest, context: Context
    ) -> realtime_pb2.SendToUserResponse:
        payload = await _json(request.payload, context)
        await self._tell(Told(request.user_id, "", request.event_type, payload), context)
        return realtime_pb2.SendToUserResponse(delivered=True, connections_notified=1)

    @override
    async def NotifyBookingResult(
        self, request: realtime_pb2.NotifyBookingResultRequest, context: Context
    ) -> realtime_pb2.NotifyBookingResultResponse:
        payload = {
            "booking_id": request.booking_id,
            "success": request.success,
            "message": request.message,
            "booking_reference": request.booking_reference,
            "event_id": request.event_id,
            "seat_numbers": list(request.seat_numbers),
            "total_amount": request.total_amount,
            "currency": request.currency,
        }
        await self._tell(Told(request.user_id, "", "NotifyBookingResult", payload), context)
        return realtime_pb2.NotifyBookingResultResponse(delivered=True, active_connections=1)

    @override
    async def NotifyQueuePosition(
        self, request: realtime_pb2.NotifyQueuePositionRequest, context: Context
    ) -> realtime_pb2.NotifyQueuePositionResponse:
        payload = {
            "event_id": request.event_id,
            "position": request.position,
            "estimated_wait_seconds": request.estimated_wait_seconds,
            "total_in_queue": request.total_in_queue,
        }
        await self._tell(Told(request.user_id, "", "NotifyQueuePosition", payload), context)
        return realtime_pb2.NotifyQueuePositionResponse(delivered=True)

    @override
    async def BroadcastEvent(
        self, request: realtime_pb2.BroadcastEventRequest, context: Context
    ) -> realtime_pb2.BroadcastEventResponse:
        payload = await _json(request.payload, context)
        await self._tell(Told("", request.room, request.event_type, payload), context)
        return realtime_pb2.BroadcastEventResponse(recipients=1)

    async def _tell(self, told: Told, context: Context) -> None:
        draw = await self._answering.begin(told.type, told.user_id, context)
        self._notices.add(told)
        await self._answering.end(draw, context)


async def _json(text: str, context: Context) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"payload: {error}")
