from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import Claimed
from booking_worker.sandbox.server import Sandbox
from tests.support.api import on_one_engine
from tests.support.engines import SharedEngine
from tests.support.stage import EVENT, LIMITS, Stage
from tests.support.wait import wait_until
from tests.unit.peers.scripted import Refuse
from tests.unit.worker.crew import (
    Crew,
    HeldUp,
    Woken,
    made,
    made_for,
    work_off,
)

pytestmark = on_one_engine

DOWN = Refuse(grpc.StatusCode.UNAVAILABLE, "down")


async def test_a_hundred_slots_on_the_last_ten_tickets_serve_the_first_ten(
    stage: Stage, crew: Crew, sandbox: Sandbox, engine: SharedEngine
):
    items = await stage.join_many(40)
    await crew.keeper.start()
    pool = crew.pool(slots=100)
    await pool.start()

    async def are_held() -> bool:
        return (await stage.status()).held_seats == 10

    async with Woken(engine, pool):
        await wait_until(are_held)
    assert await crew.statuses(items) == [Status.AWAITING_PAYMENT] * 10 + [Status.WAITING] * 30
    audit = sandbox.ledger.audit()
    assert (audit.held, audit.oversold, audit.refusals) == (10, 0, 0)


async def test_an_unpaid_ticket_goes_to_the_next_in_line(
    stage: Stage, crew: Crew, sandbox: Sandbox
):
    sandbox.ledger.set_tickets(EVENT, 2)
    items = await stage.join_many(4)
    await crew.keeper.left(EVENT)
    pool = crew.pool()
    await work_off(pool)
    await stage.queue.ask_confirm(items[0], "user-0", "PAY")
    await work_off(pool)
    await stage.clock.advance(LIMITS.payment_timeout_ms)
    crew.house.want(EVENT)
    crew.timeouts._due[EVENT] = 0.0
    await crew.timeouts.run_once()
    await work_off(pool)
    assert await crew.statuses(items) == [
        Status.COMPLETED,
        Status.EXPIRED,
        Status.AWAITING_PAYMENT,
        Status.WAITING,
    ]


async def test_when_the_last_ticket_is_paid_all_others_are_sold_out(
    stage: Stage, crew: Crew, sandbox: Sandbox, engine: SharedEngine
):
    sandbox.ledger.set_tickets(EVENT, 3)
    items = await stage.join_many(20)
    await crew.keeper.start()
    pool = crew.pool(slots=5)
    await pool.start()

    async def are_held() -> bool:
        return (await stage.status()).awaiting_payment == 3

    async def are_told() -> bool:
        return (await stage.status()).sold_out_items == 17

    async with Woken(engine, pool):
        await wait_until(are_held)
        for number in range(3):
            await stage.queue.ask_confirm(items[number], f"user-{number}", "PAY")
        await wait_until(are_told)
    assert await crew.statuses(items) == [Status.COMPLETED] * 3 + [Status.SOLD_OUT] * 17
    audit = sandbox.ledger.audit()
    assert (audit.sold, audit.oversold, audit.refusals) == (3, 0, 0)


async def test_an_idle_worker_starts_as_soon_as_it_is_woken(
    stage: Stage, scripted: Crew, engine: SharedEngine
):
    """The pool's own clock stands still, so nothing but the wake can have started it."""
    scripted.script.answers["CreateBooking"] = made
    pool = scripted.pool(clock=lambda: 1_000.0)
    await pool.start()
    async with Woken(engine, pool) as woken:
        await wait_until(lambda: "" in woken.heard)
        first = await stage.join_one("first")
        await stage.capacity(10)
        second = await stage.join_one("second")

        async def are_held() -> bool:
            return await scripted.statuses([first, second]) == [Status.AWAITING_PAYMENT] * 2

        await wait_until(are_held)


async def test_a_service_that_is_down_costs_nobody_the_place_nor_an_attempt(
    stage: Stage, crew: Crew, sandbox: Sandbox
):
    stage.limit(max_retries=0)
    crew.queue._limits = stage.limits
    sandbox.booking_faults.down = True
    for _ in range(4):
        crew.booking.breaker.record_failure()
    items = await stage.join_many(8)
    await crew.keeper.left(EVENT)
    pool = crew.pool(slots=5)
    await pool.start()
    # Many trials in vain.
    await wait_until(lambda: sandbox.ledger.audit().errors >= 12)
    assert pool.waits_for == "booking"
    statuses = await crew.statuses(items)
    assert set(statuses) <= {Status.PROCESSING, Status.WAITING}
    assert statuses == sorted(statuses, key=[Status.PROCESSING, Status.WAITING].index)
    records = [await stage.item(item_id) for item_id in items]
    assert {(record.attempts, record.crashes) for record in records} == {(0, 0)}

    sandbox.booking_faults.down = False

    async def are_held() -> bool:
        return set(await crew.statuses(items)) == {Status.AWAITING_PAYMENT}

    await wait_until(are_held)
    assert pool.waits_for == ""
    assert sandbox.ledger.audit().creates == 8


async def test_what_always_fails_is_a_dead_letter_in_the_end(stage: Stage, scripted: Crew):
    scripted.script.answers["CreateBooking"] = DOWN
    await stage.capacity(100)
    item_id = await stage.join_one()
    pool = scripted.pool(retry_interval_seconds=0.0)
    for _ in range(LIMITS.max_retries + 1):
        await work_off(pool)
        await stage.queue.expire(EVENT)
    record = await stage.item(item_id)
    assert record.status is Status.FAILED
    assert len(scripted.script.asked) == LIMITS.max_retries + 1
    assert scripted.counted("retries_total", task="reserve") == LIMITS.max_retries
    assert scripted.counted("items_processed_total", task="reserve", outcome="failed") == 1


async def test_a_place_cancelled_while_it_is_booked_is_released_once(
    stage: Stage, crew: Crew, sandbox: Sandbox
):
    await crew.keeper.left(EVENT)
    item_id = await stage.join_one()
    sandbox.booking_faults.latency_ms = 100
    pool = crew.pool()
    await pool.run_once()
    assert await stage.queue.cancel(item_id, "ann", "no", "user:ann") is Status.PROCESSING
    await work_off(pool)
    assert await crew.statuses([item_id]) == [Status.CANCELLED]
    audit = sandbox.ledger.audit()
    assert (audit.creates, audit.cancelled, audit.pending, audit.unreleased) == (1, 1, 0, 0)
    assert (await stage.status()).capacity == 10


async def test_it_goes_on_by_itself_when_the_engine_is_back(
    stage: Stage, scripted: Crew, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("booking_worker.worker.pool._FIRST_PAUSE_SECONDS", 0.001)
    scripted.script.answers["CreateBooking"] = made
    await stage.capacity(10)
    item_id = await stage.join_one()
    troubles: list[Exception] = [
        EngineUnavailable("away"),
        EngineUnavailable("away"),
        ValueError("a defect"),
    ]
    events = stage.queue.events

    async def troubled() -> list[str]:
        if troubles:
            raise troubles.pop(0)
        return await events()

    monkeypatch.setattr("booking_worker.worker.pool._LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(stage.queue, "events", troubled)
    pool = scripted.pool()
    assert pool.seconds_since_claim() is None
    pool._claims._rounds._events = troubled
    await pool.start()

    async def is_held() -> bool:
        return await scripted.statuses([item_id]) == [Status.AWAITING_PAYMENT]

    await wait_until(is_held)
    assert pool.seconds_since_claim() is not None
    assert scripted.counted("errors_total", kind="engine") == 1
    assert scripted.counted("errors_total", kind="dispatcher") == 1


async def test_what_runs_may_finish_within_the_grace_time(stage: Stage, scripted: Crew):
    calls = scripted.script.answers["CreateBooking"] = HeldUp(made_for)
    await stage.capacity(100)
    items = await stage.join_many(5)
    pool = scripted.pool(slots=3)
    await pool.start()
    await wait_until(lambda: len(calls.asked) == 3)
    stopping = asyncio.create_task(pool.stop())
    await wait_until(lambda: pool._stopping)
    calls.go_on.set()
    await stopping
    await pool.stop()
    assert await scripted.statuses(items) == [Status.AWAITING_PAYMENT] * 3 + [Status.WAITING] * 2
    assert len(calls.asked) == 3


async def test_what_does_not_finish_is_handed_back_at_once(stage: Stage, scripted: Crew):
    """The next worker gets it without waiting for a lease to end, and with all its attempts."""
    calls = scripted.script.answers["CreateBooking"] = HeldUp(made_for)
    await stage.capacity(100)
    items = await stage.join_many(3)
    pool = scripted.pool(slots=3, grace_seconds=0.0)
    await pool.start()
    await wait_until(lambda: len(calls.asked) == 3)
    await pool.stop()
    assert not pool._running
    leases = await stage.claim(10)
    assert [lease.item_id for lease in leases] == items
    assert {(lease.attempts, lease.crashes) for lease in leases} == {(0, 0)}
    assert scripted.counted("items_processed_total", task="reserve", outcome="handed_back") == 3


async def test_what_a_claim_brings_while_the_pool_stops_is_back_in_the_line(
    stage: Stage, scripted: Crew, monkeypatch: pytest.MonkeyPatch
):
    await stage.capacity(100)
    items = await stage.join_many(3)
    claim, claimed, go_on = stage.queue.claim, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any, **how: Any) -> Claimed:
        answer = await claim(*arguments, **how)
        claimed.set()
        await go_on.wait()
        return answer

    monkeypatch.setattr(stage.queue, "claim", slow)
    pool = scripted.pool()
    await pool.start()
    await claimed.wait()
    stopping = asyncio.create_task(pool.stop())
    await wait_until(lambda: pool._stopping)
    go_on.set()
    await stopping
    assert await scripted.statuses(items) == [Status.WAITING] * 3
    assert scripted.script.asked == []


async def test_an_outcome_that_is_known_is_settled_even_after_the_grace_time(
    stage: Stage, scripted: Crew, monkeypatch: pytest.MonkeyPatch
):
    scripted.script.answers["CreateBooking"] = made
    await stage.capacity(100)
    item_id = await stage.join_one()
    settle_held, settling, go_on = stage.queue.settle_held, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any) -> Status:
        settling.set()
        await go_on.wait()
        return await settle_held(*arguments)

    monkeypatch.setattr(stage.queue, "settle_held", slow)
    pool = scripted.pool(grace_seconds=0.0)
    await pool.start()
    await settling.wait()
    stopping = asyncio.create_task(pool.stop())
    await wait_until(lambda: pool._stopping)
    await asyncio.sleep(0.02)
    go_on.set()
    await stopping
    assert await scripted.statuses([item_id]) == [Status.AWAITING_PAYMENT]


async def test_an_outcome_that_cannot_be_settled_holds_up_the_stop_for_a_moment_only(
    stage: Stage, scripted: Crew, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("booking_worker.worker.pool._SETTLE_SECONDS", 0.05)
    scripted.script.answers["CreateBooking"] = made
    await stage.capacity(100)
    await stage.join_one()
    settling = asyncio.Event()

    async def never(*_: Any) -> Status:
        settling.set()
        raise EngineUnavailable("away")

    monkeypatch.setattr(stage.queue, "settle_held", never)
    pool = scripted.pool(grace_seconds=0.0)
    await pool.start()
    await settling.wait()
    await pool.stop()
    assert not pool._running


async def test_a_stopped_pool_counts_no_more_among_the_live_slots(stage: Stage, scripted: Crew):
    first, second = scripted.pool(slots=3), scripted.pool(slots=4)
    await first.start()
    await first.start()
    await second.start()
    await wait_until(lambda: second.live_slots == 7)
    await first.stop()
    assert await stage.queue.heartbeat("another", 1, 7_000) == 5


async def test_it_says_when_the_engine_last_answered_a_claim(stage: Stage, scripted: Crew):
    now = 1_000.0
    pool = scripted.pool(clock=lambda: now)
    assert pool.seconds_since_claim() is None
    await pool.run_once()
    now += 50
    assert pool.seconds_since_claim() == 50
    await pool.run_once()
    assert pool.seconds_since_claim() == 0


async def test_its_slots_are_seen_from_outside(stage: Stage, scripted: Crew):
    calls = scripted.script.answers["CreateBooking"] = HeldUp(made_for)
    await stage.capacity(100)
    await stage.join_many(5)
    pool = scripted.pool(slots=3)
    await pool.run_once()
    assert scripted.counted("worker_slots") == 3
    assert scripted.counted("worker_slots_busy") == 3
    calls.go_on.set()
    await work_off(pool)
    assert scripted.counted("worker_slots_busy") == 0
    assert scripted.counted("items_processed_total", task=Task.RESERVE, outcome="held") == 5
