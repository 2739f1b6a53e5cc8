from __future__ import annotations

import pytest

from booking_worker.domain.errors import ItemNotFound, NotYourItem, WrongStatus
from booking_worker.domain.model import Held, Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import Clock
from tests.support.stage import EVENT, Stage


async def test_a_held_item_is_ready_to_be_confirmed(stage: Stage, queue: BookingQueue):
    item_id = await stage.held_item(seats=2)
    assert await queue.ask_confirm(item_id, "ann", "PAY-7") is Status.CONFIRMING
    change = await stage.last_change()
    assert (change.before, change.after, change.actor) == (
        "awaiting_payment", "confirming", "user:ann",
    )  # fmt: skip
    lease = await stage.claim_one(Task.CONFIRM)
    assert lease.item_id == item_id
    assert lease.payment_reference == "PAY-7"
    assert lease.booking_id == "B-ann"
    assert lease.attempts == lease.crashes == 0


async def test_the_first_payment_counts(stage: Stage, queue: BookingQueue):
    item_id = await stage.held_item()
    await queue.ask_confirm(item_id, "ann", "PAY-1")
    assert await queue.ask_confirm(item_id, "ann", "PAY-2") is Status.CONFIRMING
    lease = await stage.claim_one(Task.CONFIRM)
    assert lease.payment_reference == "PAY-1"
    assert await queue.ask_confirm(item_id, "ann", "PAY-3") is Status.CONFIRMING
    await queue.settle_confirmed(lease, "REF")
    assert await queue.ask_confirm(item_id, "ann", "PAY-4") is Status.COMPLETED
    assert (await stage.item(item_id)).payment_reference == "PAY-1"
    assert [change.after for change in await stage.changes()].count("confirming") == 1


@pytest.mark.parametrize("early, paid", [(1, True), (0, False), (-1, False)])
async def test_at_the_very_millisecond_of_the_deadline_the_hold_is_over(
    stage: Stage, queue: BookingQueue, clock: Clock, early: int, paid: bool
):
    item_id = await stage.held_item()
    await clock.advance(stage.limits.payment_timeout_ms - early)
    if paid:
        assert await queue.ask_confirm(item_id, "ann", "PAY") is Status.CONFIRMING
        assert (await queue.expire(EVENT)).moved == 0
    else:
        with pytest.raises(WrongStatus, match="cannot pay while the item is expired"):
            await queue.ask_confirm(item_id, "ann", "PAY")
        assert (await queue.expire(EVENT)).moved == 1
        assert (await stage.item(item_id)).status is Status.RELEASING


async def test_a_payment_beats_a_deadline_that_passes_later(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    item_id = await stage.held_item()
    await queue.ask_confirm(item_id, "ann", "PAY")
    await clock.advance(10 * stage.limits.payment_timeout_ms)
    await queue.expire(EVENT)
    assert (await stage.item(item_id)).status is Status.CONFIRMING


@pytest.mark.parametrize(
    "status, told",
    [
        (Status.WAITING, "waiting"),
        (Status.PROCESSING, "processing"),
        (Status.RELEASING, "cancelled"),
        (Status.EXPIRED, "expired"),
        (Status.CANCELLED, "cancelled"),
        (Status.SOLD_OUT, "sold_out"),
        (Status.REJECTED, "rejected"),
        (Status.FAILED, "failed"),
    ],
)
async def test_only_what_is_held_can_be_paid(
    stage: Stage, queue: BookingQueue, status: Status, told: str
):
    item_id = await stage.in_status(status)
    with pytest.raises(WrongStatus) as caught:
        await queue.ask_confirm(item_id, "ann", "PAY")
    assert caught.value.status == told
    assert (await stage.item(item_id)).status is status


async def test_a_hold_that_is_released_for_lateness_is_told_expired(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    item_id = await stage.held_item()
    await clock.advance(stage.limits.payment_timeout_ms)
    await queue.expire(EVENT)
    with pytest.raises(WrongStatus, match="expired"):
        await queue.ask_confirm(item_id, "ann", "PAY")


async def test_a_payment_in_progress_can_be_announced_although_a_cancel_was_asked_before(
    stage: Stage, queue: BookingQueue
):
    lease = await stage.processing()
    await queue.cancel(lease.item_id, "ann", "no", "user:ann")
    assert await queue.settle_held(lease, Held("B", "", None)) is Status.RELEASING
    await queue.settle_paying(await stage.claim_one(Task.RELEASE))
    assert await queue.ask_confirm(lease.item_id, "ann", "PAY") is Status.CONFIRMING


@pytest.mark.parametrize("user_id", ["ben", "", "Ann"])
async def test_nobody_pays_for_somebody_else(stage: Stage, queue: BookingQueue, user_id: str):
    item_id = await stage.held_item()
    with pytest.raises(NotYourItem):
        await queue.ask_confirm(item_id, user_id, "PAY")
    assert (await stage.item(item_id)).status is Status.AWAITING_PAYMENT


async def test_an_unknown_item_is_not_found(queue: BookingQueue):
    with pytest.raises(ItemNotFound):
        await queue.ask_confirm("AAAAAAAAAAAA.concert", "ann", "PAY")
