"""What callers hear while the engine is not there, and once it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest

from booking_worker.api.grpc_server import Transport
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.proto import booking_worker_pb2 as pb
from tests.support.api import EVENT, Api, asked, failure, running_api
from tests.support.engines import FIRST_ENGINE
from tests.support.wait import wait_until

WITHIN_SECONDS = 2.0
CALLS = 7
SLACK_SECONDS = 0.5  # of a test machine that is busy with other things


@pytest.fixture
async def own_engine(tmp_path: Path) -> AsyncIterator[EmbeddedEngine]:
    engine = FIRST_ENGINE[0](tmp_path)
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def api(own_engine: EmbeddedEngine, transport: Transport) -> AsyncIterator[Api]:
    async with own_engine.client() as client, running_api(client, transport) as running:
        yield running


def every_call(api: Api, item_id: str) -> list[Awaitable[Any]]:
    ours = {"queue_item_id": item_id, "user_id": "ann"}
    return [
        api.stub.EnqueueBooking(asked("bob")),
        api.stub.EnqueueBookings(pb.EnqueueBookingsRequest(requests=[asked("cid")])),
        api.stub.EnqueueBooking(asked("bob", "an-event-that-is-new")),
        api.stub.GetQueuePosition(pb.GetQueuePositionRequest(**ours)),
        api.stub.GetQueueStatus(pb.GetQueueStatusRequest(event_id=EVENT)),
        api.stub.CancelQueueItem(pb.CancelQueueItemRequest(**ours)),
        api.stub.ConfirmPayment(pb.ConfirmPaymentRequest(payment_reference="p", **ours)),
    ]


async def all_unavailable(calls: list[Awaitable[Any]]) -> None:
    assert len(calls) == CALLS
    start = time.monotonic()
    for error in await asyncio.gather(*(failure(call) for call in calls)):
        assert error.code() is grpc.StatusCode.UNAVAILABLE, error
    assert time.monotonic() - start < WITHIN_SECONDS + SLACK_SECONDS


async def back(api: Api, item_id: str) -> bool:
    try:
        place = await api.position(item_id)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return place.position == 1


async def test_an_engine_that_hangs_is_unavailable_within_two_seconds(
    api: Api, own_engine: EmbeddedEngine
):
    item_id = await api.join()
    assert own_engine.pid is not None
    os.kill(own_engine.pid, signal.SIGSTOP)
    try:
        first = asyncio.ensure_future(all_unavailable(every_call(api, item_id)))
        # Who comes while others wait already must not wait for two calls one after another.
        await wait_until(lambda: api.operations._places._lines)
        await all_unavailable(every_call(api, item_id))
        await first
        health = await api.stub.Health(pb.HealthRequest())
        assert health.status == "unhealthy"
        assert health.details["engine"].startswith("unhealthy")
    finally:
        os.kill(own_engine.pid, signal.SIGCONT)
    await wait_until(lambda: back(api, item_id))
    assert api.metrics.errors.labels("EngineUnavailable")._value.get() == 2 * CALLS


async def test_an_engine_that_was_killed_is_unavailable_until_it_is_back(
    api: Api, own_engine: EmbeddedEngine
):
    item_id = await api.join()
    assert own_engine.pid is not None
    os.kill(own_engine.pid, signal.SIGSTOP)
    os.kill(own_engine.pid, signal.SIGKILL)
    error = await failure(api.stub.EnqueueBooking(asked("bob")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    await wait_until(lambda: back(api, item_id))
    assert (await api.stub.EnqueueBooking(asked("bob"))).success
