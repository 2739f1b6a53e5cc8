"""What every script does once the engine is another than before: a replica that took over, maybe."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import Held, Lease, Status
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import Clock
from tests.support.guards import scripts_without
from tests.support.stage import EVENT, LIMITS, Stage


async def replaced(stage: Stage) -> None:
    """From here on the books are those of another engine."""
    await stage.client.hset(stage.key("state"), "epoch", "the old master")


async def test_a_token_that_a_failover_lost_is_not_given_again(stage: Stage, queue: BookingQueue):
    """The new master knows neither of the lease nor of its number."""
    lost = await stage.processing()
    state = stage.key("state")
    await stage.client.hset(state, mapping={"token": lost.token - 1, "token_engine": "the old one"})
    await queue.hand_back(lost, asked=True)
    again = await stage.claim_one()
    assert again.item_id == lost.item_id
    assert lost.token + 2**31 < again.token < 10**14
    with pytest.raises(Fenced):
        await queue.settle_rejected(lost, "too late")
    await queue.hand_back(again, asked=True)
    assert (await stage.claim_one()).token == again.token + 1


async def failed_over(stage: Stage, state: Mapping[bytes, bytes]) -> Lease:
    """The next lease of an engine that took over from one of which it knows this much."""
    await stage.client.delete(stage.key("state"))
    await stage.client.hset(stage.key("state"), mapping={**state, b"born_in": b"the old one"})
    if b"token_engine" in state:
        await stage.client.hset(stage.key("state"), "token_engine", "the old one")
    await stage.capacity(9)
    return await stage.claim_one()


async def test_nor_are_the_very_first_where_it_lost_that_any_had_been_given(
    stage: Stage, queue: BookingQueue
):
    await stage.join_one()
    await stage.capacity(10)
    known = await stage.client.hgetall(stage.key("state"))
    lost = await stage.claim_one()
    await queue.hand_back(lost, asked=False)
    again = await failed_over(stage, known)
    assert again.item_id == lost.item_id
    assert again.token > lost.token
    with pytest.raises(Fenced):
        await queue.settle_rejected(lost, "too late")


@pytest.mark.parametrize("anything", [True, False])
async def test_nor_is_what_an_engine_gave_that_the_next_one_never_heard_of(
    stage: Stage, queue: BookingQueue, clock: Clock, anything: bool
):
    """Two failovers: each time the new master knows what the first one knew, and no more."""
    await stage.join_one()
    await stage.capacity(10)
    known = await stage.client.hgetall(stage.key("state"))
    given = [await stage.claim_one()]
    if anything:
        known = await stage.client.hgetall(stage.key("state"))
    for _ in range(3):
        await queue.hand_back(given[-1], asked=anything)
        await clock.advance(1_000)
        given.append(await failed_over(stage, known))
    tokens = [lease.token for lease in given]
    assert tokens == sorted(set(tokens))
    for old in given[:-1]:
        with pytest.raises(Fenced):
            await queue.extend(old)


async def test_nor_where_its_clock_is_behind(stage: Stage, queue: BookingQueue, clock: Clock):
    lost = await stage.processing()
    ahead = (clock.now // 1000 + 60) * 2**14
    await stage.client.hset(
        stage.key("state"), mapping={"token": ahead, "token_engine": "the old one"}
    )
    await queue.hand_back(lost, asked=True)
    assert (await stage.claim_one()).token > ahead + 2**14


async def test_without_the_gap_between_tokens_an_old_lease_is_taken_for_the_new_one(
    stage: Stage, queue: BookingQueue
):
    lost = await stage.processing()
    state = stage.key("state")
    await stage.client.hset(state, mapping={"token": lost.token - 1, "token_engine": "the old one"})
    await queue.hand_back(lost, asked=True)
    careless = Stage(stage.client, LIMITS, scripts_without("the gap between tokens"))
    await careless.claim_one()
    assert await queue.settle_rejected(lost, "too late") is Status.REJECTED


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_question_that_the_old_engine_was_asked_is_put_again(
    stage: Stage, queue: BookingQueue, guarded: bool
):
    """It knew of 3 seats that had settled; here other 3 are on their way, which are no less for it."""
    lease = await stage.processing(seats=3)
    here = await queue.ask_capacity(EVENT)
    there = here._replace(settled_seats=3, moves=here.moves + 1, engine="the old master")
    if not guarded:
        queue = Stage(stage.client, LIMITS, scripts_without("the engine that was asked")).queue
    if await queue.set_capacity(EVENT, there, 7) is None:
        await queue.set_capacity(EVENT, here, 7)
    assert (await stage.status()).capacity == (4 if guarded else 7)
    await queue.settle_held(lease, Held("B", "", None))


async def test_an_answer_sets_nothing_where_the_engine_is_another_by_its_name_alone(
    stage: Stage, queue: BookingQueue
):
    await stage.capacity(3)
    question = await queue.ask_capacity(EVENT)
    assert await queue.set_capacity(EVENT, question._replace(engine="the old master"), 9) is None
    assert (await stage.status()).capacity == 3
    assert await queue.set_capacity(EVENT, question, 9) == 0


async def test_nobody_is_told_sold_out_for_some_seconds(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    """Replicas may know of bookings that it does not: they have the time to say so."""
    await stage.join_one()
    await stage.capacity(0)
    await replaced(stage)
    await stage.capacity(0)
    assert await queue.sell_out(EVENT) is None
    await clock.advance(4_999)
    assert await queue.sell_out(EVENT) is None
    await clock.advance(1)
    assert await queue.sell_out(EVENT) == 0


async def test_nor_where_the_old_engines_refresh_was_lost_too(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    await stage.client.hset(stage.key("state"), "born_in", "the old master")
    await stage.capacity(0)
    assert await queue.sell_out(EVENT) is None


async def test_nor_is_who_would_never_fit(stage: Stage, clock: Clock):
    item_id = await stage.join_one(seats=5)
    await stage.capacity(3)
    await replaced(stage)
    await stage.capacity(3)
    assert (await stage.claimed()).needs_refresh
    assert (await stage.item(item_id)).status is Status.WAITING
    await clock.advance(5_000)
    await stage.claim()
    assert (await stage.item(item_id)).status is Status.SOLD_OUT


async def test_a_refresh_under_the_same_engine_makes_nobody_wait(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    await stage.capacity(3)
    await stage.capacity(0)
    assert await queue.sell_out(EVENT) == 0
