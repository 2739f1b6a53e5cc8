from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import grpc
import pytest

from booking_worker.domain.errors import EngineUnavailable, PeerUnavailable
from booking_worker.domain.model import Held, Status
from booking_worker.worker.capacity import CapacityKeeper
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, Stage, a_join
from tests.support.wait import wait_until
from tests.unit.peers.scripted import Refuse, ScriptedServer
from tests.unit.worker.crew import Crew, available

pytestmark = on_one_engine

DOWN = Refuse(grpc.StatusCode.UNAVAILABLE, "down")


class Time:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def keeper(scripted: Crew, time: Time) -> AsyncIterator[CapacityKeeper]:
    """A keeper on a clock of the test's own, which is driven by hand."""
    made = CapacityKeeper(
        scripted.queue, scripted.house, scripted.ticket, scripted.metrics, 5.0, clock=time
    )
    yield made
    await made.stop()


def asked(crew: Crew) -> int:
    return len(crew.script.requests("CheckAvailability"))


async def test_an_event_that_appears_is_refreshed_as_a_claim_asks_for_it(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper
):
    scripted.script.answers["CheckAvailability"] = available(7)
    await stage.join_one()
    claimed = await stage.claimed()
    assert (claimed.leases, claimed.needs_refresh) == ([], True)
    keeper.want(EVENT)
    await keeper.run_once()
    status = await stage.status()
    assert (status.capacity, status.capacity_exact) == (7, True)
    assert len(await stage.claim()) == 1


async def test_without_a_ticket_service_it_is_unlimited(stage: Stage, peers: ScriptedServer):
    async with Crew(stage, peers.endpoint) as alone:
        assert alone.keeper.judge is None
        await stage.join_one()
        assert await alone.keeper.left(EVENT) is None
        status = await stage.status()
        assert (status.capacity, status.capacity_known) == (None, True)
    assert peers.script.asked == []


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_refresh_never_overstates(
    stage: Stage,
    scripted: Crew,
    keeper: CapacityKeeper,
    monkeypatch: pytest.MonkeyPatch,
    guarded: bool,
):
    """What is held between question and answer is taken off the answer; without that, it isn't."""
    if not guarded:
        set_capacity = stage.queue.set_capacity

        async def with_a_question_that_is_too_late(event_id: str, _: Any, left: int | None) -> int:
            return await set_capacity(event_id, await stage.queue.ask_capacity(event_id), left)

        monkeypatch.setattr(stage.queue, "set_capacity", with_a_question_that_is_too_late)
    await stage.capacity(10)
    await stage.join_many(10)
    before, meanwhile = await stage.claim(2), await stage.claim(3)

    async def slow(request: object) -> object:
        for lease in before:
            await stage.queue.settle_held(lease, Held(f"B-{lease.item_id}", "", None))
        return available(10)

    scripted.script.answers["CheckAvailability"] = slow
    await keeper.left(EVENT)
    status = await stage.status()
    assert status.capacity == (10 - len(before) if guarded else 10) - len(meanwhile)
    assert not status.capacity_exact


async def test_wants_that_come_together_are_one_question(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper
):
    scripted.script.answers["CheckAvailability"] = available(7)
    for _ in range(50):
        keeper.want(EVENT)
    await keeper.run_once()
    assert asked(scripted) == 1


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


async def test_events_do_not_wait_for_each_other(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper
):
    held_up = asyncio.Event()

    async def slow_for_one(request: Any) -> object:
        if request.event_id == "slow":
            await held_up.wait()
        return available(5)

    scripted.script.answers["CheckAvailability"] = slow_for_one
    slow = asyncio.create_task(keeper.left("slow"))
    await wait_until(lambda: asked(scripted) == 1)
    assert await keeper.left("quick") == 5
    held_up.set()
    assert await slow == 5


async def test_refreshes_that_change_nothing_become_rare(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, time: Time
):
    """As often as it is wanted, it is asked at growing intervals, up to the regular one."""
    scripted.script.answers["CheckAvailability"] = available(0)
    await stage.held_item("ann")
    await stage.join_one("bob")
    moments = []
    for _ in range(2_000):
        keeper.want(EVENT)
        count = asked(scripted)
        await keeper.run_once()
        if asked(scripted) > count:
            moments.append(time.now)
        time.now += 0.01
    gaps = [after - before for before, after in pairwise(moments)]
    assert gaps[0] < 0.2
    assert all(before <= after + 0.02 for before, after in pairwise(gaps))
    assert gaps[-1] == pytest.approx(5.0, abs=0.1)


async def test_seats_that_move_make_them_frequent_again(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, time: Time
):
    scripted.script.answers["CheckAvailability"] = available(0)
    item_id = await stage.held_item("ann")
    await stage.join_one("bob")
    for _ in range(300):
        keeper.want(EVENT)
        await keeper.run_once()
        time.now += 0.05
    count = asked(scripted)
    keeper.want(EVENT)
    time.now += 0.06
    await keeper.run_once()
    assert asked(scripted) == count
    await stage.queue.ask_confirm(item_id, "ann", "PAY")
    (lease,) = await stage.claim()
    await stage.queue.settle_confirmed(lease, "REF")
    keeper.want(EVENT)
    time.now += 0.06
    await keeper.run_once()
    assert asked(scripted) == count + 1


async def test_while_somebody_waits_it_is_asked_regularly(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, time: Time
):
    scripted.script.answers["CheckAvailability"] = available(0)
    await stage.held_item("ann")
    item_id = await stage.join_one("bob")
    keeper.watch(EVENT)
    for _ in range(21):
        await keeper.run_once()
        time.now += 1
    assert asked(scripted) == 5
    await stage.queue.cancel(item_id, "bob", "no", "user:bob")
    for _ in range(20):
        await keeper.run_once()
        time.now += 1
    assert asked(scripted) == 6


async def test_events_in_which_nobody_waits_are_forgotten(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, time: Time
):
    scripted.script.answers["CheckAvailability"] = available(0)
    keeper.want(EVENT)
    assert await keeper.run_once() == float("inf")
    assert EVENT in keeper._events
    time.now += 61
    await keeper.run_once()
    assert EVENT not in keeper._events


async def test_an_answer_to_another_engine_is_asked_for_anew(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, time: Time
):
    """The engine failed over between the question and the answer."""
    answers = [9, 4]

    async def failing_over(_: object) -> object:
        if len(answers) == 2:
            await stage.client.hset(stage.key("state"), "born", "somebody else's")
        return available(answers.pop(0))

    await stage.join_one()
    scripted.script.answers["CheckAvailability"] = failing_over
    assert await keeper.left(EVENT) == 9
    assert not (await stage.status()).capacity_known
    time.now += 1
    await keeper.run_once()
    assert (await stage.status()).capacity == 4


async def test_everybody_is_told_that_it_is_sold_out(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, monkeypatch: pytest.MonkeyPatch
):
    sell_out = stage.queue.sell_out
    monkeypatch.setattr(
        stage.queue, "sell_out", lambda event_id, **more: sell_out(event_id, 10, **more)
    )
    scripted.script.answers["CheckAvailability"] = available(0)
    items = await stage.join_many(35)
    assert await keeper.left(EVENT) == 0
    assert set(await scripted.statuses(items)) == {Status.SOLD_OUT}
    told_all = [change for change in await stage.changes() if not change.item_id]
    assert len(told_all) == 1


async def test_while_a_hold_is_open_the_line_is_kept(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper
):
    scripted.script.answers["CheckAvailability"] = available(0)
    await stage.held_item("ann")
    item_id = await stage.join_one("bob")
    await keeper.left(EVENT)
    assert (await stage.item(item_id)).status is Status.WAITING


async def test_admission_goes_on_while_the_ticket_service_is_away(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, time: Time
):
    await stage.capacity(5)
    scripted.script.answers["CheckAvailability"] = DOWN
    await stage.join_one()
    keeper.want(EVENT)
    await keeper.run_once()
    assert "UNAVAILABLE" in keeper.trouble
    assert EVENT in keeper.trouble
    assert scripted.counted("errors_total", kind="capacity_refresh") == 1
    assert len(await stage.claim()) == 1


async def test_it_asks_again_by_itself_and_not_too_often(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, time: Time
):
    scripted.script.answers["CheckAvailability"] = DOWN
    keeper.want(EVENT)
    assert await keeper.run_once() == pytest.approx(0.2)
    await keeper.run_once()
    assert asked(scripted) == 1
    time.now += 0.2
    assert await keeper.run_once() == pytest.approx(0.4)
    assert asked(scripted) == 2
    scripted.script.answers["CheckAvailability"] = available(3)
    time.now += 0.4
    await keeper.run_once()
    assert keeper.trouble == ""
    assert (await stage.status()).capacity == 3


async def test_an_open_breaker_is_tried_as_soon_as_it_may_be(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper, time: Time
):
    """So it closes again although nobody waits, and releases go on."""
    assert scripted.ticket is not None
    scripted.script.answers["CheckAvailability"] = DOWN
    breaker = scripted.ticket.breaker
    while breaker.state == "closed":
        breaker.record_failure()
    keeper.want(EVENT)
    assert await keeper.run_once() >= breaker.seconds_until_trial
    scripted.script.answers["CheckAvailability"] = available(3)
    await wait_until(lambda: breaker.allows)
    time.now += 1
    await keeper.run_once()
    assert breaker.state == "closed"


async def test_a_refused_question_is_not_repeated_by_itself(
    stage: Stage, scripted: Crew, keeper: CapacityKeeper
):
    scripted.script.answers["CheckAvailability"] = Refuse(grpc.StatusCode.NOT_FOUND, "what event?")
    keeper.want(EVENT)
    keeper.want("other")
    assert await keeper.run_once() == float("inf")
    assert "what event?" in keeper.trouble
    assert "1 more" in keeper.trouble


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


async def test_a_defect_is_counted_and_the_next_refresh_is_made(
    stage: Stage,
    scripted: Crew,
    keeper: CapacityKeeper,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
):
    async def broken(_: str) -> None:
        raise ValueError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr(stage.queue, "ask_capacity", broken)
        keeper.want(EVENT)
        await keeper.run_once()
    assert scripted.counted("errors_total", kind="capacity_refresh") == 1
    scripted.script.answers["CheckAvailability"] = available(3)
    time.now += 1
    await keeper.run_once()
    assert keeper.trouble == ""


async def test_it_keeps_by_itself_and_leaves_nothing_behind(stage: Stage, scripted: Crew):
    scripted.script.answers["CheckAvailability"] = available(3)
    await stage.queue.join(EVENT, [a_join()])
    keeper = scripted.keeper
    await keeper.start()
    await keeper.start()
    keeper.want(EVENT)

    async def is_known() -> bool:
        return (await stage.status()).capacity == 3

    await wait_until(is_known)
    held_up = asyncio.Event()

    async def never(request: object) -> None:
        held_up.set()
        await asyncio.Event().wait()

    scripted.script.answers["CheckAvailability"] = never
    keeper.want("other")
    await held_up.wait()
    await keeper.stop()
    await keeper.stop()
