from __future__ import annotations

import pytest

from booking_worker.domain.model import Status
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import CLOCK_KEY, Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def told(stage: Stage) -> None:
    """All changes of the event have been read."""
    ((last, _),) = await stage.client.xrevrange(stage.key("changes"), count=1)
    await stage.client.hset(stage.key("state"), "cursor", last)


async def time_passes(stage: Stage) -> None:
    """So long that no result is kept any more; the engine's own clock does not move by it."""
    await stage.clock.advance(LIMITS.result_ttl_ms)
    async for key in stage.client.scan_iter(f"{stage.key('results')}*"):
        await stage.client.delete(key)


async def test_an_event_is_over_when_its_last_change_is_as_old_as_its_results(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    for status in (Status.COMPLETED, Status.CANCELLED, Status.EXPIRED):
        await stage.in_status(status, status)
    await told(stage)
    await clock.advance(LIMITS.result_ttl_ms - 1)
    assert not await queue._wind_up(EVENT)
    await clock.advance(1)
    await time_passes(stage)
    assert await queue._wind_up(EVENT)
    assert await queue._wind_up(EVENT)
    await stage.client.flushall()  # its feed begins in the midst of its story


@pytest.mark.parametrize(
    "status", [status for status in Status if not status.is_final] + [Status.FAILED]
)
async def test_it_is_not_over_while_somebody_is_left(
    stage: Stage, queue: BookingQueue, status: Status
):
    await stage.in_status(status)
    await told(stage)
    await time_passes(stage)
    assert not await queue._wind_up(EVENT)


@pytest.mark.parametrize("read", [0, 1])
async def test_it_is_not_over_before_all_of_it_is_told(
    stage: Stage, queue: BookingQueue, read: int
):
    item_id = await stage.join_one()
    if read:
        await told(stage)
    await queue.cancel(item_id, "ann", "no", "user:ann")
    await stage.clock.advance(LIMITS.result_ttl_ms)
    assert not await queue._wind_up(EVENT)


async def test_an_event_that_nobody_ever_joined_is_over(queue: BookingQueue):
    assert await queue._wind_up(EVENT)


async def test_little_is_left_and_numbers_go_on_growing(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    for item_id in await stage.join_many(50):
        await queue.cancel(item_id, "", "no", "operator:eve")
    last = (await stage.last_change()).change_id
    lease = await stage.processing()
    await queue.settle_rejected(lease, "taken")
    await told(stage)
    await time_passes(stage)
    before = await stage.status()
    assert await queue._wind_up(EVENT)
    assert await stage.status() == before
    kept = {name async for name in stage.client.scan_iter("*{concert}*")}
    kept -= {name for name in kept if name.startswith(CLOCK_KEY.encode())}
    assert kept == {stage.key("state").encode(), stage.key("changes").encode()}
    assert len(await stage.changes()) == 1
    again = await stage.processing("ben")
    assert again.seq == lease.seq + 1 == 52
    assert again.token > lease.token
    assert (await stage.last_change()).change_id > last
    await stage.client.flushall()  # its feed begins in the midst of its story
