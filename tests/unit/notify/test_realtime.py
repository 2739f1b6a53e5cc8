from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest
from structlog.testing import capture_logs

from booking_worker.domain.model import Change
from booking_worker.notify import realtime
from booking_worker.notify.realtime import RealtimeNotifier
from booking_worker.peers.breaker import Breaker
from booking_worker.peers.channel import open_channel
from booking_worker.peers.realtime import RealtimeClient
from booking_worker.proto import realtime_pb2
from tests.support.wait import wait_until
from tests.unit.peers.scripted import Refuse, ScriptedServer, scripted_server

AWAITING = Change(
    "1-0-0", "e", 1, "system", "i.e", "ann", "processing", "awaiting_payment", "", 1, 1, "b", "R", 9
)
COMPLETED = AWAITING._replace(after="completed", why="paid")
GRACE_SECONDS = 1.0
SLOW_SECONDS = 0.6  # far from a second, after which a call is given up
SOLD_OUT = AWAITING._replace(item_id="", user_id="", after="sold_out", why="no tickets are left")


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        server.script.answers = {
            "SendToUser": realtime_pb2.SendToUserResponse(delivered=True),
            "NotifyBookingResult": realtime_pb2.NotifyBookingResultResponse(delivered=True),
            "BroadcastEvent": realtime_pb2.BroadcastEventResponse(recipients=3),
        }
        yield server


class Lost:
    def __init__(self) -> None:
        self.number = 0

    def count(self, number: int) -> None:
        self.number += number


@pytest.fixture
def lost() -> Lost:
    return Lost()


@pytest.fixture
async def notifier(server: ScriptedServer, lost: Lost) -> AsyncIterator[RealtimeNotifier]:
    channel = open_channel(server.endpoint)
    breaker = Breaker("realtime", failure_threshold=2, open_seconds=0.05)
    notifier = RealtimeNotifier(RealtimeClient(channel, breaker, 1.0), lost.count, GRACE_SECONDS)
    await notifier.start()
    yield notifier
    await notifier.stop()
    await channel.close()


async def test_each_kind_of_message_goes_by_its_own_call(
    notifier: RealtimeNotifier, server: ScriptedServer
):
    notifier.tell([AWAITING, COMPLETED, SOLD_OUT])
    await wait_until(lambda: len(server.script.asked) == 3)
    assert server.script.requests("SendToUser")[0].user_id == "ann"
    assert server.script.requests("NotifyBookingResult")[0].success
    assert server.script.requests("BroadcastEvent")[0].room == "event:e"


async def test_a_service_that_comes_back_is_told_what_waited(
    notifier: RealtimeNotifier, server: ScriptedServer, lost: Lost
):
    failures = 0

    async def flaky(_request: object) -> object:
        nonlocal failures
        failures += 1
        if failures <= 2:
            return Refuse(grpc.StatusCode.UNAVAILABLE)
        return realtime_pb2.SendToUserResponse(delivered=True)

    server.script.answers["SendToUser"] = flaky
    notifier.tell([AWAITING])
    await wait_until(lambda: failures >= 3)
    assert lost.number == 0


async def test_a_message_is_given_up_after_three_tries_and_counted(
    notifier: RealtimeNotifier, server: ScriptedServer, lost: Lost
):
    server.script.answers["SendToUser"] = Refuse(grpc.StatusCode.UNAVAILABLE)
    notifier.tell([AWAITING])
    await wait_until(lambda: lost.number == 1)
    assert len(server.script.requests("SendToUser")) == 3


async def test_a_refused_message_is_not_tried_again(
    notifier: RealtimeNotifier, server: ScriptedServer, lost: Lost
):
    server.script.answers["SendToUser"] = Refuse(grpc.StatusCode.INVALID_ARGUMENT)
    notifier.tell([AWAITING])
    await wait_until(lambda: lost.number == 1)
    assert len(server.script.requests("SendToUser")) == 1


async def test_the_oldest_messages_are_given_up_when_too_many_wait(
    notifier: RealtimeNotifier,
    server: ScriptedServer,
    lost: Lost,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(realtime, "_MOST_WAITING", 5)
    notifier.tell([AWAITING._replace(user_id=f"u{number}") for number in range(8)])
    await wait_until(lambda: len(server.script.asked) == 5)
    assert lost.number == 3
    told = {request.user_id for request in server.script.requests("SendToUser")}
    assert told == {"u3", "u4", "u5", "u6", "u7"}


async def test_stop_sends_what_waits_and_stops_twice(
    notifier: RealtimeNotifier, server: ScriptedServer
):
    notifier.tell([AWAITING, COMPLETED])
    await notifier.stop()
    assert len(server.script.asked) == 2
    await notifier.stop()


async def test_stop_does_not_wait_for_a_breaker_that_is_open(
    notifier: RealtimeNotifier, server: ScriptedServer, lost: Lost
):
    server.script.answers["SendToUser"] = Refuse(grpc.StatusCode.UNAVAILABLE)
    notifier._client.breaker._first_open_seconds = notifier._client.breaker._open_seconds = 3600.0
    notifier.tell([AWAITING])
    await wait_until(lambda: len(server.script.asked) == 2)
    async with asyncio.timeout(5):
        await notifier.stop()
    assert lost.number == 1


def slow(server: ScriptedServer) -> None:
    async def answer(_request: object) -> object:
        await asyncio.sleep(SLOW_SECONDS)
        return realtime_pb2.SendToUserResponse(delivered=True)

    server.script.answers["SendToUser"] = answer


async def test_stop_waits_no_longer_than_its_grace_and_counts_what_is_left(
    notifier: RealtimeNotifier, server: ScriptedServer, lost: Lost
):
    slow(server)
    notifier.tell([AWAITING] * 700)
    began = time.monotonic()
    with capture_logs() as lines:
        await notifier.stop()
        await notifier.stop()
    assert GRACE_SECONDS <= time.monotonic() - began < GRACE_SECONDS + 1
    # One round of answers came in time; those of the second were under way.
    assert lost.number == 700 - 32
    told = [line for line in lines if line["event"] == "messages were given up at the stop"]
    assert [(line["log_level"], line["messages"]) for line in told] == [("warning", lost.number)]


async def test_what_is_slow_is_waited_for_within_the_grace(
    notifier: RealtimeNotifier, server: ScriptedServer, lost: Lost
):
    slow(server)
    notifier.tell([AWAITING] * 32)
    await notifier.stop()
    assert lost.number == 0


async def test_the_grace_runs_from_when_a_stop_is_expected_and_a_second_is_left(
    notifier: RealtimeNotifier, server: ScriptedServer, lost: Lost
):
    slow(server)
    notifier._grace_seconds = 0
    ends_at = notifier.expect_stop()
    await asyncio.sleep(0.1)  # in which other parts use it up
    assert notifier.expect_stop() == ends_at < asyncio.get_running_loop().time()
    notifier.tell([AWAITING] * 700)
    began = time.monotonic()
    await notifier.stop()
    assert time.monotonic() - began < 2
    assert lost.number == 700 - 32
    await notifier.start()
    assert notifier.expect_stop() > ends_at
