"""Fault 5, in a Cluster: an event's slot goes to another node in the middle of its sale.

Between the first and the last step of a move the engine refuses every script of the event, since
some of its keys are here and some there: callers wait, and hear UNAVAILABLE when it takes long.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import TryAgainError

from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.queue.routing import ClusterRunner
from tests.support.clients import cluster_client
from tests.support.queue_audit import problems_of
from tests.support.rush import Rush
from tests.support.servers import Cluster, cluster
from tests.support.slots import SlotMove
from tests.support.stage import LIMITS
from tests.support.wait import wait_until

EVENTS = [f"concert-{number}" for number in range(6)]


@pytest.fixture
async def made() -> AsyncIterator[Cluster]:
    async with cluster() as nodes:
        yield nodes


@pytest.fixture
async def client(made: Cluster) -> AsyncIterator[RedisCluster]:
    opened = cluster_client(made)
    yield opened
    await opened.aclose()


def a_queue(client: RedisCluster) -> BookingQueue:
    return BookingQueue(client, replace(LIMITS, max_size=100_000))


async def test_nothing_is_lost_or_done_twice(
    made: Cluster, client: RedisCluster, record_property: Callable[[str, object], None]
):
    rush = Rush(a_queue(client), EVENTS)
    async with rush.running(works=True):
        for event_id in EVENTS[:4]:
            await rush.more(50)
            await (await SlotMove.of(made, f"booking-queue:{{{event_id}}}")).whole()
        await rush.more(50)
        await rush.more_claimed(50)
    record_property("joined", rush.joined)
    record_property("unavailable", rush.unavailable)
    assert await rush.lost() == []
    await rush.check_order()
    rush.check_claims()
    for event_id in EVENTS:
        assert await problems_of(client, event_id) == []


async def test_a_long_move_is_told_and_over_with_its_last_step(made: Cluster, client: RedisCluster):
    queue = a_queue(client)
    moving, others = Rush(queue, EVENTS[:1]), Rush(queue, EVENTS[1:])
    async with moving.running(works=True), others.running(works=True):
        await moving.more(50)
        move = await SlotMove.of(made, f"booking-queue:{{{EVENTS[0]}}}")
        await move.begin()
        await wait_until(lambda: moving.unavailable)
        await others.more(500)
        await others.more_claimed(50)
        await move.carry()
        await move.end()
        await moving.more(50)
    assert others.unavailable == 0
    for rush in (moving, others):
        assert await rush.lost() == []
        await rush.check_order()
        rush.check_claims()


async def test_without_waiting_callers_hear_of_every_move(
    made: Cluster, client: RedisCluster, monkeypatch: pytest.MonkeyPatch
):
    """The control: what is refused for a moment is told at once."""

    def at_once(self: ClusterRunner, call: Any, error: TryAgainError) -> None:
        call.answer.set_exception(error)

    monkeypatch.setattr(ClusterRunner, "later", at_once)
    rush = Rush(a_queue(client), EVENTS)
    with pytest.raises(TryAgainError):
        await rush_and_move(made, rush)


async def rush_and_move(made: Cluster, rush: Rush) -> None:
    async with rush.running(works=True):
        await rush.more(50)
        move = await SlotMove.of(made, f"booking-queue:{{{EVENTS[0]}}}")
        await move.begin()
        await wait_until(lambda: rush.ended)
        await move.carry()
        await move.end()
