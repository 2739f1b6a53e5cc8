from __future__ import annotations

import asyncio
import random
import time

import grpc
import pytest

from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.sandbox.queue_client import QueueClient, Refused
from tests.support.wait import wait_until
from tests.unit.sandbox.small_line import Item, SmallLine, serve

JOIN = pb.EnqueueBookingRequest(user_id="ann", event_id="show")
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def test_what_may_pass_is_asked_again_unchanged() -> None:
    line = SmallLine(failing={"EnqueueBooking": [UNAVAILABLE, grpc.StatusCode.ABORTED]})
    async with serve(line) as endpoint:
        client = QueueClient(endpoint, random.Random(1))
        answer = await client.join(JOIN, 0, "key-1")
        await client.close()
    assert answer.queue_item_id == "item-0"
    assert line.keys == ["key-1"] * 3
    assert client.calls == 3
    assert client.failures == {"UNAVAILABLE": 1, "ABORTED": 1}


async def test_no_answer_in_time_is_asked_again() -> None:
    line = SmallLine()
    first = asyncio.Event()
    position = line._begin

    async def hang_once(method: str, context: grpc.aio.ServicerContext):
        if not first.is_set():
            first.set()
            await asyncio.Event().wait()
        return await position(method, context)

    line._begin = hang_once  # type: ignore[method-assign]
    async with serve(line) as endpoint:
        client = QueueClient(endpoint, random.Random(1), timeout_seconds=0.1)
        await client.join(JOIN, 0)
        await client.close()
    assert client.failures == {"DEADLINE_EXCEEDED": 1}


async def test_a_no_is_raised_at_once() -> None:
    line = SmallLine(failing={"EnqueueBooking": [grpc.StatusCode.RESOURCE_EXHAUSTED]})
    async with serve(line) as endpoint:
        client = QueueClient(endpoint, random.Random(1))
        with pytest.raises(Refused, match="RESOURCE_EXHAUSTED: told to fail") as raised:
            await client.join(JOIN, 0)
        assert raised.value.code == "RESOURCE_EXHAUSTED"
        with pytest.raises(Refused, match="NOT_FOUND"):
            await client.cancel("nothing", "ann", 0)
        with pytest.raises(Refused, match="NOT_FOUND"):
            await client.pay("nothing", "ann", "pay", 0)
        with pytest.raises(Refused, match="NOT_FOUND"):
            await client.position(pb.GetQueuePositionRequest(queue_item_id="nothing"), 0)
        await client.close()
    assert client.failures == {}


async def test_a_service_that_is_gone_for_a_while_is_waited_for() -> None:
    line = SmallLine()
    async with serve(line) as endpoint:
        client = QueueClient(endpoint, random.Random(1))
        await client.join(JOIN, 0)
    asked = asyncio.create_task(client.join(JOIN, 0))
    await wait_until(lambda: client.failures["UNAVAILABLE"] >= 2)
    async with serve(line, int(endpoint.rpartition(":")[2])):
        assert (await asked).already_queued
        await client.close()


async def test_who_only_waits_asks_again_no_sooner_than_told() -> None:
    line = SmallLine(items={"i": Item("i", "ann")})
    line.failing["GetQueuePosition"] = [UNAVAILABLE]
    async with serve(line) as endpoint:
        client = QueueClient(endpoint, random.Random(1))
        began = time.monotonic()
        await client.position(pb.GetQueuePositionRequest(queue_item_id="i", user_id="ann"), 0, 0.5)
        assert time.monotonic() - began >= 0.5
        await client.close()


async def test_connections_are_apart() -> None:
    line = SmallLine()
    peers: set[str] = set()
    begin = line._begin

    async def note_peer(method: str, context: grpc.aio.ServicerContext):
        peers.add(context.peer())
        return await begin(method, context)

    line._begin = note_peer  # type: ignore[method-assign]
    async with serve(line) as endpoint:
        client = QueueClient(endpoint, random.Random(1), connections=3)
        for connection in range(6):
            await client.join(JOIN, connection)
        await client.close()
    assert len(peers) == 3
