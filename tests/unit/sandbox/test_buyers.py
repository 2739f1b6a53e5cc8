from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter

import grpc
import pytest

from booking_worker.sandbox.buyer import Behaviour, Habits
from booking_worker.sandbox.buyers import REALISTIC, Buyers, Progress, behaviours
from tests.support.wait import wait_until
from tests.unit.sandbox.small_line import SmallLine, serve

QUICK = Habits(0.1, 0.1, 0.05, 0.2)


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_shares_are_exact(count: int) -> None:
    given = Counter(behaviours(count, REALISTIC, random.Random(1)))
    assert given.total() == count
    for behaviour, share in REALISTIC.items():
        assert abs(given[behaviour] - share * count) < 1


def test_shares_are_weights() -> None:
    shares = {Behaviour.PAY: 3, Behaviour.CANCEL: 1, Behaviour.DONT_PAY: 0}
    given = Counter(behaviours(100, shares, random.Random(1)))
    assert given == {Behaviour.PAY: 75, Behaviour.CANCEL: 25}


@pytest.mark.parametrize(
    "shares", [{}, {Behaviour.PAY: 0}, {Behaviour.PAY: 1, Behaviour.CANCEL: -1}]
)
def test_shares_that_cannot_be(shares) -> None:
    with pytest.raises(ValueError, match="shares must be"):
        behaviours(10, shares, random.Random(1))


def test_the_same_seed_gives_the_same_crowd() -> None:
    def crowd(seed: int):
        buyers = Buyers("nowhere", 200, "show", seed=seed, most_seats=4, arrive_seconds=9.0)
        who = [(result.user_id, result.behaviour, result.seats) for result in buyers._results]
        return who, buyers._arrivals, buyers._lucks

    assert crowd(7) == crowd(7)
    assert crowd(7) != crowd(8)
    assert {seats for _, _, seats in crowd(7)[0]} == {1, 2, 3, 4}
    assert 0 <= min(crowd(7)[1]) < max(crowd(7)[1]) <= 9.0


async def test_a_whole_sale() -> None:
    line = SmallLine(tickets=20, hold_seconds=0.5)
    seen: list[Progress] = []
    async with serve(line) as endpoint:
        buyers = Buyers(endpoint, 200, "show", seed=1, habits=QUICK, prefix="u")
        threshold = gc.get_threshold()
        results = await buyers.run(seen.append)
        assert gc.get_threshold() == threshold
    assert [result.user_id for result in results[:2]] == ["u000000", "u000001"]
    assert all(result.is_final for result in results)
    assert all(result.finished_at is not None for result in results)
    ended = Counter(result.status for result in results)
    assert ended["completed"] == 20
    assert ended["sold_out"] > 100
    assert {line.items[result.item_id].status for result in results} == set(ended)
    assert len({result.item_id for result in results}) == 200
    held = [item.user_id for item in line.items.values() if item.status != "sold_out"]
    assert len(held) == len(set(held))
    assert not any(result.two_places for result in results)
    last = seen[-1]
    assert (last.buyers, last.joined, last.finished) == (200, 200, 200)
    assert last.statuses == dict(ended)
    assert last.calls == sum(line.calls.values())


async def test_a_service_that_is_killed_in_the_middle_and_comes_back() -> None:
    line = SmallLine(tickets=50, hold_seconds=20.0, admits=False)
    async with serve(line) as endpoint:
        buyers = Buyers(endpoint, 60, "show", {Behaviour.PAY: 1}, habits=QUICK)
        running = asyncio.create_task(buyers.run())
        await wait_until(lambda: len(line.items) >= 30)
    line.admits = True
    async with serve(line, int(endpoint.rpartition(":")[2])):
        results = await running
    assert Counter(result.status for result in results) == {"completed": 50, "sold_out": 10}
    assert len(line.items) == 60


async def test_who_is_not_served_in_time_is_given_up_on() -> None:
    line = SmallLine(admits=False)
    async with serve(line) as endpoint:
        shares = {Behaviour.PAY: 1}
        buyers = Buyers(endpoint, 5, "show", shares, habits=QUICK, patience_seconds=0.4)
        results = await buyers.run()
    assert [(result.status, result.finished_at) for result in results] == [("waiting", None)] * 5


async def test_joins_in_flight_are_bounded() -> None:
    line = SmallLine()
    at_once = most = 0
    begin = line._begin

    async def count(method: str, context: grpc.aio.ServicerContext):
        nonlocal at_once, most
        if method == "EnqueueBooking":
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.01)
            at_once -= 1
        return await begin(method, context)

    line._begin = count  # type: ignore[method-assign]
    async with serve(line) as endpoint:
        shares = {Behaviour.PAY: 1}
        await Buyers(endpoint, 40, "show", shares, habits=QUICK, joins_in_flight=4).run()
    assert most == 4


async def test_a_mistake_of_ours_is_raised_and_leaves_nothing_running(monkeypatch) -> None:
    def broken(*args: object) -> float:
        raise ZeroDivisionError

    monkeypatch.setattr("booking_worker.sandbox.buyer.Buyer._pause_in_line", broken)
    async with serve(SmallLine(admits=False)) as endpoint:
        with pytest.raises(ZeroDivisionError):
            await Buyers(endpoint, 5, "show", {Behaviour.PAY: 1}, habits=QUICK).run()
        assert not [task for task in asyncio.all_tasks() if "Buyers" in repr(task.get_coro())]


async def test_nobody_comes() -> None:
    assert await Buyers("127.0.0.1:1", 0, "show").run() == []
