from __future__ import annotations

import pytest

from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import BEGINNING
from tests.support.stage import EVENT, Stage


@pytest.mark.parametrize("which", [EVENT, ""])
async def test_it_says_why_since_when_and_who(stage: Stage, queue: BookingQueue, which: str):
    assert await queue.pause(which, "flooded", "operator:kim") == ""
    assert await queue.pause(which, "and burning", "operator:eve") == "flooded"
    said = await stage.client.hmget(
        keys.of_event(which)["gate"], "paused", "paused_by", "paused_at"
    )
    assert said == [b"and burning", b"operator:eve", b"%d" % BEGINNING]


async def test_all_are_paused_here_at_once(stage: Stage, queue: BookingQueue):
    await stage.capacity(5)
    await stage.join_one()
    await queue.pause("", "flooded", "operator:kim")
    assert queue.layout is not None
    assert (queue.layout.paused, queue.layout.paused_by) == ("flooded", "operator:kim")
    assert await stage.claim() == []


async def test_another_event_goes_on(stage: Stage, queue: BookingQueue):
    await stage.capacity(5)
    await stage.join_one()
    await queue.pause("another", "flooded", "operator:kim")
    assert len(await stage.claim()) == 1
