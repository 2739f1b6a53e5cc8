from __future__ import annotations

import asyncio

import pytest

from booking_worker.domain.errors import IdempotencyConflict, QueueFull
from booking_worker.domain.item_id import event_of, new_item_id
from booking_worker.domain.model import Joined, Status, Task
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import EVENT, LIMITS, Stage, a_join


async def test_places_are_given_in_order(stage: Stage):
    joins = [a_join(f"user-{at}") for at in range(3)]
    assert await stage.join(*joins) == [
        Joined(join.item_id, at, already_queued=False, status=Status.WAITING)
        for at, join in enumerate(joins, 1)
    ]
    (fourth,) = await stage.join(a_join("later"))
    assert fourth.position == 4
    assert await stage.client.lrange(stage.key("queue"), 0, -1) == [
        *(join.item_id.encode() for join in joins),
        fourth.item_id.encode(),
    ]


async def test_a_join_is_told_in_one_entry_of_the_feed_with_all_the_others(stage: Stage):
    await stage.join(a_join("ann", 2), a_join("ben"), actor="operator:eve")
    assert await stage.client.xlen(stage.key("changes")) == 1
    ann, ben = await stage.changes()
    assert (ann.user_id, ann.before, ann.after, ann.why, ann.seats, ann.seq) == (
        "ann", "", "waiting", "joined", 2, 1,
    )  # fmt: skip
    assert (ann.at_ms, ann.actor) == (BEGINNING, "operator:eve")
    assert (ben.user_id, ben.seq) == ("ben", 2)


async def test_who_joins_by_themselves_did_it(stage: Stage):
    await stage.join(a_join("ann"), a_join("ben"))
    assert [change.actor for change in await stage.changes()] == ["user:ann", "user:ben"]


async def test_an_event_is_listed_before_its_first_join(stage: Stage, queue: BookingQueue):
    await stage.join_one(event_id="concert")
    await stage.join_one(event_id="theatre")
    assert set(await queue.events()) == {"concert", "theatre"}


async def test_joining_twice_is_the_same_place(stage: Stage):
    await stage.join_one("ann")
    item_id = await stage.join_one("ben")
    (again,) = await stage.join(a_join("ben", 4))
    assert again == Joined(item_id, 2, already_queued=True, status=Status.WAITING)
    assert (await stage.item(item_id)).seats == 1
    assert (await stage.status()).joined == 2


async def test_joining_twice_in_one_call_is_the_same_place(stage: Stage):
    first, other, again = await stage.join(a_join("ann"), a_join("ben"), a_join("ann"))
    assert again == Joined(first.item_id, 1, already_queued=True, status=Status.WAITING)
    assert (other.position, (await stage.status()).waiting) == (2, 2)


async def test_joining_a_hundred_times_at_once_is_one_place(stage: Stage, queue: BookingQueue):
    outcomes = await asyncio.gather(*(queue.join(EVENT, [a_join("ann")]) for _ in range(100)))
    places = [outcome for (outcome,) in outcomes]
    assert len({place.item_id for place in places if isinstance(place, Joined)}) == 1
    assert sum(isinstance(place, Joined) and not place.already_queued for place in places) == 1


@pytest.mark.parametrize(
    "status",
    [Status.PROCESSING, Status.AWAITING_PAYMENT, Status.CONFIRMING, Status.RELEASING],
)
async def test_who_is_admitted_has_a_place_too(stage: Stage, status: Status):
    item_id = await stage.in_status(status)
    (again,) = await stage.join(a_join("ann"))
    assert again == Joined(item_id, 0, already_queued=True, status=status)


@pytest.mark.parametrize("status", [status for status in Status if status.is_final])
async def test_whose_place_has_ended_gets_a_new_one(stage: Stage, status: Status):
    item_id = await stage.in_status(status)
    (again,) = await stage.join(a_join("ann"))
    assert (again.position, again.already_queued) == (1, False)
    assert again.item_id != item_id
    assert (await stage.item(item_id)).status is status


async def test_two_places_for_each_user(stage: Stage, queue: BookingQueue):
    stage.limit(places_per_user=2)
    first, second, third = await stage.join(*(a_join("ann") for _ in range(3)))
    assert (first.already_queued, second.already_queued) == (False, False)
    assert (third.item_id, third.already_queued) == (first.item_id, True)
    await queue.cancel(first.item_id, "ann", "", "test")
    fourth, fifth = await stage.join(a_join("ann"), a_join("ann"))
    assert (fourth.already_queued, fifth.already_queued) == (False, True)
    assert fifth.item_id == second.item_id


async def test_a_place_whose_item_is_gone_is_no_place(stage: Stage):
    await stage.client.hset(stage.key("users"), "ann", "AAAAAAAAAAAA.concert")
    await stage.join_one("ann")


async def test_a_full_line_refuses_and_costs_nobody_their_place(stage: Stage):
    stage.limit(max_size=3)
    outcomes = await stage.join(
        a_join("a"), a_join("b"), a_join("a"), a_join("c"), a_join("d"), a_join("b"), a_join("e")
    )
    assert [outcome.position for outcome in (outcomes[at] for at in (0, 1, 2, 3, 5))] == [
        1, 2, 1, 3, 2,
    ]  # fmt: skip
    for refused in (outcomes[4], outcomes[6]):
        assert isinstance(refused, QueueFull)
        assert (refused.event_id, refused.max_size) == (EVENT, 3)
    (again,) = await stage.join(a_join("c"))
    assert again.already_queued
    assert (await stage.status()).joined == 3


async def test_who_is_admitted_makes_room(stage: Stage):
    stage.limit(max_size=1)
    await stage.join_one("ann")
    await stage.capacity(1)
    await stage.claim()
    await stage.join_one("ben")
    (full,) = await stage.join(a_join("cem"))
    assert isinstance(full, QueueFull)


async def test_five_hundred_in_one_call(stage: Stage):
    ids = await stage.join_many(500)
    assert (await stage.status()).waiting == 500
    assert (await stage.item(ids[-1])).position == 500


async def test_a_thousand_in_one_call_is_the_most(stage: Stage):
    ids = await stage.join_many(1000)
    assert (await stage.item(ids[-1])).seq == 1000


async def test_nobody_at_all(queue: BookingQueue):
    assert await queue.join(EVENT, []) == []
    assert await queue.events() == []


async def test_the_same_key_and_request_is_the_same_place(stage: Stage):
    (first,) = await stage.join(a_join("ann", key="k", digest="d"))
    (again,) = await stage.join(a_join("ann", key="k", digest="d"))
    assert again == Joined(first.item_id, 1, already_queued=True, status=Status.WAITING)


async def test_the_same_key_and_request_in_one_call(stage: Stage):
    first, again = await stage.join(*(a_join("ann", key="k", digest="d") for _ in range(2)))
    assert again == Joined(first.item_id, 1, already_queued=True, status=Status.WAITING)


@pytest.mark.parametrize("together", [True, False])
async def test_the_same_key_with_another_request_is_refused(stage: Stage, together: bool):
    joins = [a_join("ann", key="k", digest="d"), a_join("ann", key="k", digest="other")]
    outcomes = (
        await stage.join(*joins) if together else [(await stage.join(join))[0] for join in joins]
    )
    assert isinstance(outcomes[0], Joined)
    assert isinstance(outcomes[1], IdempotencyConflict)


@pytest.mark.parametrize("status", list(Status))
async def test_a_key_answers_the_same_item_whatever_became_of_it(stage: Stage, status: Status):
    """Also after its end: a repeated request must not buy a second time."""
    original = stage.join_one

    async def with_key(user_id: str = "ann", seats: int = 1) -> str:
        return await original(user_id, seats, key="k", digest="d")

    stage.join_one = with_key  # type: ignore[method-assign,assignment]
    item_id = await stage.in_status(status)
    (again,) = await stage.join(a_join("ann", key="k", digest="d"))
    position = 1 if status is Status.WAITING else 0
    assert again == Joined(item_id, position, already_queued=True, status=status)
    (other,) = await stage.join(a_join("ann", key="k", digest="other"))
    assert isinstance(other, IdempotencyConflict)
    lives = not status.is_final or status is Status.FAILED
    expiry = await stage.client.pttl(stage.key("requests") + "ann\nk")
    assert (expiry == -1) if lives else (0 < expiry <= LIMITS.result_ttl_ms)


async def test_with_another_key_who_has_a_place_keeps_it(stage: Stage):
    first, second = await stage.join(
        a_join("ann", key="k1", digest="d1"), a_join("ann", key="k2", digest="d2")
    )
    assert (second.item_id, second.already_queued) == (first.item_id, True)


async def test_a_key_is_its_users_own(stage: Stage):
    ann, ben = await stage.join(
        a_join("ann", key="k", digest="d"), a_join("ben", key="k", digest="other")
    )
    assert not ann.already_queued
    assert not ben.already_queued


async def test_a_key_whose_result_is_no_more_gives_a_new_place(stage: Stage):
    stage.limit(result_ttl_ms=1)
    (first,) = await stage.join(a_join("ann", key="k", digest="d"))
    await stage.queue.cancel(first.item_id, "ann", "", "test")
    while await stage.client.exists(stage.key("results") + first.item_id):
        pass
    (again,) = await stage.join(a_join("ann", key="k", digest="other"))
    assert (again.position, again.already_queued) == (1, False)
    assert await stage.client.pttl(stage.key("requests") + "ann\nk") == -1


async def test_a_key_of_an_item_that_was_lost_gives_a_new_place(stage: Stage):
    await stage.client.set(stage.key("requests") + "ann\nk", "AAAAAAAAAAAA.concert")
    (joined,) = await stage.join(a_join("ann", key="k", digest="d"))
    assert not joined.already_queued


async def test_the_first_join_of_an_event_wakes_and_those_behind_do_not(stage: Stage):
    async with stage.wakes() as woken_for:
        await stage.join_one("ann")
        assert await woken_for() == [EVENT]
        await stage.join_one("ben")
        await stage.capacity(5)  # wakes, as two wait
        assert await woken_for() == [EVENT]
        await stage.claim(5)  # finds nobody left
        await stage.join_one("cem")
        assert await woken_for() == [EVENT]


async def test_numbers_come_from_the_engine_and_not_from_a_clock(stage: Stage, clock: Clock):
    first = await stage.join_one("ann")
    await clock.advance(-60_000)
    second = await stage.join_one("ben")
    assert [(await stage.item(item_id)).seq for item_id in (first, second)] == [1, 2]
    assert (await stage.item(second)).position == 2


@pytest.mark.parametrize("name", ["überraschung-💃", "a%sb%d", "コンサート", "a.b:c*?[x]"])
async def test_odd_names_are_kept_apart_in_their_own_keys(stage: Stage, name: str):
    queue = stage.queue
    (joined,) = await queue.join(name, [a_join(name, 2, name, "schlüssel", "d")])
    assert isinstance(joined, Joined)
    assert event_of(joined.item_id) == name
    assert await queue.events() == [name]
    assert f"booking-queue:{{{name}}}" == keys.of_event(name)["queue"]
    await stage.capacity(5, name)
    ((lease,), *_) = await queue.claim(name, "wörker", 5, frozenset(Task))
    assert (lease.user_id, lease.event_id, lease.worker_id) == (name, name, "wörker")
    assert await queue.settle_rejected(lease, "schon wég") is Status.REJECTED
    item = await queue.item(joined.item_id)
    assert (item.user_id, item.message, item.request.user_id) == (name, "schon wég", name)
    assert (await stage.changes(name))[-1].why == "schon wég"


async def test_the_record_that_it_writes_is_the_one_that_the_others_would(stage: Stage):
    """They pack a record as a whole; this one puts it together from parts."""
    (joined,) = await stage.join(a_join("a" * 128, seats=200))
    packed_again = await stage.client.eval(
        "return cmsgpack.pack(cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1])))",
        1, stage.key("items"), joined.item_id,
    )  # fmt: skip
    assert await stage.client.hget(stage.key("items"), joined.item_id) == packed_again


async def test_the_same_item_id_belongs_to_one_event(stage: Stage, queue: BookingQueue):
    concert, theatre = await stage.join_one(), await stage.join_one(event_id="theatre")
    assert event_of(new_item_id("theatre")) == "theatre"
    assert await queue.positions("theatre", [concert]) == [None]
    assert (await queue.positions("theatre", [theatre]))[0] is not None
