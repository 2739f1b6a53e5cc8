"""Fault 11: clocks of two replicas 10 minutes apart, a step back; the engine's own clock stepping."""

from __future__ import annotations

import os
import signal

import pytest

from booking_worker.domain.model import Status
from booking_worker.sandbox.journal import is_admission
from tests.support.shop import Shop, read_journal

TICKETS = 40
STEP_MS = 600_000


@pytest.fixture
def tickets() -> int:
    return TICKETS


async def joined_in_turns(shop: Shop) -> list[str]:
    """Places taken over both replicas in turns, in the order in which they were given."""
    ahead, behind = shop.replicas
    return [
        await shop.join(f"user-{at}", via=ahead if at % 2 else behind) for at in range(TICKETS + 20)
    ]


async def in_order(shop: Shop) -> None:
    lines = read_journal(shop.directory.glob("*.audit"))
    numbers = list(dict.fromkeys(line.seq for line in lines if is_admission(line)))
    assert numbers == list(range(1, TICKETS + 1))


async def test_clocks_of_replicas_decide_nothing(shop: Shop):
    """One is 20 minutes ahead of the other, and is then set back."""
    ahead = await shop.open("a clock that is 10 minutes ahead")
    behind = await shop.open("a clock that is 10 minutes behind")
    ids = await joined_in_turns(shop)
    await shop.until(Status.AWAITING_PAYMENT, ids[:TICKETS])
    os.kill(ahead.process.pid, signal.SIGUSR1)
    assert await shop.statuses(ids[TICKETS:]) == [Status.WAITING] * 20
    places = (await shop.places(ids[:TICKETS])).values()
    # 60 s to pay, for everybody: whoever served them.
    assert all(place and 40_000 < place.remaining_ms <= 60_000 for place in places)
    os.kill(behind.process.pid, signal.SIGUSR1)
    await shop.sell()
    assert await shop.statuses() == ["completed"] * TICKETS + ["sold_out"] * 20
    await shop.kept()
    await in_order(shop)


async def test_a_replica_that_judges_by_a_clock_of_its_own_takes_holds_away(shop: Shop):
    await shop.open()
    (item_id,) = await shop.join_many(1)
    await shop.until(Status.AWAITING_PAYMENT)
    await shop.open("the engine's clock")
    await shop.until(Status.EXPIRED, [item_id])


@pytest.mark.parametrize("step_ms", [-STEP_MS, STEP_MS])
async def test_the_engines_own_clock_steps(shop: Shop, step_ms: int):
    """Forwards it ends holds early, which go to the next in line; backwards nothing is lost."""
    await shop.clock.start()
    await shop.open(moves_clock=True)
    await shop.open(moves_clock=True)
    ids = await joined_in_turns(shop)
    await shop.until(Status.AWAITING_PAYMENT, ids[:TICKETS])
    await shop.clock.advance(step_ms)
    early = step_ms > 0
    if early:
        await shop.until(Status.EXPIRED, ids[:TICKETS])
    await shop.sell()
    first, rest = ("expired", "completed") if early else ("completed", "sold_out")
    assert await shop.statuses() == [first] * TICKETS + [rest] * 20
    await shop.kept()
