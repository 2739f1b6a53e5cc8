from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable

import grpc
import orjson
import pytest
from structlog.testing import capture_logs

from booking_worker.domain.model import Change
from booking_worker.notify import realtime
from booking_worker.notify.messages import message_of
from booking_worker.notify.realtime import RealtimeNotifier
from booking_worker.peers.breaker import Breaker
from booking_worker.peers.channel import open_channel
from booking_worker.peers.realtime import RealtimeClient
from booking_worker.proto import realtime_pb2
from tests.support.wait import wait_until
from tests.unit.peers.scripted import Refuse, ScriptedServer, scripted_server

AWAITING = Change(
    change_id="1-0-0",
    event_id="e",
    at_ms=1,
    actor="system",
    item_id="i.e",
    user_id="ann",
    before="processing",
    after="awaiting_payment",
    why="",
    seats=1,
    seq=1,
    booking_id="b",
    booking_reference="R",
    pay_by_ms=600_001,
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


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time_passed() -> Time:
    return Time()


def for_each_sender(messages: int) -> list[Change]:
    """So many changes for every sender, each of another user."""
    made: list[list[Change]] = [[] for _ in range(realtime._SENDERS)]
    for number in itertools.count():
        change = AWAITING._replace(user_id=f"u{number}")
        message = message_of(change)
        assert message is not None
        changes = made[realtime._sender_of(message)]
        if len(changes) < messages:
            changes.append(change)
        elif all(len(changes) == messages for changes in made):
            return [change for changes in made for change in changes]
    raise AssertionError


class Lost:
    def __init__(self) -> None:
        self.number = 0

    def count(self, number: int) -> None:
        self.number += number


@pytest.fixture
def lost() -> Lost:
    return Lost()


@pytest.fixture
async def notifier(
    server: ScriptedServer, lost: Lost, time_passed: Time
) -> AsyncIterator[RealtimeNotifier]:
    channel = open_channel(server.endpoint)
    breaker = Breaker("realtime", failure_threshold=2, open_seconds=0.05)
    client = RealtimeClient(channel, breaker, 1.0)
    notifier = RealtimeNotifier(client, lost.count, GRACE_SECONDS, clock=time_passed)
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


def refusing_twice(server: ScriptedServer, while_away: Callable[[], None]) -> None:
    """SendToUser is away for two tries."""
    tried = 0

    async def flaky(_request: object) -> object:
        nonlocal tried
        tried += 1
        if tried <= 2:
            while_away()
            return Refuse(grpc.StatusCode.UNAVAILABLE)
        return realtime_pb2.SendToUserResponse(delivered=True)

    server.script.answers["SendToUser"] = flaky


async def test_what_happened_later_to_the_same_user_is_told_later(
    notifier: RealtimeNotifier, server: ScriptedServer, lost: Lost
):
    refusing_twice(server, lambda: None)
    notifier.tell([AWAITING, COMPLETED])
    await wait_until(lambda: server.script.requests("NotifyBookingResult"))
    assert [name for name, _ in server.script.asked] == [
        *["SendToUser"] * 3,
        "NotifyBookingResult",
    ]
    assert lost.number == 0


async def test_what_waited_says_what_remains_when_it_is_sent(
    notifier: RealtimeNotifier, server: ScriptedServer, time_passed: Time
):
    def wait() -> None:
        time_passed.now += 150

    refusing_twice(server, wait)
    notifier.tell([AWAITING])
    await wait_until(lambda: len(server.script.asked) == 3)
    told = [orjson.loads(request.payload) for request in server.script.requests("SendToUser")]
    assert [payload["remaining_ms"] for payload in told] == [600_000, 450_000, 300_000]
    assert {payload["pay_by_unix_ms"] for payload in told} == {600_001}


async def test_nobody_is_asked_to_pay_when_the_time_is_over(
    notifier: RealtimeNotifier, server: ScriptedServer, lost: Lost, time_passed: Time
):
    def wait() -> None:
        time_passed.now += 600

    refusing_twice(server, wait)
    notifier.tell([AWAITING, COMPLETED])
    await wait_until(lambda: server.script.requests("NotifyBookingResult"))
    assert len(server.script.requests("SendToUser")) == 1
    assert lost.number == 1


async def test_an_error_that_nobody_thought_of_costs_one_message(
    notifier: RealtimeNotifier,
    server: ScriptedServer,
    lost: Lost,
    monkeypatch: pytest.MonkeyPatch,
):
    async def broken(*_: object) -> bool:
        message = "nobody thought of this"
        raise RuntimeError(message)

    monkeypatch.setattr(notifier._client, "send_to_user", broken)
    unlucky = for_each_sender(1)
    with capture_logs() as lines:
        notifier.tell(unlucky)
        await wait_until(lambda: lost.number == len(unlucky))
    assert {line["log_level"] for line in lines} == {"error"}
    notifier.tell([change._replace(after="completed") for change in unlucky])
    await wait_until(lambda: len(server.script.asked) == len(unlucky))
    assert lost.number == len(unlucky)


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
    notifier.tell(for_each_sender(22))
    began = time.monotonic()
    with capture_logs() as lines:
        await notifier.stop()
        await notifier.stop()
    assert GRACE_SECONDS <= time.monotonic() - began < GRACE_SECONDS + 1
    # One round of answers came in time; those of the second were under way.
    assert lost.number == 21 * 32
    told = [line for line in lines if line["event"] == "messages were given up at the stop"]
    assert [(line["log_level"], line["messages"]) for line in told] == [("warning", lost.number)]


async def test_what_is_slow_is_waited_for_within_the_grace(
    notifier: RealtimeNotifier, server: ScriptedServer, lost: Lost
):
    slow(server)
    notifier.tell(for_each_sender(1))
    await notifier.stop()
    assert lost.number == 0


async def test_the_grace_runs_from_when_a_stop_is_expected_and_a_second_is_left(
    notifier: RealtimeNotifier, server: ScriptedServer, lost: Lost
):
    slow(server)
    notifier._grace_seconds = 0
    ends_at = notifier.expect_stop()
    loop = asyncio.get_running_loop()
    await wait_until(lambda: loop.time() > ends_at)  # other parts have used it up
    assert notifier.expect_stop() == ends_at
    notifier.tell(for_each_sender(22))
    began = time.monotonic()
    await notifier.stop()
    assert time.monotonic() - began < 2
    assert lost.number == 21 * 32
    await notifier.start()
    assert notifier.expect_stop() > ends_at
