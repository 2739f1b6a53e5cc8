from __future__ import annotations

import asyncio

import pytest

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Status
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import Expired, Mended
from booking_worker.queue.lock import Redlock
from booking_worker.telemetry.metrics import Metrics
from booking_worker.worker.housekeeping import Housekeeping
from booking_worker.worker.timeouts import TimeoutHandler
from tests.support.api import on_one_engine
from tests.support.house import Alone
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
def house(stage: Stage, time: Time) -> Housekeeping:
    """Of the only replica; no lock lapses, as the test's clock stands still."""
    return Housekeeping(stage.queue, Redlock([stage.client], clock=time), clock=time)


@pytest.fixture
def handler(stage: Stage, house: Housekeeping, metrics: Metrics, time: Time) -> TimeoutHandler:
    return TimeoutHandler(stage.queue, house, metrics, 30.0, clock=time)


async def run_once(house: Housekeeping, handler: TimeoutHandler, time: Time) -> float:
    """Everything that is due now, after the first look at what is alive."""
    await house.run_once()
    time.now += 0.02
    return await handler.run_once()


def looks(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The events that are looked at from now on."""
    seen: list[str] = []
    next_deadline = stage.queue.next_deadline

    async def noted(event_id: str) -> int | None:
        seen.append(event_id)
        return await next_deadline(event_id)

    monkeypatch.setattr(stage.queue, "next_deadline", noted)
    return seen


async def test_a_deadline_is_acted_on(
    stage: Stage, house: Housekeeping, handler: TimeoutHandler, time: Time
):
    item_id = await stage.join_one()
    await run_once(house, handler, time)
    assert (await stage.item(item_id)).status is Status.WAITING
    await stage.clock.advance(LIMITS.queue_timeout_ms)
    time.now += 1
    await handler.run_once()
    assert (await stage.item(item_id)).status is Status.EXPIRED


async def test_it_sleeps_until_the_next_deadline_and_a_second_at_most(
    stage: Stage, house: Housekeeping, handler: TimeoutHandler, time: Time
):
    assert await handler.run_once() == float("inf")
    await stage.join_one()
    assert await run_once(house, handler, time) == pytest.approx(1.0)
    handler._due[EVENT] = 0.0
    await stage.clock.advance(LIMITS.queue_timeout_ms - 300)
    assert await handler.run_once() == pytest.approx(0.3)
    handler._due[EVENT] = 0.0
    await stage.clock.advance(299)
    assert await handler.run_once() == pytest.approx(0.02)


async def test_all_that_is_due_is_acted_on_however_much(
    stage: Stage,
    house: Housekeeping,
    handler: TimeoutHandler,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
):
    expire = stage.queue.expire
    monkeypatch.setattr(
        stage.queue, "expire", lambda event_id, overdue_ms: expire(event_id, 10, overdue_ms)
    )
    items = await stage.join_many(35)
    await stage.clock.advance(LIMITS.queue_timeout_ms)
    await run_once(house, handler, time)
    places = await stage.queue.positions(EVENT, items)
    assert {place.status for place in places if place} == {Status.EXPIRED}


async def test_an_event_with_a_deadline_is_looked_at_every_second(
    stage: Stage,
    house: Housekeeping,
    handler: TimeoutHandler,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
):
    """A lease may have been given that ends before the deadline that is known."""
    await stage.processing()
    await house.run_once()
    seen = looks(stage, monkeypatch)
    for _ in range(3):
        time.now += 1
        await handler.run_once()
    assert seen == [EVENT] * 3


@pytest.mark.parametrize("holder", [True, False])
async def test_a_deadline_that_nobody_acts_on_is_acted_on_by_whoever_sees_it(
    stage: Stage, house: Housekeeping, handler: TimeoutHandler, time: Time, holder: bool
):
    """The holder of the lock acts at once; others a second later, however the lock stands."""
    if not holder:
        await stage.client.set(stage.key("lock"), "another", px=60_000)
    item_id = await stage.join_one()
    await run_once(house, handler, time)
    assert house.is_ours(EVENT) is holder
    await stage.clock.advance(LIMITS.queue_timeout_ms + 999)
    time.now += 1
    await handler.run_once()
    assert (await stage.item(item_id)).status is (Status.EXPIRED if holder else Status.WAITING)
    await stage.clock.advance(1)
    time.now += 1
    await handler.run_once()
    assert (await stage.item(item_id)).status is Status.EXPIRED


async def test_an_event_that_is_over_is_not_looked_at(
    stage: Stage,
    house: Housekeeping,
    handler: TimeoutHandler,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
):
    item_id = await stage.join_one()
    await run_once(house, handler, time)
    await stage.queue.cancel(item_id, "ann", "no", "user:ann")
    await stage.client.hset(stage.key("state"), "cursor", await last_change(stage))
    time.now += 11
    await house.run_once()
    seen = looks(stage, monkeypatch)
    assert await handler.run_once() == float("inf")
    assert seen == []


async def test_an_event_that_is_woken_while_it_is_looked_at_is_looked_at_again_soon(
    stage: Stage, house: Housekeeping, handler: TimeoutHandler, time: Time
):
    """What it is woken for may have got a deadline by now."""
    await stage.join_one()
    await run_once(house, handler, time)
    handler.wake(EVENT)  # is to be looked at anyway
    handler.wake("over")
    assert list(handler._due) == [EVENT]
    assert handler._due[EVENT] == pytest.approx(time.now + 1)
    del handler._due[EVENT]
    handler.wake(EVENT)
    assert handler._due[EVENT] == pytest.approx(time.now + 0.02)


async def last_change(stage: Stage) -> str:
    ((entry_id, _),) = await stage.client.xrevrange(stage.key("changes"), count=1)
    return str(entry_id.decode())


async def test_an_event_that_is_woken_is_looked_at_soon(
    stage: Stage,
    house: Housekeeping,
    handler: TimeoutHandler,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
):
    seen = looks(stage, monkeypatch)
    await stage.join_one()
    house.wake(EVENT)
    assert await handler.run_once() == pytest.approx(0.02)
    time.now += 0.02
    await handler.run_once()
    assert seen == [EVENT]


async def test_what_one_event_gets_wrong_keeps_no_other_from_its_deadlines(
    stage: Stage, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
):
    first = await stage.join_one(event_id="first")
    second = await stage.join_one(event_id="second")
    await stage.clock.advance(LIMITS.queue_timeout_ms)
    expire = stage.queue.expire

    async def broken(event_id: str, overdue_ms: int) -> Expired:
        if event_id == "first":
            raise ValueError("a defect")
        return await expire(event_id, overdue_ms=overdue_ms)

    monkeypatch.setattr(stage.queue, "expire", broken)
    house, time = Alone(stage.queue), Time()
    handler = TimeoutHandler(stage.queue, house, metrics, 30.0, clock=time)
    for event_id in ("first", "second"):
        house.want(event_id)
    time.now += 0.02
    await handler.run_once()
    assert (await stage.item(second)).status is Status.EXPIRED
    assert (await stage.item(first)).status is Status.WAITING
    assert metrics.registry.get_sample_value(
        "booking_worker_errors_total", {"kind": "expire"}
    ) == pytest.approx(1)
    assert "first" in handler._due


async def test_what_was_due_while_the_engine_was_away_still_is(
    stage: Stage,
    house: Housekeeping,
    handler: TimeoutHandler,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
):
    item_id = await stage.join_one()
    await stage.clock.advance(LIMITS.queue_timeout_ms)
    with monkeypatch.context() as patched:

        async def away(_: str, overdue_ms: int) -> Expired:
            raise EngineUnavailable("away")

        patched.setattr(stage.queue, "expire", away)
        with pytest.raises(EngineUnavailable):
            await run_once(house, handler, time)
    await handler.run_once()
    assert (await stage.item(item_id)).status is Status.EXPIRED


async def test_an_event_that_is_away_holds_up_no_deadline_however_many_are_due(
    stage: Stage, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("booking_worker.worker.timeouts._MOST_AT_ONCE", 1)
    item_id = await stage.join_one()
    await stage.clock.advance(LIMITS.queue_timeout_ms)
    next_deadline = stage.queue.next_deadline

    async def troubled(event_id: str) -> int | None:
        if event_id == "away":
            raise EngineUnavailable("away")
        return await next_deadline(event_id)

    monkeypatch.setattr(stage.queue, "next_deadline", troubled)
    house, time = Alone(stage.queue), Time()
    handler = TimeoutHandler(stage.queue, house, metrics, 30.0, clock=time)
    for event_id in ("away", EVENT):
        house.want(event_id)
    time.now += 0.02
    with pytest.raises(EngineUnavailable):
        await handler.run_once()
    assert (await stage.item(item_id)).status is Status.EXPIRED


async def test_of_two_replicas_one_sweeps_what_is_over(stage: Stage, metrics: Metrics):
    """The other has its turn when the first was not there for an interval."""
    item_id = await stage.join_one()
    await stage.client.zrem(stage.key("timeouts"), item_id)
    one, other = (
        TimeoutHandler(
            stage.queue, Housekeeping(stage.queue, Redlock([stage.client])), metrics, 30.0
        )
        for _ in range(2)
    )
    assert len(await one.sweep_once()) == 1
    await stage.client.zrem(stage.key("timeouts"), item_id)
    assert await other.sweep_once() == []
    await stage.client.delete(keys.SWEEP_LOCK)
    assert len(await other.sweep_once()) == 1


async def test_what_another_replica_looks_after_is_swept_there(
    stage: Stage, house: Housekeeping, handler: TimeoutHandler
):
    await stage.client.set(stage.key("lock"), "another", px=60_000)
    item_id = await stage.join_one()
    await house.run_once()
    await stage.client.zrem(stage.key("timeouts"), item_id)
    assert await handler.sweep_once() == []
    assert await stage.queue.sweep(EVENT) != []


async def test_the_sweep_mends_and_counts(stage: Stage, handler: TimeoutHandler, metrics: Metrics):
    item_id = await stage.join_one()
    assert await handler.sweep_once() == []
    await stage.client.zrem(stage.key("timeouts"), item_id)
    (mended,) = await handler.sweep_once()
    assert (mended.event_id, mended.name) == (EVENT, item_id)
    assert metrics.registry.get_sample_value("booking_worker_sweep_repairs_total") == 1
    assert await handler.sweep_once() == []


async def test_an_event_that_cannot_be_swept_keeps_no_other_from_it(
    stage: Stage, handler: TimeoutHandler, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
):
    item_id = await stage.join_one()
    await stage.client.zrem(stage.key("timeouts"), item_id)
    await stage.queue._remember("over")
    await stage.clock.advance(LIMITS.result_ttl_ms)
    troubles = {"broken": ValueError("a defect"), "away": EngineUnavailable("away")}
    sweep = stage.queue.sweep

    async def troubled(event_id: str) -> list[Mended]:
        if event_id in troubles:
            raise troubles[event_id]
        return await sweep(event_id)

    async def events() -> list[str]:
        return [*troubles, EVENT]

    monkeypatch.setattr(stage.queue, "sweep", troubled)
    monkeypatch.setattr(stage.queue, "events", events)
    with pytest.raises(EngineUnavailable):
        await handler.sweep_once()
    monkeypatch.undo()
    assert await stage.queue.sweep(EVENT) == []  # it was mended
    assert metrics.registry.get_sample_value(
        "booking_worker_errors_total", {"kind": "sweep"}
    ) == pytest.approx(1)
    stage.queue._remembered.clear()
    assert await stage.queue.events() == [EVENT]  # and the one that is over was taken off


async def test_the_sweep_takes_events_off_the_list_that_are_over(
    stage: Stage, handler: TimeoutHandler
):
    await stage.queue._remember("over")
    item_id = await stage.join_one()
    await stage.clock.advance(LIMITS.result_ttl_ms)
    await handler.sweep_once()
    stage.queue._remembered.clear()
    assert await stage.queue.events() == [EVENT]
    assert (await stage.item(item_id)).status is Status.WAITING


async def test_it_goes_on_whatever_happens(
    stage: Stage, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("booking_worker.worker.timeouts._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("booking_worker.worker.timeouts._LONGEST_SECONDS", 0.01)
    handler = TimeoutHandler(stage.queue, Alone(stage.queue), metrics, 0.001)
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
    handler._house.want(EVENT)

    async def is_expired() -> bool:
        return (await stage.item(item_id)).status is Status.EXPIRED

    await wait_until(is_expired)
    await handler.stop()
    await handler.stop()
    # A call that was under way may still be arriving at the engine.
    await wait_until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
