from __future__ import annotations

import pytest

from booking_worker.domain.model import Held, Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_the_answer_when_nothing_moved_is_exact(stage: Stage):
    await stage.join_many(2)
    assert await stage.capacity(7) == 2
    status = await stage.status()
    assert (status.capacity, status.total_seats, status.capacity_exact) == (7, 7, True)
    assert status.capacity_known


async def test_what_is_held_and_sold_is_on_top_of_what_is_left(stage: Stage, queue: BookingQueue):
    await stage.held_item("ann", 2)
    await queue.settle_confirmed(await stage.confirming("ben", 3), "REF")
    await stage.capacity(5)
    status = await stage.status()
    assert (status.capacity, status.held_seats, status.confirmed_seats) == (5, 2, 3)
    assert (status.total_seats, status.capacity_exact) == (10, True)


async def test_what_is_processing_is_taken_off(stage: Stage):
    """The booking may exist already, or not yet: the answer tells neither."""
    await stage.processing(seats=3)
    await stage.capacity(10)
    status = await stage.status()
    assert (status.capacity, status.capacity_exact) == (7, False)


async def test_what_settled_since_the_question_is_taken_off(stage: Stage, queue: BookingQueue):
    lease = await stage.processing(seats=3)
    question = await queue.ask_capacity(EVENT)
    await queue.settle_held(lease, Held("B", "", None))
    await queue.set_capacity(EVENT, question, 10)
    status = await stage.status()
    assert (status.capacity, status.capacity_exact) == (7, False)


@pytest.mark.parametrize("how", ["retried", "crashed"])
async def test_what_died_since_the_question_is_taken_off(
    stage: Stage, queue: BookingQueue, clock: Clock, how: str
):
    """Its last call may have made a booking after the answer was given."""
    stage.limit(max_retries=0, max_crashes=1)
    lease = await stage.processing(seats=3)
    question = await queue.ask_capacity(EVENT)
    if how == "retried":
        await stage.queue.settle_retry(lease, 0, "no answer")
    else:
        await clock.advance(LIMITS.lease_ms)
        await stage.queue.expire(EVENT)
    assert (await stage.item(lease.item_id)).status is Status.FAILED
    await queue.set_capacity(EVENT, question, 10)
    status = await stage.status()
    assert (status.capacity, status.capacity_exact) == (7, False)


async def test_what_is_being_released_is_taken_off(stage: Stage, queue: BookingQueue):
    lease = await stage.releasing(seats=2)
    await stage.capacity(10)
    status = await stage.status()
    assert (status.capacity, status.capacity_exact) == (8, False)
    await queue.settle_released(lease)
    assert (await stage.status()).capacity == 10


async def test_what_was_given_back_since_the_question_is_understated(
    stage: Stage, queue: BookingQueue
):
    lease = await stage.processing(seats=3)
    question = await queue.ask_capacity(EVENT)
    await queue.settle_rejected(lease, "no")
    await queue.set_capacity(EVENT, question, 7)
    status = await stage.status()
    assert (status.capacity, status.capacity_exact) == (7, False)


async def test_an_answer_that_another_has_overtaken_raises_nothing_and_is_certain_of_nothing(
    stage: Stage, queue: BookingQueue
):
    """Whoever asked was stopped for so long that somebody else asked, and more came in."""
    await stage.join_many(2)
    stopped = await queue.ask_capacity(EVENT)
    await stage.capacity(3)
    assert await queue.set_capacity(EVENT, stopped, 10) == 2
    status = await stage.status()
    assert (status.capacity, status.total_seats, status.capacity_exact) == (3, 3, True)
    await queue.set_capacity(EVENT, stopped, 0)
    status = await stage.status()
    assert (status.capacity, status.total_seats, status.capacity_exact) == (0, 0, False)
    assert await queue.sell_out(EVENT) is None


async def test_people_would_be_sent_home_by_an_answer_that_was_overtaken(stage: Stage):
    """Taken for the latest, the same answer is certain."""
    await stage.join_many(2)
    await stage.capacity(3)
    now = await stage.queue.ask_capacity(EVENT)
    await stage.queue.set_capacity(EVENT, now, 0)
    assert await stage.queue.sell_out(EVENT) == 0


async def test_an_answer_without_a_limit_that_was_overtaken_changes_nothing(
    stage: Stage, queue: BookingQueue
):
    stopped = await queue.ask_capacity(EVENT)
    await stage.capacity(3)
    await queue.set_capacity(EVENT, stopped, None)
    assert (await stage.status()).capacity == 3


async def test_it_is_never_less_than_nothing(stage: Stage):
    await stage.processing(seats=3)
    await stage.capacity(2)
    status = await stage.status()
    assert (status.capacity, status.total_seats) == (0, 3)


async def test_a_negative_answer_is_none_left(stage: Stage):
    await stage.capacity(-5)
    status = await stage.status()
    assert (status.capacity, status.capacity_exact) == (0, True)


async def test_an_answer_that_says_more_than_there_are_is_followed_by_a_lower_one(
    stage: Stage, queue: BookingQueue
):
    """The Ticket Service says 5 when there are 3: two are refused and wait for the next answer."""
    ids = await stage.join_many(6)
    await stage.capacity(5)
    leases = await stage.claim(6)
    assert len(leases) == 5
    for lease in leases[:3]:
        await queue.settle_held(lease, Held("B", "", None))
    for lease in leases[3:]:
        assert await queue.settle_short(lease, "none are left") is Status.WAITING
    await stage.capacity(0)
    assert (await stage.claimed(6)).leases == []
    places = await queue.positions(EVENT, ids[3:])
    assert [place and place.position for place in places] == [1, 2, 3]
    status = await stage.status()
    assert (status.capacity, status.held_seats, status.total_seats) == (0, 3, 3)


async def test_without_a_ticket_service_there_is_no_limit(stage: Stage):
    await stage.capacity(None)
    status = await stage.status()
    assert (status.capacity, status.capacity_known, status.capacity_exact) == (None, True, True)


async def test_a_limit_that_comes_later_counts_from_then_on(stage: Stage, queue: BookingQueue):
    await stage.capacity(None)
    await stage.held_item("ann", 2)
    await stage.capacity(4)
    status = await stage.status()
    assert (status.capacity, status.held_seats, status.total_seats) == (4, 2, 6)


async def test_who_waits_is_woken_when_something_is_left(stage: Stage):
    async with stage.wakes() as woken_for:
        await stage.capacity(5)
        await stage.join_one()
        assert await woken_for() == [EVENT]
        await stage.capacity(0)
        await stage.capacity(5)
        assert await woken_for() == [EVENT]


async def test_an_answer_about_books_that_are_lost_sets_nothing(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    question = await queue.ask_capacity(EVENT)
    await stage.client.hset(stage.key("state"), "born", "somebody else's")
    assert await queue.set_capacity(EVENT, question, 9) is None
    assert not (await stage.status()).capacity_known


@pytest.mark.parametrize("counter", ["settled_seats", "moves"])
async def test_an_answer_to_books_that_knew_more_sets_nothing(
    stage: Stage, queue: BookingQueue, counter: str
):
    await stage.capacity(3)
    question = await queue.ask_capacity(EVENT)
    further = question._replace(**{counter: getattr(question, counter) + 1})
    assert await queue.set_capacity(EVENT, further, 9) is None
    assert (await stage.status()).capacity == 3


async def test_whoever_opens_the_books_is_not_in_the_way_of_another(
    stage: Stage, queue: BookingQueue
):
    """Two replicas ask at once for an event that is new."""
    first, second = [await queue.ask_capacity(EVENT) for _ in range(2)]
    assert await queue.set_capacity(EVENT, first, 9) == 0
    assert await queue.set_capacity(EVENT, second, 9) == 0


async def test_a_payment_in_progress_leaves_the_books_as_they_are(
    stage: Stage, queue: BookingQueue
):
    lease = await stage.releasing(seats=2)
    await queue.settle_paying(lease)
    await stage.capacity(8)
    status = await stage.status()
    assert (status.capacity, status.held_seats, status.capacity_exact) == (8, 2, True)
    assert (await stage.claim(5, frozenset({Task.RELEASE}))) == []
