from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from booking_worker.api.operations import Operations
from booking_worker.domain.errors import (
    IdempotencyConflict,
    InvalidRequest,
    ItemNotFound,
    NotYourItem,
    PeerRefused,
)
from booking_worker.domain.model import Held, Joined, Status, Task
from booking_worker.intake.direct import DirectIntake
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.metrics import Metrics
from tests.support.api import LIMITS, asked, on_one_engine

pytestmark = on_one_engine


class Desk:
    """Operations on a real queue; what they wait for happens while they sleep."""

    def __init__(self, client: Redis) -> None:
        self.queue = BookingQueue(client, LIMITS)
        self.records: list[Any] = []
        self.slept: list[float] = []
        self.meanwhile: Any = None
        self.operations = Operations(
            self.queue,
            DirectIntake(self.queue, Metrics()),
            Metrics(),
            max_seats=4,
            live_slots=lambda: 3,
            record=self.records.append,
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.meanwhile is not None:
            await self.meanwhile()
            self.meanwhile = None

    async def lease(self, task: Task, event_id: str = "concert") -> Any:
        question = await self.queue.ask_capacity(event_id)
        await self.queue.set_capacity(event_id, question, None)
        (lease,) = (await self.queue.claim(event_id, "w", 1, frozenset({task}))).leases
        return lease

    async def held(self) -> str:
        item_id = (await self.operations.join_one(asked())).item_id
        await self.queue.settle_held(await self.lease(Task.RESERVE), Held("b", "R", None))
        return item_id


@pytest.fixture
async def desk(redis_client: Redis) -> AsyncIterator[Desk]:
    desk = Desk(redis_client)
    yield desk
    await desk.operations.drain()


async def test_one_join_gives_a_place_or_raises(desk: Desk):
    place = await desk.operations.join_one(asked())
    assert (place.position, place.already_queued) == (1, False)
    with pytest.raises(InvalidRequest):
        await desk.operations.join_one(asked(seat_count=5))


async def test_each_of_many_joins_may_have_a_key_of_its_own(desk: Desk):
    """As a transport needs it that collects the calls of many clients."""
    one, two = asked("ann"), asked("bob")
    first = await desk.operations.join([one, two], ["k1", None])
    assert all(isinstance(outcome, Joined) for outcome in first)
    changed = asked("ann", seat_count=2)
    conflict, again, wrong = await desk.operations.join([changed, two, one], ["k1", None, ""])
    assert isinstance(conflict, IdempotencyConflict)
    assert isinstance(again, Joined)
    assert again.already_queued
    assert isinstance(wrong, InvalidRequest)


async def test_no_joins_are_no_outcomes(desk: Desk):
    assert await desk.operations.join([]) == []


async def test_a_position_is_its_owners(desk: Desk):
    item_id = (await desk.operations.join_one(asked())).item_id
    assert (await desk.operations.position(item_id, "ann")).position == 1
    with pytest.raises(NotYourItem):
        await desk.operations.position(item_id, "eve")
    assert [(line["who"], line["refused"]) for line in desk.records] == [("user:eve", "position")]
    with pytest.raises(ItemNotFound):
        await desk.operations.position("AAAAAAAAAAAA.concert", "ann")


async def test_the_status_knows_the_workers(desk: Desk):
    await desk.operations.join_one(asked())
    status = await desk.operations.status("concert")
    assert (status.event.waiting, status.live_slots) == (1, 3)


async def test_cancelling_answers_what_clients_see(desk: Desk):
    item_id = await desk.held()
    assert await desk.operations.cancel(item_id, "ann", "") is Status.AWAITING_PAYMENT
    assert (await desk.queue.item(item_id)).status is Status.RELEASING


async def test_a_payment_is_waited_for(desk: Desk):
    item_id = await desk.held()

    async def settle() -> None:
        await desk.queue.settle_confirmed(await desk.lease(Task.CONFIRM), "R2")

    desk.meanwhile = settle
    place = await desk.operations.confirm_payment(item_id, "ann", "p")
    assert (place.status, place.booking_reference) == (Status.COMPLETED, "R2")
    assert desk.slept == [0.005]


async def test_the_pauses_grow_until_a_tenth_of_a_second(desk: Desk, monkeypatch):
    item_id = await desk.held()

    async def much_later() -> None:
        if len(desk.slept) < 15:
            desk.operations._sleep = again
        else:
            await desk.queue.settle_confirmed(await desk.lease(Task.CONFIRM), "R2")

    async def again(seconds: float) -> None:
        desk.slept.append(seconds)
        await much_later()

    desk.operations._sleep = again
    await desk.operations.confirm_payment(item_id, "ann", "p")
    assert desk.slept == sorted(desk.slept)
    assert desk.slept[-1] == 0.1


async def test_who_has_no_time_left_hears_that_it_is_under_way(desk: Desk):
    item_id = await desk.held()
    place = await desk.operations.confirm_payment(item_id, "ann", "p", seconds_left=0.1)
    assert (place.status, place.booking_id) == (Status.CONFIRMING, "b")
    assert desk.slept == []


async def test_a_payment_that_failed_is_refused_with_its_reason(desk: Desk):
    item_id = await desk.held()

    async def fail() -> None:
        await desk.queue.settle_retry(await desk.lease(Task.CONFIRM), 0, "no answer")

    desk.meanwhile = fail
    with pytest.raises(PeerRefused):
        await desk.operations.confirm_payment(item_id, "ann", "p")
    assert (await desk.queue.item(item_id)).status is Status.FAILED
