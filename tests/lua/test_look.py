from __future__ import annotations

import pytest

from booking_worker.domain.model import Task
from booking_worker.queue.booking_queue import BookingQueue, Look
from tests.support.stage import EVENT, Stage


async def told(stage: Stage) -> None:
    """As if people had been told of all that happened."""
    token, _ = await stage.queue.take_over(EVENT)
    ((last, _),) = await stage.client.xrevrange(stage.key("changes"), count=1)
    assert await stage.queue.save_cursor(EVENT, token, last.decode(), "0-0")


async def test_an_event_that_nobody_joined(queue: BookingQueue):
    assert await queue.look(EVENT) == Look(alive=False, untold=False)


async def test_somebody_waits_and_nobody_was_told(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    assert await queue.look(EVENT) == Look(alive=True, untold=True)
    await told(stage)
    assert await queue.look(EVENT) == Look(alive=True, untold=False)


@pytest.mark.parametrize("task", list(Task))
async def test_a_task_is_alive_whether_it_is_leased_or_ready(
    stage: Stage, queue: BookingQueue, task: Task
):
    lease = await stage.lease_of(task)
    assert (await queue.look(EVENT)).alive
    await queue.hand_back(lease, asked=True)
    assert await stage.client.zcard(stage.key("tasks")) == 1
    assert await stage.client.zcard(stage.key("timeouts")) == 0
    assert (await queue.look(EVENT)).alive


async def test_an_event_that_is_over(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one()
    await told(stage)
    await queue.cancel(item_id, "ann", "no", "user:ann")
    assert await queue.look(EVENT) == Look(alive=False, untold=True)
    await told(stage)
    assert await queue.look(EVENT) == Look(alive=False, untold=False)


async def test_a_dead_letter_waits_for_an_operator_and_not_for_housekeeping(
    stage: Stage, queue: BookingQueue
):
    await stage.dead_letter()
    await told(stage)
    assert await queue.look(EVENT) == Look(alive=False, untold=False)
