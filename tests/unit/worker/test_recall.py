from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Lease, Status
from booking_worker.queue.booking_queue import BookingQueue, Claimed
from booking_worker.worker import recall
from booking_worker.worker.recall import Recall
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, Stage
from tests.support.wait import wait_until
from tests.unit.worker.crew import Crew, HeldUp, made_for

pytestmark = on_one_engine


@pytest.fixture
async def lost(stage: Stage, queue: BookingQueue) -> list[Lease]:
    """Three whose bookings were made under the old engine, and who wait in the new one."""
    await stage.join_many(3)
    await stage.capacity(3)
    leases = await stage.claim(3)
    for lease in leases:
        await queue.hand_back(lease, asked=False)
    await stage.capacity(0)
    return [replace(lease, engine="the old master") for lease in leases]


async def statuses(stage: Stage, leases: list[Lease]) -> list[Status]:
    return [(await stage.item(lease.item_id)).status for lease in leases]


async def test_another_engine_is_told_who_has_a_booking_once(
    stage: Stage, queue: BookingQueue, lost: list[Lease]
):
    memory = Recall(queue)
    memory.booked(lost[0])
    memory.booked(lost[2])
    await memory.hear(EVENT, "the old master")
    assert await statuses(stage, lost) == [Status.WAITING] * 3
    await memory.hear("another event", "the new master")
    assert await statuses(stage, lost) == [Status.WAITING] * 3
    await memory.hear(EVENT, "the new master")
    assert await statuses(stage, lost) == [Status.PROCESSING, Status.WAITING, Status.PROCESSING]
    moves = (await queue.ask_capacity(EVENT)).moves
    await memory.hear(EVENT, "the new master")
    assert (await queue.ask_capacity(EVENT)).moves == moves


async def test_a_booking_that_was_made_as_the_engine_was_replaced_is_told_too(
    stage: Stage, queue: BookingQueue, lost: list[Lease]
):
    memory = Recall(queue)
    memory.booked(lost[0])
    await memory.hear(EVENT, "the new master")
    memory.booked(lost[1])
    await memory.hear(EVENT, "the new master")
    assert (await statuses(stage, lost))[:2] == [Status.PROCESSING] * 2


async def test_what_one_engine_was_told_the_next_one_is_told_again(
    stage: Stage, queue: BookingQueue, lost: list[Lease]
):
    memory = Recall(queue)
    memory.booked(lost[0])
    await memory.hear(EVENT, "the new master")
    (lease,) = await stage.claim()
    await queue.settle_short(lease, "as if it had never been told")
    await memory.hear(EVENT, "the next master")
    assert (await statuses(stage, lost))[0] is Status.PROCESSING


async def test_what_could_not_be_told_is_told_later(
    stage: Stage, queue: BookingQueue, lost: list[Lease], monkeypatch: pytest.MonkeyPatch
):
    memory = Recall(queue)
    memory.booked(lost[0])

    async def away(*_: object) -> int:
        raise EngineUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(queue, "readmit", away)
        with pytest.raises(EngineUnavailable):
            await memory.hear(EVENT, "the new master")
    await memory.hear(EVENT, "the new master")
    assert (await statuses(stage, lost))[0] is Status.PROCESSING


async def test_many_are_told_in_parts(
    stage: Stage, queue: BookingQueue, lost: list[Lease], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recall, "_MOST_AT_ONCE", 2)
    memory = Recall(queue)
    for lease in lost:
        memory.booked(lease)
    await memory.hear(EVENT, "the new master")
    assert await statuses(stage, lost) == [Status.PROCESSING] * 3


async def test_they_are_admitted_in_the_order_of_the_line(
    stage: Stage, queue: BookingQueue, lost: list[Lease]
):
    """Whatever the order in which the Booking Service answered."""
    memory = Recall(queue)
    for lease in reversed(lost):
        memory.booked(lease)
    await memory.hear(EVENT, "the new master")
    again = [change.seq for change in await stage.changes() if change.after == "processing"][-3:]
    assert again == sorted(again)


async def test_the_oldest_are_forgotten(
    stage: Stage, queue: BookingQueue, lost: list[Lease], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recall, "_MOST_REMEMBERED", 1)
    memory = Recall(queue)
    memory.booked(replace(lost[0], event_id="another event"))
    memory.booked(lost[1])
    memory.booked(lost[2])
    assert set(memory._booked) == {EVENT}
    await memory.hear(EVENT, "the new master")
    assert await statuses(stage, lost) == [Status.WAITING, Status.WAITING, Status.PROCESSING]


# --- told by the claims of a worker -----------------------------------------------------------------


@pytest.fixture
async def forgotten(stage: Stage) -> Lease:
    """Of one who has a booking from an old master, and waits in the new one's line."""
    await stage.capacity(1)
    await stage.join_one("ann")
    lease = await stage.claim_one()
    await stage.queue.hand_back(lease, asked=False)
    await stage.capacity(0)
    return replace(lease, engine="the old master")


def claims_of(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The event and the limit of each claim from now on."""
    seen: list[tuple[str, int]] = []
    claim = stage.queue.claim

    async def noted(event_id: str, worker_id: str, limit: int, *more: Any, **how: Any) -> Claimed:
        seen.append((event_id, limit))
        return await claim(event_id, worker_id, limit, *more, **how)

    monkeypatch.setattr(stage.queue, "claim", noted)
    return seen


async def test_while_the_breaker_is_open_a_new_engine_hears_of_bookings_all_the_same(
    stage: Stage, scripted: Crew, forgotten: Lease, monkeypatch: pytest.MonkeyPatch
):
    """In a few seconds it would tell those who have them that all is sold."""
    now = 1_000.0
    breaker = scripted.booking.breaker
    monkeypatch.setattr(breaker, "_clock", lambda: 0.0)
    while breaker.state == "closed":
        breaker.record_failure()
    await stage.join_one("ben", event_id="other")
    pool = scripted.pool(clock=lambda: now)
    await pool.run_once()
    pool._claims._recall.booked(forgotten)
    seen = claims_of(stage, monkeypatch)
    await pool.run_once()
    assert seen == []  # it is asked once a second
    now += 1
    await pool.run_once()
    assert await scripted.statuses([forgotten.item_id]) == [Status.PROCESSING]
    assert seen == [(EVENT, 0)]
    assert scripted.script.asked == []


async def test_while_all_slots_are_busy_a_new_engine_hears_of_bookings_all_the_same(
    stage: Stage, scripted: Crew, forgotten: Lease
):
    now = 1_000.0
    calls = scripted.script.answers["CreateBooking"] = HeldUp(made_for)
    await stage.capacity(1, "other")
    await stage.join_one("ben", event_id="other")
    pool = scripted.pool(slots=1, clock=lambda: now)
    while not pool._running:
        await pool.run_once()
    pool._claims._recall.booked(forgotten)
    now += 1
    await pool.run_once()
    assert await scripted.statuses([forgotten.item_id]) == [Status.PROCESSING]
    calls.go_on.set()
    await wait_until(lambda: not pool._running)


async def test_an_event_that_waits_for_its_turn_hears_of_bookings_all_the_same(
    stage: Stage, scripted: Crew, forgotten: Lease
):
    now = 1_000.0
    calls = scripted.script.answers["CreateBooking"] = HeldUp(made_for)
    await stage.capacity(1, "other")
    pool = scripted.pool(slots=1, clock=lambda: now)
    while await pool.run_once() == 0:
        pass
    await stage.join_one("ben", event_id="other")
    for event_id in ("other", EVENT):
        pool.wake(event_id)
    pool._claims._recall.booked(forgotten)
    now += 1
    await pool.run_once()
    assert pool._running
    assert EVENT in pool._claims._candidates
    assert await scripted.statuses([forgotten.item_id]) == [Status.PROCESSING]
    calls.go_on.set()
    await wait_until(lambda: not pool._running)


async def test_an_event_whose_turn_is_next_is_asked_once(
    stage: Stage, scripted: Crew, forgotten: Lease, monkeypatch: pytest.MonkeyPatch
):
    now = 1_000.0
    pool = scripted.pool(slots=1, clock=lambda: now)
    await pool.run_once()
    for event_id in ("other", EVENT):
        pool.wake(event_id)
    pool._claims._recall.booked(forgotten)
    now += 1
    seen = claims_of(stage, monkeypatch)
    while await pool.run_once() == 0:
        pass
    assert seen == [("other", 1), (EVENT, 1)]
    assert await scripted.statuses([forgotten.item_id]) == [Status.PROCESSING]


async def test_a_free_worker_asks_for_nothing_besides_its_claims(
    stage: Stage, scripted: Crew, forgotten: Lease, monkeypatch: pytest.MonkeyPatch
):
    now = 1_000.0
    pool = scripted.pool(clock=lambda: now)
    pool._claims._recall.booked(replace(forgotten, event_id="over"))
    seen = claims_of(stage, monkeypatch)
    for _ in range(5):
        await pool.run_once()
        now += 1
    assert {(event_id, limit > 0) for event_id, limit in seen} == {(EVENT, True)}


async def test_what_goes_wrong_as_a_new_engine_is_told_ends_nothing(
    stage: Stage, scripted: Crew, forgotten: Lease, monkeypatch: pytest.MonkeyPatch
):
    now = 1_000.0
    pool = scripted.pool(slots=0, clock=lambda: now)
    for event_id in ("away", "broken", EVENT):
        pool._claims._recall.booked(replace(forgotten, event_id=event_id))
    claim, readmit = stage.queue.claim, stage.queue.readmit

    async def troubled(event_id: str, *more: Any, **how: Any) -> Claimed:
        if event_id != EVENT:
            raise EngineUnavailable("away") if event_id == "away" else ValueError("a defect")
        return await claim(event_id, *more, **how)

    async def broken(*_: object) -> int:
        raise ValueError("a defect")

    monkeypatch.setattr(stage.queue, "claim", troubled)
    monkeypatch.setattr(stage.queue, "readmit", broken)
    await pool.run_once()
    assert scripted.counted("errors_total", kind="claim") == 2
    monkeypatch.setattr(stage.queue, "readmit", readmit)
    now += 1
    await pool.run_once()
    assert await scripted.statuses([forgotten.item_id]) == [Status.PROCESSING]
