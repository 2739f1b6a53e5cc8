"""What one who weighs a refusal is told: how much is left by now."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from booking_worker.domain.errors import EngineUnavailable, PeerUnavailable
from booking_worker.worker.capacity import CapacityKeeper
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, Stage
from tests.unit.peers.scripted import Refuse
from tests.unit.worker.crew import Crew, available

pytestmark = on_one_engine

DOWN = Refuse(grpc.StatusCode.UNAVAILABLE, "down")


@pytest.fixture
def keeper(scripted: Crew) -> CapacityKeeper:
    return scripted.keeper


def asked(crew: Crew) -> int:
    return len(crew.script.requests("CheckAvailability"))


async def test_who_weighs_gets_an_answer_to_a_later_question(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper
):
    first, go_on = asyncio.Event(), asyncio.Event()
    answers = [3, 2, 1]

    async def slow(request: object) -> object:
        number = answers.pop(0)
        if number == 3:
            first.set()
            await go_on.wait()
        return available(number)

    scripted.script.answers["CheckAvailability"] = slow
    before = asyncio.create_task(keeper.left(EVENT))
    await first.wait()
    later = [asyncio.create_task(keeper.left(EVENT)) for _ in range(20)]
    await asyncio.sleep(0)
    go_on.set()
    assert await before == 3
    assert await asyncio.gather(*later) == [2] * 20
    assert asked(scripted) == 2


async def test_who_weighs_is_told_although_a_refresh_that_asks_nobody_comes_between(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, monkeypatch: pytest.MonkeyPatch
):
    """None is the word for no Ticket Service: a refusal would be final by it."""
    scripted.script.answers["CheckAvailability"] = available(0)
    await stage.processing()
    for _ in range(6):
        assert await keeper.left(EVENT) == 0
    now = keeper._clock()
    monkeypatch.setattr(keeper, "_clock", lambda: now)
    keeper.want(EVENT)
    now += 0.06
    keeper._begin_due()  # nothing has moved: it will ask nobody
    weighing = asyncio.create_task(keeper.left(EVENT))
    await asyncio.sleep(0)
    keeper.want(EVENT)
    under_way = keeper._events[EVENT].refreshing
    assert under_way is not None

    def begin_another(_: asyncio.Task[Any]) -> None:
        nonlocal now
        now += 0.06
        keeper._begin_due()

    under_way.add_done_callback(begin_another)
    assert await weighing == 0
    assert await under_way is None
    assert asked(scripted) == 7


async def test_who_weighs_hears_why_there_is_no_answer(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, monkeypatch: pytest.MonkeyPatch
):
    scripted.script.answers["CheckAvailability"] = DOWN
    with pytest.raises(PeerUnavailable):
        await keeper.left(EVENT)

    async def away(_: str) -> None:
        raise EngineUnavailable("away")

    monkeypatch.setattr(stage.queue, "ask_capacity", away)
    with pytest.raises(EngineUnavailable):
        await keeper.left(EVENT)
