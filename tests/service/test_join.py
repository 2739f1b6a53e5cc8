"""EnqueueBooking and EnqueueBookings."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from redis.asyncio import Redis

from booking_worker.api.grpc_server import Transport
from booking_worker.domain.model import Status
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.proto.booking_worker_pb2_grpc import BookingWorkerServiceStub
from tests.support.api import (
    EVENT,
    LIMITS,
    Api,
    asked,
    detail,
    failure,
    field_at_fault,
    on_one_engine,
    running_api,
)
from tests.support.wait import wait_until

pytestmark = on_one_engine


async def test_a_join_answers_the_place_and_what_to_ask_for_it_by(api: Api):
    first = await api.stub.EnqueueBooking(asked("ann"))
    second = await api.stub.EnqueueBooking(asked("bob"))
    assert first.success
    assert (first.queue_position, second.queue_position) == (1, 2)
    assert first.estimated_wait_seconds == -1
    assert first.message == "you are in line"
    assert not first.already_queued
    assert first.queue_item_id.endswith(f".{EVENT}")
    assert first.queue_item_id != second.queue_item_id


async def test_the_whole_request_reaches_the_queue(api: Api):
    item_id = await api.join(
        seat_numbers=["A 1", "B-2"],
        total_amount=99.5,
        currency="EUR",
        metadata={"channel": "web", "ünï": "¢ode"},
    )
    record = await api.queue.item(item_id)
    assert record.seats == 2
    assert record.request.seat_numbers == ("A 1", "B-2")
    assert (record.request.total_amount, record.request.currency) == (99.5, "EUR")
    assert record.request.metadata == {"channel": "web", "ünï": "¢ode"}


async def test_joining_twice_is_the_same_place(api: Api):
    await api.join("zoe")
    first = await api.stub.EnqueueBooking(asked("ann"))
    again = await api.stub.EnqueueBooking(asked("ann", seat_count=3))
    assert again.success
    assert again.already_queued
    assert again.queue_item_id == first.queue_item_id
    assert again.queue_position == 2
    assert (await api.queue.status(EVENT)).joined == 2


async def test_joining_again_once_admitted_says_where_the_item_is(api: Api):
    item_id = await api.bring_to(Status.AWAITING_PAYMENT)
    again = await api.stub.EnqueueBooking(asked("ann", "awaiting_payment-ann"))
    assert (again.queue_item_id, again.queue_position) == (item_id, 0)
    assert again.estimated_wait_seconds == 0
    assert "please pay" in again.message


async def test_the_same_user_at_the_same_instant_from_two_connections_has_one_place(api: Api):
    async with grpc.aio.insecure_channel(
        api.target, options=[("grpc.use_local_subchannel_pool", 1)]
    ) as other:
        stubs = (api.stub, BookingWorkerServiceStub(other))
        answers = await asyncio.gather(
            *(stub.EnqueueBooking(asked("ann")) for _ in range(25) for stub in stubs)
        )
    assert len({answer.queue_item_id for answer in answers}) == 1
    assert sum(not answer.already_queued for answer in answers) == 1


async def test_one_more_than_the_queue_takes_is_told_when_to_come_back(
    redis_client: Redis, transport: Transport
):
    async with running_api(redis_client, transport, replace(LIMITS, max_size=3)) as api:
        for user in ("a", "b", "c"):
            await api.join(user)
        error = await failure(api.stub.EnqueueBooking(asked("d")))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "full" in (error.details() or "")
        assert detail(error, RetryInfo).retry_delay.ToMilliseconds() == 5000
        assert (await api.stub.EnqueueBooking(asked("a"))).already_queued
        assert (await api.queue.status(EVENT)).waiting == 3


@pytest.mark.parametrize(
    "fields, at_fault",
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "a b"}, "user_id"),
        ({"user_id": "a{b}"}, "user_id"),
        ({"user_id": "a\x00"}, "user_id"),
        ({"user_id": "\u200b"}, "user_id"),
        ({"user_id": "x" * 129}, "user_id"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": "{other}"}, "event_id"),
        ({"event_id": "é" * 129}, "event_id"),
        ({"seat_count": 0}, "seat_count"),
        ({"seat_count": -1}, "seat_count"),
        ({"seat_count": 5}, "seat_count"),
        ({"seat_count": 2**31 - 1}, "seat_count"),
        ({"seat_numbers": ["A", "B", "C", "D", "E"]}, "seat_numbers"),
        ({"seat_numbers": ["A"] * 100_000}, "seat_numbers"),
        ({"seat_numbers": ["A", "A"]}, "seat_numbers"),
        ({"seat_numbers": ["A", ""]}, "seat_numbers"),
        ({"seat_numbers": ["x" * 65]}, "seat_numbers"),
        ({"seat_numbers": ["A\n1"]}, "seat_numbers"),
        ({"seat_numbers": ["A", "B"], "seat_count": 3}, "seat_count"),
        ({"total_amount": float("nan"), "currency": "EUR"}, "total_amount"),
        ({"total_amount": float("inf"), "currency": "EUR"}, "total_amount"),
        ({"total_amount": float("-inf"), "currency": "EUR"}, "total_amount"),
        ({"total_amount": -0.01, "currency": "EUR"}, "total_amount"),
        ({"total_amount": 1.0}, "currency"),
        ({"currency": "EU"}, "currency"),
        ({"currency": "EURO"}, "currency"),
        ({"currency": "E1R"}, "currency"),
        ({"currency": "ÄÖÜ"}, "currency"),
        ({"metadata": {str(n): "" for n in range(33)}}, "metadata"),
        ({"metadata": {"k": "v" * 4096}}, "metadata"),
        ({"metadata": {"k": "é" * 2048}}, "metadata"),
        ({"metadata": {"k\n": "v"}}, "metadata"),
        ({"metadata": {"": "v"}}, "metadata"),
    ],
)
async def test_a_wrong_field_is_named_and_nobody_joins(api: Api, fields, at_fault):
    request = asked(**fields)
    error = await failure(api.stub.EnqueueBooking(request))
    assert field_at_fault(error) == at_fault
    assert await api.queue.events() == []
    (response,) = (
        await api.stub.EnqueueBookings(pb.EnqueueBookingsRequest(requests=[request]))
    ).responses
    assert not response.success
    assert response.message.startswith(f"{at_fault}: ")
    assert await api.queue.events() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"user_id": "x" * 128},
        {"user_id": "名前@例え.jp:0/~'\"\\%"},
        {"event_id": "rock'n'roll/2026;DROP*?[a-z]"},
        {"event_id": "x" * 128},
        {"seat_count": 4},
        {"seat_numbers": ["x" * 64, "é", "C 3", "D"], "seat_count": 4},
        {"total_amount": 0.0, "currency": ""},
        {"total_amount": 1e300, "currency": "usd"},
        {"metadata": {"k": "v" * 4095}},
        {"metadata": {str(n): "\x00\n😀" for n in range(32)}},
    ],
)
async def test_what_is_just_within_the_limits_is_taken_and_found_again(api: Api, fields):
    request = asked(**fields)
    joined = await api.stub.EnqueueBooking(request)
    assert joined.success
    place = await api.position(joined.queue_item_id, request.user_id)
    assert (place.status, place.position) == ("waiting", 1)
    record = await api.queue.item(joined.queue_item_id)
    assert record.event_id == request.event_id
    assert record.request.metadata == dict(request.metadata)


async def test_an_idempotency_key_repeats_the_answer_of_the_same_request_alone(api: Api):
    metadata = (("idempotency-key", "order-17"),)
    first = await api.stub.EnqueueBooking(asked(seat_count=2), metadata=metadata)
    again = await api.stub.EnqueueBooking(asked(seat_count=2), metadata=metadata)
    assert again.queue_item_id == first.queue_item_id
    assert again.already_queued
    error = await failure(api.stub.EnqueueBooking(asked(seat_count=3), metadata=metadata))
    assert field_at_fault(error) == "idempotency-key"


@pytest.mark.parametrize("key", ["", "x" * 129])
async def test_a_wrong_idempotency_key_is_refused(api: Api, key):
    metadata = (("idempotency-key", key),)
    error = await failure(api.stub.EnqueueBooking(asked(), metadata=metadata))
    assert field_at_fault(error) == "idempotency-key"
    error = await failure(
        api.stub.EnqueueBookings(pb.EnqueueBookingsRequest(requests=[asked()]), metadata=metadata)
    )
    assert field_at_fault(error) == "idempotency-key"


async def test_a_batch_answers_each_request_in_its_order(api: Api):
    requests = [
        asked("ann", "one"),
        asked("bob", "two"),
        asked("", "one"),
        asked("cid", "one"),
        asked("ann", "one"),
    ]
    answers = (
        await api.stub.EnqueueBookings(pb.EnqueueBookingsRequest(requests=requests))
    ).responses
    assert [answer.success for answer in answers] == [True, True, False, True, True]
    assert [answer.queue_position for answer in answers] == [1, 1, 0, 2, 1]
    assert [answer.already_queued for answer in answers] == [False, False, False, False, True]
    assert answers[4].queue_item_id == answers[0].queue_item_id


async def test_a_batch_fills_the_queue_to_the_last_place(redis_client: Redis, transport: Transport):
    async with running_api(redis_client, transport, replace(LIMITS, max_size=600)) as api:
        requests = [asked(f"user-{n}") for n in range(1000)]
        answers = (
            await api.stub.EnqueueBookings(pb.EnqueueBookingsRequest(requests=requests))
        ).responses
        assert [answer.queue_position for answer in answers[:600]] == list(range(1, 601))
        assert all("full" in answer.message for answer in answers[600:])


async def test_a_batch_repeated_with_its_key_is_the_same_places(api: Api):
    batch = pb.EnqueueBookingsRequest(requests=[asked("ann"), asked("bob", seat_count=2)])
    metadata = (("idempotency-key", "x" * 128),)
    first = (await api.stub.EnqueueBookings(batch, metadata=metadata)).responses
    again = (await api.stub.EnqueueBookings(batch, metadata=metadata)).responses
    assert [a.queue_item_id for a in again] == [a.queue_item_id for a in first]
    batch.requests[1].seat_count = 3
    other = (await api.stub.EnqueueBookings(batch, metadata=metadata)).responses
    assert [answer.success for answer in other] == [True, False]
    assert other[1].message.startswith("idempotency-key: ")


async def test_a_batch_of_more_than_a_thousand_is_refused_and_an_empty_one_is_nothing(api: Api):
    many = pb.EnqueueBookingsRequest(requests=[asked()] * 1001)
    error = await failure(api.stub.EnqueueBookings(many))
    assert field_at_fault(error) == "requests"
    assert await api.queue.events() == []
    none = await api.stub.EnqueueBookings(pb.EnqueueBookingsRequest())
    assert list(none.responses) == []


async def test_a_client_that_leaves_takes_nobody_with_it(api: Api):
    calls = [api.stub.EnqueueBooking(asked(f"user-{n}")) for n in range(50)]
    for call in calls[::2]:
        call.cancel()
    answers = await asyncio.gather(*calls[1::2])
    assert all(answer.success for answer in answers)
    await asyncio.gather(*calls[::2], return_exceptions=True)


async def test_a_join_gets_an_estimate_once_admissions_were_measured(api: Api):
    for n in range(20):
        await api.join(f"user-{n}")
    question = await api.queue.ask_capacity(EVENT)
    await api.queue.set_capacity(EVENT, question, None)
    for _ in range(10):
        await api.claim()

    async def estimate() -> int:
        answer = await api.stub.EnqueueBooking(asked("last"))
        return answer.estimated_wait_seconds

    assert 0 < await wait_until(lambda: _positive(estimate)) < 3600


async def _positive(estimate) -> int:
    return max(0, await estimate())


async def test_joins_are_counted_by_what_came_of_them(api: Api):
    await api.join("ann")
    await api.join("ann")
    await api.stub.EnqueueBookings(pb.EnqueueBookingsRequest(requests=[asked("bob"), asked("")]))
    await failure(api.stub.EnqueueBooking(asked("")))
    counts = {
        outcome: api.metrics.joins.labels(outcome)._value.get()
        for outcome in ("joined", "again", "refused")
    }
    assert counts == {"joined": 2, "again": 1, "refused": 2}
    errors = api.metrics.rpc_errors.labels("EnqueueBooking", "INVALID_ARGUMENT")
    assert errors._value.get() == 1
