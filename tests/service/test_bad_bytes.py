"""Bytes that are no request, requests that are too large, methods that are not there."""

from __future__ import annotations

import random
from typing import Any

import grpc
import pytest

from booking_worker.proto import admin_pb2, booking_worker_pb2
from tests.support.api import Api, asked, failure, field_at_fault, on_one_engine

pytestmark = on_one_engine

METHODS = [
    f"/{service.full_name}/{method.name}"
    for service in (
        *booking_worker_pb2.DESCRIPTOR.services_by_name.values(),
        *admin_pb2.DESCRIPTOR.services_by_name.values(),
    )
    for method in service.methods
    if method.name != "WatchQueueItem"
]

BAD_INPUT = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
}


def raw(api: Api, method: str) -> Any:
    """A call of the method that takes and gives bytes as they are."""
    return api.channel.unary_unary(method)


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS)
async def test_bytes_that_are_no_message_are_the_callers_mistake(api: Api, method):
    error = await failure(raw(api, method)(b"\xff\xff\xff\xff"))
    assert field_at_fault(error) == "request"


async def test_text_that_is_not_utf8_is_refused(api: Api):
    request = asked("ann").SerializeToString().replace(b"ann", b"a\xffn")
    error = await failure(raw(api, METHODS[0])(request))
    assert field_at_fault(error) == "request"


async def test_unknown_fields_are_passed_over(api: Api):
    request = asked("ann").SerializeToString() + b"\xfa\x3e\x03abc"
    answer = await raw(api, METHODS[0])(request)
    assert booking_worker_pb2.EnqueueBookingResponse.FromString(answer).success


async def test_nothing_that_is_thrown_at_it_is_more_than_a_bad_request(api: Api):
    rand = random.Random(17)
    good = asked(
        "ann", seat_numbers=["A1", "A2"], total_amount=5, currency="EUR", metadata={"k": "v"}
    ).SerializeToString()
    seen = set()
    for _ in range(150):
        spoilt = bytearray(good)
        for _ in range(rand.randint(1, 6)):
            spoilt[rand.randrange(len(spoilt))] = rand.randrange(256)
        seen.add(await code_of(raw(api, rand.choice(METHODS))(bytes(spoilt))))
        noise = rand.randbytes(rand.randrange(40))
        seen.add(await code_of(raw(api, rand.choice(METHODS))(noise)))
    assert seen <= BAD_INPUT
    assert grpc.StatusCode.INVALID_ARGUMENT in seen
    for event_id in await api.queue.events():
        assert "{" not in event_id


async def test_a_request_that_is_too_large_is_refused_by_the_transport(api: Api):
    error = await failure(api.stub.EnqueueBooking(asked("x" * 9 * 1024 * 1024)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await api.stub.EnqueueBooking(asked("ann"))).success


async def test_the_largest_batch_there_is_fits(api: Api):
    largest = [
        asked(
            f"{n:0128}",
            "e" * 128,
            seat_numbers=[f"{seat:064}" for seat in range(4)],
            metadata={"k": "v" * 4095},
        )
        for n in range(1000)
    ]
    answers = await api.stub.EnqueueBookings(
        booking_worker_pb2.EnqueueBookingsRequest(requests=largest)
    )
    assert [answer.success for answer in answers.responses] == [True] * 100 + [False] * 900


async def test_a_method_that_is_not_there_is_unimplemented(api: Api):
    error = await failure(raw(api, "/booking_worker.v1.BookingWorkerService/Nonsense")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    error = await failure(raw(api, "/nonsense.Service/Nonsense")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
