from __future__ import annotations

import grpc
import grpc.aio
import orjson
import pytest

from booking_worker.domain.errors import PeerUnavailable
from booking_worker.peers.breaker import Breaker
from booking_worker.peers.realtime import RealtimeClient
from booking_worker.proto import realtime_pb2
from tests.unit.peers.scripted import Refuse, ScriptedServer


@pytest.fixture
def client(channel: grpc.aio.Channel) -> RealtimeClient:
    return RealtimeClient(channel, Breaker("realtime", 3), timeout_seconds=5)


@pytest.mark.parametrize("delivered", [True, False])
async def test_send_to_user(server: ScriptedServer, client: RealtimeClient, delivered) -> None:
    server.script.answers["SendToUser"] = realtime_pb2.SendToUserResponse(delivered=delivered)
    sent = await client.send_to_user("ann", "booking:awaiting_payment", {"price": "é 1"})
    assert sent is delivered
    [asked] = server.script.requests("SendToUser")
    assert (asked.user_id, asked.event_type) == ("ann", "booking:awaiting_payment")
    assert orjson.loads(asked.payload) == {"price": "é 1"}


async def test_a_result_says_nothing_of_what_is_not_known(
    server: ScriptedServer, client: RealtimeClient
) -> None:
    server.script.answers["NotifyBookingResult"] = realtime_pb2.NotifyBookingResultResponse(
        delivered=True
    )
    assert await client.notify_booking_result(
        user_id="ann",
        event_id="show",
        booking_id="b1",
        success=True,
        message="paid",
        booking_reference="REF1",
    )
    assert server.script.requests("NotifyBookingResult") == [
        realtime_pb2.NotifyBookingResultRequest(
            user_id="ann",
            booking_id="b1",
            success=True,
            message="paid",
            booking_reference="REF1",
            event_id="show",
        )
    ]


async def test_notify_queue_position(server: ScriptedServer, client: RealtimeClient) -> None:
    server.script.answers["NotifyQueuePosition"] = realtime_pb2.NotifyQueuePositionResponse()
    told = await client.notify_queue_position(
        user_id="ann", event_id="show", position=3, estimated_wait_seconds=-1, total_in_queue=9
    )
    assert told is False
    assert server.script.requests("NotifyQueuePosition") == [
        realtime_pb2.NotifyQueuePositionRequest(
            user_id="ann", event_id="show", position=3, estimated_wait_seconds=-1, total_in_queue=9
        )
    ]


async def test_broadcast(server: ScriptedServer, client: RealtimeClient) -> None:
    server.script.answers["BroadcastEvent"] = realtime_pb2.BroadcastEventResponse(recipients=7)
    assert await client.broadcast("show", "booking:sold_out", {"event_id": "show"}) == 7
    [asked] = server.script.requests("BroadcastEvent")
    assert (asked.room, asked.event_type) == ("event:show", "booking:sold_out")
    assert orjson.loads(asked.payload) == {"event_id": "show"}


async def test_a_service_that_is_down_is_unavailable(server, client: RealtimeClient) -> None:
    server.script.answers["SendToUser"] = Refuse(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(PeerUnavailable):
        await client.send_to_user("ann", "system:ping", {})
