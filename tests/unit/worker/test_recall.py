from __future__ import annotations

from dataclasses import replace

import pytest

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Lease, Status
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.worker import recall
from booking_worker.worker.recall import Recall
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, Stage

pytestmark = on_one_engine


@pytest.fixture
async def lost(stage: Stage, queue: BookingQueue) -> list[Lease]:
    """Three whose bookings were made under the old engine, and who wait in the new one."""
    await stage.join_many(3)
    await stage.capacity(3)
    leases = await stage.claim(3)
    for lease in leases:
        await queue.hand_back(lease, asked=False)
    await stage.capacity(0)
    return [replace(lease, engine="the old master") for lease in leases]


async def statuses(stage: Stage, leases: list[Lease]) -> list[Status]:
    return [(await stage.item(lease.item_id)).status for lease in leases]


async def test_another_engine_is_told_who_has_a_booking_once(
    stage: Stage, queue: BookingQueue, lost: list[Lease]
):
    memory = Recall(queue)
    memory.booked(lost[0])
    memory.booked(lost[2])
    await memory.hear(EVENT, "the old master")
    assert await statuses(stage, lost) == [Status.WAITING] * 3
    await memory.hear("another event", "the new master")
    assert await statuses(stage, lost) == [Status.WAITING] * 3
    await memory.hear(EVENT, "the new master")
    assert await statuses(stage, lost) == [Status.PROCESSING, Status.WAITING, Status.PROCESSING]
    moves = (await queue.ask_capacity(EVENT)).moves
    await memory.hear(EVENT, "the new master")
    assert (await queue.ask_capacity(EVENT)).moves == moves


async def test_a_booking_that_was_made_as_the_engine_was_replaced_is_told_too(
    stage: Stage, queue: BookingQueue, lost: list[Lease]
):
    memory = Recall(queue)
    memory.booked(lost[0])
    await memory.hear(EVENT, "the new master")
    memory.booked(lost[1])
    await memory.hear(EVENT, "the new master")
    assert (await statuses(stage, lost))[:2] == [Status.PROCESSING] * 2


async def test_what_one_engine_was_told_the_next_one_is_told_again(
    stage: Stage, queue: BookingQueue, lost: list[Lease]
):
    memory = Recall(queue)
    memory.booked(lost[0])
    await memory.hear(EVENT, "the new master")
    (lease,) = await stage.claim()
    await queue.settle_short(lease, "as if it had never been told")
    await memory.hear(EVENT, "the next master")
    assert (await statuses(stage, lost))[0] is Status.PROCESSING


async def test_what_could_not_be_told_is_told_later(
    stage: Stage, queue: BookingQueue, lost: list[Lease], monkeypatch: pytest.MonkeyPatch
):
    memory = Recall(queue)
    memory.booked(lost[0])

    async def away(*_: object) -> int:
        raise EngineUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(queue, "readmit", away)
        with pytest.raises(EngineUnavailable):
            await memory.hear(EVENT, "the new master")
    await memory.hear(EVENT, "the new master")
    assert (await statuses(stage, lost))[0] is Status.PROCESSING


async def test_many_are_told_in_parts(
    stage: Stage, queue: BookingQueue, lost: list[Lease], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recall, "_MOST_AT_ONCE", 2)
    memory = Recall(queue)
    for lease in lost:
        memory.booked(lease)
    await memory.hear(EVENT, "the new master")
    assert await statuses(stage, lost) == [Status.PROCESSING] * 3


async def test_they_are_admitted_in_the_order_of_the_line(
    stage: Stage, queue: BookingQueue, lost: list[Lease]
):
    """Whatever the order in which the Booking Service answered."""
    memory = Recall(queue)
    for lease in reversed(lost):
        memory.booked(lease)
    await memory.hear(EVENT, "the new master")
    again = [change.seq for change in await stage.changes() if change.after == "processing"][-3:]
    assert again == sorted(again)


async def test_the_oldest_are_forgotten(
    stage: Stage, queue: BookingQueue, lost: list[Lease], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recall, "_MOST_REMEMBERED", 1)
    memory = Recall(queue)
    memory.booked(replace(lost[0], event_id="another event"))
    memory.booked(lost[1])
    memory.booked(lost[2])
    assert set(memory._booked) == {EVENT}
    await memory.hear(EVENT, "the new master")
    assert await statuses(stage, lost) == [Status.WAITING, Status.WAITING, Status.PROCESSING]
