from __future__ import annotations

import pytest

from booking_worker.queue.booking_queue import BookingQueue, TakenOver
from tests.support.clock import Clock
from tests.support.stage import EVENT, Stage


async def test_the_first_begins_at_the_beginning(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    assert await queue.take_over(EVENT) == TakenOver(1, "")


async def test_each_gets_a_greater_token_and_goes_on_where_the_last_one_was(
    stage: Stage, queue: BookingQueue
):
    first = await queue.take_over(EVENT)
    await queue.save_cursor(EVENT, first.token, "5-1", "0-0")
    assert await queue.take_over(EVENT) == TakenOver(first.token + 1, "5-1")
    assert (await queue.take_over("theatre")).cursor == ""


@pytest.mark.parametrize("joined", [True, False])
async def test_a_token_that_a_failover_lost_is_not_given_again(
    stage: Stage, queue: BookingQueue, clock: Clock, joined: bool
):
    """Even the first one: of all that happened the new master may know no more than a join."""
    state = stage.key("state")
    if joined:
        await stage.join_one()
        await stage.client.hset(state, "born_in", "the old one")
    tokens = []
    for _ in range(3):
        tokens.append((await queue.take_over(EVENT)).token)
        await stage.client.hdel(state, "fence", "fence_engine")
        await clock.advance(1_000)
    assert tokens == sorted(set(tokens))
    assert not await queue.save_cursor(EVENT, tokens[-1], "5-1", "0-0")
    last = await queue.take_over(EVENT)
    for token in tokens:
        assert not await queue.save_cursor(EVENT, token, "5-1", "0-0")
    assert await queue.save_cursor(EVENT, last.token, "5-1", "0-0")


async def test_nor_is_one_after_those_that_the_new_master_knows(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    lost = [await queue.take_over(EVENT) for _ in range(3)]
    await stage.client.hset(stage.key("state"), mapping={"fence": 1, "fence_engine": "the old one"})
    assert (await queue.take_over(EVENT)).token > lost[-1].token
