from __future__ import annotations

import pytest

from booking_worker.domain.model import Held, Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.stage import EVENT, Stage


async def test_everybody_who_waits_is_told_with_one_word_for_the_event(
    stage: Stage, queue: BookingQueue
):
    ids = await stage.join_many(3)
    await stage.capacity(0)
    assert await queue.sell_out(EVENT) == 0
    for item_id in ids:
        item = await stage.item(item_id)
        assert (item.status, item.message) == (Status.SOLD_OUT, "no tickets are left")
    told = [change for change in await stage.changes() if change.after == "sold_out"]
    assert [change.item_id for change in told] == ["", *ids]
    status = await stage.status()
    assert (status.sold_out, status.sold_out_items, status.waiting) == (True, 3, 0)
    assert await stage.client.llen(stage.key("queue")) == 0


async def test_in_chunks_the_event_is_told_once(stage: Stage, queue: BookingQueue):
    ids = await stage.join_many(5)
    await stage.capacity(0)
    assert await queue.sell_out(EVENT, limit=2) == 3
    later = [await queue.sell_out(EVENT, limit=2, goes_on=True) for _ in range(3)]
    assert later == [1, 0, None]
    told = [change for change in await stage.changes() if change.after == "sold_out"]
    assert [change.item_id for change in told] == ["", *ids]


async def test_who_comes_afterwards_is_told_as_well(stage: Stage, queue: BookingQueue):
    await stage.sold_out("ann")
    late = await stage.join_one("ben")
    assert await queue.sell_out(EVENT) == 0
    assert (await stage.item(late)).status is Status.SOLD_OUT
    told = [change for change in await stage.changes() if change.after == "sold_out"]
    assert [change.user_id for change in told] == ["", "ann", "", "ben"]


async def test_tickets_that_come_back_open_the_sale_again(stage: Stage, queue: BookingQueue):
    await stage.sold_out("ann")
    item_id = await stage.join_one("ben")
    await stage.capacity(1)
    assert not (await stage.status()).sold_out
    assert await queue.sell_out(EVENT) is None
    lease = await stage.claim_one()
    assert lease.item_id == item_id
    await queue.settle_rejected(lease, "taken")
    await stage.sold_out("cem")
    told = [change for change in await stage.changes() if change.after == "sold_out"]
    assert [change.user_id for change in told] == ["", "ann", "", "cem"]


async def test_while_a_hold_could_come_back_the_line_is_kept(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    await stage.join_one("ben")
    await stage.capacity(0)
    assert await queue.sell_out(EVENT) is None
    await queue.settle_held(lease, Held("B", "", None))
    await stage.capacity(0)
    assert await queue.sell_out(EVENT) is None
    await queue.ask_confirm(lease.item_id, "ann", "PAY")
    await queue.settle_confirmed(await stage.claim_one(Task.CONFIRM), "REF")
    assert await queue.sell_out(EVENT) == 0


@pytest.mark.parametrize("available", [1, None])
async def test_while_there_is_something_left(
    stage: Stage, queue: BookingQueue, available: int | None
):
    await stage.join_one()
    await stage.capacity(available)
    assert await queue.sell_out(EVENT) is None


async def test_before_anybody_has_asked(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    assert await queue.sell_out(EVENT) is None


async def test_by_an_answer_that_is_not_exact(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    await stage.join_one("ben")
    question = await queue.ask_capacity(EVENT)
    await queue.settle_rejected(lease, "no")
    await queue.set_capacity(EVENT, question, 0)
    assert await queue.sell_out(EVENT) is None


async def test_by_an_answer_to_the_engine_before_this_one(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    await stage.capacity(0)
    await stage.client.hset(stage.key("state"), "epoch", "the engine before the restart")
    assert await queue.sell_out(EVENT) is None


async def test_while_an_operator_has_it_paused(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    await stage.capacity(0)
    await queue.pause(EVENT, "the Ticket Service is wrong", "operator:kim")
    assert await queue.sell_out(EVENT) is None
    await queue.resume(EVENT)
    assert await queue.sell_out(EVENT) == 0


async def test_when_nobody_waits(stage: Stage, queue: BookingQueue):
    await stage.capacity(0)
    assert await queue.sell_out(EVENT) is None
    assert not (await stage.status()).sold_out


async def test_an_entry_without_an_item_is_dropped(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    await stage.client.zadd(stage.key("positions"), {"AAAAAAAAAAAA.concert": 0})
    await stage.capacity(0)
    assert await queue.sell_out(EVENT) == 0


async def test_when_nobody_was_told_the_event_is_not_told_either(stage: Stage, queue: BookingQueue):
    item_id = await stage.sold_out("ann")
    await stage.client.zadd(stage.key("positions"), {"AAAAAAAAAAAA.concert": 0})
    assert await queue.sell_out(EVENT) == 0
    told = [change for change in await stage.changes() if change.after == "sold_out"]
    assert [change.item_id for change in told] == ["", item_id]
