from __future__ import annotations

import pytest

from booking_worker.domain.model import EventStatus, Rate, Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import EVENT, Stage, a_join


async def test_an_event_that_nobody_joined(stage: Stage, queue: BookingQueue):
    assert await queue.status(EVENT) == EventStatus(
        event_id=EVENT,
        waiting=0,
        processing=0,
        awaiting_payment=0,
        completed=0,
        expired=0,
        cancelled=0,
        sold_out_items=0,
        rejected=0,
        failed=0,
        joined=0,
        admitted=0,
        dead_letters=0,
        capacity=None,
        capacity_known=False,
        capacity_exact=False,
        processing_seats=0,
        held_seats=0,
        confirmed_seats=0,
        total_seats=0,
        sold_out=False,
        paused=False,
        paused_because="",
        rate=Rate(0.0, 0, 0),
        now_ms=BEGINNING,
        oldest_ms=0,
        head_seats=0,
    )


async def test_one_of_each_kind(stage: Stage, queue: BookingQueue, clock: Clock):
    await stage.capacity(100)
    for at, status in enumerate(status for status in Status if status is not Status.SOLD_OUT):
        if status is not Status.WAITING:
            await stage.in_status(status, f"user-{at}", seats=2)
    await clock.advance(5)
    await stage.join_one("last")
    books = await queue.status(EVENT)
    assert (books.waiting, books.processing, books.awaiting_payment) == (1, 1, 3)
    assert (books.completed, books.expired, books.cancelled) == (1, 1, 1)
    assert (books.rejected, books.failed, books.dead_letters) == (1, 1, 1)
    assert (books.joined, books.admitted) == (10, 9)
    assert (books.processing_seats, books.held_seats, books.confirmed_seats) == (2, 6, 2)
    assert books.capacity == books.total_seats - 10
    assert (books.oldest_ms, books.now_ms) == (BEGINNING + 5, BEGINNING + 5)
    assert books.rate.weight > 0


@pytest.mark.parametrize("restarted", [True, False])
async def test_admission_pauses_when_the_engine_is_another(stage: Stage, restarted: bool):
    await stage.capacity(5)
    if restarted:
        await stage.client.hset(stage.key("state"), "epoch", "the engine before the restart")
    status = await stage.status()
    assert (status.paused, status.capacity_known) == (restarted, not restarted)


@pytest.mark.parametrize("paused", ["one", "all"])
async def test_why_an_operator_lets_nobody_in(stage: Stage, queue: BookingQueue, paused: str):
    await stage.capacity(5)
    await queue.pause(EVENT if paused == "one" else "", "the hall is flooded", "operator:kim")
    status = await stage.status()
    assert (status.paused, status.paused_because) == (True, "the hall is flooded")
    assert status.capacity_known
    await queue.resume(EVENT if paused == "one" else "")
    status = await stage.status()
    assert (status.paused, status.paused_because) == (False, "")


async def test_the_head_of_the_line_says_how_long_it_has_waited_and_for_what(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    (first,) = await stage.join(a_join("ann", 3))
    await clock.advance(1_000)
    await stage.join_one("ben")
    books = await queue.status(EVENT)
    assert (books.oldest_ms, books.head_seats) == (BEGINNING, 3)
    await queue.cancel(first.item_id, "ann", "", "test")
    books = await queue.status(EVENT)
    assert (books.oldest_ms, books.head_seats) == (BEGINNING + 1_000, 1)


async def test_a_head_without_a_record_says_nothing(stage: Stage, queue: BookingQueue):
    await stage.client.zadd(stage.key("positions"), {"AAAAAAAAAAAA.concert": 1})
    status = await queue.status(EVENT)
    assert (status.waiting, status.oldest_ms, status.head_seats) == (1, 0, 0)
    await queue.sweep(EVENT)


async def test_ends_add_up_with_who_joined(stage: Stage):
    for at, task in enumerate(Task):
        await stage.dead_letter(task, f"user-{at}")
    books = await stage.status()
    assert books.joined == books.failed == 3
