"""CancelQueueItem."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from booking_worker.domain.model import Status
from booking_worker.proto import booking_worker_pb2 as pb
from tests.support.api import EVENT, Api, failure, field_at_fault, on_one_engine

pytestmark = on_one_engine

CANCELLABLE = {
    Status.WAITING: ("cancelled", "cancelled"),
    Status.PROCESSING: ("processing", "will be cancelled"),
    Status.AWAITING_PAYMENT: ("awaiting_payment", "will be cancelled"),
    Status.RELEASING: ("awaiting_payment", "will be cancelled"),
    Status.CANCELLED: ("cancelled", "cancelled"),
}


def cancelling(item_id: str, user_id: str = "ann", reason: str = "") -> pb.CancelQueueItemRequest:
    return pb.CancelQueueItemRequest(queue_item_id=item_id, user_id=user_id, reason=reason)


@pytest.mark.parametrize("status", Status)
async def test_cancel_in_every_status(api: Api, status: Status):
    item_id = await api.bring_to(status)
    call: Any = api.stub.CancelQueueItem(cancelling(item_id, reason="changed my mind"))
    if status in CANCELLABLE:
        afterwards, says = CANCELLABLE[status]
        answer = await call
        assert answer.success
        assert answer.message.startswith(says)
        assert (await api.position(item_id)).status == afterwards
        again = await api.stub.CancelQueueItem(cancelling(item_id))
        assert again == answer
    else:
        error = await failure(call)
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"while the item is {status}" in (error.details() or "")
        assert (await api.position(item_id)).status == status


async def test_cancelling_anothers_item_is_denied_and_recorded(api: Api):
    item_id = await api.join("ann")
    error = await failure(api.stub.CancelQueueItem(cancelling(item_id, "eve")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [(line["who"], line["refused"]) for line in api.records] == [("user:eve", "cancel")]
    assert (await api.position(item_id)).status == "waiting"


async def test_nobody_is_the_operator_by_leaving_the_user_out(api: Api):
    item_id = await api.join("ann")
    error = await failure(api.stub.CancelQueueItem(cancelling(item_id, "")))
    assert field_at_fault(error) == "user_id"
    assert (await api.position(item_id)).status == "waiting"


async def test_an_unknown_item_is_not_found(api: Api):
    error = await failure(api.stub.CancelQueueItem(cancelling(f"AAAAAAAAAAAA.{EVENT}")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "fields, at_fault",
    [
        ({"queue_item_id": "", "user_id": "ann"}, "queue_item_id"),
        ({"queue_item_id": "x" * 2000, "user_id": "ann"}, "queue_item_id"),
        ({"queue_item_id": f"AAAAAAAAAAAA.{EVENT}", "user_id": "{}"}, "user_id"),
        ({"queue_item_id": f"AAAAAAAAAAAA.{EVENT}", "user_id": "a", "reason": "x" * 501}, "reason"),
    ],
)
async def test_a_wrong_field_is_named(api: Api, fields, at_fault):
    error = await failure(api.stub.CancelQueueItem(pb.CancelQueueItemRequest(**fields)))
    assert field_at_fault(error) == at_fault


async def test_the_reason_may_be_anything_of_500_characters(api: Api):
    item_id = await api.join()
    reason = "ünï\n\x00😀" + "x" * 494
    assert (await api.stub.CancelQueueItem(cancelling(item_id, reason=reason))).success
    assert (await api.queue.item(item_id)).message == reason


async def test_a_call_whose_deadline_passes_before_its_turn_is_not_begun(api: Api):
    item_id = await api.join()
    call = api.stub.CancelQueueItem(cancelling(item_id), timeout=0.05)
    time.sleep(0.2)  # the event loop is busy, and the client's patience ends
    error = await failure(call)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await api.position(item_id)).status == "waiting"
