from __future__ import annotations

import pytest

from booking_worker.queue.booking_queue import BookingQueue
from tests.support.stage import EVENT, Stage


@pytest.mark.parametrize("which", [EVENT, ""])
async def test_workers_are_woken_and_it_says_what_it_ends(
    stage: Stage, queue: BookingQueue, which: str
):
    async with stage.wakes() as woken_for:
        await queue.pause(which, "flooded", "operator:kim")
        assert await queue.resume(which) == "flooded"
        assert await woken_for() == [which]
        assert await queue.resume(which) == ""


async def test_who_is_paused_alone_stays_so_when_all_are_resumed(stage: Stage, queue: BookingQueue):
    await stage.capacity(5)
    await stage.join_one()
    await queue.pause(EVENT, "flooded", "operator:kim")
    await queue.pause("", "prices are wrong", "operator:kim")
    assert await queue.resume("") == "prices are wrong"
    assert (await stage.status()).paused_because == "flooded"
    assert await stage.claim() == []
    await queue.resume(EVENT)
    assert len(await stage.claim()) == 1


async def test_who_is_resumed_waits_while_all_are_paused(stage: Stage, queue: BookingQueue):
    await stage.capacity(5)
    await stage.join_one()
    await queue.pause("", "prices are wrong", "operator:kim")
    assert await queue.resume(EVENT) == ""
    assert await stage.claim() == []
