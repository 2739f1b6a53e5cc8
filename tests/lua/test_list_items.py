from __future__ import annotations

from booking_worker.domain.model import Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import BEGINNING, Clock
from tests.support.stage import EVENT, LIMITS, Stage


async def test_nobody(queue: BookingQueue):
    assert await queue.list_items(EVENT, "waiting", 0, 10) == []


async def test_who_waits_in_order_page_by_page(stage: Stage, queue: BookingQueue):
    ids = await stage.join_many(5)
    first = await queue.list_items(EVENT, "waiting", 0, 3)
    assert [(item.item_id, item.position) for item in first] == list(
        zip(ids[:3], (1, 2, 3), strict=True)
    )
    second = await queue.list_items(EVENT, "waiting", 3, 3)
    assert [(item.item_id, item.position) for item in second] == list(
        zip(ids[3:], (4, 5), strict=True)
    )
    assert second[0].deadline_ms == BEGINNING + LIMITS.queue_timeout_ms
    assert second[0].request.metadata == {"from": "test"}


async def test_who_is_admitted_in_order(stage: Stage, queue: BookingQueue):
    held = await stage.held_item("ann")
    lease = await stage.processing("ben")
    await stage.join_one("cem")
    items = await queue.list_items(EVENT, "admitted", 0, 10)
    assert [(item.item_id, item.status, item.position) for item in items] == [
        (held, Status.AWAITING_PAYMENT, 0),
        (lease.item_id, Status.PROCESSING, 0),
    ]


async def test_dead_letters_in_the_order_of_their_death(
    stage: Stage, queue: BookingQueue, clock: Clock
):
    first = await stage.dead_letter(Task.CONFIRM, "ann")
    await clock.advance(1)
    second = await stage.dead_letter(Task.RESERVE, "ben")
    items = await queue.list_items(EVENT, "dead", 0, 10)
    assert [(item.item_id, item.task, item.message) for item in items] == [
        (first, "confirm", "it is down"),
        (second, "reserve", "it is down"),
    ]
    assert items[0].deadline_ms == 0


async def test_an_entry_without_an_item_is_left_out(stage: Stage, queue: BookingQueue):
    await stage.join_one()
    await stage.client.zadd(stage.key("positions"), {"AAAAAAAAAAAA.concert": 0})
    (item,) = await queue.list_items(EVENT, "waiting", 0, 10)
    assert item.user_id == "ann"
    await queue.sweep(EVENT)
