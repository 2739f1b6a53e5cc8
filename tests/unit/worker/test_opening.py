"""Through the CapacityKeeper: it is what comes of its refreshes that counts."""

from __future__ import annotations

import pytest

from booking_worker.domain.model import Layout
from booking_worker.queue import keys
from booking_worker.queue.layout import LOST, LOST_EVENT
from booking_worker.worker.capacity import CapacityKeeper
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, Stage
from tests.unit.worker.crew import Crew, available

pytestmark = on_one_engine


@pytest.fixture
def keeper(scripted: Crew) -> CapacityKeeper:
    return scripted.keeper


def asked(crew: Crew) -> int:
    return len(crew.script.requests("CheckAvailability"))


async def wipe(stage: Stage, *more: str) -> None:
    """The event is gone."""
    named = keys.of_event(EVENT)
    await stage.client.delete(*(set(named.values()) - {keys.WORKERS, keys.LAYOUT}), *more)


async def open_books(keeper: CapacityKeeper, crew: Crew) -> None:
    crew.script.answers["CheckAvailability"] = available(3)
    assert await keeper.left(EVENT) == 3


async def test_while_all_are_paused_no_capacity_is_set(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper
):
    await scripted.queue.pause("", "prices are wrong", "operator:kim")
    await stage.join_one()
    keeper.want(EVENT)
    await keeper.run_once()
    assert asked(scripted) == 0
    await open_books(keeper, scripted)  # who weighs a refusal hears what is left all the same
    assert not (await stage.status()).capacity_known
    await scripted.queue.resume("")
    await open_books(keeper, scripted)
    assert (await stage.status()).capacity == 3


async def test_while_all_are_paused_nobody_looks_again_and_again(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, monkeypatch: pytest.MonkeyPatch
):
    now = 1_000.0
    monkeypatch.setattr(keeper, "_clock", lambda: now)
    for _ in range(2):
        await open_books(keeper, scripted)
    keeper.want(EVENT)
    now += 0.06
    assert 0 < await keeper.run_once() < 1  # nothing has moved: it is put off for a little
    await scripted.queue.pause("", "prices are wrong", "operator:kim")
    now += 1
    assert await keeper.run_once() == float("inf")


async def test_while_all_are_paused_the_ticket_service_is_tried_all_the_same(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, monkeypatch: pytest.MonkeyPatch
):
    """Releases go on, and wait for its breaker."""
    now = 1_000.0
    assert scripted.ticket is not None
    breaker = scripted.ticket.breaker
    for timed in (keeper, breaker):
        monkeypatch.setattr(timed, "_clock", lambda: now)
    scripted.script.answers["CheckAvailability"] = available(3)
    await scripted.queue.pause("", "prices are wrong", "operator:kim")
    while breaker.state == "closed":
        breaker.record_failure()
    keeper.want(EVENT)
    seconds = await keeper.run_once()
    assert asked(scripted) == 0
    now += seconds
    await keeper.run_once()
    assert asked(scripted) == 1
    assert breaker.state == "closed"


@pytest.mark.parametrize("guarded", [True, False])
async def test_the_books_of_a_wiped_engine_are_not_opened(
    stage: Stage,
    scripted: Crew,
    keeper: CapacityKeeper,
    monkeypatch: pytest.MonkeyPatch,
    guarded: bool,
):
    """No poll has seen it yet: whoever is about to open books looks at the record first."""
    before = await scripted.queue.read_layout()
    await stage.join_one()
    await open_books(keeper, scripted)
    await wipe(stage, keys.LAYOUT)
    if not guarded:

        async def as_before() -> Layout:
            return before

        monkeypatch.setattr(scripted.queue, "read_layout", as_before)
        keeper._opening._born.clear()
    await stage.join_one()
    await open_books(keeper, scripted)
    assert len(await stage.claim()) == (0 if guarded else 1)
    if guarded:
        assert (await stage.status()).paused_because == LOST


async def test_an_event_that_lost_its_own_data_waits_for_an_operator(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper
):
    """A Cluster's node came back without its data; the record is on another."""
    await stage.join_one()
    await open_books(keeper, scripted)
    await wipe(stage)
    await stage.join_one()
    await open_books(keeper, scripted)
    status = await stage.status()
    assert (status.paused_because, status.capacity) == (LOST_EVENT, 3)
    assert await stage.claim() == []
    await scripted.queue.resume(EVENT)
    await open_books(keeper, scripted)
    assert len(await stage.claim()) == 1


async def test_an_engine_that_was_wiped_and_resumed_is_as_good_as_new(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper
):
    await stage.join_one()
    await open_books(keeper, scripted)
    await wipe(stage, keys.LAYOUT)
    await stage.join_one()
    await scripted.queue.read_layout()
    await scripted.queue.resume("")
    await open_books(keeper, scripted)
    assert len(await stage.claim()) == 1


async def test_an_event_that_another_engine_never_opened_is_none_that_was_lost(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper
):
    """The failover took its first refresh, and not who joined."""
    await stage.join_one()
    await open_books(keeper, scripted)
    await stage.client.hdel(stage.key("state"), "epoch")
    await open_books(keeper, scripted)
    assert len(await stage.claim()) == 1


async def test_an_event_is_listed_anew_under_an_engine_that_may_have_lost_it(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper
):
    await stage.join_one()
    await stage.client.delete(keys.EVENTS)
    await open_books(keeper, scripted)
    assert await scripted.queue.events() == [EVENT]
