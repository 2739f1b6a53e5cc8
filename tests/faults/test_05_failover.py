"""Fault 5: the master dies under load and a replica takes its place, with Sentinel.

What the master acknowledged and the replica did not have is lost, unless it was acknowledged only
when the replica had it (REDIS_WAIT_REPLICAS=1).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Joined, Status
from booking_worker.queue.acknowledge import Acknowledge
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clients import master_client
from tests.support.rush import Rush
from tests.support.servers import HOST, Sentinels, Server, free_port, sentinel, standalone
from tests.support.stage import EVENT, LIMITS, a_join
from tests.support.wait import wait_until

EVENTS = [f"concert-{number}" for number in range(3)]


@asynccontextmanager
async def killed_under_load(acknowledge: Acknowledge) -> AsyncIterator[tuple[Rush, Sentinels]]:
    """A rush whose master was killed, and which goes on with another."""
    async with sentinel() as made, master_client(made) as client:
        queue = BookingQueue(client, replace(LIMITS, max_size=100_000), acknowledge=acknowledge)
        rush = Rush(queue, EVENTS)
        async with rush.running(works=True):
            await rush.more(200)
            old = await made.master()
            await old.kill()
            await made.failed_over(old)
            # Alone it has nobody who could acknowledge with it.
            await old.start()
            await rush.more(200)
            await rush.more_claimed(20)
        assert rush.unavailable
        yield rush, made


async def test_no_acknowledged_join_is_lost_when_replicas_are_waited_for(
    record_property: Callable[[str, object], None],
):
    async with killed_under_load(Acknowledge(replicas=1)) as (rush, _):
        record_property("joined", rush.joined)
        assert await rush.lost() == []
        await rush.check_order()


async def test_otherwise_some_may_be_and_the_order_of_the_others_is_kept(
    record_property: Callable[[str, object], None],
):
    async with killed_under_load(Acknowledge()) as (rush, _):
        lost = await rush.lost()
        record_property("joined", rush.joined)
        record_property("lost", len(lost))
        print(f"of {rush.joined} acknowledged joins {len(lost)} are lost")
        await rush.check_order()


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Server, Server]]:
    """A master, and a replica of it that nobody promotes but the test."""
    async with standalone() as master, standalone() as replica:
        await follow(replica, master.port)
        await wait_until(lambda: has_replica(master))
        yield master, replica


async def follow(replica: Server, port: int) -> None:
    await replica.ask("REPLICAOF", HOST, port)


async def has_replica(master: Server) -> bool:
    """That has what was written last."""
    async with master.client() as client:
        await client.publish("nobody", "hears this")
        return bool(await client.wait(1, 500))


@asynccontextmanager
async def lagging(master: Server, replica: Server) -> AsyncIterator[None]:
    """The replica hears nothing."""
    await follow(replica, free_port())
    await wait_until(lambda: hears_nobody(master))
    yield
    await follow(replica, master.port)
    await wait_until(lambda: has_replica(master))


async def hears_nobody(master: Server) -> bool:
    info: bytes = await master.ask("INFO", "replication")
    return b"connected_slaves:0" in info


async def test_a_repeat_over_another_connection_is_acknowledged_no_sooner(
    pair: tuple[Server, Server],
):
    """WAIT waits for what its own connection wrote, and a repeat has nothing of its own to write."""
    master, replica = pair
    async with master.client() as one, master.client() as another:
        first, second = (
            BookingQueue(client, LIMITS, acknowledge=Acknowledge(replicas=1))
            for client in (one, another)
        )
        held = await at_last(lambda: joined(first, "held"))
        # The event is listed by both, which is a write of its own.
        await at_last(lambda: joined(second, "other"))
        await at_last(lambda: second.cancel(held.item_id, "held", "no", "user:held"))
        replica.pause()
        with pytest.raises(EngineUnavailable, match="0 replicas have it"):
            await first.join(EVENT, [a_join("ann")])
        repeats = (
            lambda: second.join(EVENT, [a_join("ann")]),
            lambda: second.cancel(held.item_id, "held", "no", "user:held"),
        )
        for repeat in repeats:
            with pytest.raises(EngineUnavailable, match="0 replicas have it"):
                await repeat()
        replica.resume()
        assert (await at_last(lambda: joined(second, "ann"))).already_queued


async def test_a_replica_that_lags_makes_it_unavailable_and_the_place_is_found_again(
    pair: tuple[Server, Server],
):
    master, replica = pair
    async with master.client() as client:
        queue = BookingQueue(client, LIMITS, acknowledge=Acknowledge(replicas=1))
        first = await at_last(lambda: joined(queue, "first"))
        async with lagging(master, replica):
            for user_id in ("ann", "bob"):
                with pytest.raises(EngineUnavailable, match="0 replicas"):
                    await joined(queue, user_id)
            with pytest.raises(EngineUnavailable, match="0 replicas"):
                await queue.cancel(first.item_id, "first", "", "user:first")
            # What nobody outside is told goes on.
            assert (await queue.status(EVENT)).joined == 3
        ann = await at_last(lambda: joined(queue, "ann"))
        bob = await at_last(lambda: joined(queue, "bob"))
        assert (ann.already_queued, ann.position) == (True, 1)
        assert (bob.already_queued, bob.position) == (True, 2)
        cancelled = await at_last(lambda: queue.cancel(first.item_id, "first", "", "user:first"))
        assert cancelled is Status.CANCELLED
    assert await after_promotion(replica, ann) == 1


async def test_without_waiting_for_it_they_are_acknowledged_and_lost(
    pair: tuple[Server, Server],
):
    master, replica = pair
    async with master.client() as client:
        queue = BookingQueue(client, LIMITS)
        acknowledging = BookingQueue(client, LIMITS, acknowledge=Acknowledge(replicas=1))
        first = await at_last(lambda: joined(acknowledging, "first"))
        async with lagging(master, replica):
            ann = await joined(queue, "ann")
            await master.kill()
            assert await after_promotion(replica, first) == 1
            assert await after_promotion(replica, ann) is None
            await master.start()
            await replica.ask("REPLICAOF", HOST, master.port)


async def joined(queue: BookingQueue, user_id: str) -> Joined:
    (outcome,) = await queue.join(EVENT, [a_join(user_id)])
    assert isinstance(outcome, Joined)
    return outcome


async def at_last(ask: Callable[[], Awaitable[Any]]) -> Any:
    """As a client that asks again: a replica that has just come may be slow for a moment."""

    async def answered() -> Any:
        try:
            return await ask()
        except EngineUnavailable:
            return None

    return await wait_until(answered)


async def after_promotion(replica: Server, one: Joined) -> int | None:
    """Where a place stands on what was the replica."""
    await replica.ask("REPLICAOF", "NO", "ONE")
    async with replica.client() as client:
        return await position(client, one)


async def position(client: Redis, one: Joined) -> int | None:
    (place,) = await BookingQueue(client, LIMITS).positions(EVENT, [one.item_id])
    return place.position if place else None
