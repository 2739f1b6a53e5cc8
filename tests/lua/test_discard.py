from __future__ import annotations

import pytest

from booking_worker.domain.errors import ItemNotFound, WrongStatus
from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.stage import EVENT, LIMITS, Stage


@pytest.mark.parametrize("task", list(Task))
async def test_a_dead_letter_stays_readable_for_a_while(
    stage: Stage, queue: BookingQueue, task: Task
):
    dead = await stage.dead_letter(task)
    told = await stage.changes()
    assert await queue.discard(dead, "operator:eve") is Status.FAILED
    assert await queue.list_items(EVENT, "dead", 0, 10) == []
    item = await stage.item(dead)
    assert (item.status, item.task, item.message) == (Status.FAILED, task, "it is down")
    status = await stage.status()
    assert (status.failed, status.dead_letters) == (1, 0)
    assert 0 < await stage.client.pttl(stage.key("results") + dead) <= LIMITS.result_ttl_ms
    assert await stage.changes() == told  # it was failed before


async def test_the_new_place_of_its_user_is_not_touched(stage: Stage, queue: BookingQueue):
    dead = await stage.dead_letter(user_id="ann")
    again = await stage.join_one("ann")
    await queue.discard(dead, "operator:eve")
    (place,) = await queue.positions(EVENT, [again])
    assert place is not None
    assert place.position == 1


async def test_it_can_be_put_back_no_more(stage: Stage, queue: BookingQueue):
    dead = await stage.dead_letter()
    await queue.discard(dead, "operator:eve")
    for again in (queue.discard, queue.requeue):
        with pytest.raises(WrongStatus, match="final"):
            await again(dead, "operator:eve")


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.FAILED])
async def test_only_dead_letters(stage: Stage, queue: BookingQueue, status: Status):
    item_id = await stage.in_status(status)
    with pytest.raises(WrongStatus):
        await queue.discard(item_id, "operator:eve")
    assert (await stage.item(item_id)).status is status


async def test_an_unknown_item(queue: BookingQueue):
    with pytest.raises(ItemNotFound):
        await queue.discard("AAAAAAAAAAAA.concert", "operator:eve")
