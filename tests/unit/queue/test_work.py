from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import Held, Lease, Status, Task
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import BEGINNING
from tests.support.queue_fixtures import queue_engine as engine
from tests.support.stage import ALL_TASKS, EVENT, LIMITS, Stage, a_join

__all__ = ["engine"]  # each kind of them


async def test_many_events_are_claimed_from_in_one_go(stage: Stage, queue: BookingQueue):
    for event_id in ("a", "b", "c"):
        await queue.join(event_id, [a_join(f"user-{at}", 1, event_id) for at in range(3)])
    await stage.capacity(5, "a")
    await stage.capacity(None, "c")
    claims = await asyncio.gather(
        *(queue.claim(event_id, "w", 2, ALL_TASKS) for event_id in ("a", "b", "c"))
    )
    assert [(len(claim.leases), claim.blocked) for claim in claims] == [
        (2, False), (0, True), (2, False),
    ]  # fmt: skip
    assert {lease.event_id for lease in claims[0].leases} == {"a"}
    assert claims[1].needs_refresh


@pytest.mark.parametrize(
    "hold_ms, expected",
    [
        (None, LIMITS.payment_timeout_ms),
        (5_000, 5_000),
        (LIMITS.payment_timeout_ms * 2, LIMITS.payment_timeout_ms),
    ],
)
async def test_a_hold_is_the_shorter_of_the_setting_and_the_booking(
    stage: Stage, queue: BookingQueue, hold_ms: int | None, expected: int
):
    lease = await stage.processing()
    await queue.settle_held(lease, Held("B", "", hold_ms))
    assert (await stage.item(lease.item_id)).pay_by_ms == BEGINNING + expected


async def test_holds_that_come_back_together_have_an_answer_each(stage: Stage, queue: BookingQueue):
    await stage.capacity(5)
    await stage.join_many(3)
    leases = await stage.claim(3)
    sent = [*leases[:2], replace(leases[2], token=7)]
    outcomes = await asyncio.gather(
        *(queue.settle_held(lease, Held("B", "", None)) for lease in sent), return_exceptions=True
    )
    assert outcomes[:2] == [Status.AWAITING_PAYMENT] * 2
    assert isinstance(outcomes[2], Fenced)
    assert (outcomes[2].item_id, outcomes[2].token) == (leases[2].item_id, 7)


async def test_who_settles_is_named_by_the_lease(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    await stage.capacity(5)
    (lease,) = (await queue.claim(EVENT, "replica-7", 1, ALL_TASKS)).leases
    await queue.settle_rejected(lease, "no")
    assert (await stage.last_change()).actor == "worker:replica-7"


async def test_a_status_is_answered_as_the_word_of_the_domain(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    status = await queue.hand_back(lease, asked=True)
    assert status is Status.PROCESSING


async def test_the_next_deadline_is_none_or_milliseconds(stage: Stage, queue: BookingQueue):
    assert (await queue.expire(EVENT)).next_in_ms is None
    assert await queue.next_deadline(EVENT) is None
    await stage.join_one()
    assert (await queue.expire(EVENT)).next_in_ms == LIMITS.queue_timeout_ms
    assert await queue.next_deadline(EVENT) == LIMITS.queue_timeout_ms


@pytest.mark.parametrize("available, capacity", [(None, None), (7, 7), (0, 0), (-1, 0)])
async def test_an_answer_of_the_ticket_service(
    stage: Stage, queue: BookingQueue, available: int | None, capacity: int | None
):
    question = await queue.ask_capacity(EVENT)
    assert question[:3] == (0, 0, 0)
    assert await queue.set_capacity(EVENT, question, available) == 0
    assert (await stage.status()).capacity == capacity


async def test_sold_out_or_not(stage: Stage, queue: BookingQueue):
    assert await queue.sell_out(EVENT) is None
    await stage.sold_out()
    assert await queue.sell_out(EVENT) is None


async def test_only_the_kinds_that_are_asked_for(stage: Stage, queue: BookingQueue):
    item_id = await stage.held_item()
    await queue.ask_confirm(item_id, "ann", "PAY")
    assert await stage.claim(5, frozenset({Task.RESERVE, Task.RELEASE})) == []
    assert len(await stage.claim(5, frozenset({Task.CONFIRM}))) == 1


async def test_a_lease_is_kept(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    await stage.clock.advance(5)
    assert await queue.extend(lease) == BEGINNING + 5 + LIMITS.lease_ms


Settle = Callable[[BookingQueue, Lease], Awaitable[Status]]

SETTLES: dict[str, tuple[Task, Settle, Status]] = {
    "retry": (
        Task.RESERVE,
        lambda queue, lease: queue.settle_retry(lease, 5, ""),
        Status.PROCESSING,
    ),
    "short": (Task.RESERVE, lambda queue, lease: queue.settle_short(lease, ""), Status.WAITING),
    "rejected": (
        Task.RESERVE,
        lambda queue, lease: queue.settle_rejected(lease, ""),
        Status.REJECTED,
    ),
    "confirmed": (
        Task.CONFIRM,
        lambda queue, lease: queue.settle_confirmed(lease, ""),
        Status.COMPLETED,
    ),
    "unconfirmed": (
        Task.CONFIRM,
        lambda queue, lease: queue.settle_unconfirmed(lease, ""),
        Status.AWAITING_PAYMENT,
    ),
    "gone": (Task.CONFIRM, lambda queue, lease: queue.settle_gone(lease, ""), Status.EXPIRED),
    "released": (Task.RELEASE, lambda queue, lease: queue.settle_released(lease), Status.CANCELLED),
    "paid": (Task.RELEASE, lambda queue, lease: queue.settle_paid(lease, ""), Status.COMPLETED),
    "paying": (
        Task.RELEASE,
        lambda queue, lease: queue.settle_paying(lease),
        Status.AWAITING_PAYMENT,
    ),
}


@pytest.mark.parametrize("name", SETTLES)
async def test_every_way_to_settle_answers_the_status_that_the_item_has(
    stage: Stage, queue: BookingQueue, name: str
):
    task, settle, expected = SETTLES[name]
    lease = await stage.lease_of(task)
    assert await settle(queue, lease) is expected
    assert (await stage.item(lease.item_id)).status is expected


def test_no_way_to_settle_is_left_out():
    ways = {name.removeprefix("settle_") for name in dir(BookingQueue) if "settle_" in name}
    assert ways == {*SETTLES, "held"}


async def test_who_has_a_booking_is_admitted_again(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one()
    assert await queue.readmit(EVENT, [item_id]) == 1
    (lease,) = (await queue.claim(EVENT, "w", 1, ALL_TASKS)).leases
    assert lease.item_id == item_id


async def test_an_engine_that_opened_the_books_need_not_be_told_of_the_event(
    stage: Stage, queue: BookingQueue
):
    await stage.join_one()
    await stage.capacity(1)
    await stage.client.zrem(keys.EVENTS, EVENT)
    question = await queue.ask_capacity(EVENT)
    assert await stage.listed() == []
    assert question.epoch == question.engine
    await stage.client.zadd(keys.EVENTS, {EVENT: 1})
