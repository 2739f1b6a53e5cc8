from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from booking_worker.queue import keys, lane, lock
from booking_worker.queue.lock import TTL_SECONDS, Redlock
from tests.support.engines import FIRST_ENGINE
from tests.support.servers import Server, standalone
from tests.support.stage import EVENT
from tests.support.wait import wait_until

LOCK = keys.of_event(EVENT)["lock"]


class Time:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def replicas(number: int, *nodes: Redis, clock: Time) -> list[Redlock]:
    return [Redlock(nodes, clock=clock) for _ in range(number)]


async def has(one: Redlock, event_id: str = EVENT) -> bool:
    (vote,) = await one.hold([event_id])
    return vote.until is not None


async def test_one_has_it_and_keeps_it(redis_client: Redis, time: Time):
    one, other = replicas(2, redis_client, clock=time)
    (vote,) = await one.hold([EVENT])
    assert vote.until == pytest.approx(time.now + TTL_SECONDS, abs=0.05)
    assert vote.until < time.now + TTL_SECONDS
    (refused,) = await other.hold([EVENT])
    assert refused.until is None
    assert not refused.is_split
    assert refused.lapses_in == pytest.approx(TTL_SECONDS, abs=1)
    await redis_client.pexpire(LOCK, 500)
    assert await has(one)
    assert await redis_client.pttl(LOCK) > 1_000


async def test_each_event_has_a_lock_of_its_own(redis_client: Redis, time: Time):
    one, other = replicas(2, redis_client, clock=time)
    assert await has(one, "concert")
    votes = await other.hold(["concert", "theatre"])
    assert [vote.until is not None for vote in votes] == [False, True]
    assert await one.hold([]) == []


async def test_what_is_let_go_of_can_be_had_at_once(redis_client: Redis, time: Time):
    one, other = replicas(2, redis_client, clock=time)
    assert await has(one)
    await other.release([EVENT])
    assert not await has(other)
    await one.release([EVENT])
    assert await has(other)


async def test_it_lapses_when_nobody_keeps_it(redis_client: Redis, time: Time):
    one, other = replicas(2, redis_client, clock=time)
    await one.hold([EVENT], 0.1)
    await wait_until(lambda: has(other), timeout=2)


async def test_a_node_whose_clock_was_set_back_does_not_keep_it_from_all(
    redis_client: Redis, time: Time
):
    """What was to lapse in 3 s would now lapse in 10 minutes."""
    one, other = replicas(2, redis_client, clock=time)
    assert await has(one)
    await redis_client.pexpire(LOCK, 600_000)
    (refused,) = await other.hold([EVENT])
    assert refused.lapses_in == pytest.approx(TTL_SECONDS)
    assert await redis_client.pttl(LOCK) <= TTL_SECONDS * 1000


async def test_a_grant_that_took_longer_than_it_is_worth_is_none(redis_client: Redis):
    """As of a process that was stopped while it asked."""
    moments = iter([1_000.0, 1_000.0 + TTL_SECONDS])
    one = Redlock([redis_client], clock=lambda: next(moments))
    assert not await has(one)


# --- three nodes ---------------------------------------------------------------------------------


@pytest.fixture
async def nodes() -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(standalone()) for _ in range(3)]


@pytest.fixture
async def three(nodes: list[Server]) -> AsyncIterator[list[Redis]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(node.client()) for node in nodes]
        # What is still on its way to a node that hung would connect when its client is closed.
        mine = asyncio.current_task()
        await wait_until(lambda: asyncio.all_tasks() == {mine})


async def test_a_majority_is_enough_and_less_is_not(
    nodes: list[Server], three: list[Redis], time: Time
):
    one, other = replicas(2, *three, clock=time)
    assert await has(one)
    await nodes[0].kill()
    assert await has(one)
    assert not await has(other)
    await nodes[1].kill()
    (vote,) = await one.hold([EVENT])
    assert vote == (None, None, True)
    assert await one.silent() == [0, 1]
    for node in nodes[:2]:
        await node.start()
    await wait_until(lambda: has(one), timeout=5)
    assert await one.silent() == []


async def test_a_node_that_hangs_holds_nobody_up_for_long(
    nodes: list[Server], three: list[Redis], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock, "_NODE_PATIENCE_SECONDS", 0.1)
    (one,) = (Redlock(three),)
    nodes[2].pause()
    (vote,) = await one.hold([EVENT])
    assert vote.until is not None
    assert await one.silent() == [2]
    nodes[2].resume()


async def test_one_node_that_comes_back_empty_gives_it_to_nobody_else(
    nodes: list[Server], three: list[Redis], time: Time
):
    one, other = replicas(2, *three, clock=time)
    assert await has(one)
    await three[0].flushall()
    (vote,) = await other.hold([EVENT])
    assert (vote.until, vote.is_split) == (None, True)
    assert vote.lapses_in is not None
    await other.release([EVENT])
    assert await has(one)
    assert await three[0].exists(LOCK)


async def test_votes_that_are_split_are_told_from_a_refusal(three: list[Redis], time: Time):
    """Each of three has one node: none has it, and all must let go."""
    rivals = replicas(3, *three, clock=time)
    for rival, node in zip(rivals, three, strict=True):
        await node.set(LOCK, rival._owner, px=3_000)
    votes = [(await rival.hold([EVENT]))[0] for rival in rivals]
    assert [(vote.until, vote.is_split) for vote in votes] == [(None, True)] * 3
    for rival in rivals:
        await rival.release([EVENT])
    assert await has(rivals[1])


@pytest.mark.parametrize("engine", FIRST_ENGINE, indirect=True)
async def test_a_node_that_refuses_is_told_of_once(
    redis_client: Redis, capsys: pytest.CaptureFixture[str]
):
    one = Redlock([redis_client])
    await redis_client.hset(LOCK, "a", "hash")  # the script fails on it
    assert not await has(one)
    assert not await has(one)
    await redis_client.delete(LOCK)
    assert await has(one)
    told = capsys.readouterr().out
    assert told.count("a lock node grants nothing") == 1
    assert told.count("a lock node is back") == 1


async def test_what_is_no_nodes_trouble_is_raised(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
):
    one = Redlock([redis_client])

    async def broken(*_: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(lane, "_answer", broken)
    with pytest.raises(ValueError, match="a defect"):
        await has(one)
