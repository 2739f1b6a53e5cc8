from __future__ import annotations

from typing import Any

import pytest

from booking_worker.domain.model import Status
from booking_worker.queue.booking_queue import Claimed
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, Stage
from tests.support.wait import wait_until
from tests.unit.worker.crew import Crew, HeldUp, made, made_for, work_off

pytestmark = on_one_engine


async def suspects(stage: Stage, number: int) -> list[str]:
    """The ids of places that two workers were lost over."""
    items = await stage.join_many(number, name="suspect")
    await stage.capacity(100)
    for _ in range(2):
        assert len(await stage.claim(number)) == number
        await stage.clock.advance(stage.limits.lease_ms)
        await stage.queue.expire(EVENT)
    return items


async def test_suspects_are_worked_on_one_at_a_time_with_nothing_beside_them(
    stage: Stage, scripted: Crew
):
    """Each could be the one that kills: nobody must be there to be killed with it."""
    items = await suspects(stage, 3)
    items += await stage.join_many(10)
    pool = scripted.pool(slots=5)
    together: list[set[str]] = []

    async def made_alone(request: Any) -> Any:
        together.append({work.lease.item_id for work in pool._running.values()})
        return made_for(request)

    scripted.script.answers["CreateBooking"] = made_alone
    await work_off(pool)
    assert await scripted.statuses(items) == [Status.AWAITING_PAYMENT] * 13
    met = [in_hand for in_hand in together if in_hand.intersection(items[:3])]
    assert met == [{item_id} for item_id in items[:3]]


async def test_between_two_suspects_the_line_moves_on(stage: Stage, scripted: Crew):
    items = await suspects(stage, 3)
    await stage.join_many(6)
    scripted.script.answers["CreateBooking"] = made
    await work_off(scripted.pool(slots=2))
    asked = [request.idempotency_key for _, request in scripted.script.asked]
    turns = [asked.index(item_id) for item_id in items]
    assert turns == [2, 5, 8]


async def test_while_a_suspect_is_worked_on_nothing_is_claimed(stage: Stage, scripted: Crew):
    now = 1_000.0
    calls = scripted.script.answers["CreateBooking"] = HeldUp(made_for)
    (item_id,) = await suspects(stage, 1)
    pool = scripted.pool(slots=5, clock=lambda: now)
    while not pool._running:
        await pool.run_once()
    others = await stage.join_many(2)
    pool.wake(EVENT)
    now += 5
    assert await pool.run_once() == pytest.approx(1.0)
    assert await scripted.statuses([item_id, *others]) == [
        Status.PROCESSING,
        Status.WAITING,
        Status.WAITING,
    ]
    calls.go_on.set()
    await work_off(pool)
    assert await scripted.statuses([item_id, *others]) == [Status.AWAITING_PAYMENT] * 3


async def test_a_suspect_that_hangs_holds_up_its_worker_until_its_lease_ends(
    stage: Stage, scripted: Crew
):
    (item_id,) = await suspects(stage, 1)
    calls = scripted.script.answers["CreateBooking"] = HeldUp(made_for)
    pool = scripted.pool(slots=5, lease_seconds=0.05)
    while not pool._running:
        await pool.run_once()
    (other,) = await stage.join_many(1)
    await wait_until(lambda: not pool._running)
    calls.go_on.set()
    await work_off(pool)
    assert await scripted.statuses([item_id, other]) == [
        Status.PROCESSING,
        Status.AWAITING_PAYMENT,
    ]
    await stage.clock.advance(stage.limits.lease_ms)
    await stage.queue.expire(EVENT)
    assert await scripted.statuses([item_id]) == [Status.FAILED]


async def test_a_suspect_in_another_event_is_not_forgotten(stage: Stage, scripted: Crew):
    scripted.script.answers["CreateBooking"] = made
    ids = []
    for event_id in ("a", "b"):
        await stage.capacity(100, event_id)
        ids.append(await stage.join_one(event_id=event_id))
    for _ in range(2):
        for event_id in ("a", "b"):
            assert await stage.claim(event_id=event_id)
        await stage.clock.advance(stage.limits.lease_ms)
        for event_id in ("a", "b"):
            await stage.queue.expire(event_id)
    await work_off(scripted.pool())
    places = [
        (await stage.queue.positions(event_id, [item_id]))[0]
        for event_id, item_id in zip(("a", "b"), ids, strict=True)
    ]
    assert [place and place.status for place in places] == [Status.AWAITING_PAYMENT] * 2


async def test_a_suspect_may_be_the_trial_of_a_breaker(stage: Stage, scripted: Crew):
    (item_id,) = await suspects(stage, 1)
    scripted.script.answers["CreateBooking"] = made
    while scripted.booking.breaker.state == "closed":
        scripted.booking.breaker.record_failure()
    pool = scripted.pool()
    await pool.start()

    async def is_held() -> bool:
        return await scripted.statuses([item_id]) == [Status.AWAITING_PAYMENT]

    await wait_until(is_held)
    assert scripted.booking.breaker.state == "closed"


async def test_suspects_cost_no_question_while_there_are_none(
    stage: Stage, scripted: Crew, monkeypatch: pytest.MonkeyPatch
):
    scripted.script.answers["CreateBooking"] = made
    await stage.capacity(100)
    await stage.join_many(20)
    asked = []
    claim = stage.queue.claim

    async def counted(event_id: str, *more: Any, suspects: bool) -> Claimed:
        asked.append(suspects)
        return await claim(event_id, *more, suspects=suspects)

    monkeypatch.setattr(stage.queue, "claim", counted)
    await work_off(scripted.pool())
    assert asked
    assert not any(asked)
