from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from booking_worker.api.rpc import Calls, Service, metadata_value, not_yet_streamed, seconds_left
from booking_worker.domain.errors import EngineUnavailable, QueueFull
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.telemetry.metrics import Metrics

REQUEST = pb.HealthRequest(service="x").SerializeToString()


class Context:
    """What a servicer may ask of a call, and how it ended."""

    def __init__(self, metadata: Any = (), remaining: float | None = None) -> None:
        self._metadata = metadata
        self._remaining = remaining
        self.ended: tuple[Any, ...] = ()

    def invocation_metadata(self) -> Any:
        return self._metadata

    def time_remaining(self) -> float | None:
        return self._remaining

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing: Any = ()) -> None:
        self.ended = (code, details, trailing)
        raise grpc.aio.AbortError


def context(**given: Any) -> Any:
    return Context(**given)


def handler(answer: Any, metrics: Metrics | None = None) -> Any:
    return Calls(metrics or Metrics()).unary(pb.HealthRequest, answer).unary_unary


async def ended(serve: Any, payload: bytes = REQUEST) -> tuple[Any, ...]:
    call = context()
    with pytest.raises(grpc.aio.AbortError):
        await serve(payload, call)
    return call.ended


async def test_bytes_become_a_request_and_an_answer_becomes_bytes():
    async def answer(request: pb.HealthRequest, _context: Any) -> pb.HealthResponse:
        return pb.HealthResponse(message=request.service)

    given = await handler(answer)(REQUEST, context())
    assert pb.HealthResponse.FromString(given).message == "x"


async def test_bytes_that_are_no_request_are_invalid():
    async def answer(_request: Any, _context: Any) -> Any:
        raise AssertionError

    code, details, trailing = await ended(handler(answer), b"\xff")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == "request: is no HealthRequest"
    assert trailing


async def test_an_error_of_ours_is_told_by_the_table_and_counted():
    metrics = Metrics()

    async def full(_request: Any, _context: Any) -> Any:
        raise QueueFull("e", 1)

    async def away(_request: Any, _context: Any) -> Any:
        raise EngineUnavailable("away")

    code, details, trailing = await ended(handler(full, metrics))
    assert (code, len(trailing)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 1)
    assert "full" in details
    assert (await ended(handler(away, metrics)))[0] is grpc.StatusCode.UNAVAILABLE
    assert metrics.rpc_errors.labels("Health", "RESOURCE_EXHAUSTED")._value.get() == 1
    assert metrics.rpc_errors.labels("Health", "UNAVAILABLE")._value.get() == 1
    assert metrics.errors.labels("EngineUnavailable")._value.get() == 1
    assert metrics.errors.labels("QueueFull")._value.get() == 0


async def test_an_error_that_nobody_thought_of_is_internal_and_says_no_more():
    metrics = Metrics()

    async def broken(_request: Any, _context: Any) -> Any:
        raise KeyError("secret")

    assert await ended(handler(broken, metrics)) == (
        grpc.StatusCode.INTERNAL,
        "internal error",
        (),
    )
    assert metrics.errors.labels("internal")._value.get() == 1


async def test_closing_turns_new_calls_away_and_is_over_when_the_last_has_ended():
    gate = asyncio.Event()

    async def slow(_request: Any, _context: Any) -> pb.HealthResponse:
        await gate.wait()
        return pb.HealthResponse()

    calls = Calls(Metrics())
    serve: Any = calls.unary(pb.HealthRequest, slow).unary_unary
    under_way = asyncio.create_task(serve(REQUEST, context()))
    await asyncio.sleep(0)
    assert calls.close() == 1
    assert (await ended(serve))[:2] == (grpc.StatusCode.UNAVAILABLE, "shutting down")
    over = asyncio.create_task(calls.over())
    await asyncio.sleep(0)
    assert not over.done()
    gate.set()
    assert await under_way == b""
    await over


async def test_closing_what_is_idle_is_over_at_once():
    calls = Calls(Metrics())
    assert calls.close() == 0
    await calls.over()


async def test_a_servicer_may_end_the_call_itself():
    async def answer(_request: Any, call: Any) -> Any:
        await call.abort(grpc.StatusCode.NOT_FOUND, "nothing here")

    assert (await ended(handler(answer)))[:2] == (grpc.StatusCode.NOT_FOUND, "nothing here")


async def test_a_stream_that_is_not_there_yet_is_unimplemented():
    serve: Any = not_yet_streamed("later").unary_stream
    assert (await ended(serve))[:2] == (grpc.StatusCode.UNIMPLEMENTED, "later")


def test_a_service_has_a_handler_for_each_of_its_methods():
    descriptor = pb.DESCRIPTOR.services_by_name["BookingWorkerService"]
    with pytest.raises(ValueError, match="EnqueueBooking"):
        Service(descriptor, {}, Calls(Metrics()))
    with pytest.raises(ValueError, match="Odd"):
        Service(
            descriptor,
            {name: not_yet_streamed("") for name in ("Odd", *descriptor.methods_by_name)},
            Calls(Metrics()),
        )


@pytest.mark.parametrize(
    "metadata, value",
    [
        (None, None),
        ((), None),
        ((("other", "1"),), None),
        ((("other", "1"), ("key", "2"), ("key", "3")), "2"),
        ((("key", b"\xff"),), "\ufffd"),
    ],
)
def test_a_metadata_value_is_the_first_of_its_key(metadata, value):
    assert metadata_value(context(metadata=metadata), "key") == value


@pytest.mark.parametrize("remaining, left", [(None, None), (float(2**63 - 1), None), (1.5, 1.5)])
async def test_the_seconds_left_are_those_of_the_deadline(remaining, left):
    assert await seconds_left(context(remaining=remaining)) == left


async def test_a_call_that_is_too_late_ends():
    call = context(remaining=0.0)
    with pytest.raises(grpc.aio.AbortError):
        await seconds_left(call)
    assert call.ended[0] is grpc.StatusCode.DEADLINE_EXCEEDED
