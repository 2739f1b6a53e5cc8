from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Status
from booking_worker.queue.booking_queue import Claimed
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, Stage, a_join
from tests.support.wait import wait_until
from tests.unit.peers.scripted import Refuse
from tests.unit.worker.crew import (
    Crew,
    HeldUp,
    available,
    booking,
    cancelled,
    confirmed,
    given_back,
    made,
    made_for,
    work_off,
)

pytestmark = on_one_engine

DOWN = Refuse(grpc.StatusCode.UNAVAILABLE, "down")


async def test_with_a_hundred_slots_bookings_are_made_for_those_admitted_in_order(
    stage: Stage, scripted: Crew
):
    scripted.script.answers["CreateBooking"] = made
    await stage.capacity(1_000)
    items = await stage.join_many(300)
    await work_off(scripted.pool(slots=100))
    admitted = [change.item_id for change in await stage.changes() if change.after == "processing"]
    assert admitted == items
    assert await scripted.statuses(items) == [Status.AWAITING_PAYMENT] * 300


async def test_events_share_the_slots_and_no_more_is_leased_than_there_are(
    stage: Stage, scripted: Crew
):
    calls = scripted.script.answers["CreateBooking"] = HeldUp(made_for)
    for event_id in ("a", "b", "c"):
        await stage.capacity(100, event_id)
        await stage.queue.join(event_id, [a_join(f"u{at}", 1, event_id) for at in range(20)])
    pool = scripted.pool(slots=10)
    for _ in range(5):
        await pool.run_once()
    assert len(pool._running) == 10
    statuses = [await stage.queue.status(event_id) for event_id in ("a", "b", "c")]
    assert sorted(status.processing for status in statuses) == [3, 3, 4]
    calls.go_on.set()
    await work_off(pool)
    assert len(calls.asked) == 60


async def test_confirms_come_before_releases_before_reserves(stage: Stage, scripted: Crew):
    scripted.script.answers |= {
        "CreateBooking": made,
        "ConfirmBooking": confirmed(),
        "GetBooking": booking(),
        "CancelBooking": cancelled(),
    }
    held = [await stage.held_item(f"user-{at}") for at in range(2)]
    await stage.queue.cancel(held[0], "user-0", "no", "user:user-0")
    await stage.queue.ask_confirm(held[1], "user-1", "PAY")
    await stage.join_one("new")
    pool = scripted.pool(slots=1)
    await work_off(pool)
    names = [name for name, _ in scripted.script.asked]
    assert names == ["ConfirmBooking", "GetBooking", "CancelBooking", "CreateBooking"]


async def test_an_idle_pool_asks_next_to_nothing(
    stage: Stage, scripted: Crew, monkeypatch: pytest.MonkeyPatch
):
    now = 1_000.0
    await stage.capacity(10)
    item_id = await stage.join_one()
    await stage.queue.cancel(item_id, "ann", "no", "user:ann")
    pool = scripted.pool(clock=lambda: now)
    claims = []
    claim = stage.queue.claim

    async def counted(event_id: str, *more: Any, **how: Any) -> Claimed:
        claims.append(event_id)
        return await claim(event_id, *more, **how)

    monkeypatch.setattr(stage.queue, "claim", counted)
    for _ in range(10):
        assert await pool.run_once() == pytest.approx(1.0)
    assert claims == [EVENT]
    now += 1
    await pool.run_once()
    assert claims == [EVENT] * 2


async def test_a_lost_wake_is_made_up_for_by_the_look_at_all_events(stage: Stage, scripted: Crew):
    now = 1_000.0
    scripted.script.answers["CreateBooking"] = made
    pool = scripted.pool(clock=lambda: now)
    await pool.run_once()
    await stage.capacity(10)
    item_id = await stage.join_one()
    await pool.run_once()
    assert await scripted.statuses([item_id]) == [Status.WAITING]
    now += 1
    await pool.run_once()
    await wait_until(lambda: not pool._running)
    assert await scripted.statuses([item_id]) == [Status.AWAITING_PAYMENT]


async def test_of_many_lines_that_are_blocked_some_are_asked_each_second_and_all_every_fifth(
    stage: Stage, scripted: Crew, monkeypatch: pytest.MonkeyPatch
):
    now, events = 1_000.0, [f"event-{at}" for at in range(30)]
    for event_id in events:
        await stage.join_one(event_id=event_id)
        await stage.capacity(0, event_id)
    pool = scripted.pool(slots=30, clock=lambda: now)
    claims: list[str] = []
    claim = stage.queue.claim

    async def counted(event_id: str, *more: Any, **how: Any) -> Claimed:
        claims.append(event_id)
        return await claim(event_id, *more, **how)

    monkeypatch.setattr(stage.queue, "claim", counted)
    asked = []
    for _ in range(6):
        claims.clear()
        await pool.run_once()
        asked.append(sorted(claims))
        now += 1
    assert asked[0] == asked[5] == sorted(events)
    assert [len(claims) for claims in asked[1:3]] == [25, 5]


async def test_a_line_that_is_blocked_for_want_of_an_answer_has_capacity_refreshed(
    stage: Stage, scripted: Crew
):
    scripted.script.answers |= {"CreateBooking": made, "CheckAvailability": available(5)}
    item_id = await stage.join_one()
    pool = scripted.pool()
    await pool.run_once()
    await scripted.keeper.run_once()
    await work_off(pool)
    assert await scripted.statuses([item_id]) == [Status.AWAITING_PAYMENT]


async def test_all_that_are_sold_out_are_told_by_one_broadcast(stage: Stage, scripted: Crew):
    scripted.script.answers |= {"ConfirmBooking": confirmed(), "CheckAvailability": available(0)}
    await stage.capacity(1)
    held = await stage.held_item("ann")
    items = await stage.join_many(5)
    await stage.capacity(0)
    await stage.queue.ask_confirm(held, "ann", "PAY")
    pool = scripted.pool()
    await work_off(pool)
    await scripted.keeper.run_once()
    assert await scripted.statuses(items) == [Status.SOLD_OUT] * 5
    told_all = [change for change in await stage.changes() if not change.item_id]
    assert [change.after for change in told_all] == ["sold_out"]


async def until_open(crew: Crew, pool: Any) -> None:
    """Run tasks until the breaker of the Booking Service is open."""
    while crew.booking.breaker.state == "closed":
        await pool.run_once()
        if pool._running:
            await asyncio.wait(list(pool._running))
        await crew.stage.clock.advance(1_000)
        await crew.stage.queue.expire(EVENT)


async def test_a_half_open_breaker_lets_one_task_be_claimed(stage: Stage, scripted: Crew):
    scripted.script.answers["CreateBooking"] = DOWN
    await stage.capacity(100)
    await stage.join_many(30)
    pool = scripted.pool(slots=10, retry_interval_seconds=0.0)
    await until_open(scripted, pool)
    before = len(scripted.script.asked)
    calls = scripted.script.answers["CreateBooking"] = HeldUp(made_for)
    pool.wake(EVENT)
    await pool.run_once()
    assert not pool._running
    await wait_until(lambda: scripted.booking.breaker.allows)
    for _ in range(3):
        await pool.run_once()
    await wait_until(lambda: len(scripted.script.asked) > before)
    assert len(pool._running) == 1
    assert scripted.booking.breaker.state == "half_open"
    calls.go_on.set()
    await wait_until(lambda: not pool._running)
    assert scripted.booking.breaker.state == "closed"
    await work_off(pool)
    assert (await stage.status()).awaiting_payment == 30


async def test_an_item_that_the_service_always_fails_on_does_not_keep_it_from_the_others(
    stage: Stage, scripted: Crew
):
    """Were it the trial each time, the breaker would never close again."""
    poison = ""

    async def fails_on_poison(request: Any) -> Any:
        return DOWN if request.idempotency_key == poison else made_for(request)

    await stage.capacity(100)
    items = await stage.join_many(6)
    poison = items[0]
    scripted.script.answers["CreateBooking"] = DOWN
    pool = scripted.pool(slots=6)
    await stage.queue.hand_back((await stage.claim())[0], asked=True)
    while scripted.booking.breaker.state == "closed":
        scripted.booking.breaker.record_failure()
    scripted.script.answers["CreateBooking"] = fails_on_poison
    await pool.start()

    async def are_held() -> bool:
        return await scripted.statuses(items[1:]) == [Status.AWAITING_PAYMENT] * 5

    await wait_until(are_held)
    assert scripted.booking.breaker.state == "closed"


async def test_without_the_ticket_service_people_are_admitted_and_nothing_is_released(
    stage: Stage, scripted: Crew
):
    assert scripted.ticket is not None
    scripted.script.answers |= {
        "CreateBooking": made,
        "GetBooking": booking(),
        "CancelBooking": cancelled(),
        "ReleaseTickets": given_back(),
        "CheckAvailability": DOWN,
    }
    released = await stage.held_item("ann", reservation_id="R1")
    await stage.queue.cancel(released, "ann", "no", "user:ann")
    waiting = await stage.join_one("bob")
    while scripted.ticket.breaker.state == "closed":
        scripted.ticket.breaker.record_failure()
    pool = scripted.pool()
    await work_off(pool)
    assert await scripted.statuses([released, waiting]) == [
        Status.RELEASING,
        Status.AWAITING_PAYMENT,
    ]
    await wait_until(lambda: scripted.ticket and scripted.ticket.breaker.allows)
    scripted.script.answers["CheckAvailability"] = available(50)
    await scripted.keeper.left(EVENT)
    await work_off(pool)
    assert await scripted.statuses([released]) == [Status.CANCELLED]


async def test_an_event_that_cannot_be_claimed_from_keeps_no_other_waiting(
    stage: Stage, scripted: Crew, monkeypatch: pytest.MonkeyPatch
):
    scripted.script.answers["CreateBooking"] = made
    await stage.capacity(10)
    item_id = await stage.join_one()
    await stage.join_one(event_id="broken")
    claim = stage.queue.claim

    async def troubled(event_id: str, *more: Any, **how: Any) -> Claimed:
        if event_id == "broken":
            raise ValueError("a defect")
        return await claim(event_id, *more, **how)

    monkeypatch.setattr(stage.queue, "claim", troubled)
    await work_off(scripted.pool())
    assert await scripted.statuses([item_id]) == [Status.AWAITING_PAYMENT]
    assert scripted.counted("errors_total", kind="claim") >= 1


async def test_a_claim_without_an_answer_is_made_again(
    stage: Stage, scripted: Crew, monkeypatch: pytest.MonkeyPatch
):
    scripted.script.answers["CreateBooking"] = made
    await stage.capacity(10)
    item_id = await stage.join_one()
    claim = stage.queue.claim
    away = [True]

    async def troubled(*arguments: Any, **how: Any) -> Claimed:
        if away:
            raise EngineUnavailable("away")
        return await claim(*arguments, **how)

    monkeypatch.setattr(stage.queue, "claim", troubled)
    pool = scripted.pool()
    with pytest.raises(EngineUnavailable):
        await pool.run_once()
    away.clear()
    await pool.run_once()
    await wait_until(lambda: not pool._running)
    assert await scripted.statuses([item_id]) == [Status.AWAITING_PAYMENT]


async def test_a_trial_that_is_claimed_while_the_pool_stops_is_handed_back_too(
    stage: Stage, scripted: Crew
):
    await stage.capacity(100)
    (item_id,) = await stage.join_many(1)
    while scripted.booking.breaker.state == "closed":
        scripted.booking.breaker.record_failure()
    await wait_until(lambda: scripted.booking.breaker.allows)
    pool = scripted.pool()
    pool._stopping = True
    await pool.run_once()
    assert await scripted.statuses([item_id]) == [Status.WAITING]


async def test_leases_are_not_lost_for_bookings_that_could_not_be_recalled(
    stage: Stage, scripted: Crew, monkeypatch: pytest.MonkeyPatch
):
    scripted.script.answers["CreateBooking"] = made
    await stage.capacity(2)
    await stage.join_one("ann")
    pool = scripted.pool()
    await work_off(pool)
    recall = pool._claims._recall
    recall._booked[EVENT] = {"the old master": recall._booked[EVENT].popitem()[1]}

    async def away(*_: object) -> int:
        raise EngineUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(stage.queue, "readmit", away)
        item_id = await stage.join_one("ben")
        await work_off(pool)
        assert await scripted.statuses([item_id]) == [Status.AWAITING_PAYMENT]
        assert "the old master" in recall._booked[EVENT]
    await stage.join_one("eve")
    await work_off(pool)
    assert "the old master" not in recall._booked[EVENT]
