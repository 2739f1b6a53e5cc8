from __future__ import annotations

import asyncio

import pytest

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Status
from booking_worker.queue.booking_queue import Expired
from booking_worker.telemetry.metrics import Metrics
from booking_worker.worker.timeouts import TimeoutHandler
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, LIMITS, Stage
from tests.support.wait import wait_until

pytestmark = on_one_engine


class Time:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def handler(stage: Stage, metrics: Metrics, time: Time) -> TimeoutHandler:
    return TimeoutHandler(stage.queue, metrics, 30.0, clock=time)


def looks(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The events that are looked at from now on."""
    seen: list[str] = []
    expire = stage.queue.expire

    async def noted(event_id: str, limit: int = 500) -> Expired:
        seen.append(event_id)
        return await expire(event_id, limit)

    monkeypatch.setattr(stage.queue, "expire", noted)
    return seen


async def test_a_deadline_is_acted_on(stage: Stage, handler: TimeoutHandler):
    item_id = await stage.join_one()
    await handler.run_once()
    assert (await stage.item(item_id)).status is Status.WAITING
    await stage.clock.advance(LIMITS.queue_timeout_ms)
    handler._clock.now += 1  # type: ignore[attr-defined]
    await handler.run_once()
    assert (await stage.item(item_id)).status is Status.EXPIRED


async def test_it_sleeps_until_the_next_deadline_and_a_second_at_most(
    stage: Stage, handler: TimeoutHandler
):
    await stage.join_one()
    assert await handler.run_once() == pytest.approx(1.0)
    handler.wake("")
    handler._due[EVENT] = 0.0
    await stage.clock.advance(LIMITS.queue_timeout_ms - 300)
    assert await handler.run_once() == pytest.approx(0.3)
    handler._due[EVENT] = 0.0
    await stage.clock.advance(299)
    assert await handler.run_once() == pytest.approx(0.02)


async def test_all_that_is_due_is_acted_on_however_much(
    stage: Stage, handler: TimeoutHandler, monkeypatch: pytest.MonkeyPatch
):
    expire = stage.queue.expire
    monkeypatch.setattr(stage.queue, "expire", lambda event_id: expire(event_id, 10))
    items = await stage.join_many(35)
    await stage.clock.advance(LIMITS.queue_timeout_ms)
    await handler.run_once()
    places = await stage.queue.positions(EVENT, items)
    assert {place.status for place in places if place} == {Status.EXPIRED}


async def test_an_event_with_a_deadline_is_looked_at_every_second(
    stage: Stage, handler: TimeoutHandler, time: Time, monkeypatch: pytest.MonkeyPatch
):
    """A lease may have been given that ends before the deadline that is known."""
    seen = looks(stage, monkeypatch)
    await stage.processing()
    for _ in range(3):
        await handler.run_once()
        time.now += 1
    assert seen == [EVENT] * 3


async def test_events_that_are_over_cost_next_to_nothing(
    stage: Stage, handler: TimeoutHandler, time: Time, monkeypatch: pytest.MonkeyPatch
):
    for at in range(100):
        item_id = await stage.join_one(event_id=f"event-{at}")
        await stage.queue.cancel(item_id, "ann", "no", "user:ann")
    seen = looks(stage, monkeypatch)
    await handler.run_once()
    assert len(seen) == 100
    for _ in range(4):
        seen.clear()
        time.now += 1
        assert await handler.run_once() == pytest.approx(1.0)
        assert len(seen) == 25


async def test_an_event_is_remembered_for_a_while_after_its_last_deadline(
    stage: Stage, handler: TimeoutHandler, time: Time
):
    item_id = await stage.join_one()
    await handler.run_once()
    await stage.queue.cancel(item_id, "ann", "no", "user:ann")
    time.now += 9
    await handler.run_once()
    assert EVENT in handler._due
    time.now += 2
    await handler.run_once()
    assert EVENT not in handler._due
    assert not handler._alive_until


async def test_an_event_that_is_woken_is_looked_at_soon(
    stage: Stage, handler: TimeoutHandler, time: Time, monkeypatch: pytest.MonkeyPatch
):
    await handler.run_once()
    seen = looks(stage, monkeypatch)
    await stage.join_one()
    handler.wake(EVENT)
    assert await handler.run_once() == pytest.approx(0.02)
    time.now += 0.02
    await handler.run_once()
    assert seen == [EVENT]


async def test_what_one_event_gets_wrong_keeps_no_other_from_its_deadlines(
    stage: Stage, handler: TimeoutHandler, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
):
    first = await stage.join_one(event_id="first")
    second = await stage.join_one(event_id="second")
    await stage.clock.advance(LIMITS.queue_timeout_ms)
    expire = stage.queue.expire

    async def broken(event_id: str) -> Expired:
        if event_id == "first":
            raise ValueError("a defect")
        return await expire(event_id)

    monkeypatch.setattr(stage.queue, "expire", broken)
    await handler.run_once()
    assert (await stage.item(second)).status is Status.EXPIRED
    assert (await stage.item(first)).status is Status.WAITING
    assert metrics.registry.get_sample_value(
        "booking_worker_errors_total", {"kind": "expire"}
    ) == pytest.approx(1)
    assert "first" in handler._due


async def test_what_was_due_while_the_engine_was_away_still_is(
    stage: Stage, handler: TimeoutHandler, monkeypatch: pytest.MonkeyPatch
):
    item_id = await stage.join_one()
    await stage.clock.advance(LIMITS.queue_timeout_ms)
    with monkeypatch.context() as patched:

        async def away(_: str) -> Expired:
            raise EngineUnavailable("away")

        patched.setattr(stage.queue, "expire", away)
        with pytest.raises(EngineUnavailable):
            await handler.run_once()
    await handler.run_once()
    assert (await stage.item(item_id)).status is Status.EXPIRED


async def test_the_sweep_mends_and_counts(stage: Stage, handler: TimeoutHandler, metrics: Metrics):
    item_id = await stage.join_one()
    assert await handler.sweep_once() == []
    await stage.client.zrem(stage.key("timeouts"), item_id)
    (mended,) = await handler.sweep_once()
    assert (mended.event_id, mended.name) == (EVENT, item_id)
    assert metrics.registry.get_sample_value("booking_worker_sweep_repairs_total") == 1
    assert await handler.sweep_once() == []


async def test_the_sweep_takes_events_off_the_list_that_are_over(
    stage: Stage, handler: TimeoutHandler
):
    await stage.queue._remember("over")
    item_id = await stage.join_one()
    await stage.clock.advance(LIMITS.result_ttl_ms)
    await handler.sweep_once()
    assert await stage.queue.events() == [EVENT]
    assert (await stage.item(item_id)).status is Status.WAITING


async def test_it_goes_on_whatever_happens(
    stage: Stage, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("booking_worker.worker.timeouts._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("booking_worker.worker.timeouts._LONGEST_SECONDS", 0.01)
    handler = TimeoutHandler(stage.queue, metrics, 0.001)
    run_once, sweep_once = handler.run_once, handler.sweep_once
    troubles: list[Exception] = [EngineUnavailable("away"), ValueError("a defect")]
    sweep_troubles = list(troubles)

    async def troubled() -> float:
        if troubles:
            raise troubles.pop()
        return await run_once()

    async def troubled_sweep() -> object:
        if sweep_troubles:
            raise sweep_troubles.pop()
        return await sweep_once()

    monkeypatch.setattr(handler, "run_once", troubled)
    monkeypatch.setattr(handler, "sweep_once", troubled_sweep)
    item_id = await stage.join_one()
    await stage.client.zrem(stage.key("timeouts"), item_id)
    await handler.start()
    await handler.start()
    await wait_until(lambda: stage.client.zcard(stage.key("timeouts")))
    await stage.clock.advance(LIMITS.queue_timeout_ms)
    handler.wake("")

    async def is_expired() -> bool:
        return (await stage.item(item_id)).status is Status.EXPIRED

    await wait_until(is_expired)
    await handler.stop()
    await handler.stop()
    # A call that was under way may still be arriving at the engine.
    await wait_until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
