from __future__ import annotations

import pytest

from booking_worker.domain.errors import PeerUnavailable
from booking_worker.peers.breaker import Breaker
from booking_worker.peers.realtime import RealtimeClient
from booking_worker.proto import realtime_pb2, realtime_pb2_grpc
from booking_worker.sandbox.realtime_service import Notices, Told
from booking_worker.sandbox.server import Sandbox
from tests.unit.sandbox.conftest import code_of


@pytest.fixture
def client(channels) -> RealtimeClient:
    return RealtimeClient(channels["realtime"], Breaker("realtime", 1000), timeout_seconds=5)


async def test_it_remembers_what_was_told_to_whom(client, sandbox: Sandbox) -> None:
    assert await client.send_to_user("ann", "booking:awaiting_payment", {"pay_by": 5})
    assert await client.notify_queue_position(
        user_id="ann", event_id="show", position=3, estimated_wait_seconds=9, total_in_queue=7
    )
    assert await client.notify_booking_result(
        user_id="bob",
        event_id="show",
        booking_id="b1",
        success=True,
        message="paid",
    )
    assert await client.broadcast("show", "booking:sold_out", {"event_id": "show"}) == 1
    first, second = sandbox.notices.to_user("ann")
    assert first == Told("ann", "", "booking:awaiting_payment", {"pay_by": 5})
    assert second.payload["position"] == 3
    [result] = sandbox.notices.to_user("bob")
    assert (result.payload["success"], result.payload["message"]) == (True, "paid")
    assert result.payload["total_amount"] == ""
    assert [told.type for told in sandbox.notices.to_room("event:show")] == ["booking:sold_out"]
    assert sandbox.notices.counts["NotifyQueuePosition"] == 1


def test_it_remembers_so_much_and_counts_all() -> None:
    notices = Notices(remembered=3)
    for n in range(10):
        notices.add(Told(f"u{n}", "", "t", {}))
    assert [told.user_id for told in notices.latest] == ["u7", "u8", "u9"]
    assert notices.counts["t"] == 10


async def test_a_payload_that_is_not_json(channels, sandbox: Sandbox) -> None:
    stub = realtime_pb2_grpc.RealtimeServiceStub(channels["realtime"])
    request = realtime_pb2.SendToUserRequest(user_id="ann", event_type="t", payload="{")
    assert await code_of(stub.SendToUser(request)) == "INVALID_ARGUMENT"
    room = realtime_pb2.BroadcastEventRequest(room="all", event_type="t", payload="{")
    assert await code_of(stub.BroadcastEvent(room)) == "INVALID_ARGUMENT"
    assert not sandbox.notices.latest


async def test_down(client, sandbox: Sandbox) -> None:
    sandbox.realtime_faults.down = True
    with pytest.raises(PeerUnavailable):
        await client.send_to_user("ann", "t", {})
    assert not sandbox.notices.latest
