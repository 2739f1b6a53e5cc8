from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio
import pytest

from booking_worker.domain.errors import PeerBreakerOpen, PeerRefused, PeerUnavailable
from booking_worker.peers.breaker import Breaker
from booking_worker.peers.call import FINAL_REFUSALS, REFUSALS, Caller, CodedRefusal
from booking_worker.peers.channel import open_channel
from booking_worker.proto import booking_pb2, booking_pb2_grpc
from tests.support.wait import wait_until
from tests.unit.peers.scripted import Refuse, ScriptedServer, never

REQUEST = booking_pb2.GetBookingRequest(booking_id="b1")
TRANSIENT = [code for code in grpc.StatusCode if code not in REFUSALS | {grpc.StatusCode.OK}]


@pytest.fixture
def breaker() -> Breaker:
    return Breaker("booking", failure_threshold=2, rand=lambda: 0.0)


@pytest.fixture
def call(breaker: Breaker) -> Caller:
    return Caller("booking service", breaker, timeout_seconds=5)


@pytest.fixture
def get(channel: grpc.aio.Channel):
    return booking_pb2_grpc.BookingServiceStub(channel).GetBooking


async def test_an_answer_comes_through(server: ScriptedServer, call, get) -> None:
    server.script.answers["GetBooking"] = booking_pb2.BookingResponse(success=True)
    assert (await call(get, REQUEST)).success


@pytest.mark.parametrize("code", sorted(REFUSALS, key=lambda code: code.name))
async def test_a_refusal_is_a_healthy_answer(
    server: ScriptedServer, call, get, breaker: Breaker, code: grpc.StatusCode
) -> None:
    server.script.answers["GetBooking"] = Refuse(code, "seat A1 is taken")
    for _ in range(5):
        with pytest.raises(PeerRefused, match="seat A1 is taken") as raised:
            await call(get, REQUEST)
        assert raised.value.message == "seat A1 is taken"
        assert isinstance(raised.value, CodedRefusal)
        assert raised.value.code is code
    assert breaker.state == "closed"


def test_the_designs_refusals_are_refusals() -> None:
    names = {code.name for code in FINAL_REFUSALS}
    assert names == {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "ALREADY_EXISTS"}
    assert {code.name for code in REFUSALS} == names | {"NOT_FOUND", "OUT_OF_RANGE"}


def test_a_wrong_set_up_is_no_refusal() -> None:
    wrong = {"UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED"}
    assert not wrong & {code.name for code in REFUSALS}


@pytest.mark.parametrize("code", TRANSIENT)
async def test_what_may_pass_is_unavailable_and_counts(
    server: ScriptedServer, call, get, breaker: Breaker, code: grpc.StatusCode
) -> None:
    server.script.answers["GetBooking"] = Refuse(code, "try later")
    for _ in range(2):
        with pytest.raises(PeerUnavailable, match=f"{code.name}: try later"):
            await call(get, REQUEST)
    assert breaker.state == "open"


async def test_an_open_breaker_raises_without_a_call(
    server: ScriptedServer, call, get, breaker: Breaker
) -> None:
    server.script.answers["GetBooking"] = Refuse(grpc.StatusCode.UNAVAILABLE)
    for _ in range(2):
        with pytest.raises(PeerUnavailable):
            await call(get, REQUEST)
    with pytest.raises(PeerBreakerOpen, match=r"next trial in [12]"):
        await call(get, REQUEST)
    assert len(server.script.asked) == 2
    assert breaker.state == "open"


async def test_no_answer_in_time_is_unavailable(server: ScriptedServer, breaker, get) -> None:
    server.script.answers["GetBooking"] = never
    call = Caller("booking service", breaker, timeout_seconds=0.1)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(PeerUnavailable, match="DEADLINE_EXCEEDED"):
            await call(get, REQUEST)
    assert time.monotonic() - began < 2
    assert breaker.state == "open"


async def test_an_incomplete_answer_is_unavailable_and_counts(
    server: ScriptedServer, call, get, breaker: Breaker
) -> None:
    server.script.answers["GetBooking"] = booking_pb2.BookingResponse(success=True)
    for _ in range(2):
        with pytest.raises(PeerUnavailable, match="incomplete"):
            await call(get, REQUEST, lambda answer: bool(answer.booking.id))
    assert breaker.state == "open"


async def test_one_trial_goes_through_half_open_and_closes_it(server: ScriptedServer, get) -> None:
    now = 0.0
    breaker = Breaker("b", failure_threshold=1, clock=lambda: now, rand=lambda: 0.0)
    call = Caller("booking service", breaker, timeout_seconds=5)
    server.script.answers["GetBooking"] = Refuse(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(PeerUnavailable):
        await call(get, REQUEST)
    now = 2.0
    server.script.answers["GetBooking"] = booking_pb2.BookingResponse(success=True)
    answers = await asyncio.gather(*(call(get, REQUEST) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, PeerBreakerOpen) for answer in answers) == 4
    assert breaker.state == "closed"
    assert len(server.script.asked) == 2


async def test_a_cancelled_caller_is_cancelled_and_frees_the_trial(
    server: ScriptedServer, get
) -> None:
    now = 0.0
    breaker = Breaker("b", failure_threshold=1, clock=lambda: now, rand=lambda: 0.0)
    call = Caller("booking service", breaker, timeout_seconds=5)
    server.script.answers["GetBooking"] = Refuse(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(PeerUnavailable):
        await call(get, REQUEST)
    now = 2.0
    server.script.answers["GetBooking"] = never
    trial = asyncio.create_task(call(get, REQUEST))
    await wait_until(lambda: len(server.script.asked) == 2)
    assert not breaker.allows
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert breaker.allows


async def test_a_channel_closed_under_way_is_unavailable_not_a_cancellation(
    server: ScriptedServer, call
) -> None:
    server.script.answers["GetBooking"] = never
    channel = open_channel(server.endpoint)
    get = booking_pb2_grpc.BookingServiceStub(channel).GetBooking
    under_way = asyncio.create_task(call(get, REQUEST))
    await wait_until(lambda: server.script.asked)
    await channel.close()
    with pytest.raises(PeerUnavailable, match="closed"):
        await under_way
    with pytest.raises(PeerUnavailable, match="closed"):
        await call(get, REQUEST)


async def test_past_the_breaker_nothing_is_counted(
    server: ScriptedServer, call, channel: grpc.aio.Channel, breaker: Breaker
) -> None:
    health = booking_pb2_grpc.BookingServiceStub(channel).Health
    server.script.answers["Health"] = Refuse(grpc.StatusCode.UNIMPLEMENTED, "no such method")
    for _ in range(5):
        with pytest.raises(PeerUnavailable, match="UNIMPLEMENTED"):
            await call.unguarded(health, booking_pb2.HealthRequest())
    assert breaker.state == "closed"
