from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from typing_extensions import override

from booking_worker.domain.model import Held
from booking_worker.peers.breaker import Breaker
from booking_worker.queue import keys
from booking_worker.queue.lock import Redlock
from booking_worker.worker.capacity import CapacityKeeper
from booking_worker.worker.housekeeping import Housekeeping
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, Stage
from tests.unit.peers.scripted import Refuse
from tests.unit.worker.crew import Crew, available

pytestmark = on_one_engine


class Time:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def keeper(scripted: Crew, time: Time) -> AsyncIterator[CapacityKeeper]:
    """The keeper of the replica that looks after all events."""
    scripted.script.answers["CheckAvailability"] = available(7)
    made = CapacityKeeper(
        scripted.queue, scripted.house, scripted.ticket, scripted.metrics, 5.0, clock=time
    )
    yield made
    await made.stop()


def asked(crew: Crew) -> int:
    return len(crew.script.requests("CheckAvailability"))


class Elsewhere(Housekeeping):
    """Of a replica that looks after nothing: another does, if it is there."""

    another = True

    @override
    def is_elsewhere(self, event_id: str) -> bool:
        return self.another


@pytest.fixture
async def second(scripted: Crew, time: Time) -> AsyncIterator[CapacityKeeper]:
    """The keeper of a replica whose events another one looks after."""
    scripted.script.answers["CheckAvailability"] = available(7)
    house = Elsewhere(scripted.queue, Redlock([]))
    made = CapacityKeeper(scripted.queue, house, scripted.ticket, scripted.metrics, 5.0, clock=time)
    yield made
    await made.stop()


async def refreshes_wanted(stage: Stage, act: Callable[[], Awaitable[object]]) -> list[str]:
    """The events of which another replica was asked to refresh the capacity meanwhile."""
    async with stage.client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(keys.REFRESH_CHANNEL)
        await pubsub.get_message(timeout=1)
        await act()
        await stage.client.publish(keys.REFRESH_CHANNEL, "that is all")
        heard: list[str] = []
        while "that is all" not in heard:
            message = await pubsub.get_message(timeout=1)
            if message is not None:
                heard.append(message["data"].decode())
        return heard[:-1]


async def test_the_replica_that_looks_after_the_event_is_asked_to_refresh(
    stage: Stage, scripted: Crew, second: CapacityKeeper, keeper: CapacityKeeper, time: Time
):
    await stage.join_one()
    second.want(EVENT)
    assert await refreshes_wanted(stage, second.run_once) == [EVENT]
    assert asked(scripted) == 0
    keeper.wanted_elsewhere(EVENT)
    await keeper.run_once()
    assert asked(scripted) == 1
    assert (await stage.status()).capacity == 7
    # It has been done: nobody is asked again, however long this one waits.
    time.now += 6.1
    assert await refreshes_wanted(stage, second.run_once) == []
    assert await second.run_once() == float("inf")
    assert asked(scripted) == 1


async def test_what_is_wanted_again_is_asked_for_again_but_not_often(
    stage: Stage, second: CapacityKeeper, time: Time
):
    """The message may have been lost."""

    async def want_ten_times() -> None:
        for _ in range(10):
            second.want(EVENT)
            await second.run_once()
            time.now += 0.1

    assert await refreshes_wanted(stage, want_ten_times) == [EVENT] * 5


async def test_one_who_is_asked_in_vain_is_waited_for_no_longer_than_it_may_take(
    stage: Stage, scripted: Crew, second: CapacityKeeper, time: Time
):
    """Perhaps it can't reach the Ticket Service: this one can."""
    await stage.join_one()
    second.want(EVENT)
    assert await second.run_once() == pytest.approx(6.0)
    time.now += 5.9
    second.want(EVENT)
    await second.run_once()
    assert asked(scripted) == 0
    time.now += 0.1
    await second.run_once()
    assert asked(scripted) == 1
    assert (await stage.status()).capacity == 7


async def test_it_is_not_the_business_of_who_does_not_look_after_the_event(
    scripted: Crew, second: CapacityKeeper
):
    second.wanted_elsewhere(EVENT)
    second.watch(EVENT)
    assert await second.run_once() == float("inf")
    assert asked(scripted) == 0


async def test_a_line_that_is_blocked_is_looked_after_by_one_replica_however_many_see_it(
    stage: Stage, scripted: Crew, second: CapacityKeeper, keeper: CapacityKeeper, time: Time
):
    scripted.script.answers["CheckAvailability"] = available(0)
    await stage.held_item("ann")
    await stage.join_one("ben")

    async def for_a_minute() -> None:
        for _ in range(60):
            # As a claim that was blocked, which is heard by the other.
            second.want(EVENT)
            second.watch(EVENT)
            await second.run_once()
            keeper.wanted_elsewhere(EVENT)
            await keeper.run_once()
            time.now += 1

    assert set(await refreshes_wanted(stage, for_a_minute)) == {EVENT}
    assert asked(scripted) >= 12  # regularly
    assert second._events[EVENT].asked_at < 0  # never


async def open_breaker(crew: Crew, time: Time, monkeypatch: pytest.MonkeyPatch) -> Breaker:
    assert crew.ticket is not None
    breaker = crew.ticket.breaker
    monkeypatch.setattr(breaker, "_clock", time)
    while breaker.state == "closed":
        breaker.record_failure()
    return breaker


async def test_each_replica_tries_the_ticket_service_for_its_own_breaker(
    stage: Stage,
    scripted: Crew,
    second: CapacityKeeper,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
):
    """However well it goes with another, who refreshes: releases wait for it here."""
    await stage.join_one()
    breaker = await open_breaker(scripted, time, monkeypatch)
    second.want(EVENT)
    assert await refreshes_wanted(stage, second.run_once) == [EVENT]
    await stage.capacity(3)  # by the other
    assert asked(scripted) == 0
    time.now += await second.run_once()
    await second.run_once()
    assert breaker.state == "closed"
    assert asked(scripted) == 1
    for _ in range(20):
        time.now += 1
        await second.run_once()
    assert asked(scripted) == 1


async def test_while_another_is_the_trial_it_is_not_looked_again_at_once(
    stage: Stage,
    scripted: Crew,
    second: CapacityKeeper,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
):
    breaker = await open_breaker(scripted, time, monkeypatch)
    time.now += 1
    assert breaker.admit()
    second.want(EVENT)
    assert await second.run_once() == pytest.approx(0.2)
    breaker.abandon()
    time.now += 0.3
    await second.run_once()
    assert breaker.state == "closed"


async def test_what_another_could_refresh_is_no_trouble_any_more(
    stage: Stage,
    scripted: Crew,
    second: CapacityKeeper,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
):
    await stage.join_one()
    scripted.script.answers["CheckAvailability"] = Refuse(grpc.StatusCode.NOT_FOUND, "what event?")
    with monkeypatch.context() as patched:
        patched.setattr(second._house, "another", False)
        second.want(EVENT)
        await second.run_once()
    assert "what event?" in second.trouble
    time.now += 1
    second.want(EVENT)
    await second.run_once()
    assert "what event?" in second.trouble
    await stage.capacity(3)  # by the other
    time.now += 1
    second.want(EVENT)
    await second.run_once()
    assert second.trouble == ""


async def test_who_takes_the_event_over_does_what_was_asked_of_another(
    stage: Stage, scripted: Crew, second: CapacityKeeper, monkeypatch: pytest.MonkeyPatch
):
    await stage.join_one()
    second.want(EVENT)
    await second.run_once()
    house = second._house
    monkeypatch.setattr(house, "is_ours", lambda _: True)
    monkeypatch.setattr(house, "is_elsewhere", lambda _: False)
    second._on_news("another event")
    second._on_news(EVENT)
    second._clock.now += 1  # type: ignore[attr-defined]
    await second.run_once()
    assert asked(scripted) == 1


async def test_whoever_wants_it_does_it_where_nobody_is_known_to_look_after_the_event(
    stage: Stage, scripted: Crew, second: CapacityKeeper, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Elsewhere, "another", False)
    await stage.join_one()
    second.want(EVENT)
    await second.run_once()
    assert asked(scripted) == 1


async def test_two_who_refresh_at_once_do_not_overstate(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, second: CapacityKeeper
):
    """One was stopped with its answer in hand; the other has refreshed, and seats went since."""
    await stage.join_many(3)
    old = await stage.queue.ask_capacity(EVENT)  # it will say 7
    await keeper.left(EVENT)
    for lease in await stage.claim(3):
        await stage.queue.settle_held(lease, Held(f"B-{lease.item_id}", "", None))
    scripted.script.answers["CheckAvailability"] = available(2)  # and two were sold elsewhere
    await second.left(EVENT)
    await stage.queue.set_capacity(EVENT, old, 7)
    assert (await stage.status()).capacity == 2


async def test_who_weighs_is_told_although_a_refresh_that_asks_nobody_comes_between(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, time: Time
):
    """None is the word for no Ticket Service: a refusal would be final by it."""
    scripted.script.answers["CheckAvailability"] = available(0)
    await stage.processing()
    for _ in range(6):
        assert await keeper.left(EVENT) == 0
    keeper.want(EVENT)
    time.now += 0.06
    keeper._begin_due()  # nothing has moved: it will ask nobody
    weighing = asyncio.create_task(keeper.left(EVENT))
    await asyncio.sleep(0)
    keeper.want(EVENT)
    under_way = keeper._events[EVENT].refreshing
    assert under_way is not None

    def begin_another(_: asyncio.Task[Any]) -> None:
        time.now += 0.06
        keeper._begin_due()

    under_way.add_done_callback(begin_another)
    assert await weighing == 0
    assert await under_way is None
    assert asked(scripted) == 7
