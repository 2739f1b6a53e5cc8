"""Fault 7: the engine forgets all scripts in mid-load, also in the midst of a pipeline."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from booking_worker.domain.model import Joined
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.queue import keys, lane, scripts
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clients import cluster_client
from tests.support.guards import switch_off
from tests.support.queue_audit import problems_of
from tests.support.rush import Rush
from tests.support.servers import cluster
from tests.support.shop import EVENT, Shop
from tests.support.stage import LIMITS, a_join


@asynccontextmanager
async def forgetting(client: Redis) -> AsyncIterator[None]:
    """An engine that forgets its scripts a few hundred times a second."""

    over = asyncio.Event()

    async def forget() -> None:
        while not over.is_set():
            await client.script_flush("SYNC")
            await asyncio.sleep(0.003)

    forgetter = asyncio.ensure_future(forget())
    try:
        yield
    finally:
        # Not cancelled: on Python 3.11 redis-py may miss that.
        over.set()
        await forgetter


async def come_and_go(shop: Shop, number: int) -> None:
    """Join, look, join again, and for some: leave."""
    user_id = f"user-{number}"
    item_id = await shop.join(user_id)
    request = pb.GetQueuePositionRequest(queue_item_id=item_id, user_id=user_id)
    assert (await shop.via(None).GetQueuePosition(request)).status
    assert await shop.join(user_id) == item_id
    if number % 4 == 0:
        await shop.cancel(item_id)


async def test_nobody_sees_it_and_nothing_happens_twice(shop: Shop):
    await shop.open()
    async with forgetting(shop.client):
        await asyncio.gather(*(come_and_go(shop, number) for number in range(200)))
        await shop.sell()
    assert shop.ledger().sold == 100
    await shop.kept()


async def test_callers_see_it_without_the_reload(shop: Shop):
    for name in scripts.names():
        await shop.client.script_load(scripts.load(name).text)
    for name in ("hold", "release"):
        await shop.client.script_load(scripts.load(f"locks/{name}").text)
    await shop.open("the reload of scripts")
    await shop.join("first")
    async with forgetting(shop.client):
        outcomes = await asyncio.gather(
            *(come_and_go(shop, number) for number in range(50)), return_exceptions=True
        )
    assert any(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes)


def _forgetful(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has the engine forget its scripts after every second command of a trip."""
    lengths: list[int] = []
    to_come: dict[Any, deque[bool]] = defaultdict(deque)
    write, answer = lane._write, lane._answer

    def written(connection: Any, commands: Any) -> None:
        lengths.append(len(commands))
        sent = []
        for number, command in enumerate(commands):
            sent += [command, ("SCRIPT", "FLUSH")] if number % 2 else [command]
            to_come[connection] += [True, False] if number % 2 else [True]
        write(connection, sent)

    async def answered(connection: Any) -> Any:
        kept = to_come[connection]
        told = await answer(connection)
        kept.popleft()
        while kept and not kept[0]:
            await answer(connection)
            kept.popleft()
        return told

    monkeypatch.setattr(lane, "_write", written)
    monkeypatch.setattr(lane, "_answer", answered)
    return lengths


async def join_all_at_once(queue: BookingQueue, users: int) -> list[Any]:
    """Each in a call of its own, so in as many commands of few pipelines."""
    return await asyncio.gather(
        *(queue.join(EVENT, [a_join(f"user-{number % users}")]) for number in range(3 * users)),
        return_exceptions=True,
    )


async def test_in_the_midst_of_a_pipeline_each_call_still_runs_once(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
):
    trips = _forgetful(monkeypatch)
    queue = BookingQueue(redis_client, LIMITS)
    outcomes = await join_all_at_once(queue, 60)
    assert max(trips) > 2
    joined = [outcome for (outcome,) in outcomes]
    assert all(isinstance(one, Joined) for one in joined)
    assert len({one.item_id for one in joined}) == 60
    assert sum(not one.already_queued for one in joined) == 60
    assert (await queue.status(EVENT)).joined == 60


async def test_in_the_midst_of_a_pipeline_calls_fail_without_the_reload(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
):
    queue = BookingQueue(redis_client, LIMITS)
    await join_all_at_once(queue, 2)
    _forgetful(monkeypatch)

    switch_off(("the reload of scripts",), monkeypatch.setattr)
    outcomes = await join_all_at_once(queue, 60)
    assert any(isinstance(outcome, ResponseError) for outcome in outcomes)


async def test_on_one_node_of_a_cluster_nobody_sees_it():
    events = [f"concert-{number}" for number in range(6)]
    async with cluster() as nodes, cluster_client(nodes) as client:
        rush = Rush(BookingQueue(client, replace(LIMITS, max_size=100_000)), events)
        node = await nodes.owner(keys.of_event(events[0])["queue"])
        async with node.client() as on_node, rush.running(works=True), forgetting(on_node):
            await rush.more(500)
            await rush.more_claimed(50)
        assert rush.unavailable == 0
        assert await rush.lost() == []
        await rush.check_order()
        rush.check_claims()
        for event_id in events:
            assert await problems_of(client, event_id) == []
