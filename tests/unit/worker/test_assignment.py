from __future__ import annotations

import asyncio

import pytest

from booking_worker.domain.errors import EngineUnavailable, Fenced
from booking_worker.domain.model import Held, Status
from booking_worker.worker.assignment import Assignment, Outcome
from tests.support.api import on_one_engine
from tests.support.stage import LIMITS, Stage

pytestmark = on_one_engine


@pytest.fixture
async def work(stage: Stage) -> Assignment:
    lease = await stage.processing()
    return Assignment(stage.queue, lease, 30.0, asyncio.get_running_loop().time())


async def test_the_outcome_of_a_task_is_passed_on(work: Assignment):
    async def run(_: Assignment) -> Outcome:
        return Outcome.HELD

    assert await work.bounded(run) is Outcome.HELD


async def test_a_task_that_hangs_ends_with_its_lease(stage: Stage):
    lease = await stage.processing()
    work = Assignment(stage.queue, lease, 0.02, asyncio.get_running_loop().time())
    with pytest.raises(TimeoutError):
        await work.bounded(lambda _: asyncio.Event().wait())


async def test_a_lease_that_ended_before_the_task_began_is_not_worked_under(stage: Stage):
    lease = await stage.processing()
    work = Assignment(stage.queue, lease, 30.0, asyncio.get_running_loop().time() - 31.0)
    begun = []

    async def run(_: Assignment) -> Outcome:
        begun.append(1)
        return Outcome.HELD

    with pytest.raises(TimeoutError):
        await work.bounded(run)
    assert not begun


async def test_extending_moves_the_end_in_the_engine_and_here(stage: Stage, work: Assignment):
    await stage.clock.advance(20_000)
    before = work.ends_at
    bounds = []

    async def run(work: Assignment) -> Outcome:
        await work.extend()
        assert work._bound is not None
        bounds.append(work._bound.when())
        return Outcome.HELD

    await work.bounded(run)
    assert before < work.ends_at == bounds[0]
    record = await stage.item(work.lease.item_id)
    assert record.deadline_ms == stage.clock.now + LIMITS.lease_ms


async def test_an_ended_lease_cannot_be_extended(stage: Stage, work: Assignment):
    await stage.queue.hand_back(work.lease, asked=True)
    with pytest.raises(Fenced):
        await work.extend()


async def test_an_outcome_is_told_again_until_the_engine_takes_it(
    stage: Stage, work: Assignment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("booking_worker.worker.assignment._FIRST_PAUSE_SECONDS", 0.0)
    calls = []

    async def settle() -> Status:
        calls.append(work.settling)
        if len(calls) < 3:
            raise EngineUnavailable("away")
        return await stage.queue.settle_held(work.lease, Held("B1", "", None))

    assert await work.settle(settle) is Status.AWAITING_PAYMENT
    assert calls == [True, True, True]
    assert work.unsure


async def test_an_outcome_is_not_told_longer_than_the_lease(stage: Stage):
    lease = await stage.processing()
    work = Assignment(stage.queue, lease, 0.05, asyncio.get_running_loop().time())

    async def away() -> Status:
        raise EngineUnavailable("away")

    async def run(work: Assignment) -> Outcome:
        await work.settle(away)
        return Outcome.HELD

    with pytest.raises(TimeoutError):
        await work.bounded(run)


async def test_a_refusal_of_the_engine_is_not_told_again(stage: Stage, work: Assignment):
    await stage.queue.hand_back(work.lease, asked=True)
    with pytest.raises(Fenced):
        await work.settle(lambda: stage.queue.settle_held(work.lease, Held("B1", "", None)))
    assert not work.unsure
