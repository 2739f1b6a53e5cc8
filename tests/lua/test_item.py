from __future__ import annotations

import pytest

from booking_worker.domain.errors import ItemNotFound
from booking_worker.domain.model import BookingRequest, Status
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import BEGINNING
from tests.support.stage import EVENT, LIMITS, Stage


async def test_a_waiting_item(stage: Stage, queue: BookingQueue):
    await stage.join_one("ann")
    item_id = await stage.join_one("ben", 2)
    item = await queue.item(item_id)
    assert (item.item_id, item.event_id, item.user_id) == (item_id, EVENT, "ben")
    assert (item.status, item.seq, item.seats, item.position) == (Status.WAITING, 2, 2, 2)
    assert item.joined_at_ms == BEGINNING
    assert item.deadline_ms == BEGINNING + LIMITS.queue_timeout_ms
    assert item.request == BookingRequest(EVENT, "ben", (), 2, 12.5, "EUR", {"from": "test"})


@pytest.mark.parametrize("status", list(Status))
async def test_an_item_in_any_status(stage: Stage, queue: BookingQueue, status: Status):
    item_id = await stage.in_status(status)
    item = await queue.item(item_id)
    assert item.status is status
    assert item.position == (1 if status is Status.WAITING else 0)
    assert (item.deadline_ms > 0) != status.is_final


async def test_an_item_that_nobody_knows(queue: BookingQueue):
    with pytest.raises(ItemNotFound):
        await queue.item("AAAAAAAAAAAA.concert")


async def test_a_text_that_was_never_an_item(queue: BookingQueue):
    with pytest.raises(ItemNotFound):
        await queue.item("concert")


async def test_an_item_of_another_event_is_not_mistaken(stage: Stage, queue: BookingQueue):
    item_id = await stage.join_one()
    with pytest.raises(ItemNotFound):
        await queue.item(item_id.replace(EVENT, "theatre"))
