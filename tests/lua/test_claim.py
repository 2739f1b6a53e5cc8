from __future__ import annotations

import asyncio

import pytest

from booking_worker.domain import details
from booking_worker.domain.model import Held, Lease, Status, Task
from booking_worker.queue.booking_queue import BookingQueue, Claimed
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import EVENT, LIMITS, Stage, a_join

RESERVE = frozenset({Task.RESERVE})
CONFIRM = frozenset({Task.CONFIRM})


def items(leases: list[Lease]) -> list[str]:
    return [lease.item_id for lease in leases]


async def test_nobody_waits(stage: Stage):
    assert await stage.claimed() == Claimed(
        [], blocked=False, needs_refresh=False, suspects=False, now_ms=BEGINNING, engine=""
    )


async def test_a_lease_says_all_that_the_task_needs(stage: Stage):
    join = a_join("ann", 3)
    await stage.join(join)
    await stage.capacity(10)
    engine = (await stage.queue.ask_capacity(EVENT)).engine
    claimed = await stage.claimed()
    assert claimed.engine == engine != ""
    assert claimed.leases == [
        Lease(
            task=Task.RESERVE,
            item_id=join.item_id,
            event_id=EVENT,
            user_id="ann",
            seats=3,
            seq=1,
            token=1,
            until_ms=BEGINNING + LIMITS.lease_ms,
            details=join.details,
            attempts=0,
            crashes=0,
            cancel_requested=False,
            booking_id="",
            booking_reference="",
            payment_reference="",
            reservation_id="",
            grace_used=False,
            reason="",
            worker_id="w",
            engine=engine,
        )
    ]
    assert details.unpack(EVENT, "ann", 3, join.details).metadata == {"from": "test"}


async def test_items_are_admitted_in_order_and_their_seats_taken_out_of_capacity(stage: Stage):
    ids = await stage.join_many(5, seats=2)
    await stage.capacity(6)
    first = await stage.claimed(2)
    assert items(first.leases) == ids[:2]
    assert (first.blocked, first.needs_refresh) == (False, False)
    second = await stage.claimed(10)
    assert items(second.leases) == ids[2:3]
    assert second.blocked
    status = await stage.status()
    assert (status.capacity, status.processing_seats, status.total_seats) == (0, 6, 6)
    assert (status.waiting, status.processing, status.admitted) == (2, 3, 3)


async def test_tokens_grow(stage: Stage):
    await stage.join_many(4)
    await stage.capacity(4)
    tokens = [lease.token for lease in await stage.claim(2) + await stage.claim(2)]
    assert tokens == [1, 2, 3, 4]


async def test_each_admission_is_told_by_who_admitted(stage: Stage):
    await stage.processing()
    change = await stage.last_change()
    assert (change.actor, change.before, change.after, change.why) == (
        "worker:w", "waiting", "processing", "admitted",
    )  # fmt: skip


async def test_the_head_waits_when_it_needs_more_than_is_left_and_nobody_passes_it(
    stage: Stage, queue: BookingQueue
):
    big = (await stage.join(a_join("big", 4)))[0].item_id
    small = await stage.join_one("small")
    await stage.capacity(None)
    (held,) = await stage.join(a_join("holder", 3))
    assert items(await stage.claim(3)) == [big, small, held.item_id]
    # Now with a limit: 3 are in flight, 2 are left, the next head wants 4.
    head = await stage.join_one("head", 4)
    await stage.join_one("tail", 1)
    for lease in (await stage.claimed(0)).leases:
        await queue.hand_back(lease, asked=True)
    await stage.capacity(8 + 2)
    claimed = await stage.claimed(5)
    assert claimed.leases == []
    assert claimed.blocked
    assert claimed.needs_refresh  # as what is in flight makes the answer inexact
    assert (await stage.item(head)).status is Status.WAITING


async def test_whoever_could_never_fit_is_told_and_the_line_moves_on_at_once(stage: Stage):
    never = [await stage.join_one(f"never-{at}", 4) for at in range(3)]
    fits = await stage.join_one("fits", 3)
    later = await stage.join_one("later", 1)
    await stage.capacity(3)
    claimed = await stage.claimed(1)
    assert items(claimed.leases) == [fits]
    for item_id in never:
        item = await stage.item(item_id)
        assert (item.status, item.message) == (
            Status.SOLD_OUT,
            "fewer tickets are left than this request needs",
        )
    assert (await stage.item(later)).status is Status.WAITING
    assert (await stage.status()).sold_out_items == 3


async def test_who_needs_what_is_in_flight_is_not_told_sold_out(stage: Stage, queue: BookingQueue):
    holder = await stage.held_item("holder", 2)
    await stage.capacity(1)  # exact: one is left, two are held
    head = await stage.join_one("head", 3)
    claimed = await stage.claimed()
    assert (claimed.leases, claimed.blocked, claimed.needs_refresh) == ([], True, False)
    await queue.cancel(holder, "holder", "", "test")
    await queue.settle_released(await stage.claim_one(Task.RELEASE))
    assert items(await stage.claim()) == [head]


async def test_once_what_was_in_flight_is_sold_who_needs_it_is_told(
    stage: Stage, queue: BookingQueue
):
    lease = await stage.confirming("holder", 2)
    await stage.capacity(1)
    head = await stage.join_one("head", 3)
    assert (await stage.claimed()).blocked
    await queue.settle_confirmed(lease, "")
    claimed = await stage.claimed()
    assert (claimed.leases, claimed.blocked) == ([], False)
    assert (await stage.item(head)).status is Status.SOLD_OUT


async def test_nobody_is_told_never_by_an_answer_that_is_not_exact(stage: Stage):
    lease = await stage.processing("ann", 2)
    question = await stage.queue.ask_capacity(EVENT)
    await stage.queue.settle_rejected(lease, "no")
    await stage.queue.set_capacity(EVENT, question, 3)
    head = await stage.join_one("head", 9)
    claimed = await stage.claimed()
    assert (claimed.blocked, claimed.needs_refresh) == (True, True)
    assert (await stage.item(head)).status is Status.WAITING


async def test_a_long_row_of_heads_that_never_fit_is_told_in_more_than_one_call(stage: Stage):
    await stage.join(*(a_join(f"never-{at}", 5) for at in range(600)))
    fits = await stage.join_one("fits")
    await stage.capacity(1)
    async with stage.wakes() as woken_for:
        first = await stage.claimed(100)
        assert (first.leases, first.blocked) == ([], False)
        assert await woken_for() == [EVENT]
    assert (await stage.status()).waiting == 1
    assert items(await stage.claim(100)) == [fits]


@pytest.mark.parametrize("tickets, seats", [(0, 1), (2, 3)])
async def test_when_all_is_gone_a_refresh_is_asked_for(stage: Stage, tickets: int, seats: int):
    for at in range(tickets):
        lease = await stage.confirming(f"buyer-{at}")
        await stage.queue.settle_confirmed(lease, "")
    await stage.capacity(0)
    await stage.join_one("late", seats)
    claimed = await stage.claimed()
    assert (claimed.blocked, claimed.needs_refresh) in {(True, True), (False, False)}
    assert (await stage.status()).waiting == (1 if claimed.blocked else 0)


async def test_nobody_is_admitted_before_capacity_is_known(stage: Stage):
    item_id = await stage.join_one()
    claimed = await stage.claimed()
    assert (claimed.leases, claimed.blocked, claimed.needs_refresh) == ([], True, True)
    await stage.capacity(1)
    assert items(await stage.claim()) == [item_id]


async def test_another_engine_than_the_one_that_was_asked_admits_nobody(
    stage: Stage, queue: BookingQueue
):
    confirm = await stage.confirming("ann")
    await queue.hand_back(confirm, asked=True)
    await stage.join_one("ben")
    await stage.client.hset(stage.key("state"), "epoch", "the engine before the restart")
    assert (await stage.status()).paused
    claimed = await stage.claimed(5)
    assert [lease.task for lease in claimed.leases] == [Task.CONFIRM]
    assert (claimed.blocked, claimed.needs_refresh) == (True, True)
    await stage.capacity(5)
    assert not (await stage.status()).paused
    assert len(await stage.claim(5)) == 1


@pytest.mark.parametrize("which", [EVENT, ""])
async def test_while_it_is_paused_nobody_is_admitted_and_all_else_goes_on(
    stage: Stage, queue: BookingQueue, which: str
):
    await stage.capacity(9)
    paid, left = await stage.held_item("paid"), await stage.held_item("left")
    begun = await stage.processing("begun")
    await queue.hand_back(begun, asked=True)
    await stage.join_one("next")
    await queue.pause(which, "the hall is flooded", "operator:kim")
    await queue.ask_confirm(paid, "paid", "PAY")
    await queue.cancel(left, "left", "", "test")
    claimed = await stage.claimed(9)
    assert items(claimed.leases) == [paid, left, begun.item_id]
    assert claimed.blocked
    await queue.resume(which)
    assert len(await stage.claim(9)) == 1


async def test_without_a_limit_all_are_admitted(stage: Stage):
    ids = await stage.join_many(5, seats=100)
    await stage.capacity(None)
    assert items(await stage.claim(50)) == ids
    assert (await stage.status()).capacity is None


async def test_confirm_before_release_before_reserve_each_in_order(
    stage: Stage, queue: BookingQueue
):
    await stage.capacity(20)
    held = [await stage.held_item(f"holder-{at}") for at in range(4)]
    waiting = await stage.join_many(2)
    for at in (3, 1):
        await queue.ask_confirm(held[at], f"holder-{at}", "PAY")
    for at in (2, 0):
        await queue.cancel(held[at], f"holder-{at}", "", "test")
    leases = await stage.claim(10)
    assert [(lease.task, lease.item_id) for lease in leases] == [
        (Task.CONFIRM, held[1]),
        (Task.CONFIRM, held[3]),
        (Task.RELEASE, held[0]),
        (Task.RELEASE, held[2]),
        (Task.RESERVE, waiting[0]),
        (Task.RESERVE, waiting[1]),
    ]


@pytest.mark.parametrize(
    "tasks, limit, expected",
    [
        ({Task.RELEASE}, 9, ["release"]),
        ({Task.CONFIRM, Task.RESERVE}, 9, ["confirm", "reserve", "reserve"]),
        ({Task.CONFIRM, Task.RELEASE, Task.RESERVE}, 1, ["confirm"]),
        ({Task.CONFIRM, Task.RELEASE, Task.RESERVE}, 3, ["confirm", "release", "reserve"]),
        (set(), 9, []),
        ({Task.CONFIRM, Task.RELEASE, Task.RESERVE}, 0, []),
    ],
)
async def test_a_worker_gets_the_kinds_and_the_number_that_it_takes(
    stage: Stage, queue: BookingQueue, tasks: set[Task], limit: int, expected: list[str]
):
    await stage.capacity(20)
    confirm, release = await stage.held_item("ann"), await stage.held_item("ben")
    await queue.ask_confirm(confirm, "ann", "PAY")
    await queue.cancel(release, "ben", "", "test")
    await stage.join_many(2)
    leases = await stage.claim(limit, frozenset(tasks))
    assert [lease.task.value for lease in leases] == expected


async def test_a_reserve_that_comes_again_goes_before_those_who_wait(
    stage: Stage, queue: BookingQueue
):
    first, second = await stage.join_many(2)
    await stage.capacity(5)
    (lease,) = await stage.claim()
    await queue.hand_back(lease, asked=True)
    assert items(await stage.claim(2)) == [first, second]


async def test_what_is_leased_is_not_handed_out_twice(stage: Stage, clock: Clock):
    await stage.processing()
    await clock.advance(stage.limits.lease_ms - 1)
    await stage.queue.expire(EVENT)
    assert await stage.claim(5) == []


async def test_a_stray_in_the_line_is_not_admitted_twice(stage: Stage):
    """The guard behind the index: admission is by the record's own status."""
    lease = await stage.processing()
    await stage.client.zadd(stage.key("positions"), {lease.item_id: 0, "AAAAAAAAAAAA.concert": 0})
    behind = await stage.join_one("ben")
    assert items(await stage.claim(5)) == [behind]


async def test_a_task_without_an_item_is_dropped(stage: Stage):
    await stage.client.zadd(stage.key("tasks"), {"AAAAAAAAAAAA.concert": 5})
    assert await stage.claim(5) == []
    assert await stage.client.zcard(stage.key("tasks")) == 0


async def test_the_rate_of_admission_is_measured(stage: Stage, queue: BookingQueue, clock: Clock):
    await stage.join_many(9)
    await stage.capacity(9)
    await stage.claim(4)
    rate = (await stage.status()).rate
    assert (rate.weight, rate.at_ms, rate.since_ms) == (4.0, BEGINNING, BEGINNING)
    await clock.advance(30_000)
    await stage.claim(4)
    rate = (await stage.status()).rate
    assert rate.weight == pytest.approx(4 / 2.718281828 + 4, abs=1e-5)
    assert (rate.at_ms, rate.since_ms) == (BEGINNING + 30_000, BEGINNING)
    await clock.advance(-60_000)
    await stage.claim(1)
    assert (await stage.status()).rate.weight == pytest.approx(4 / 2.718281828 + 5, abs=1e-5)


async def test_an_empty_line_is_said_to_be_idle_once(stage: Stage):
    state = stage.key("state")
    await stage.claim(1)
    assert await stage.client.hget(state, "idle") == b"1"
    await stage.join_one()
    assert await stage.client.hget(state, "idle") is None
    await stage.capacity(5)
    await stage.claim(1)
    assert await stage.client.hget(state, "idle") is None  # this worker has no slot to spare
    await stage.claim(1)
    assert await stage.client.hget(state, "idle") == b"1"


async def test_a_task_that_nobody_of_the_kind_takes_says_nothing_of_the_line(stage: Stage):
    await stage.join_one()
    claimed = await stage.claimed(5, CONFIRM)
    assert (claimed.leases, claimed.blocked, claimed.needs_refresh) == ([], False, False)


async def test_exactly_the_first_ten_get_the_last_ten_tickets(stage: Stage, queue: BookingQueue):
    ids = await stage.join_many(100)
    await stage.capacity(10)
    claims = await asyncio.gather(*(queue.claim(EVENT, "w", 1, RESERVE) for _ in range(100)))
    assert sorted(items([lease for claim in claims for lease in claim.leases])) == sorted(ids[:10])
    assert sum(claim.blocked for claim in claims) == 90


async def test_a_booking_made_meanwhile_travels_with_the_lease(stage: Stage, queue: BookingQueue):
    await stage.processing()
    lease = (await queue.claim(EVENT, "w", 1, RESERVE)).leases
    assert lease == []
    item_id = await stage.held_item("ben", 2, booking_reference="REF", reservation_id="RES")
    await queue.cancel(item_id, "ben", "changed my mind", "user:ben")
    release = await stage.claim_one(Task.RELEASE)
    assert (release.booking_id, release.booking_reference) == ("B-ben", "REF")
    assert (release.reservation_id, release.reason) == ("RES", "changed my mind")
    assert await queue.settle_paying(release) is Status.AWAITING_PAYMENT
    await stage.clock.advance(LIMITS.payment_grace_ms)
    await queue.expire(EVENT)
    again = await stage.claim_one(Task.RELEASE)
    assert again.grace_used
    assert again.reason == "not paid in time"


async def test_a_hold_may_say_how_long_it_lasts(stage: Stage, queue: BookingQueue):
    for user, hold_ms, expected in (("a", 5_000, 5_000), ("b", 10**9, LIMITS.payment_timeout_ms)):
        lease = await stage.processing(user)
        await queue.settle_held(lease, Held("B", "", hold_ms))
        assert (await stage.item(lease.item_id)).pay_by_ms == BEGINNING + expected
