from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import Held, Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.lua.fencing import refused_for_another_task, refused_under_an_old_lease
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import EVENT, LIMITS, Stage

HELD = Held("B-1", "REF-1", None, "RES-1")


async def test_the_booking_waits_for_payment(stage: Stage, queue: BookingQueue):
    lease = await stage.processing(seats=2)
    assert await queue.settle_held(lease, HELD) is Status.AWAITING_PAYMENT
    item = await stage.item(lease.item_id)
    assert (item.booking_id, item.booking_reference, item.reservation_id) == (
        "B-1", "REF-1", "RES-1",
    )  # fmt: skip
    assert item.pay_by_ms == item.deadline_ms == BEGINNING + LIMITS.payment_timeout_ms
    status = await stage.status()
    assert (status.capacity, status.processing_seats, status.held_seats) == (8, 0, 2)
    assert (status.processing, status.awaiting_payment) == (0, 1)
    change = await stage.last_change()
    assert (change.before, change.after, change.pay_by_ms, change.booking_id) == (
        "processing", "awaiting_payment", item.pay_by_ms, "B-1",
    )  # fmt: skip


@pytest.mark.parametrize(
    "hold_ms, expected", [(1_000, 1_000), (LIMITS.payment_timeout_ms + 1, None), (0, 0)]
)
async def test_a_hold_ends_when_the_booking_does_if_that_is_earlier(
    stage: Stage, queue: BookingQueue, clock: Clock, hold_ms: int, expected: int | None
):
    lease = await stage.processing()
    await clock.advance(7)
    await queue.settle_held(lease, Held("B", "", hold_ms))
    wanted = LIMITS.payment_timeout_ms if expected is None else expected
    assert (await stage.item(lease.item_id)).pay_by_ms == clock.now + wanted


async def test_many_that_come_back_together_are_settled_one_by_one(
    stage: Stage, queue: BookingQueue
):
    await stage.capacity(10)
    ids = await stage.join_many(4)
    leases = await stage.claim(4)
    await queue.cancel(ids[1], "user-1", "changed my mind", "user:user-1")
    old = replace(leases[2], token=leases[2].token - 1)
    sent = [leases[0], leases[1], old, leases[3], leases[3]]
    outcomes = await asyncio.gather(
        *(queue.settle_held(lease, replace(HELD, booking_id=f"B-{lease.seq}")) for lease in sent),
        return_exceptions=True,
    )
    assert [outcome if isinstance(outcome, Status) else type(outcome) for outcome in outcomes] == [
        Status.AWAITING_PAYMENT, Status.RELEASING, Fenced, Status.AWAITING_PAYMENT, Fenced,
    ]  # fmt: skip
    assert [(await stage.item(item_id)).booking_id for item_id in ids] == ["B-1", "B-2", "", "B-4"]
    status = await stage.status()
    assert (status.processing, status.awaiting_payment) == (1, 3)


async def test_each_worker_answers_in_its_own_name(stage: Stage, queue: BookingQueue):
    await stage.capacity(10)
    await stage.join_many(2)
    leases = [
        (await queue.claim(EVENT, worker, 1, frozenset({Task.RESERVE}))).leases[0]
        for worker in ("a", "b")
    ]
    await asyncio.gather(*(queue.settle_held(lease, HELD) for lease in leases))
    held = [one for one in await stage.changes() if one.after == "awaiting_payment"]
    assert {(one.item_id, one.actor) for one in held} == {
        (leases[0].item_id, "worker:a"), (leases[1].item_id, "worker:b"),
    }  # fmt: skip


async def test_failures_before_do_not_count_for_the_next_task(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    lease = await stage.processing()
    await queue.settle_retry(lease, 0, "down")
    await queue.expire(EVENT)
    await stage.claim_one()
    await clock.advance(LIMITS.lease_ms)
    await queue.expire(EVENT)
    again = await stage.claim_one()
    assert (again.attempts, again.crashes) == (1, 1)
    await queue.settle_held(again, HELD)
    item = await stage.item(lease.item_id)
    assert (item.attempts, item.crashes) == (0, 0)


async def test_with_a_cancel_asked_meanwhile_it_is_released(stage: Stage, queue: BookingQueue):
    lease = await stage.processing(seats=2)
    await queue.cancel(lease.item_id, "ann", "changed my mind", "user:ann")
    assert await queue.settle_held(lease, HELD) is Status.RELEASING
    status = await stage.status()
    assert (status.processing_seats, status.held_seats, status.capacity) == (0, 2, 8)
    change = await stage.last_change()
    assert (change.before, change.after, change.why) == (
        "processing", "releasing", "changed my mind",
    )  # fmt: skip
    release = await stage.claim_one(Task.RELEASE)
    assert (release.booking_id, release.reservation_id) == ("B-1", "RES-1")


async def test_the_answer_comes_twice(stage: Stage, queue: BookingQueue):
    """The same worker repeats itself after a lost answer: it hears that the lease has ended."""
    lease = await stage.processing()
    await queue.settle_held(lease, HELD)
    with pytest.raises(Fenced):
        await queue.settle_held(lease, HELD)
    assert (await stage.status()).held_seats == 1


async def test_an_old_lease_is_refused(stage: Stage, queue: BookingQueue):
    await refused_under_an_old_lease(
        stage, Task.RESERVE, lambda lease: queue.settle_held(lease, HELD)
    )


@pytest.mark.parametrize("task", [Task.CONFIRM, Task.RELEASE])
async def test_another_task_is_refused(stage: Stage, queue: BookingQueue, task: Task):
    await refused_for_another_task(stage, task, lambda lease: queue.settle_held(lease, HELD))
