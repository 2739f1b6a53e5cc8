from __future__ import annotations

import pytest

from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import Stage

TEN_MINUTES = 600_000


@pytest.mark.parametrize("ttl, enough", [(3_600_000, 3_600_000), (1, TEN_MINUTES)])
async def test_who_was_listed_long_enough_ago(stage: Stage, clock: Clock, ttl: int, enough: int):
    """Ten minutes at least, however short results are kept: a join lists only now and then."""
    stage.limit(result_ttl_ms=ttl)
    await stage.queue._remember("a")
    await clock.advance(1_000)
    await stage.queue._remember("b")
    await clock.advance(enough - 1_001)
    assert await stage.queue._listed_before() == []
    await clock.advance(1)
    assert await stage.queue._listed_before() == [("a", BEGINNING // 1_000)]
    await clock.advance(1_000)
    assert [name for name, _ in await stage.queue._listed_before()] == ["a", "b"]


async def test_where_there_are_no_events(queue: BookingQueue):
    assert await queue._listed_before() == []
