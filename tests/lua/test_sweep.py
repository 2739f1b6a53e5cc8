"""Fault 8: two indexes disagree. The sweep finds it from either side, mends it, and says so."""

from __future__ import annotations

import pytest

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue, Mended
from tests.support.clock import BEGINNING
from tests.support.stage import EVENT, LIMITS, Stage

NOBODY = "AAAAAAAAAAAA.concert"


async def test_nothing_is_wrong_with_an_event_that_nobody_joined(queue: BookingQueue):
    assert await queue.sweep(EVENT) == []


async def test_nothing_is_wrong_with_one_of_each_kind(stage: Stage, queue: BookingQueue):
    await stage.capacity(100)
    for at, status in enumerate(status for status in Status if status is not Status.SOLD_OUT):
        await stage.in_status(status, f"user-{at}") if status is not Status.WAITING else None
    await stage.join_one("last")
    assert await queue.sweep(EVENT) == []


async def test_more_than_one_chunk(stage: Stage, queue: BookingQueue):
    ids = await stage.join_many(1000)
    await stage.client.zrem(stage.key("timeouts"), *ids[::2])
    mended = await queue.sweep(EVENT)
    assert sorted(mended) == sorted(
        Mended(EVENT, item_id, "waiting, but without a deadline") for item_id in ids[::2]
    )


async def test_who_was_lost_from_the_line_is_back_at_its_place(stage: Stage, queue: BookingQueue):
    ids = await stage.join_many(3)
    await stage.client.zrem(stage.key("positions"), ids[0])
    assert await queue.sweep(EVENT) == [Mended(EVENT, ids[0], "waiting, but not in the line")]
    assert (await stage.item(ids[0])).position == 1


async def test_a_waiting_items_deadline_is_what_it_was(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one()
    await stage.clock.advance(5_000)
    await stage.client.zrem(stage.key("timeouts"), item_id)
    assert await queue.sweep(EVENT) == [Mended(EVENT, item_id, "waiting, but without a deadline")]
    assert (await stage.item(item_id)).deadline_ms == BEGINNING + LIMITS.queue_timeout_ms


async def test_a_hold_s_deadline_is_what_it_was(stage: Stage, queue: BookingQueue):
    item_id = await stage.held_item()
    await stage.clock.advance(5_000)
    await stage.client.zrem(stage.key("timeouts"), item_id)
    assert await queue.sweep(EVENT) == [
        Mended(EVENT, item_id, "awaiting_payment, but without a deadline")
    ]
    assert (await stage.item(item_id)).deadline_ms == BEGINNING + LIMITS.payment_timeout_ms


@pytest.mark.parametrize("task", list(Task))
async def test_a_lease_without_an_end_gets_one(stage: Stage, queue: BookingQueue, task: Task):
    lease = await stage.lease_of(task)
    await stage.client.zrem(stage.key("timeouts"), lease.item_id)
    (mended,) = await queue.sweep(EVENT)
    assert mended.name == lease.item_id
    assert (await stage.item(lease.item_id)).deadline_ms == BEGINNING + LIMITS.lease_ms
    assert await queue.extend(lease) == BEGINNING + LIMITS.lease_ms


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("state", ["ready", "backing off"])
async def test_a_task_that_nobody_would_ever_get_is_ready(
    stage: Stage, queue: BookingQueue, task: Task, state: str
):
    lease = await stage.lease_of(task)
    if state == "ready":
        await queue.hand_back(lease, asked=True)
        await stage.client.zrem(stage.key("tasks"), lease.item_id)
    else:
        await queue.settle_retry(lease, 5_000, "down")
        await stage.client.zrem(stage.key("timeouts"), lease.item_id)
    (mended,) = await queue.sweep(EVENT)
    assert mended.wrong.endswith(", but without a deadline")
    assert (await stage.claim_one(task)).item_id == lease.item_id


async def test_what_is_leased_is_not_ready(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    await stage.client.zadd(stage.key("tasks"), {lease.item_id: 2**51 + 1})
    assert await queue.sweep(EVENT) == [
        Mended(EVENT, lease.item_id, "processing, both ready and with a deadline")
    ]
    assert await stage.claim() == []


async def test_what_is_ready_has_no_deadline(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    await queue.hand_back(lease, asked=True)
    await stage.client.zadd(stage.key("timeouts"), {lease.item_id: 5})
    assert await queue.sweep(EVENT) == [
        Mended(EVENT, lease.item_id, "processing, both ready and with a deadline")
    ]
    assert (await stage.claim_one()).item_id == lease.item_id


async def test_who_is_admitted_is_listed(stage: Stage, queue: BookingQueue):
    item_id = await stage.held_item()
    await stage.client.zrem(stage.key("admitted"), item_id)
    assert await queue.sweep(EVENT) == [Mended(EVENT, item_id, "admitted, but not listed")]


async def test_a_dead_letter_is_listed(stage: Stage, queue: BookingQueue):
    dead = await stage.dead_letter()
    await stage.client.zrem(stage.key("dead"), dead)
    assert await queue.sweep(EVENT) == [Mended(EVENT, dead, "a dead letter, but not listed")]
    (item,) = await queue.list_items(EVENT, "dead", 0, 10)
    assert item.item_id == dead


async def test_a_users_place_that_was_lost_is_theirs_again(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one("ann")
    await stage.client.hdel(stage.key("users"), "ann")
    assert await queue.sweep(EVENT) == [Mended(EVENT, item_id, "its user's place was lost")]


async def test_one_of_two_places_that_was_lost(stage: Stage):
    stage.limit(places_per_user=2)
    first, second = await stage.join_one("ann"), await stage.join_one("ann")
    await stage.client.hset(stage.key("users"), "ann", second)
    assert await stage.queue.sweep(EVENT) == [Mended(EVENT, first, "its user's place was lost")]


async def test_a_place_without_an_item_is_no_place(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one("ann")
    await stage.client.hset(stage.key("users"), "ann", f"{item_id} {NOBODY}")
    await stage.client.hset(stage.key("users"), "ben", NOBODY)
    mended = await queue.sweep(EVENT)
    assert sorted(mended) == [
        Mended(EVENT, "ann", "a place without an item"),
        Mended(EVENT, "ben", "a place without an item"),
    ]
    await stage.join_one("ben")


async def test_a_dead_letter_takes_no_place(stage: Stage, queue: BookingQueue):
    dead = await stage.dead_letter(user_id="ann")
    await stage.client.hset(stage.key("users"), "ann", dead)
    assert await queue.sweep(EVENT) == [Mended(EVENT, "ann", "a place without an item")]


@pytest.mark.parametrize("index", ["timeouts", "tasks", "positions", "admitted", "dead"])
async def test_an_entry_of_nobody_is_dropped(stage: Stage, queue: BookingQueue, index: str):
    await stage.join_one()
    await stage.client.zadd(stage.key(index), {NOBODY: 1})
    assert await queue.sweep(EVENT) == [Mended(EVENT, NOBODY, f"in {index}, but there is no item")]


@pytest.mark.parametrize("gone", [2, 4])
async def test_numbers_that_do_not_add_up_are_told_by_rank(
    stage: Stage, queue: BookingQueue, gone: int
):
    """More or fewer than left: whoever waits hears the truth again after the sweep."""
    ids = await stage.join_many(9)
    for item_id in ids[3:6]:
        await queue.cancel(item_id, "", "", "operator:eve")
    if gone == 2:
        await stage.client.zrem(stage.key("gaps"), "5")
    else:
        await stage.client.zadd(stage.key("gaps"), {"3": 3})
    wrong = "in line or gone, but not all are accounted for"
    assert await queue.sweep(EVENT) == [Mended(EVENT, EVENT, wrong)]
    places = await queue.positions(EVENT, ids[:3] + ids[6:])
    assert [place and place.position for place in places] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "index, status",
    [
        ("timeouts", Status.FAILED),
        ("tasks", Status.WAITING),
        ("tasks", Status.AWAITING_PAYMENT),
        ("tasks", Status.FAILED),
        ("positions", Status.PROCESSING),
        ("positions", Status.AWAITING_PAYMENT),
        ("positions", Status.FAILED),
        ("admitted", Status.WAITING),
        ("admitted", Status.FAILED),
        ("dead", Status.WAITING),
        ("dead", Status.CONFIRMING),
        ("dead", Status.RELEASING),
    ],
)
async def test_an_entry_that_the_status_does_not_ask_for_is_dropped(
    stage: Stage, queue: BookingQueue, index: str, status: Status
):
    item_id = await stage.in_status(status)
    await stage.client.zadd(stage.key(index), {item_id: 1})
    (mended,) = await queue.sweep(EVENT)
    assert mended.name == item_id
    assert str(status) in mended.wrong


async def test_mending_wakes_a_worker_for_what_is_ready(stage: Stage, queue: BookingQueue):
    lease = await stage.processing()
    await queue.hand_back(lease, asked=True)
    await stage.client.delete(stage.key("tasks"))
    async with stage.wakes() as woken_for:
        await queue.sweep(EVENT)
        assert await woken_for() == [EVENT]


@pytest.mark.parametrize("index", ["positions", "timeouts", "tasks", "admitted", "users", "dead"])
async def test_an_index_that_was_lost_as_a_whole(stage: Stage, queue: BookingQueue, index: str):
    await stage.capacity(100)
    for at, status in enumerate(
        (Status.PROCESSING, Status.AWAITING_PAYMENT, Status.CONFIRMING, Status.FAILED)
    ):
        await stage.in_status(status, f"user-{at}")
    await queue.hand_back(await stage.releasing("user-9"), asked=True)
    await stage.join_many(3, name="waiting")
    await stage.client.delete(stage.key(index))
    assert await queue.sweep(EVENT) != []
    assert await queue.sweep(EVENT) == []
