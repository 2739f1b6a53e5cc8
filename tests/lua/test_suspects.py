"""Suspects: two workers were lost over them, so that they are claimed alone. See task.lua."""

from __future__ import annotations

from booking_worker.domain.model import Lease, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.stage import EVENT, LIMITS, Stage

RESERVE = frozenset({Task.RESERVE})
CONFIRM = frozenset({Task.CONFIRM})


def items(leases: list[Lease]) -> list[str]:
    return [lease.item_id for lease in leases]


async def lost(stage: Stage, number: int = 1, times: int = 2) -> None:
    """The workers of so many leases never answer; nor do those who get them next."""
    for time in range(times):
        if time:
            assert len(await stage.claim(number)) == number
        await stage.clock.advance(LIMITS.lease_ms)
        await stage.queue.expire(EVENT)


async def test_one_lost_worker_makes_no_suspects(stage: Stage):
    lease = await stage.processing()
    await lost(stage, times=1)
    claimed = await stage.claimed()
    assert (items(claimed.leases), claimed.suspects) == ([lease.item_id], False)
    assert claimed.leases[0].crashes == 1


async def test_whom_two_workers_were_lost_over_is_handed_out_only_to_who_asks_for_suspects(
    stage: Stage, queue: BookingQueue
):
    suspect = await stage.processing("suspect")
    await lost(stage)
    other = await stage.join_one("other")
    usual = await stage.claimed(5)
    assert (items(usual.leases), usual.suspects) == ([other], True)
    await stage.join_one("later")
    alone = await queue.claim(EVENT, "w", 5, frozenset(Task), suspects=True)
    assert (items(alone.leases), alone.suspects) == ([suspect.item_id], False)
    assert (alone.leases[0].crashes, alone.blocked) == (2, False)


async def test_suspects_too_are_confirmed_before_released_before_reserved(
    stage: Stage, queue: BookingQueue
):
    reserve = await stage.processing("reserve")
    release = await stage.releasing("release")
    confirm = await stage.confirming("confirm")
    await lost(stage, 3)
    every = await queue.claim(EVENT, "w", 5, frozenset(Task), suspects=True)
    assert items(every.leases) == [confirm.item_id, release.item_id, reserve.item_id]


async def test_only_suspects_that_the_worker_would_take_are_told_of(stage: Stage):
    await stage.processing()
    await lost(stage)
    assert not (await stage.claimed(1, CONFIRM)).suspects
    assert (await stage.claimed(1, RESERVE)).suspects


async def test_who_was_handed_back_is_no_suspect(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    await queue.hand_back(lease, asked=True)
    claimed = await stage.claimed()
    assert (items(claimed.leases), claimed.suspects) == ([lease.item_id], False)
