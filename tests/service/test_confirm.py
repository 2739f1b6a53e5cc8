"""ConfirmPayment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from booking_worker.domain.model import Held, Lease, Status, Task
from booking_worker.proto import booking_worker_pb2 as pb
from tests.support.api import EVENT, Api, failure, field_at_fault, on_one_engine
from tests.support.wait import wait_until

pytestmark = on_one_engine


def paying(
    item_id: str, user_id: str = "ann", payment_reference: str = "payment-1"
) -> pb.ConfirmPaymentRequest:
    return pb.ConfirmPaymentRequest(
        queue_item_id=item_id, user_id=user_id, payment_reference=payment_reference
    )


async def held(api: Api) -> str:
    item_id = await api.join()
    await api.queue.settle_held(await api.claim(), Held("booking-1", "REF1", None))
    return item_id


async def settled(
    api: Api, call: Awaitable[Any], settle: Callable[[Lease], Awaitable[Status]]
) -> Any:
    """The outcome of a call that waits while a worker settles the confirm."""
    answer = asyncio.ensure_future(call)
    await wait_until(lambda: _confirming(api))
    await settle(await api.claim(Task.CONFIRM))
    return await asyncio.wait_for(asyncio.shield(answer), 5)


async def _confirming(api: Api) -> bool:
    (record,) = await api.queue.list_items(EVENT, "admitted", 0, 1)
    return record.status is Status.CONFIRMING


async def test_a_payment_is_answered_once_the_booking_is_confirmed(api: Api):
    item_id = await held(api)
    answer = await settled(
        api,
        api.stub.ConfirmPayment(paying(item_id)),
        lambda lease: api.queue.settle_confirmed(lease, "REF2"),
    )
    assert answer == pb.ConfirmPaymentResponse(
        success=True,
        booking_id="booking-1",
        booking_reference="REF2",
        status="completed",
        message="your booking is confirmed",
    )
    again = await api.stub.ConfirmPayment(paying(item_id, payment_reference="payment-2"))
    assert again == answer


async def test_paying_twice_at_once_is_paying_once(api: Api):
    item_id = await held(api)
    twice = asyncio.gather(
        api.stub.ConfirmPayment(paying(item_id)), api.stub.ConfirmPayment(paying(item_id))
    )
    first, second = await settled(
        api, twice, lambda lease: api.queue.settle_confirmed(lease, "REF2")
    )
    assert first == second
    question = await api.queue.claim(EVENT, "w", 10, frozenset({Task.CONFIRM}))
    assert question.leases == []


async def test_a_payment_that_is_refused_says_why_and_may_be_tried_again(api: Api):
    item_id = await held(api)
    error = await failure(
        settled(
            api,
            api.stub.ConfirmPayment(paying(item_id)),
            lambda lease: api.queue.settle_unconfirmed(lease, "the card was declined"),
        )
    )
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "the card was declined" in (error.details() or "")
    assert (await api.position(item_id)).status == "awaiting_payment"
    answer = await settled(
        api,
        api.stub.ConfirmPayment(paying(item_id)),
        lambda lease: api.queue.settle_confirmed(lease, "REF2"),
    )
    assert answer.status == "completed"


async def test_a_payment_for_a_booking_that_is_gone_is_refused(api: Api):
    item_id = await held(api)
    error = await failure(
        settled(
            api,
            api.stub.ConfirmPayment(paying(item_id)),
            lambda lease: api.queue.settle_gone(lease, "the booking ran out"),
        )
    )
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "the booking ran out" in (error.details() or "")
    again = await failure(api.stub.ConfirmPayment(paying(item_id)))
    assert again.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_confirm_that_takes_long_is_answered_before_the_callers_deadline(api: Api):
    item_id = await held(api)
    answer = await api.stub.ConfirmPayment(paying(item_id), timeout=0.6)
    assert answer.success
    assert (answer.status, answer.booking_id) == ("confirming", "booking-1")
    assert "will be confirmed" in answer.message
    await api.queue.settle_confirmed(await api.claim(Task.CONFIRM), "REF2")
    again = await api.stub.ConfirmPayment(paying(item_id))
    assert (again.status, again.booking_reference) == ("completed", "REF2")


@pytest.mark.parametrize(
    "status", sorted(set(Status) - {Status.AWAITING_PAYMENT, Status.CONFIRMING, Status.COMPLETED})
)
async def test_only_who_holds_a_booking_can_pay(api: Api, status: Status):
    item_id = await api.bring_to(status)
    error = await failure(api.stub.ConfirmPayment(paying(item_id)))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "while the item is" in (error.details() or "")
    shown = "awaiting_payment" if status is Status.RELEASING else status
    assert (await api.position(item_id)).status == shown


async def test_paying_late_is_refused(api: Api):
    item_id = await api.join()
    await api.queue.settle_held(await api.claim(), Held("booking-1", "REF1", 1))

    async def late() -> bool:
        error = await failure(api.stub.ConfirmPayment(paying(item_id)))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        return True

    (place,) = await api.queue.positions(EVENT, [item_id])
    assert place is not None
    await wait_until(lambda: _over(api, item_id))
    assert await late()
    await api.queue.expire(EVENT)
    assert await late()


async def _over(api: Api, item_id: str) -> bool:
    (place,) = await api.queue.positions(EVENT, [item_id])
    return place is not None and place.remaining_ms == 0


async def test_paying_for_someone_else_is_denied_and_recorded(api: Api):
    item_id = await held(api)
    error = await failure(api.stub.ConfirmPayment(paying(item_id, "eve")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [line["refused"] for line in api.records] == ["confirm_payment"]
    assert (await api.position(item_id)).status == "awaiting_payment"


async def test_an_unknown_item_is_not_found(api: Api):
    error = await failure(api.stub.ConfirmPayment(paying(f"AAAAAAAAAAAA.{EVENT}")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "fields, at_fault",
    [
        ({"item_id": ""}, "queue_item_id"),
        ({"item_id": f"AAAAAAAAAAAA.{EVENT}", "user_id": ""}, "user_id"),
        ({"item_id": f"AAAAAAAAAAAA.{EVENT}", "payment_reference": ""}, "payment_reference"),
        ({"item_id": f"AAAAAAAAAAAA.{EVENT}", "payment_reference": "x" * 257}, "payment_reference"),
        ({"item_id": f"AAAAAAAAAAAA.{EVENT}", "payment_reference": "a\n"}, "payment_reference"),
    ],
)
async def test_a_wrong_field_is_named(api: Api, fields, at_fault):
    error = await failure(api.stub.ConfirmPayment(paying(**fields)))
    assert field_at_fault(error) == at_fault
